use super::super::body::open;
use super::super::scalar::Fields;
use crate::document::NodeSpec;
use crate::wire::{NodeItem, WireError};

/// Reads `GET config` (docs/contract/node-policy-mesh.md#node). Further sections are ignored, and loopbacks are
/// used as given.
///
/// # Errors
/// The body has no `node`, or a field of it breaks a rule.
pub fn decode_config(body: &[u8]) -> Result<NodeItem, WireError> {
    let map = open(body, "node", false)?;
    let Some(node) = Fields::new(&map).object("node")? else {
        return Err(WireError::Missing { key: "node" });
    };
    let spec = NodeSpec {
        id: node.required("id", node.within("id", 1, 65_535)?)?,
        asn: node.required("asn", node.number("asn")?)?,
        region: node.prose("region")?,
        loopback_ipv4: node.ipv4("loopbackIpv4")?,
        loopback_ipv6: node.ipv6("loopbackIpv6")?,
        link_local: node.parsed("linkLocal")?,
    };
    let name = node.required("name", node.prose("name")?)?;
    Ok(NodeItem { name, spec })
}
