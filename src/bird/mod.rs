//! BIRD: its control socket, its checker, and the one owner of its configuration. The parsers of its replies and
//! files are in [`crate::observed::bird`].
//!
//! ```text
//!             bytes                 Reply                    Protocol, Status, …
//! BIRD ──────▶ framing ──────────────▶ protocols, status ─────▶ the caller
//!   ▲            ▲ (pure)                 (pure)
//!   │ Command    │
//!   └───────── client ◀── committer ──▶ stage ──▶ check (`bird -p`, a process of its own)
//!                            │                      └──▶ diagnostics (pure)
//!                            └──▶ disk: temporary file, fsync, rename
//! ```
//!
//! | file | holds | pure |
//! |---|---|---|
//! | [`command`] | the commands, as a type; never free text | yes |
//! | [`client`] | the control socket: one connection for each command, a deadline for each operation | no |
//! | `client/protocols` | the protocols with their details, of which most are remembered | no |
//! | `pace` | deadlines that follow the number of files and the measured time | yes |
//! | [`check`] | runs `bird -p` and `bird --version` | no |
//! | [`committer`] | puts files live; only it sends `configure` | its plan is |
//!
//! Statements about BIRD's behaviour were measured on 2.0.12, 2.17.6, 2.20.0, 3.1.8 and 3.4.0 unless
//! they say otherwise.

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod committer;
mod counters;
mod pace;

pub use check::Checker;
pub use client::Client;
pub use command::Command;
pub use committer::{Committer, CommitterConfig};
pub use counters::BirdCounters;
