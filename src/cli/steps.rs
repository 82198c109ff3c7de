//! Steps by object, as `plan` shows them before and `apply` after.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::offline::Offline;
use super::output;
use crate::controller::{KeyPlan, LoggedStep};
use crate::model::ObjectKey;
use crate::plan::Plan;
use crate::status::{self, Hold};

/// The steps for one object, or the reason why there are none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectSteps {
    pub(crate) object: String,
    pub(crate) steps: Vec<PrintedStep>,
    /// The object that has to move first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waits: Option<String>,
    /// The obstacle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The held change, and the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
    /// Why its steps wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<String>,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PrintedStep {
    action: String,
    field: &'static str,
    want: String,
    have: String,
}

impl From<LoggedStep> for PrintedStep {
    fn from(LoggedStep { action, because }: LoggedStep) -> Self {
        Self {
            action,
            field: because.field,
            want: because.want,
            have: because.have,
        }
    }
}

impl PrintedStep {
    /// Replaces a value by a word.
    pub(crate) fn replace(&mut self, value: &str, word: &str) {
        self.want = self.want.replace(value, word);
    }
}

impl ObjectSteps {
    fn new(object: impl ToString) -> Self {
        Self {
            object: object.to_string(),
            steps: Vec::new(),
            waits: None,
            error: None,
            held: None,
            paused: None,
        }
    }

    /// Returns whether there are steps to run, or a wait for an operator or another object.
    pub(crate) fn is_pending(&self) -> bool {
        !self.steps.is_empty() || self.held.is_some() || self.waits.is_some()
    }
}

/// Returns every object, in the order of their keys, with the controller's current plan.
pub(crate) fn planned(offline: &Offline) -> BTreeMap<ObjectKey, ObjectSteps> {
    let plans = offline.plans().into_iter();
    let mut found: BTreeMap<_, _> = plans
        .map(|(key, plan)| (key.clone(), of_plan(offline, &key, plan)))
        .collect();
    for (uid, why) in offline.orphans().held {
        let key = ObjectKey::Orphan(uid);
        let held = Some(format!("removal held: {why}"));
        found.insert(
            key.clone(),
            ObjectSteps {
                held,
                ..ObjectSteps::new(key)
            },
        );
    }
    found
}

/// Returns every object with the steps that ran, and the remaining ones.
pub(crate) fn taken(
    mut left: BTreeMap<ObjectKey, ObjectSteps>,
    taken: BTreeMap<ObjectKey, Vec<LoggedStep>>,
    failed: Vec<(ObjectKey, String)>,
) -> BTreeMap<ObjectKey, ObjectSteps> {
    for object in left.values_mut().filter(|object| object.paused.is_none()) {
        if !object.steps.is_empty() && object.error.is_none() {
            let left: Vec<_> = object
                .steps
                .iter()
                .map(|step| step.action.as_str())
                .collect();
            object.error = Some(format!("not done: {}", left.join("; ")));
        }
        object.steps.clear();
    }
    for (key, steps) in taken {
        let object = left
            .entry(key.clone())
            .or_insert_with(|| ObjectSteps::new(key));
        object.steps = steps.into_iter().map(PrintedStep::from).collect();
    }
    for (key, error) in failed {
        left.entry(key.clone())
            .or_insert_with(|| ObjectSteps::new(key))
            .error = Some(error);
    }
    left
}

fn of_plan(offline: &Offline, key: &ObjectKey, plan: KeyPlan) -> ObjectSteps {
    let desired = &offline.desired;
    let mut object = ObjectSteps::new(key);
    let is_node = *key == ObjectKey::Router;
    let (plan, refusal) = match plan {
        Ok(plan) => (plan, None),
        // As in the controller, a refused interface for the node's own addresses keeps nothing else from the node.
        Err(refusal) if is_node => (offline.shared(), Some(refusal)),
        Err(refusal) => (Plan::default(), Some(refusal)),
    };
    let errors = refusal.map(|refusal| refusal.to_string()).into_iter();
    let errors: Vec<_> = errors
        .chain(is_node.then(|| offline.node_error()).flatten())
        .collect();
    object.error = (!errors.is_empty()).then(|| errors.join("; "));
    object.waits.clone_from(&plan.waits);
    object.steps = plan
        .steps
        .iter()
        .map(|step| LoggedStep::from(step).into())
        .collect();
    let of_desired = desired.objects.get(key);
    if let Some(why) = of_desired.and_then(|it| it.refused()) {
        object.error.get_or_insert_with(|| why.to_owned());
    }
    object.paused = of_desired.and_then(|it| it.paused.clone());
    let held = desired.held().into_iter().find(|held| held.key == *key);
    object.held = held.map(|held| format!("{} held: {}", held.change, held.reason));
    if of_desired.is_some_and(|it| it.held == Some(Hold::Settling)) {
        object.waits = Some(format!("removal waits: {}", Hold::Settling.why()));
    }
    object
}

/// Prints the steps for people; the last line counts the steps, done or planned, and the waiting objects. `complete`:
/// whether every step could be planned.
pub(crate) fn print<'a>(objects: impl Iterator<Item = &'a ObjectSteps>, complete: bool) {
    let mut count = Count {
        complete,
        ..Count::default()
    };
    for object in objects {
        let paused = object.paused.as_ref().filter(|_| !object.steps.is_empty());
        for step in &object.steps {
            output::line(format_args!("{}  {}", object.object, step.action));
            output::line(format_args!(
                "    because {}: want {}, have {}",
                step.field, step.want, step.have
            ));
        }
        count.steps += if paused.is_none() {
            object.steps.len()
        } else {
            0
        };
        if let Some(why) = paused {
            count.paused += 1;
            output::line(format_args!("{}  {}", object.object, status::paused(why)));
        }
        if let Some(waits) = &object.waits {
            output::line(format_args!("{}  {waits}", object.object));
        }
        if let Some(error) = &object.error {
            count.errors += 1;
            output::line(format_args!(
                "{}  {}: {error}",
                object.object,
                output::shade("Error")
            ));
        }
        if let Some(held) = &object.held {
            count.held += 1;
            output::line(format_args!("{}  {held}", object.object));
        }
    }
    output::line(count);
}

/// The number of steps and of waiting objects.
#[derive(Default)]
struct Count {
    steps: usize,
    paused: usize,
    held: usize,
    errors: usize,
    complete: bool,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps {
            0 if !self.complete => f.write_str("No steps known")?,
            0 if self.errors > 0 => f.write_str("No steps")?,
            0 => f.write_str("No changes")?,
            1 => f.write_str("1 step")?,
            n => write!(f, "{n} steps")?,
        }
        for (number, what) in [
            (self.paused, "paused"),
            (self.held, "held"),
            (self.errors, "in error"),
        ] {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        f.write_str(".")
    }
}
