use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::document::Kind;
use crate::model::{Endpoint, Host, InterfaceName, ObjectName};
use crate::sources::HostAddresses;

/// How the router uses an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The router has the address.
    Own,
    /// A router of the same network has the address.
    Internal,
    /// The router must reach the address.
    Needed,
    /// Routes use the address as their gateway, out of this interface.
    Gateway(InterfaceName),
}

/// Addresses that no peer may claim, each with its uses and their descriptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    uses: BTreeMap<IpAddr, BTreeSet<(Use, String)>>,
    /// The peer addresses that sessions have applied.
    pub(super) peers: BTreeMap<IpAddr, BTreeSet<ObjectName>>,
    names: BTreeMap<Endpoint, BTreeSet<IpAddr>>,
    /// The endpoints with names that objects have.
    lookups: BTreeSet<Endpoint>,
    /// Facts of the host that could not be read, each with the reason.
    pub unread: Vec<String>,
}

impl From<HostAddresses> for Reach {
    fn from(host: HostAddresses) -> Self {
        let mut reach = Self {
            names: host.names,
            unread: host.unread,
            ..Self::default()
        };
        for address in host.control_plane {
            reach.add(address, Use::Needed, "the Control Plane's address");
        }
        for address in host.name_servers {
            reach.add(address, Use::Needed, "a name server's address");
        }
        for address in host.own {
            reach.add(address, Use::Own, "an address of this host");
        }
        for (interface, gateway) in host.gateways {
            reach.add(gateway, Use::Gateway(interface), "a gateway of this host");
        }
        reach
    }
}

impl Reach {
    /// Adds a use of an address. Link-local addresses belong to their link and are left out.
    pub fn add(&mut self, address: IpAddr, of: Use, what: impl Into<String>) {
        let address = address.to_canonical();
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !is_link_local && !address.is_unspecified() {
            self.uses
                .entry(address)
                .or_default()
                .insert((of, what.into()));
        }
    }

    /// Sets the resolved addresses of an endpoint with a name.
    pub fn name(&mut self, endpoint: &Endpoint, addresses: BTreeSet<IpAddr>) {
        self.names.insert(endpoint.clone(), addresses);
    }

    pub(in crate::desired) fn names(&self) -> &BTreeMap<Endpoint, BTreeSet<IpAddr>> {
        &self.names
    }

    pub(in crate::desired) fn lookups(&self) -> &BTreeSet<Endpoint> {
        &self.lookups
    }

    /// Returns the known addresses of an endpoint.
    pub(super) fn addresses(&self, endpoint: &Endpoint) -> BTreeSet<IpAddr> {
        match endpoint.host {
            Host::Address(address) => [address.to_canonical()].into(),
            Host::Name(_) => self.names.get(endpoint).cloned().unwrap_or_default(),
        }
    }

    pub(super) fn endpoint(&mut self, endpoint: &Endpoint, kind: Kind, name: &ObjectName) {
        let what = match &endpoint.host {
            Host::Address(_) => format!("the endpoint of {}/{name}", kind.folder()),
            Host::Name(host) => format!("the endpoint {host} of {}/{name}", kind.folder()),
        };
        for address in self.addresses(endpoint) {
            self.add(address, Use::Needed, what.clone());
        }
        if matches!(endpoint.host, Host::Name(_)) {
            self.lookups.insert(endpoint.clone());
        }
    }

    /// Adds loopback addresses of another router of this network.
    pub(super) fn loopbacks(&mut self, addresses: impl Iterator<Item = IpAddr>, what: &str) {
        for address in addresses {
            self.add(
                address,
                Use::Internal,
                format!("the loopback address of {what}"),
            );
        }
    }

    /// Returns a use of an address that forbids another one.
    pub(super) fn find(&self, address: IpAddr, forbids: impl Fn(&Use) -> bool) -> Option<&str> {
        let mut uses = self.uses.get(&address)?.iter();
        uses.find(|(of, _)| forbids(of))
            .map(|(_, what)| what.as_str())
    }
}
