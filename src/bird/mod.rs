//! BIRD: its control socket, its parser, and the one owner of its configuration.
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
//! | [`framing`] | bytes of the control socket → [`Reply`] | yes |
//! | [`command`] | what may be asked, as a type; never free text | yes |
//! | [`protocols`] | `show protocols`, `show protocols all` | yes |
//! | [`babel`] | `show babel neighbors` | yes |
//! | [`roa`] | `show route` of a table of ROAs; how the RPKI servers get on | yes |
//! | [`status`] | `show status`, `configure status`, route counts, `eval` | yes |
//! | [`mark`] | the first line of every file that the agent writes here | yes |
//! | [`main_file`] | whose `bird.conf` is, and what an operator's defines | yes |
//! | [`outline`] | which protocols a configuration text defines, and what each says | yes |
//! | [`version`] | versions, and the reload command of each | yes |
//! | [`diagnostics`] | what `bird -p` says on stderr | yes |
//! | [`client`] | the control socket: one connection a command, a deadline on everything | no |
//! | [`check`] | runs `bird -p` and `bird --version` | no |
//! | [`committer`] | puts files live and is the only one that says `configure` | its plan is |
//!
//! Everything BIRD prints is hostile: a neighbour chooses part of it, and some versions print freed
//! memory. It is bytes until `framing` has decoded it lossily and replaced control characters.
//!
//! Statements about BIRD's behaviour were measured on 2.0.12, 2.17.6, 2.20.0, 3.1.8 and 3.4.0 unless
//! they say otherwise.

pub mod babel;
pub mod check;
pub mod client;
pub mod command;
pub mod committer;
mod counters;
pub mod diagnostics;
pub mod framing;
pub mod main_file;
pub mod mark;
pub mod outline;
pub mod protocols;
pub mod roa;
pub mod status;
mod text;
pub mod version;

pub use check::{CheckError, Checker};
pub use client::{BirdError, Client};
pub use command::{BirdName, Command, Symbol};
pub use committer::{
    BaseError, CommitError, Committed, Committer, CommitterConfig, Fragment, FragmentError,
    LiveTree,
};
pub use counters::BirdCounters;
pub use diagnostics::Diagnostic;
pub use framing::Reply;
pub use main_file::{Blocked, MainFile, Owner, Provided};
pub use protocols::{Bgp, BgpState, Channel, Limit, Protocol, ProtocolState, Routes, Rpki};
pub use status::{ConfigureStatus, Phase, Status};
pub use version::{Support, Version};
