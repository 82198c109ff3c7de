//! moenet-agent: a declarative controller for routers that peer over WireGuard and BGP.
//!
//! ```text
//! Control Plane JSON ──control_plane──▶ wire ──▶ documents ──store──▶ state/*.yaml
//!                                                                       │ (a change is a hint)
//! overrides, node defaults ────────────▶ effective ◀────────────────────┘
//!                                            ├──▶ render ──▶ BIRD text
//!        kernel, bird ──▶ Observed ──▶ plan ◀┘
//!                                       └─▶ steps ──▶ kernel, bird ──▶ observed again ──▶ status
//! ```
//!
//! | room | holds | pure |
//! |---|---|---|
//! | [`model`] | newtypes, parsed once | yes |
//! | [`document`] | the YAML documents, their schema and their codec | yes |
//! | [`store`] | the state directory: list, write, lock, watch | no |
//! | [`wire`] | Control Plane JSON to our types and back | yes |
//! | [`control_plane`] | the client, its breaker, the outbox | no |
//! | [`fleet`] | the embedded Control Plane | no |
//! | [`http`] | the local API | no |
//! | [`history`] | the Git side of the state directory | no |
//!
//! A pure module has no tokio, no filesystem, no clock and no process; `tests/purity.rs` holds
//! them to it.

pub mod agent;
pub mod bird;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod controller;
pub mod document;
pub mod effective;
pub mod firewall;
pub mod fleet;
pub mod history;
pub mod http;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod ports;
pub mod probe;
pub mod render;
pub mod resolve;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod wire;
