//! Conditions and phase of an object, from the observed state. Pure.
//!
//! Status never reports an intention: each sentence here is about an observation
//! (docs/contract/safety.md#rule-10). Values that change all the time (bytes, handshakes, route counts) are part of a
//! status, but no reason to write one: see [`changed`].

mod action;
mod assess;
mod changed;
mod conditions;
mod edges;
mod health;
mod origins;

pub use action::{BIRD_DOWN, IDENTITY_UNKNOWN, next_action};
pub use assess::{
    Acceptance, BabelFacts, BirdFacts, Expected, Facts, HANDSHAKE_STALE, Hold, NameFacts,
    ObjectFacts, RouteFacts, Service, TunnelFacts, approve, assess, paused, state_word,
};
pub use changed::changed;
pub use conditions::Conditions;
pub use edges::{Edges, Event, Fact, FactSet, Severity, State, Topic};
pub use health::{Health, HealthFacts, condition_text, is_bad};
pub use origins::{Origins, RoaFacts, Roas, RpkiName, Verdict};
