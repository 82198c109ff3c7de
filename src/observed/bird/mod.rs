//! What BIRD reports, and what its configuration files say. Pure: bytes and texts in, types out.
//!
//! | file | holds |
//! |---|---|
//! | `state` | state of BIRD at one moment, with the sessions that it runs beside the agent's files |
//! | [`framing`] | bytes of the control socket → [`Reply`] |
//! | [`protocols`] | `show protocols`, `show protocols all` |
//! | [`babel`] | `show babel neighbors` |
//! | [`roa`] | `show route` of a table of ROAs, and the state of the RPKI servers |
//! | [`status`] | `show status`, `configure status`, route counts, `eval` |
//! | `name` | names of protocols, tables and constants |
//! | [`version`] | versions, and the reload command of each |
//! | [`diagnostics`] | the messages of `bird -p` on stderr |
//! | [`mark`] | the first line of every file that the agent writes to BIRD's directory |
//! | [`main_file`] | the owner of `bird.conf`, and the definitions in an operator's |
//! | [`tree`] | the tree of configuration files |
//! | [`outline`] | the protocols of a configuration text, with their statements |
//!
//! Everything BIRD prints is hostile: a neighbour chooses part of it, and some versions print freed
//! memory. It is bytes until `framing` has decoded it lossily and replaced control characters.

pub mod babel;
pub mod diagnostics;
pub mod framing;
pub mod main_file;
pub mod mark;
mod name;
pub mod outline;
pub mod protocols;
pub mod roa;
mod session_error;
mod state;
pub mod status;
pub(crate) mod text;
pub mod tree;
pub mod version;

pub use diagnostics::Diagnostic;
pub use framing::Reply;
pub use main_file::{BirdProblem, MainFile, Owner, Provided};
pub use name::{BadName, BirdName, Symbol};
pub use protocols::{
    Bgp, BgpState, Channel, Entered, HoldTimer, Limit, Protocol, ProtocolState, Routes, Rpki,
};
pub use session_error::SessionError;
pub use state::{BirdState, Outside, Peer, Silence};
pub use status::{ConfigureStatus, Phase};
pub use tree::{LiveTree, Texts, Tree};
pub use version::{Support, TESTED_VERSIONS, Version};
