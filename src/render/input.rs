use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Features, RenderError, RoaTable};
use crate::document::RoutingPolicySpec;
use crate::effective::{InternalNeighbour, Router};
use crate::model::{Endpoint, InterfaceName};

/// Prefixes taken from an external neighbour when the policy says nothing: DN42 has about 2700.
pub const DEFAULT_IMPORT_LIMIT: u32 = 9000;

/// Longest AS path taken when the policy says nothing.
pub const DEFAULT_MAX_PATH: u32 = 10;

/// What the configuration of a whole router is made from.
#[derive(Debug, Clone, Copy)]
pub struct BaseInput<'a> {
    /// Who the router is.
    pub router: &'a Router,
    /// The routing policy; `RoutingPolicySpec::default()` where there is none yet.
    pub policy: &'a RoutingPolicySpec,
    /// What the running BIRD understands.
    pub features: Features,
    /// Whether the router is drained (RFC 8326).
    pub drained: bool,
    /// Whether all external sessions are taken down, as maintenance does after a time.
    pub ebgp_disabled: bool,
    /// Whether `bird.conf` is ours too.
    pub manage_main_config: bool,
    /// The interface that carries the loopback addresses.
    pub loopback_interface: &'a str,
    /// The interfaces of the backbone tunnels.
    pub mesh_interfaces: &'a [InterfaceName],
    /// The internal BGP neighbours.
    pub ibgp: &'a [InternalNeighbour],
    /// Where the names of RPKI servers lead, as far as that is known.
    pub rpki: &'a BTreeMap<Endpoint, IpAddr>,
    /// The last good table of ROAs, when there is one on disk.
    pub roa: Option<&'a RoaTable>,
}

impl BaseInput<'_> {
    /// Whether there is something that origins can be checked against.
    pub fn validates_origins(&self) -> bool {
        !self.policy.rpki.servers.is_empty() || self.roa.is_some_and(|table| !table.is_empty())
    }

    /// Whether routes without a ROA are refused. Without a server and without a cached table nothing
    /// has a ROA, and refusing would refuse everything; so then they pass, whatever the policy says,
    /// and the caller tells of it in a condition.
    pub fn rejects_unknown(&self) -> bool {
        self.validates_origins() && self.policy.rpki.reject_unknown.unwrap_or(true)
    }
}

/// Refuses a policy that no safe filter can be made from.
///
/// # Errors
/// [`RenderError::Input`], with the field.
pub fn check_policy(policy: &RoutingPolicySpec) -> Result<(), RenderError> {
    let prefixes = &policy.prefixes;
    // A default route as own prefix would refuse every route from outside and announce all.
    if prefixes.ipv4.is_some_and(|net| net.prefix_len() < 8) {
        return Err(RenderError::input("spec.prefixes.ipv4", "this is too wide to be a prefix of ours"));
    }
    if prefixes.ipv6.is_some_and(|net| net.prefix_len() < 16) {
        return Err(RenderError::input("spec.prefixes.ipv6", "this is too wide to be a prefix of ours"));
    }
    let country = policy.location.country;
    if country.is_some_and(|code| !(1..=999).contains(&code)) {
        return Err(RenderError::input("spec.location.country", "an ISO 3166-1 number is 1..999"));
    }
    for (index, server) in policy.rpki.servers.iter().enumerate() {
        if server.endpoint().is_none() {
            let field = format!("spec.rpki.servers[{index}].host");
            return Err(RenderError::input(&field, "a name or an address is wanted"));
        }
    }
    Ok(())
}
