//! Replacement of an invalid unit by its last valid version, stored on disk, so that a mistake in a
//! file never changes a router.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::check::{self, Problem, Unit};
use super::reported::{GOOD, Reported};
use crate::util::notices::{News, Notices};
use crate::wire::Call;
use crate::wire::reference::endpoint;

/// The valid units of an answer by their identity.
type Good = BTreeMap<String, Value>;

/// The served answers and their problems, by router and call.
#[derive(Debug, Default)]
pub(super) struct LastGood(Mutex<HashMap<(String, Call), Entry>>);

#[derive(Debug, Default)]
struct Entry {
    served: Option<Served>,
    problems: Notices<Problem>,
}

/// A served answer, and its inputs.
#[derive(Debug, Clone)]
struct Served {
    written: Arc<Map<String, Value>>,
    node: Option<Value>,
    served: Arc<Map<String, Value>>,
}

/// The answer, and the changes of its problems.
pub(super) struct Outcome {
    pub(super) served: Arc<Map<String, Value>>,
    /// The difference between its problems and those of the previous answer.
    pub(super) news: News<Problem>,
}

impl LastGood {
    /// Returns the answer to serve: as written, with each invalid unit replaced by its last valid
    /// version. An invalid unit that never was valid is served as written, because leaving it out
    /// would mean its removal; the agent rejects it.
    pub(super) fn serve(
        &self,
        router: &str,
        call: Call,
        written: Arc<Map<String, Value>>,
        node: Option<Value>,
        reported: &Reported,
    ) -> io::Result<Outcome> {
        let key = (router.to_owned(), call);
        let known = self
            .0
            .lock()
            .get(&key)
            .and_then(|entry| entry.served.clone());
        if let Some(known) = &known
            && known.written == written
            && known.node == node
        {
            return Ok(Outcome {
                served: Arc::clone(&known.served),
                news: News::default(),
            });
        }
        let units = check::units(call, &written, node.as_ref());
        let file = Path::new(GOOD).join(format!("{}.json", endpoint(call)));
        let served = Arc::new(replaced(&written, &units, reported, &file)?);
        let mut problems = check::stray_keys(call, &written);
        problems.extend(units.into_iter().flat_map(|unit| unit.problems));
        let mut all = self.0.lock();
        let entry = all.entry(key).or_default();
        entry.served = Some(Served {
            written,
            node,
            served: Arc::clone(&served),
        });
        let news = entry.problems.news(problems);
        Ok(Outcome { served, news })
    }
}

fn replaced(
    written: &Map<String, Value>,
    units: &[Unit],
    reported: &Reported,
    file: &Path,
) -> io::Result<Map<String, Value>> {
    let before: Good = reported.read(file)?.unwrap_or_default();
    let now = good_units(written, units, &before);
    if now != before {
        reported.write(file, &now)?;
    }
    Ok(substituted(written, units, &now))
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
