//! moenet-agent: a declarative controller for routers that peer over WireGuard and BGP.
//!
//! ```text
//! Control Plane JSON ──control_plane──▶ wire ──▶ documents ──store──▶ state/*.yaml
//!                                                                       │ (a change is a hint)
//! overrides, node defaults ────────────▶ desired ◀──────────────────────┘
//!                                            ├──▶ render ──▶ BIRD text
//!     kernel, bird ──▶ Observation ──▶ plan ◀┘
//!                                       └─▶ steps ──▶ kernel, bird ──▶ observed again ──▶ status
//! ```
//!
//! | room | holds | pure |
//! |---|---|---|
//! | [`model`] | newtypes, parsed once | yes |
//! | [`document`] | the YAML documents, their schema and their codec | yes |
//! | [`wire`] | Control Plane JSON to our types and back | yes |
//! | [`observed`] | what kernel and BIRD report | yes |
//! | [`effective`] | defaults, documents and overrides as one, with the origin of each field | yes |
//! | [`render`] | BIRD's configuration as text | yes |
//! | [`plan`] | what is wanted against what is there: steps, each with its reason | yes |
//! | [`status`] | conditions and phase, from what was read back | yes |
//! | [`adopt`] | what a running router has, as documents and a report | yes |
//! | [`ports`] | what the controller needs of kernel and BIRD, as traits with their errors | no |
//! | [`kernel`] | links, addresses, WireGuard, sysctls | no |
//! | [`bird`] | BIRD's control socket, its parser, the one owner of its files | no |
//! | [`firewall`] | our table in nftables | no |
//! | [`sources`] | inputs that change on their own: endpoint names, probes and classes, ROAs, templates, the WireGuard key | no |
//! | [`store`] | the state directory: list, write, lock, watch | no |
//! | [`history`] | the Git side of the state directory: causes, commits, queries | no |
//! | [`control_plane`] | the client, its breaker, the outbox | no |
//! | [`desired`] | everything wanted as one value, from one listing; the guard | yes, of listings |
//! | [`controller`] | the builder of `Desired`, the queue, one reconcile for each key | no |
//! | [`sync`] | the Control Plane's lists as documents; reports to it | no |
//! | [`http`] | the local API and its answers, metrics | no |
//! | [`agent`] | construction, run and drain of the process | no |
//! | `adoption` | adopts a running router under a watch, and undoes an adoption | no |
//! | [`cli`] | the command line, a file a verb | no |
//! | [`fleet`] | the embedded Control Plane | no |
//! | `intervals` | every interval, gather window and deadline | yes |
//! | [`config`] | the agent's own configuration | no |
//! | `util` | one of each mechanism: files (bounded reads, atomic writes, quarantine, stamps), programs, backoff | no |
//! | `redact` | removes secrets from every text that leaves the agent | no |
//! | [`telemetry`] | log lines, and errors as one line | no |
//!
//! A pure module has no tokio, no filesystem, no clock and no process; `tests/it/purity.rs`
//! checks that. The picture in one page is docs/architecture.md; the facts that comments cite are in docs/contract/.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests block"))]

pub mod adopt;
pub(crate) mod adoption;
pub(crate) mod agent;
pub mod bird;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod controller;
pub mod desired;
pub mod document;
pub mod effective;
pub mod firewall;
pub mod fleet;
pub mod history;
pub mod http;
mod intervals;
pub mod kernel;
pub mod model;
pub mod observed;
pub mod plan;
pub mod ports;
mod redact;
pub mod render;
pub mod sources;
pub mod status;
pub mod store;
pub(crate) mod sync;
pub(crate) mod telemetry;
mod util;
pub mod wire;
