use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::document::{IbgpPeerSpec, MeshPeerSpec};
use crate::model::{
    AdminState, Asn, Endpoint, InterfaceName, LinkLocal, Mtu, ObjectName, Port, PublicKey, Uid,
};

use super::{Claim, FieldError};

/// A resolved backbone tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshTunnel {
    pub name: ObjectName,
    /// The uid that marks its link.
    pub uid: Uid,
    pub admin_state: AdminState,
    /// The link's name.
    pub interface: InterfaceName,
    /// The link's MTU.
    pub mtu: Mtu,
    /// The agent's UDP port.
    pub listen_port: Port,
    pub peer: PublicKey,
    /// The address on which the peer listens.
    pub endpoint: Option<Endpoint>,
    /// The peer's address in the tunnel.
    pub link_local: LinkLocal,
    /// Seconds between keepalives; none with 0.
    pub keepalive: u16,
    pub reported_as: Option<Uid>,
}

/// Inputs for the names, ports and addresses of all backbone tunnels of a router.
#[derive(Debug, Clone, Copy)]
pub struct MeshDefaults<'a> {
    /// `mesh.interfacePrefix` of the configuration.
    pub prefix: &'a str,
    /// `mesh.listenPortBase` of the configuration.
    pub port_base: u16,
    /// The AS number of this router, which is also the peer's.
    pub asn: Asn,
    /// `wireguard.persistentKeepaliveInterval` of the configuration.
    pub keepalive: u16,
}

impl MeshPeerSpec {
    /// Returns the agent's UDP port: the given one, else the sum of `mesh.listenPortBase` and the peer's node id;
    /// `None` if the sum is over 65535.
    pub fn port(&self, base: u16) -> Option<Port> {
        self.listen_port
            .or_else(|| base.checked_add(self.node_id).and_then(Port::new))
    }
}

impl MeshTunnel {
    /// Resolves a specification.
    ///
    /// # Errors
    /// When there is no valid interface name or port for the peer.
    pub fn resolve(
        name: &ObjectName,
        uid: &Uid,
        spec: &MeshPeerSpec,
        defaults: &MeshDefaults<'_>,
    ) -> Result<Self, FieldError> {
        let MeshDefaults {
            prefix,
            port_base,
            asn,
            keepalive,
        } = *defaults;
        let derived = || interface(prefix, name, spec.node_id).parse().ok();
        let interface = spec.interface.clone().or_else(derived).ok_or_else(|| {
            FieldError::new(
                "spec.interface",
                format!("{prefix}{name} is not a valid interface name; set tunnel.interface"),
            )
        })?;
        let listen_port = spec.port(port_base).ok_or_else(|| {
            let reason = format!(
                "{port_base} and node id {} are over 65535; give a port",
                spec.node_id
            );
            FieldError::new("spec.listenPort", reason)
        })?;
        Ok(Self {
            name: name.clone(),
            uid: uid.clone(),
            admin_state: spec.admin_state,
            interface,
            mtu: spec.mtu.unwrap_or_default(),
            listen_port,
            peer: spec.public_key,
            endpoint: spec.endpoint.clone(),
            link_local: spec
                .link_local
                .unwrap_or_else(|| LinkLocal::derived(asn, spec.node_id)),
            keepalive,
            reported_as: spec.uuid.clone(),
        })
    }

    /// Returns the specification with every derived value filled in; an applied tunnel keeps its interface and port
    /// also when the configuration derives others for new peers.
    pub fn filled(&self, spec: &MeshPeerSpec) -> MeshPeerSpec {
        MeshPeerSpec {
            interface: Some(self.interface.clone()),
            listen_port: Some(self.listen_port),
            mtu: Some(self.mtu),
            link_local: Some(self.link_local),
            ..spec.clone()
        }
    }

    pub fn claims(&self) -> BTreeSet<Claim> {
        BTreeSet::from([
            Claim::Interface(self.interface.clone()),
            Claim::ListenPort(self.listen_port),
        ])
    }
}

/// Returns `mesh_<name>`; if that is over 15 bytes, its end is replaced by the node id, which no other peer has.
pub(crate) fn interface(prefix: &str, name: &ObjectName, node_id: u16) -> String {
    let whole = format!("{prefix}{name}");
    if whole.len() <= InterfaceName::MAX {
        return whole;
    }
    let id = format!("-{node_id}");
    let kept: String = whole.chars().take(InterfaceName::MAX - id.len()).collect();
    format!("{kept}{id}")
}

/// A resolved internal BGP neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalNeighbour {
    pub name: ObjectName,
    /// Name of the protocol in BIRD.
    pub protocol: String,
    /// The neighbour's loopback address, IPv6 if there is one.
    pub address: IpAddr,
    /// The loopback address of this router of the same family.
    pub source: IpAddr,
    /// Whether the neighbour is a route reflector.
    pub is_rr: bool,
    /// Whether it is configured at all.
    pub enabled: bool,
}

impl InternalNeighbour {
    /// Resolves a specification against the loopback addresses of this router.
    ///
    /// # Errors
    /// When the two routers have no loopback address of one family.
    pub fn resolve(
        name: &ObjectName,
        spec: &IbgpPeerSpec,
        loopback_ipv4: Option<Ipv4Addr>,
        loopback_ipv6: Option<Ipv6Addr>,
    ) -> Result<Self, FieldError> {
        let v6 = spec
            .loopback_ipv6
            .zip(loopback_ipv6)
            .map(|(theirs, ours)| (theirs.into(), ours.into()));
        let v4 = || {
            spec.loopback_ipv4
                .zip(loopback_ipv4)
                .map(|(theirs, ours)| (theirs.into(), ours.into()))
        };
        let (address, source) = v6.or_else(v4).ok_or_else(|| {
            FieldError::new(
                "spec.loopbackIpv6",
                "this router and the peer have no loopback address of one family",
            )
        })?;
        let enabled = spec.admin_state == AdminState::Enabled;
        Ok(Self {
            name: name.clone(),
            protocol: format!("ibgp_{name}"),
            address,
            source,
            is_rr: spec.is_rr,
            enabled,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_do_not_collide_after_the_cut() {
        let one: ObjectName = "frankfurt-core-1".parse().unwrap();
        let other: ObjectName = "frankfurt-core-2".parse().unwrap();
        let names = [interface("mesh_", &one, 12), interface("mesh_", &other, 13)];
        assert_eq!(names, ["mesh_frankfu-12", "mesh_frankfu-13"]);
        assert_eq!(interface("mesh_", &"hk1".parse().unwrap(), 2), "mesh_hk1");
    }
}
