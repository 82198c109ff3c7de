//! Tests of `control_plane`.

mod client;
mod outbox;
