//! The client side of the Control Plane: a client that retries, a breaker, and an outbox that loses
//! nothing (docs/contract/control-plane.md). [`crate::wire`] decodes the bodies.

mod breaker;
mod client;
mod counters;
mod error;
mod ledger;
mod outbox;
mod retry;
mod schedule;
mod transport;

pub use breaker::{Breaker, State};
pub use client::{Client, ClientOptions};
pub use counters::Counters;
pub use error::{CallError, Class, ClientError, Failure};
pub use outbox::{Delivery, Outbox, OutboxError};
pub use retry::{full_jitter, retry_after};
pub use schedule::{after_failure, at, jittered};
