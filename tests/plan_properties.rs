//! Properties of the planner, proved on a model kernel in memory that is stricter than a real one: it
//! refuses to make what is there or to remove what is not, and it stops the test when a plan touches a
//! link that is not ours.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "plan_properties/kernel.rs"]
mod kernel;
#[path = "plan_properties/loopback.rs"]
mod loopback;
#[path = "plan_properties/observed.rs"]
mod observed;
mod support;
#[path = "plan_properties/tunnel.rs"]
mod tunnel;
#[path = "plan_properties/wanted.rs"]
mod wanted;
