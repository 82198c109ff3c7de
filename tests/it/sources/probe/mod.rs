//! Tests of `probe`.

mod live;
mod prober;
