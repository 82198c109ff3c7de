//! Steps by object, as `plan` shows them before and `apply` after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::offline::Offline;
use super::output;
use crate::controller::{KeyPlan, LoggedStep};
use crate::fleet::{self, ObjectChange};
use crate::model::ObjectKey;
use crate::observed::bird::Texts;
use crate::plan::{Action, Mark, Plan, Reset, text_diff};
use crate::status::{self, Hold};
use crate::util::sorted::Sorted as _;

/// The steps for one object, or the reason why there are none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectSteps {
    /// The router, if there are several: each has sessions of the same name.
    #[serde(skip)]
    router: Option<String>,
    pub(crate) object: String,
    /// What the steps do to the object as a whole; absent without steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<Mark>,
    /// The BGP sessions that go down for it.
    #[serde(serialize_with = "as_texts")]
    resets: BTreeSet<Reset>,
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
    /// The unified diff of its files for BIRD.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
}

fn as_texts<S: serde::Serializer>(
    resets: &BTreeSet<Reset>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(resets.iter().map(ToString::to_string))
}

/// Fields whose addition is that of the object.
const CREATED: [&str; 2] = ["tunnel.interface", "bird.session"];

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PrintedStep {
    change: Mark,
    action: String,
    field: String,
    want: String,
    have: String,
    #[serde(skip)]
    resets: Vec<Reset>,
}

impl From<LoggedStep> for PrintedStep {
    fn from(step: LoggedStep) -> Self {
        let LoggedStep {
            action,
            because,
            resets,
        } = step;
        Self {
            change: because.mark(),
            resets,
            action,
            field: because.field.to_owned(),
            want: because.want,
            have: because.have,
        }
    }
}

impl From<fleet::PlanStep> for PrintedStep {
    fn from(step: fleet::PlanStep) -> Self {
        Self {
            change: step.mark,
            action: step.action,
            field: step.field,
            want: step.want,
            have: step.have,
            resets: step.resets,
        }
    }
}

impl From<ObjectChange> for ObjectSteps {
    fn from(change: ObjectChange) -> Self {
        let mut object = Self::new(change.object);
        object.router = Some(change.router);
        object.set_steps(change.steps.into_iter());
        object
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
            router: None,
            object: object.to_string(),
            change: None,
            resets: BTreeSet::new(),
            diff: None,
            steps: Vec::new(),
            waits: None,
            error: None,
            held: None,
            paused: None,
        }
    }

    /// Sets the steps, and what they do together. A link that is removed with its object resets nothing that stays.
    fn set_steps(&mut self, steps: impl Iterator<Item = impl Into<PrintedStep>>) {
        self.steps = steps.map(Into::into).collect();
        let marks = || self.steps.iter().map(|step| step.change);
        let creates =
            |step: &PrintedStep| step.change == Mark::Add && CREATED.contains(&step.field.as_str());
        self.change = match () {
            () if self.steps.is_empty() => None,
            () if marks().all(|mark| mark == Mark::Remove) => Some(Mark::Remove),
            () if marks().all(|mark| mark == Mark::Add) => Some(Mark::Add),
            () if self.resets().is_empty() && self.steps.iter().any(creates) => Some(Mark::Add),
            () => Some(Mark::Change),
        };
        self.resets = match self.change {
            Some(Mark::Change) => self.resets(),
            _ => BTreeSet::new(),
        };
    }

    /// Returns the resets, each session once: one that resets by its name too is in the link.
    fn resets(&self) -> BTreeSet<Reset> {
        let resets = self.steps.iter().flat_map(|step| &step.resets);
        let names = |reset: &Reset| !matches!(reset, Reset::InLink(_));
        let has_names = resets.clone().any(names);
        let resets = resets.filter(|reset| names(reset) || !has_names);
        resets.cloned().sorted_set()
    }

    /// Returns whether there are steps to run, or a wait for an operator or another object.
    pub(crate) fn is_pending(&self) -> bool {
        !self.steps.is_empty() || self.held.is_some() || self.waits.is_some()
    }
}

