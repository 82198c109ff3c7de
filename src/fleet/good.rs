//! Replacement of an invalid unit by its last valid version, stored on disk, so that a mistake in a
//! file never changes a router.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::check::{self, Problem, Unit};
use super::version::Version;
use crate::model::ObjectName;
use crate::util::notices::{News, Notices};
use crate::wire::Call;

/// What the operator wrote for an answer.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) answer: Arc<Map<String, Value>>,
    /// The router's own `node`, if its file can be read.
    pub(super) node: Option<Value>,
    /// Changes with both; `None` if the files changed meanwhile.
    pub(super) version: Option<Version>,
}

/// The valid units of an answer by their identity.
pub(super) type Good = BTreeMap<String, Value>;

/// Items of the answers that are kept, which take about two kilobytes each. A router that posts a status of each of a
/// thousand sessions needs its list a thousand times.
const RECENT_ITEMS: usize = 4096;

/// The judgement of each answer by router and call, and the answers that were served last.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    judged: Mutex<HashMap<(ObjectName, Call), Judgement>>,
    recent: Mutex<Recent>,
}

/// The judgement of the newest version of an answer.
#[derive(Debug, Default)]
struct Judgement {
    version: Option<Version>,
    /// The answer if it has problems. Else what the operator wrote is served.
    corrected: Option<Arc<Map<String, Value>>>,
    problems: Notices<Problem>,
}

/// The answers that were served last, the newest last.
#[derive(Debug, Default)]
struct Recent {
    answers: VecDeque<Entry>,
    items: usize,
}

#[derive(Debug)]
struct Entry {
    of: (ObjectName, Call, Version),
    served: Arc<Map<String, Value>>,
}

/// The answer to serve for what an operator wrote.
pub(super) struct Judged {
    pub(super) served: Arc<Map<String, Value>>,
    /// The last valid version of each unit, if it changed.
    pub(super) good: Option<Good>,
    problems: Vec<Problem>,
}

impl LastGood {
    /// Returns the answer for this version, if it was the last to be judged, and was served a short time ago or had problems.
    /// An older version that comes back is judged like a new one.
    pub(super) fn known(
        &self,
        router: &ObjectName,
        call: Call,
        version: Version,
    ) -> Option<Arc<Map<String, Value>>> {
        let all = self.judged.lock();
        let judged = all.get(&(router.clone(), call));
        let judged = judged.filter(|judged| judged.version == Some(version))?;
        if let Some(corrected) = &judged.corrected {
            return Some(Arc::clone(corrected));
        }
        let recent = self.recent.lock();
        let mut answers = recent.answers.iter().rev();
        let is_same = |(name, other, of): &(ObjectName, Call, Version)| {
            *of == version && *other == call && name == router
        };
        let known = answers.find(|entry| is_same(&entry.of))?;
        Some(Arc::clone(&known.served))
    }

    /// Returns whether this version was judged, and is served as it was written.
    pub(super) fn is_valid(&self, router: &ObjectName, call: Call, version: Version) -> bool {
        let all = self.judged.lock();
        let judged = all.get(&(router.clone(), call));
        judged.is_some_and(|it| it.version == Some(version) && it.corrected.is_none())
    }

    /// Remembers an answer for a short time.
    pub(super) fn remember(
        &self,
        router: &ObjectName,
        call: Call,
        version: Version,
        served: &Arc<Map<String, Value>>,
    ) {
        let of = (router.clone(), call, version);
        let served = Arc::clone(served);
        self.recent.lock().add(Entry { of, served });
    }

    /// Keeps the judgement of an answer, and returns the difference between its problems and those of the
    /// previous answer.
    pub(super) fn keep(
        &self,
        router: &ObjectName,
        call: Call,
        version: Option<Version>,
        judged: Judged,
    ) -> News<Problem> {
        let has_problems = !judged.problems.is_empty();
        let mut all = self.judged.lock();
        let known = all.entry((router.clone(), call)).or_default();
        known.version = version;
        known.corrected = has_problems.then_some(judged.served);
        known.problems.news(judged.problems)
    }
}

impl Recent {
    fn add(&mut self, entry: Entry) {
        self.items += entry.items();
        self.answers.push_back(entry);
        while self.items > RECENT_ITEMS
            && let Some(oldest) = self.answers.pop_front()
        {
            self.items -= oldest.items();
        }
    }
}

impl Entry {
    /// Returns the number of items in its lists, and one for the rest.
    fn items(&self) -> usize {
        let lists = self.served.values().filter_map(Value::as_array);
        1 + lists.map(Vec::len).sum::<usize>()
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
