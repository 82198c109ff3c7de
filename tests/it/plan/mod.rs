//! Tests of `plan`.

mod effects;
mod golden;
mod golden_observed;
pub(crate) mod kernel;
mod loopback;
mod observed;
mod properties;
mod spellings;
mod tunnel;
mod wanted;
