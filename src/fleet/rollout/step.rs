//! The next step of a change: which routers get it, whether it goes on, or why it is taken back. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::super::network::RolloutSpec;
use super::measure::Measure;
use super::record::{Before, FleetRecord, Ongoing, Refused, Texts, digest};
use super::waves::waves;
use crate::intervals::{FLEET_RECOVERY, FLEET_SILENT};
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

/// What happened to a change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A wave gets the change: its number from 1, the number of waves, and its routers.
    Wave(usize, usize, Vec<ObjectName>),
    /// All routers have the change.
    Complete,
    /// A router broke a gate. All routers get the description of before.
    TakenBack(String),
    /// The operators went back to the description of before.
    Withdrawn,
    /// The operators removed `rollout`, so that every router gets the newest description; with the reason why it was
    /// taken back, if it was.
    Ended(Option<String>),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wave(wave, of, _) => write!(f, "wave {wave} of {of}"),
            Self::Complete => f.write_str("complete"),
            Self::TakenBack(why) => write!(f, "taken back: {why}"),
            Self::Withdrawn => f.write_str("withdrawn by the operators"),
            Self::Ended(_) => f.write_str("ended with the removal of rollout"),
        }
    }
}

/// The newest description, and what is known at this moment.
pub(super) struct Facts<'f> {
    pub(super) texts: &'f Texts,
    pub(super) spec: &'f RolloutSpec,
    /// The routers that the change concerns; read only when a change begins.
    pub(super) concerned: &'f dyn Fn() -> BTreeSet<ObjectName>,
    pub(super) measures: &'f BTreeMap<ObjectName, Measure>,
    pub(super) now: Timestamp,
}

/// Makes the next step of a record. No event: nothing to do but to wait.
pub(super) fn step(record: &mut FleetRecord, facts: &Facts<'_>) -> Option<Event> {
    let to = digest(facts.texts);
    let Some(accepted) = &record.accepted else {
        accept(record, facts);
        return None;
    };
    if accepted == facts.texts {
        let (ongoing, refused) = (record.ongoing.take(), record.refused.take());
        return (ongoing.is_some() || refused.is_some()).then_some(Event::Withdrawn);
    }
    if record
        .refused
        .as_ref()
        .is_some_and(|refused| refused.to == to)
    {
        return None;
    }
    match record.ongoing.take() {
        Some(ongoing) if ongoing.to == to => go_on(record, ongoing, facts),
        // A newer change starts again with the first wave.
        Some(ongoing) => begin(record, to, measures(ongoing.before), facts),
        None => {
            let refused = record.refused.take();
            let recent = refused.filter(|it| facts.now.duration_since(it.at) < FLEET_RECOVERY);
            let earlier = recent.map(|refused| refused.before).unwrap_or_default();
            begin(record, to, earlier, facts)
        }
    }
}

/// Ends all changes of a network that has no `rollout` any more.
pub(super) fn end(record: &mut FleetRecord) -> Option<Event> {
    let is_one = record.ongoing.is_some() || record.refused.is_some();
    let taken_back = record.refused.take().map(|it| it.why);
    record.clear();
    is_one.then_some(Event::Ended(taken_back))
}

fn measures(before: BTreeMap<ObjectName, Before>) -> BTreeMap<ObjectName, Measure> {
    let before = before.into_iter();
    before.map(|(name, it)| (name, it.measure)).sorted_map()
}

fn accept(record: &mut FleetRecord, facts: &Facts<'_>) {
    record.accepted = Some(facts.texts.clone());
    record.ongoing = None;
}

/// Begins a change. `earlier` are routers as they were before a change that ended a moment ago.
fn begin(
    record: &mut FleetRecord,
    to: String,
    earlier: BTreeMap<ObjectName, Measure>,
    facts: &Facts<'_>,
) -> Option<Event> {
    let waves = waves(facts.spec, &(facts.concerned)());
    let ongoing = Ongoing {
        to,
        waves,
        wave: 0,
        since: facts.now,
        before: BTreeMap::new(),
        earlier,
    };
    if ongoing.waves.is_empty() {
        accept(record, facts);
        return None;
    }
    Some(start_wave(record, ongoing, facts))
}

