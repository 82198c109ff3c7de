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
//! | [`check`] | runs `bird -p` and `bird --version` | no |
//! | [`committer`] | puts files live; only it sends `configure` | its plan is |
//!
//! Statements about BIRD's behaviour were measured on 2.0.12, 2.17.6, 2.20.0, 3.1.8 and 3.4.0 unless
//! they say otherwise.

pub mod check;
pub mod client;
pub mod command;
pub mod committer;
mod counters;

pub use check::{CheckError, Checker};
pub use client::{BirdError, Client};
pub use command::Command;
pub use committer::{
    BaseError, CommitError, Committed, Committer, CommitterConfig, Fragment, FragmentError,
};
pub use counters::BirdCounters;
// The old paths, for `controller` and `cli`, whose rewrite is in progress.
pub use crate::observed::bird::{
    BgpState, BirdName, Blocked, Channel, Limit, MainFile, Protocol, ProtocolState, Routes, Version,
};
