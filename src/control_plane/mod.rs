//! The client side of the Control Plane: a client that retries, a breaker, and an outbox that loses
//! nothing (docs/contract/control-plane.md). [`crate::wire`] decodes the bodies.

mod breaker;
mod client;
mod counters;
mod error;
mod gate;
mod kept;
mod ledger;
mod outbox;
mod retry;
mod schedule;
mod transport;

pub(crate) use breaker::Breaker;
pub use breaker::State;
pub use client::{Client, ClientOptions};
pub(crate) use counters::Counters;
pub use error::{CallError, ClientError, Failure};
pub use outbox::Outbox;
pub(crate) use outbox::{Delivery, OutboxError};
pub(crate) use schedule::{after_failure, at, jittered};
