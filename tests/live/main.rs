//! Live tests: the real program, real BIRD and real WireGuard, judged from the neighbour's side and in the kernel.
//!
//! They need root and what `tests/deps.sh tests` and `tests/lab/fetch-birds` provide. One that cannot run fails
//! and says what is missing. Each test has its own namespaces, so they run side by side.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing test panics")]

mod lab;

mod changes_in_place;
mod control_plane_faults;
mod convergence;
mod drain;
mod embedded_control_plane;
mod ibgp;
mod isolation;
mod local_api;
mod maintenance;
mod mesh;
mod removal;
mod repair;
mod restart;
mod the_harness;
