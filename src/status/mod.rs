//! Conditions and phase of an object, from the observed state. Pure.
//!
//! Status never reports an intention: each sentence here is about an observation
//! (docs/contract/safety.md#rule-10). Values that change all the time (bytes, handshakes, route counts) are part of a
//! status, but no reason to write one: see [`changed()`].

mod action;
mod assess;
mod causes;
mod changed;
mod conditions;
mod edges;
mod health;
mod origins;

pub(crate) use action::{BIRD_DOWN, IDENTITY_UNKNOWN, POLICY_MISSING, next_action};
pub use assess::{
    Acceptance, BirdFacts, Expected, Facts, ObjectFacts, Service, TunnelFacts, assess,
};
pub(crate) use assess::{
    BabelFacts, HANDSHAKE_STALE, Hold, NameFacts, RouteFacts, approve, paused, state_word,
};
pub use causes::Cause;
pub(crate) use causes::{FailedProbe, causes, is_up};
pub(crate) use changed::changed;
pub(crate) use conditions::Conditions;
pub(crate) use edges::{Edges, Event, Fact, FactSet, Severity, State, Topic};
pub(crate) use edges::{condition_events, other_events};
pub(crate) use health::{Health, HealthFacts, is_bad, stops_work};
pub use origins::RoaFacts;
pub(crate) use origins::{Origins, Roas, RpkiName, Verdict};