/// Gives the change to the routers of its wave.
fn start_wave(record: &mut FleetRecord, mut ongoing: Ongoing, facts: &Facts<'_>) -> Event {
    let routers = ongoing.waves[ongoing.wave].clone();
    ongoing.since = facts.now;
    for router in &routers {
        let now = facts.measures.get(router).cloned().unwrap_or_default();
        let earlier = ongoing.earlier.remove(router);
        // What a router has lost by an earlier change must not become the measure of this one.
        let lost = |it: &Measure| now.broken_gate(it, &facts.spec.gates).is_some();
        let before = Before {
            at: facts.now,
            measure: earlier.filter(lost).unwrap_or(now),
            broken_at: None,
        };
        ongoing.before.insert(router.clone(), before);
    }
    let event = Event::Wave(ongoing.wave + 1, ongoing.waves.len(), routers);
    record.ongoing = Some(ongoing);
    event
}

fn go_on(record: &mut FleetRecord, mut ongoing: Ongoing, facts: &Facts<'_>) -> Option<Event> {
    let is_over = facts.now.duration_since(ongoing.since) >= observed(facts.spec);
    let (mut all_shown, mut one_shown) = (true, false);
    let mut why = None;
    for (router, before) in &mut ongoing.before {
        let measure = facts.measures.get(router).cloned().unwrap_or_default();
        match look(before, &measure, facts) {
            Look::Kept => one_shown = true,
            Look::Silent => {}
            Look::Unknown => all_shown = false,
            Look::Broken(gate) => why = why.or(Some(format!("{router}: {gate}"))),
        }
    }
    if let Some(why) = why {
        let refused = Refused {
            to: ongoing.to,
            at: facts.now,
            why: why.clone(),
            before: measures(ongoing.before),
        };
        record.refused = Some(refused);
        return Some(Event::TakenBack(why));
    }
    // A wave of silent routers shows nothing: the next one waits until a router has shown itself.
    if !is_over || !all_shown || !one_shown {
        record.ongoing = Some(ongoing);
        return None;
    }
    ongoing.wave += 1;
    if ongoing.wave < ongoing.waves.len() {
        return Some(start_wave(record, ongoing, facts));
    }
    accept(record, facts);
    Some(Event::Complete)
}

/// How a router with the change looks.
enum Look {
    Kept,
    /// It was silent before the change already.
    Silent,
    /// It has not reported since, or its last report broke a gate and the next one decides.
    Unknown,
    Broken(String),
}

fn look(before: &mut Before, now: &Measure, facts: &Facts<'_>) -> Look {
    let was_silent = before.at.duration_since(before.measure.seen_at) > FLEET_SILENT;
    let shown = now.reported_at.duration_since(before.at);
    if facts.now.duration_since(now.reported_at) > FLEET_SILENT {
        let why = || format!("no report since {}", now.reported_at);
        return match was_silent {
            true => Look::Silent,
            false => Look::Broken(why()),
        };
    }
    if shown <= SignedDuration::ZERO {
        return Look::Unknown;
    }
    let Some(gate) = now.broken_gate(&before.measure, &facts.spec.gates) else {
        before.broken_at = None;
        // An early report may be from before the router fetched the change.
        return match shown >= observed(facts.spec) / 2 {
            true => Look::Kept,
            false => Look::Unknown,
        };
    };
    match before.broken_at {
        // The change itself may interrupt a session for a moment.
        None => before.broken_at = Some(now.reported_at),
        Some(first) if now.reported_at > first => return Look::Broken(gate),
        Some(_) => {}
    }
    Look::Unknown
}

fn observed(spec: &RolloutSpec) -> SignedDuration {
    SignedDuration::try_from(spec.observe.get()).unwrap_or(SignedDuration::MAX)
}
