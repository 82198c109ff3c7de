//! Tests of `plan`.

mod effects;
mod golden;
mod golden_observed;
pub(crate) mod kernel;
mod loopback;
mod observed;
mod properties;
mod tunnel;
mod wanted;