/// Returns every object, in the order of their keys, with the controller's current plan.
pub(crate) fn planned(offline: &Offline, with_diff: bool) -> BTreeMap<ObjectKey, ObjectSteps> {
    let plans = offline.plans().into_iter();
    let mut found: BTreeMap<_, _> = plans
        .map(|(key, plan)| (key.clone(), of_plan(offline, &key, plan, with_diff)))
        .sorted_map();
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
        object.set_steps(std::iter::empty::<PrintedStep>());
    }
    for (key, steps) in taken {
        let object = left
            .entry(key.clone())
            .or_insert_with(|| ObjectSteps::new(key));
        object.set_steps(steps.into_iter());
    }
    for (key, error) in failed {
        left.entry(key.clone())
            .or_insert_with(|| ObjectSteps::new(key))
            .error = Some(error);
    }
    left
}

fn of_plan(offline: &Offline, key: &ObjectKey, plan: KeyPlan, with_diff: bool) -> ObjectSteps {
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
    object.set_steps(plan.steps.iter().map(LoggedStep::from));
    object.diff = with_diff.then(|| diff(offline, &plan));
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

/// Returns the differences of the files that the plan writes or removes.
fn diff(offline: &Offline, plan: &Plan) -> String {
    let live = &offline.bird.live.tree;
    let old = |texts: &Texts, name: &str| texts.get(name).cloned().unwrap_or_default();
    let diffs = plan.steps.iter().filter_map(|step| {
        let (file, old, new) = match &step.action {
            Action::WriteFragment { name, text, .. } => {
                (session_file(name), old(&live.fragments, name), &**text)
            }
            Action::RemoveFragment { name } => (session_file(name), old(&live.fragments, name), ""),
            Action::WriteBase { path, text, .. } => (path.clone(), old(&live.base, path), &**text),
            Action::RemoveBase { path } => (path.clone(), old(&live.base, path), ""),
            _ => return None,
        };
        Some(text_diff(&file, &old, new))
    });
    diffs.collect()
}

fn session_file(name: &str) -> String {
    format!("moenet/sessions/{name}.conf")
}

/// When the steps are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tense {
    /// Every step could be planned.
    Planned,
    /// Some steps are unknown.
    Incomplete,
    Done,
}

/// Prints the steps for people; the last line counts the objects that they add, change and remove, and those that wait.
pub(crate) fn print<'a>(objects: impl Iterator<Item = &'a ObjectSteps>, tense: Tense) {
    let mut count = Count::new(tense);
    for object in objects {
        let name = &object.object;
        for step in &object.steps {
            output::line(format_args!("{} {name}  {}", step.change, step.action));
            output::line(format_args!(
                "    because {}: want {}, have {}",
                step.field, step.want, step.have
            ));
        }
        if let Some(diff) = object.diff.as_ref().filter(|diff| !diff.is_empty()) {
            output::line(diff.trim_end());
        }
        let paused = object.paused.as_ref().filter(|_| !object.steps.is_empty());
        let error = object
            .error
            .as_ref()
            .map(|error| format!("{}: {error}", output::shade("Error")));
        let remarks = [
            paused.map(|why| status::paused(why)),
            object.waits.clone(),
            error,
            object.held.clone(),
        ];
        for remark in remarks.into_iter().flatten() {
            output::line(format_args!("{name}  {remark}"));
        }
        count.add(object);
    }
    output::line(count);
}

/// The numbers of objects by what becomes of them.
struct Count {
    tense: Tense,
    /// Added, changed and removed.
    changes: [usize; 3],
    /// With the router of each, if there are several.
    resets: BTreeSet<(Option<String>, Reset)>,
    paused: usize,
    held: usize,
    errors: usize,
}

impl Count {
    fn new(tense: Tense) -> Self {
        Self {
            tense,
            changes: [0; 3],
            resets: BTreeSet::new(),
            paused: 0,
            held: 0,
            errors: 0,
        }
    }

    fn add(&mut self, object: &ObjectSteps) {
        self.errors += usize::from(object.error.is_some());
        self.held += usize::from(object.held.is_some());
        let Some(change) = object.change else {
            return;
        };
        if object.paused.is_some() {
            self.paused += 1;
            return;
        }
        self.changes[change as usize] += 1;
        let resets = object.resets.iter();
        let resets = resets.map(|reset| (object.router.clone(), reset.clone()));
        self.resets.extend(resets);
    }
}

