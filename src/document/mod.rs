//! The YAML documents of the state directory: envelope, kinds, codec, schema.
//!
//! A folder a version: [`v1`] is `moenet.work/v1`, and what this module re-exports is the latest.
//! A `v2` would bring its own folder and a `From<v1::…>` for each kind that changed; `tests/versions.rs`
//! shows it done.

mod codec;
mod envelope;
mod schema;
pub mod v1;

pub(crate) use codec::locate;
pub use codec::{DocumentError, parse, parse_list, parse_value, to_yaml};
pub use envelope::{ApiVersion, Document, Kind, Metadata, Spec};
pub(crate) use schema::with_nearest;
pub use schema::{schema, status_schema};
pub use v1::*;
