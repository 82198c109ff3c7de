//! The dialect `reference` (docs/contract/control-plane.md). This is the only module that names its paths, its
//! fields, its symbols and its status numbers.

mod config;
mod encode;
mod forms;
mod keys;
mod mesh;
mod policy;
mod revision;
mod serve;
mod session;
pub mod shapes;
mod status;
mod symbols;

use std::collections::{BTreeMap, BTreeSet};

use super::Call;
use super::FieldError;

use crate::util::sorted::Sorted as _;

pub use config::decode_config;
pub use encode::{DrainWish, Heartbeat, Modify, PeerState, Report, SessionReport};
pub use keys::{Part, top_keys, unknown_key};
pub use mesh::decode_mesh;
pub use policy::decode_policy;
pub use revision::{LIST, LONG_POLL, REVISION, Revision, decode_revision};
pub use serve::{
    CONFIG_HASH, answer_key, check_heartbeat, check_report, decode_drain, decode_modify, identity,
    write_status, written_asn, written_status,
};
pub use session::decode_sessions;
pub use status::WireStatus;

/// The first segment of every path.
pub const ROOT: &str = "agent";

/// Returns the last segment of a call's path.
pub fn endpoint(call: Call) -> &'static str {
    match call {
        Call::Sessions => "sessions",
        Call::Mesh => "mesh",
        Call::Config => "config",
        Call::BirdConfig => "bird-config",
        Call::Heartbeat => "heartbeat",
        Call::Report => "report",
        Call::Modify => "modify",
        Call::Drain => "drain",
    }
}

/// Returns `/agent/:router/:endpoint`, before encoding.
pub fn segments<'a>(router: &'a str, endpoint: &'a str) -> [&'a str; 3] {
    [ROOT, router, endpoint]
}

/// Returns the call of a path's last segment.
pub fn call(endpoint_name: &str) -> Option<Call> {
    Call::ALL
        .into_iter()
        .find(|call| endpoint(*call) == endpoint_name)
}

/// The code of an error about a router that does not exist.
pub const ROUTER_NOT_FOUND: &str = "ROUTER_NOT_FOUND";

/// The code of an error about a session that does not exist.
pub const SESSION_NOT_FOUND: &str = "SESSION_NOT_FOUND";

/// Returns the error of an item. One that is no object has no fields, so the error names its index.
fn of_item(list: &str, index: usize, error: FieldError) -> FieldError {
    match error.field.is_empty() {
        true => error.below(&format!("{list}[{index}]")),
        false => error,
    }
}

/// Returns the keys that occur more than once. Two items with one identity contradict each other, and it is unknown
/// which one is correct.
fn repeated<K: Ord>(keys: impl Iterator<Item = Option<K>>) -> BTreeSet<K> {
    let mut counts = BTreeMap::new();
    for key in keys.flatten() {
        *counts.entry(key).or_insert(0) += 1;
    }
    let repeated = counts.into_iter().filter(|(_, count)| *count > 1);
    repeated.map(|(key, _)| key).sorted_set()
}