/// Formats as `Plan: 3 to add, 1 to change, 0 to remove, 0 BGP resets`.
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [add, change, remove] = self.changes;
        let all = || self.resets.iter().map(|(_, reset)| reset);
        let many = |reset: &&Reset| !matches!(reset, Reset::Named(_) | Reset::InLink(_));
        let resets = match all().find(many) {
            Some(every) => format!("resets of {every}"),
            None if self.resets.len() == 1 => "1 BGP reset".to_owned(),
            None => format!("{} BGP resets", self.resets.len()),
        };
        match (self.changes == [0; 3], self.tense) {
            (true, Tense::Incomplete) => f.write_str("No steps known")?,
            (true, _) if self.errors > 0 => f.write_str("No steps")?,
            (true, _) => f.write_str("No changes")?,
            (false, Tense::Done) => write!(
                f,
                "Applied: {add} added, {change} changed, {remove} removed, {resets}"
            )?,
            (false, _) => write!(
                f,
                "Plan: {add} to add, {change} to change, {remove} to remove, {resets}"
            )?,
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
        match self.changes == [0; 3] {
            true => f.write_str("."),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Drift;

    fn step(because: Drift, resets: &[Reset]) -> LoggedStep {
        LoggedStep {
            action: "act".to_owned(),
            because,
            resets: resets.to_vec(),
        }
    }

    fn named(name: &str) -> Reset {
        Reset::Named(name.to_owned())
    }

    fn in_link(name: &str) -> Reset {
        Reset::InLink(name.to_owned())
    }

    fn object(steps: Vec<LoggedStep>) -> ObjectSteps {
        let mut object = ObjectSteps::new("sessions/a");
        object.set_steps(steps.into_iter());
        object
    }

    fn sum(objects: &[ObjectSteps], tense: Tense) -> String {
        let mut count = Count::new(tense);
        objects.iter().for_each(|object| count.add(object));
        count.to_string()
    }

    #[test]
    fn objects_are_counted_by_their_change() {
        let new = || {
            let up = Drift::new("tunnel.state", "up", "down");
            object(vec![
                step(Drift::missing("tunnel.interface", "wg_a"), &[]),
                step(up, &[]),
            ])
        };
        let changed = || object(vec![step(Drift::new("tunnel.mtu", 1380, 1420), &[])]);
        let gone = || {
            let link = Drift::surplus("tunnel.interface", "wg_a");
            object(vec![step(link, &[in_link("wg_a")])])
        };
        let paused = ObjectSteps {
            paused: Some("cable".to_owned()),
            ..changed()
        };
        let line = sum(&[new(), new(), changed(), gone(), paused], Tense::Planned);
        assert_eq!(
            line,
            "Plan: 2 to add, 1 to change, 1 to remove, 0 BGP resets, 1 paused"
        );
        assert_eq!(sum(&[object(Vec::new())], Tense::Planned), "No changes.");
        assert_eq!(
            sum(&[changed()], Tense::Done),
            "Applied: 0 added, 1 changed, 0 removed, 0 BGP resets"
        );
    }

    #[test]
    fn recreated_link_is_a_change_with_a_reset() {
        let recreated = || {
            vec![
                step(
                    Drift::new("tunnel.type", "gre", "wireguard"),
                    &[in_link("wg_a")],
                ),
                step(Drift::missing("tunnel.interface", "wg_a"), &[]),
            ]
        };
        let text = Drift::new("bird.session", "hold time 30;", "hold time 90;");
        let renamed = step(text.clone(), &[named("ebgp_a")]);
        let both = object(recreated().into_iter().chain([renamed]).collect());
        let recreated = object(recreated());
        let restarted = object(vec![step(text, &[named("ebgp_b")])]);
        let all = Drift::new("bird.file", "a", "b");
        let shared = object(vec![step(all, &[Reset::Every])]);
        let line = |objects: &[ObjectSteps]| sum(objects, Tense::Planned);
        assert_eq!(
            line(&[recreated, restarted]),
            "Plan: 0 to add, 2 to change, 0 to remove, 2 BGP resets"
        );
        assert_eq!(
            line(&[both]),
            "Plan: 0 to add, 1 to change, 0 to remove, 1 BGP reset"
        );
        assert_eq!(
            line(&[shared]),
            "Plan: 0 to add, 1 to change, 0 to remove, resets of every BGP session"
        );
    }
}
