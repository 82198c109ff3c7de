//! The YAML documents of the state directory: envelope, kinds, codec, schema.
//!
//! Each version has a folder: [`v1`] is `moenet.work/v1`, and this module re-exports the latest version. A `v2`
//! needs its own folder, a `From<v1::…>` for each changed kind, and a [`Reader`] next to that of `v1` in [`parse`];
//! `tests/it/versions.rs` is an example that uses the same [`parse_versions`].

mod check;
mod codec;
mod envelope;
mod error;
mod fault;
mod packed;
mod reason;
mod schema;
pub(crate) mod v1;
mod value;

pub use check::minimal;
pub(crate) use check::{check_patch, check_spec, faults, read, read_rest};
pub(crate) use codec::parse_document;
pub(crate) use codec::parse_list;
pub use codec::{
    Edit, EditError, Reader, check_document, edit, parse, parse_value, parse_versions, to_yaml,
};
pub(crate) use codec::{locate, placed, problems, value};
pub(crate) use envelope::ApiVersion;
pub use envelope::{Document, Metadata, Spec};
pub use error::{DocumentError, Problems};
pub(crate) use fault::Fault;
pub use packed::PackedSpec;
pub(crate) use reason::{Reason, Wanted, unknown_field};
pub(crate) use schema::root as root_schema;
pub use schema::schema;
pub(crate) use schema::{override_schema, polish, status_schema};
pub(crate) use v1::with_spec;
pub use v1::*;
pub(crate) use value::{Scalars, whole};

pub use crate::model::Kind;
