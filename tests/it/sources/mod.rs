//! Tests of `sources`.

mod probe;
mod resolve;
