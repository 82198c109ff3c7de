//! Compares two wanted states of one router.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ObjectChange, Step};
use crate::desired::{Desired, Intent, Object, Wanted};
use crate::document::{Kind, PackedSpec};
use crate::effective::leaves;
use crate::plan::{Mark, Plan, Reset, fragment, plan_base};
use crate::util::sorted::Sorted as _;

const NONE: &str = "(none)";

/// Returns the change of a router that is new in the fleet.
pub fn new_router(router: &str) -> ObjectChange {
    let step = whole(Mark::Add, "add the router", "router", &router);
    ObjectChange {
        router: router.to_owned(),
        object: router.to_owned(),
        steps: vec![step],
    }
}

/// Returns the change of a router that is no longer in the fleet.
pub fn removed_router(router: &str) -> ObjectChange {
    let action = "remove the router from the fleet; its agent is refused, and keeps its tunnels and sessions";
    ObjectChange {
        router: router.to_owned(),
        object: router.to_owned(),
        steps: vec![whole(Mark::Remove, action, "router", &router)],
    }
}

/// Returns the changes between two wanted states.
pub fn objects(router: &str, before: &Desired, after: &Desired) -> Vec<ObjectChange> {
    let mut changes = Vec::new();
    let (old, new) = (
        before.router_documents.objects(),
        after.router_documents.objects(),
    );
    for (old, new) in old.iter().zip(&new) {
        let mut steps = field_steps(old, new);
        if old.kind == Kind::Node {
            steps.extend(shared(before, after));
        }
        changes.push((old.kind.folder().to_owned(), steps));
    }
    let keys: BTreeSet<_> = before
        .objects
        .keys()
        .chain(after.objects.keys())
        .sorted_set();
    for key in keys {
        let (old, new) = (before.objects.get(key), after.objects.get(key));
        changes.push((key.to_string(), object_steps(old, new)));
    }
    let changes = changes.into_iter().filter(|(_, steps)| !steps.is_empty());
    changes
        .map(|(object, steps)| ObjectChange {
            router: router.to_owned(),
            object: format!("{router}/{object}"),
            steps,
        })
        .collect()
}

/// Returns the changes of BIRD's shared files that take sessions down; the values behind other changes are listed as
/// fields.
fn shared(before: &Desired, after: &Desired) -> Vec<Step> {
    let (Ok(have), Ok(want)) = (&before.base, &after.base) else {
        return Vec::new();
    };
    let resetting = |step: &Step| !step.resets.is_empty();
    planned(plan_base(want, have)).filter(resetting).collect()
}

fn object_steps(before: Option<&Object>, after: Option<&Object>) -> Vec<Step> {
    let wanted = |object: Option<&Object>| {
        object
            .filter(|object| matches!(object.intent, Intent::Present(_)))
            .cloned()
    };
    match (wanted(before), wanted(after)) {
        (None, None) => Vec::new(),
        (None, Some(new)) => {
            vec![whole(Mark::Add, "add", new.kind.folder(), &new.name)]
        }
        (Some(old), None) => {
            vec![whole(Mark::Remove, "remove", old.kind.folder(), &old.name)]
        }
        (Some(old), Some(new)) => {
            let mut steps = field_steps(&old, &new);
            if let (Some(have), Some(want)) = (old.text(), new.text()) {
                let step = fragment(new.name.as_str(), want, Some(have));
                let resetting = |step: &Step| !step.resets.is_empty();
                let plan = Plan {
                    steps: step.into_iter().collect(),
                    waits: None,
                };
                steps.extend(planned(plan).filter(resetting));
            }
            if steps.is_empty() && secrets(&old) != secrets(&new) {
                steps.push(field(
                    "tunnel.presharedKey",
                    "a new key, not shown",
                    "an old key, not shown",
                ));
            }
            steps
        }
    }
}

fn secrets(object: &Object) -> Option<&crate::model::PresharedKey> {
    match object.wanted()? {
        Wanted::Session(session, _) => session.tunnel.preshared_key.as_ref(),
        Wanted::Mesh(_) | Wanted::Ibgp(_) => None,
    }
}

/// Returns the steps of a plan of the agent.
fn planned(plan: Plan) -> impl Iterator<Item = Step> {
    plan.steps.into_iter().map(|step| Step {
        mark: Mark::Change,
        resets: step.action.resets(),
        action: step.action.to_string(),
        field: step.because.field.to_owned(),
        want: step.because.want,
        have: step.because.have,
    })
}

/// Returns a step for each field in which two specifications differ.
fn field_steps(before: &Object, after: &Object) -> Vec<Step> {
    let mut steps = Vec::new();
    let tree = |of: &Object| of.spec.as_ref().map(PackedSpec::value).unwrap_or_default();
    let (old, new) = (tree(before), tree(after));
    let (old, new) = (leaves(&old), leaves(&new));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).sorted_set();
    for path in paths {
        let (have, want) = (shown(old.get(path)), shown(new.get(path)));
        if have != want {
            let mut step = field(path, &want, &have);
            if replaces_link(path, before, after) {
                step.resets.push(Reset::InLink(before.name.to_string()));
            }
            steps.push(step);
        }
    }
    steps
}

/// Returns whether the change of a field replaces the link, with its sessions.
fn replaces_link(path: &str, before: &Object, after: &Object) -> bool {
    let name = |object: &Object| object.link().map(|link| link.interface.clone());
    match path {
        "tunnel.type" => true,
        // The name may be the one that was derived before.
        "interface" | "tunnel.interface" => name(before) != name(after),
        _ => false,
    }
}

fn field(path: &str, want: &str, have: &str) -> Step {
    Step {
        mark: Mark::Change,
        action: format!("change {path}"),
        field: path.to_owned(),
        want: want.to_owned(),
        have: have.to_owned(),
        resets: Vec::new(),
    }
}

/// Returns the step for an object as a whole.
fn whole(mark: Mark, action: &str, field: &str, name: &impl ToString) -> Step {
    let (want, have) = match mark {
        Mark::Remove => (NONE.to_owned(), name.to_string()),
        Mark::Add | Mark::Change => (name.to_string(), NONE.to_owned()),
    };
    Step {
        mark,
        action: action.to_owned(),
        field: field.to_owned(),
        want,
        have,
        resets: Vec::new(),
    }
}

fn shown(value: Option<&&Value>) -> String {
    match value {
        None | Some(Value::Null) => NONE.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
