//! Tests of `kernel`.

mod firewall;
mod live;
mod namespace;
