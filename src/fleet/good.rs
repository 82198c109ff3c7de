//! Replacement of an invalid unit by its last valid version, stored on disk, so that a mistake in a
//! file never changes a router.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::check::{self, Problem, Unit};
use crate::model::ObjectName;
use crate::util::notices::{News, Notices};
use crate::wire::Call;

/// What the operator wrote for an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    pub(super) answer: Arc<Map<String, Value>>,
    /// The router's own `node`, if its file can be read.
    pub(super) node: Option<Value>,
}

/// The valid units of an answer by their identity.
pub(super) type Good = BTreeMap<String, Value>;

/// The served answers and their problems, by router and call.
#[derive(Debug, Default)]
pub(super) struct LastGood(Mutex<HashMap<(ObjectName, Call), Entry>>);

#[derive(Debug, Default)]
struct Entry {
    served: Option<(Written, Arc<Map<String, Value>>)>,
    problems: Notices<Problem>,
}

/// The answer to serve for what an operator wrote.
pub(super) struct Judged {
    pub(super) served: Arc<Map<String, Value>>,
    /// The last valid version of each unit, if it changed.
    pub(super) good: Option<Good>,
    problems: Vec<Problem>,
}

impl LastGood {
    /// Returns the answer that was served for the same text.
    pub(super) fn known(
        &self,
        router: &ObjectName,
        call: Call,
        written: &Written,
    ) -> Option<Arc<Map<String, Value>>> {
        let all = self.0.lock();
        let (known, served) = all.get(&(router.clone(), call))?.served.as_ref()?;
        (known == written).then(|| Arc::clone(served))
    }

    /// Remembers an answer, and returns the difference between its problems and those of the
    /// previous answer.
    pub(super) fn keep(
        &self,
        router: &ObjectName,
        call: Call,
        written: Written,
        judged: Judged,
    ) -> News<Problem> {
        let mut all = self.0.lock();
        let entry = all.entry((router.clone(), call)).or_default();
        entry.served = Some((written, judged.served));
        entry.problems.news(judged.problems)
    }
}

/// Returns the answer to serve: as written, with each invalid unit replaced by its last valid
/// version. An invalid unit that never was valid is served as written, because leaving it out
/// would mean its removal; the agent rejects it.
pub(super) fn judge(call: Call, written: &Written, before: &Good) -> Judged {
    let units = check::units(call, &written.answer, written.node.as_ref());
    let now = good_units(&written.answer, &units, before);
    let served = match units.iter().all(|unit| unit.problems.is_empty()) {
        true => Arc::clone(&written.answer),
        false => Arc::new(substituted(&written.answer, &units, &now)),
    };
    let mut problems = check::stray_keys(call, &written.answer);
    problems.extend(units.into_iter().flat_map(|unit| unit.problems));
    let good = (now != *before).then_some(now);
    Judged {
        served,
        good,
        problems,
    }
}

/// Returns the currently valid units, and the last valid version of the invalid ones. Forgets units
/// that are not listed.
fn good_units(written: &Map<String, Value>, units: &[Unit], before: &Good) -> Good {
    let mut good = Good::new();
    for unit in units.iter().filter(|unit| !unit.leaving) {
        let Some(identity) = identity(unit) else {
            continue;
        };
        let value = match unit.problems.is_empty() {
            true => value(written, unit).cloned(),
            false => before.get(&identity).cloned(),
        };
        good.extend(value.map(|value| (identity, value)));
    }
    good
}

fn substituted(written: &Map<String, Value>, units: &[Unit], good: &Good) -> Map<String, Value> {
    let mut served = written.clone();
    let mut done = BTreeSet::new();
    let mut surplus = Vec::new();
    for unit in units.iter().filter(|unit| !unit.problems.is_empty()) {
        let Some((identity, value)) = identity(unit).and_then(|id| good.get_key_value(&id)) else {
            continue;
        };
        if !done.insert(identity) {
            surplus.push(unit.place);
        } else if let Some(slot) = slot(&mut served, unit) {
            slot.clone_from(value);
        }
    }
    // From the end, so that the other indices stay valid.
    for (key, index) in surplus.into_iter().rev() {
        if let (Some(Value::Array(items)), Some(index)) = (served.get_mut(key), index) {
            items.remove(index);
        }
    }
    served
}

/// Returns the identity within the answer: lists may use the same identities.
fn identity(unit: &Unit) -> Option<String> {
    let identity = unit.identity.as_ref()?;
    Some(format!("{}/{identity}", unit.place.0))
}

fn value<'a>(answer: &'a Map<String, Value>, unit: &Unit) -> Option<&'a Value> {
    let value = answer.get(unit.place.0)?;
    unit.place.1.map_or(Some(value), |index| value.get(index))
}

fn slot<'a>(answer: &'a mut Map<String, Value>, unit: &Unit) -> Option<&'a mut Value> {
    let value = answer.get_mut(unit.place.0)?;
    match unit.place.1 {
        None => Some(value),
        Some(index) => value.get_mut(index),
    }
}
