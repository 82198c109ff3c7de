//! Objects whose text is in the files that all sessions share: the input and the variables of each kind.

use std::net::IpAddr;

use serde::Serialize;

use crate::effective::InternalNeighbour;
use crate::model::InterfaceName;

/// The wanted objects with a text in the files that all sessions share.
#[derive(Debug, Clone, Default)]
pub struct Shared<'a> {
    /// The interfaces of the backbone tunnels.
    pub mesh_interfaces: Vec<&'a InterfaceName>,
    pub ibgp: Vec<&'a InternalNeighbour>,
}

/// The variables of these objects.
#[derive(Debug, Serialize)]
pub(super) struct SharedVariables<'a> {
    mesh_interfaces: &'a [&'a InterfaceName],
    ibgp: Vec<Internal<'a>>,
}

/// An internal neighbour.
#[derive(Debug, Serialize)]
struct Internal<'a> {
    protocol: &'a str,
    name: &'a str,
    address: IpAddr,
    source: IpAddr,
    over_ipv6: bool,
    client: bool,
}

impl<'a> SharedVariables<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, reflector: bool) -> Self {
        let enabled = shared.ibgp.iter().filter(|neighbour| neighbour.enabled);
        let ibgp = enabled.map(|neighbour| Internal::new(neighbour, reflector));
        Self {
            mesh_interfaces: &shared.mesh_interfaces,
            ibgp: ibgp.collect(),
        }
    }
}

impl<'a> Internal<'a> {
    fn new(neighbour: &'a InternalNeighbour, reflector: bool) -> Self {
        Self {
            protocol: &neighbour.protocol,
            name: neighbour.name.as_str(),
            address: neighbour.address,
            source: neighbour.source,
            over_ipv6: neighbour.address.is_ipv6(),
            client: reflector && !neighbour.is_rr,
        }
    }
}
