use serde_json::Value;

use super::super::body::open;
use super::super::read::{prose, read, required};
use super::shapes::Config;
use crate::document::NodeSpec;
use crate::wire::{NodeItem, WireError};

/// Reads `GET config` (docs/contract/node-policy-mesh.md#node). Further sections are ignored, and loopbacks are
/// used as given.
///
/// # Errors
/// The body has no `node`, or a field of it breaks a rule.
pub fn decode_config(body: &[u8]) -> Result<NodeItem, WireError> {
    let map = open(body, "node", false)?;
    let Config { node } = read(&Value::Object(map))?;
    let name = required("node.name", prose(Some(node.name)))?;
    let spec = NodeSpec {
        id: node.id,
        asn: node.asn.0,
        region: prose(node.region),
        loopback_ipv4: node.loopback_ipv4,
        loopback_ipv6: node.loopback_ipv6,
        link_local: node.link_local,
    };
    Ok(NodeItem { name, spec })
}
