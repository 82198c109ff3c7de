//! Integration tests that need no neighbour: one binary, one folder a room of `src`.
//!
//! Some run themselves again in a namespace of their own, which needs root or user namespaces; one that
//! cannot run says so, and fails under CI.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may block, and panics when it fails"
)]

/// The full name of a test in this binary, for `--exact`; call it in the test's own module.
macro_rules! test_path {
    ($name:expr) => {
        concat!(module_path!(), "::", $name).trim_start_matches("it::")
    };
}

mod alerts;
mod bird;
mod book;
mod cases;
mod cli;
mod control_plane;
mod controller;
mod cycles;
mod docs;
mod errors;
mod examples;
mod fleet;
mod history;
mod http;
mod kernel;
mod licences;
mod limits;
mod modules;
mod openapi;
mod overrides;
mod plan;
mod purity;
mod render;
mod schemas;
mod secrets;
mod sources;
mod store;
mod support;
mod versions;
mod wire;
mod words;
