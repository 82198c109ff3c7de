//! Tests of `render`.

mod birds;
mod golden;
mod live;
mod shapes;
pub(crate) mod support;
