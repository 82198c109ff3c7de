use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Features, RenderError, Shared};
use crate::document::{OwnPrefixes, RoutingPolicySpec};
use crate::effective::Router;
use crate::model::{Endpoint, RoaTable};
use crate::observed::bird::Provided;

/// Default import limit of an external neighbour: DN42 has about 2700 prefixes.
pub const DEFAULT_IMPORT_LIMIT: u32 = 9000;

/// Default limit of the AS path length.
pub const DEFAULT_MAX_PATH: u32 = 10;

/// The input of a whole router's configuration.
#[derive(Debug, Clone, Copy)]
pub struct BaseInput<'a> {
    pub router: &'a Router,
    /// The routing policy; `RoutingPolicySpec::default()` before the first one.
    pub policy: &'a RoutingPolicySpec,
    /// Whether a routing policy is known. Without one no BGP session imports or exports routes (RFC 8212).
    pub has_policy: bool,
    /// The features of the running BIRD.
    pub features: Features,
    /// Whether the router is drained (RFC 8326).
    pub drained: bool,
    /// Whether all external sessions are disabled, as maintenance does after a time.
    pub ebgp_disabled: bool,
    /// Whether the agent writes `bird.conf` too.
    pub manage_main_config: bool,
    /// The protocols that the operator's main file defines, so that the agent's files do not.
    pub provided: Provided,
    /// The interface that carries the loopback addresses.
    pub loopback_interface: &'a str,
    /// The wanted objects with a text in the shared files.
    pub shared: &'a Shared<'a>,
    /// The known addresses of RPKI server names.
    pub rpki: &'a BTreeMap<Endpoint, IpAddr>,
    /// The last good table of ROAs, when there is one on disk.
    pub roa: Option<&'a RoaTable>,
}

impl BaseInput<'_> {
    /// Returns whether there is any source to validate origins against.
    pub fn validates_origins(&self) -> bool {
        !self.policy.rpki.servers.is_empty() || self.roa.is_some_and(|table| !table.is_empty())
    }

    /// Returns whether routes without a ROA are rejected. Without a server and without a cached table no route
    /// has a ROA, and all routes would be rejected; they are then accepted, independent of the policy,
    /// and the caller reports it in a condition.
    pub fn rejects_unknown(&self) -> bool {
        self.validates_origins() && self.policy.rpki.reject_unknown.unwrap_or(true)
    }
}

/// Rejects a policy for which no safe filter exists.
///
/// # Errors
/// [`RenderError::Input`], with the field.
pub fn check_policy(policy: &RoutingPolicySpec) -> Result<(), RenderError> {
    let prefixes = &policy.prefixes;
    for (field, net) in own(prefixes) {
        if let Some(why) = too_wide(net) {
            return Err(RenderError::input(field, &why));
        }
    }
    let country = policy.location.country;
    if country.is_some_and(|code| !(1..=999).contains(&code)) {
        return Err(RenderError::input(
            "spec.location.country",
            "use an ISO 3166-1 number, 1..999",
        ));
    }
    Ok(())
}

/// Returns warnings about a policy that is valid but probably not intended.
pub fn odd_policy(policy: &RoutingPolicySpec) -> Vec<String> {
    let unheard =
        own(&policy.prefixes).filter(|(_, net)| too_wide(*net).is_none() && !is_routable(*net));
    let remark =
        |(field, net)| format!("{field}: {net} is not announced, since DN42 routes no such prefix");
    unheard.map(remark).collect()
}

fn own(prefixes: &OwnPrefixes) -> impl Iterator<Item = (&'static str, IpNet)> {
    let v4 = prefixes
        .ipv4
        .map(|net| ("spec.prefixes.ipv4", IpNet::V4(net.trunc())));
    v4.into_iter().chain(
        prefixes
            .ipv6
            .map(|net| ("spec.prefixes.ipv6", IpNet::V6(net.trunc()))),
    )
}

/// The prefixes that DN42 routes, with their minimum and maximum length: as `MOE_VALID4` and `MOE_VALID6` of
/// `moenet/defines.conf`.
const ROUTED: [(&str, u8, u8); 10] = [
    ("172.20.0.0/14", 21, 29),
    ("172.20.0.0/24", 32, 32),
    ("172.21.0.0/24", 32, 32),
    ("172.22.0.0/24", 32, 32),
    ("172.23.0.0/24", 32, 32),
    ("172.31.0.0/16", 16, 32),
    ("10.100.0.0/14", 14, 32),
    ("10.0.0.0/8", 15, 24),
    ("10.127.0.0/16", 16, 32),
    ("fd00::/8", 44, 64),
];

fn routed() -> impl Iterator<Item = (IpNet, u8, u8)> {
    ROUTED
        .into_iter()
        .filter_map(|(net, shortest, longest)| Some((net.parse().ok()?, shortest, longest)))
}

fn is_routable(net: IpNet) -> bool {
    routed().any(|(block, shortest, longest)| {
        block.contains(&net) && (shortest..=longest).contains(&net.prefix_len())
    })
}

/// Returns why a prefix cannot be one of this network: all prefixes below it are rejected from external neighbours, so
/// a
/// prefix wider than any routed one would cut off a part of the network, or all of it.
fn too_wide(net: IpNet) -> Option<String> {
    let overlaps = |block: &IpNet| block.contains(&net) || net.contains(block);
    let shortest = routed()
        .filter(|(block, ..)| overlaps(block))
        .map(|(_, shortest, _)| shortest)
        .min();
    let shortest = shortest.unwrap_or(if net.addr().is_ipv4() { 8 } else { 16 });
    let wide = net.prefix_len() < shortest;
    wide.then(|| format!("{net} is too wide: DN42 routes no prefix wider than /{shortest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(family: &str, net: &str) -> RoutingPolicySpec {
        serde_json::from_value(json!({"prefixes": {family: net}})).unwrap()
    }

    #[test]
    fn what_is_routed_is_what_the_templates_let_through() {
        let template = include_str!("../../templates/moenet/defines.conf");
        let sets = template
            .split("define MOE_VALID")
            .skip(1)
            .map(|set| &set[..set.find("];").unwrap()]);
        let sets = sets.collect::<String>();
        for (net, shortest, longest) in ROUTED {
            let own = net.ends_with(&format!("/{shortest}")) && longest == 32;
            let range = if own {
                "+".to_owned()
            } else {
                format!("{{{shortest},{longest}}}")
            };
            assert!(
                sets.contains(&format!("{net}{range}")),
                "{net}{range}: {sets}"
            );
        }
        assert_eq!(sets.matches('/').count(), ROUTED.len(), "{sets}");
    }

    #[test]
    fn too_wide_own_prefix_is_error_and_unrouted_one_remark() {
        let wide4 = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "172.20.0.0/14",
            "172.16.0.0/12",
            "172.22.0.0/20",
            "8.0.0.0/6",
        ];
        let wide6 = [
            "::/0",
            "fd00::/8",
            "fc00::/7",
            "fd42::/16",
            "fd48:4da8::/32",
        ];
        let wide = wide4
            .map(|net| ("ipv4", net))
            .into_iter()
            .chain(wide6.map(|net| ("ipv6", net)));
        for (family, net) in wide {
            let error = check_policy(&policy(family, net)).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("spec.prefixes.{family}: ")),
                "{error}"
            );
            assert!(error.contains("too wide"), "{error}");
        }
        let wide = [
            ("ipv4", "172.23.105.176/30"),
            ("ipv4", "203.0.113.0/24"),
            ("ipv6", "fd48:4da8:420::/65"),
        ];
        for (family, net) in wide {
            let policy = policy(family, net);
            check_policy(&policy).unwrap();
            assert!(odd_policy(&policy)[0].contains(net), "{net}");
        }
        let good = [
            "172.23.105.176/28",
            "172.22.0.0/21",
            "10.42.0.0/16",
            "172.31.7.1/32",
            "10.127.3.0/30",
        ];
        let good = good
            .map(|net| ("ipv4", net))
            .into_iter()
            .chain([("ipv6", "fd48:4da8:420::/48")]);
        for (family, net) in good {
            let policy = policy(family, net);
            check_policy(&policy).unwrap();
            assert_eq!(odd_policy(&policy), Vec::<String>::new(), "{net}");
        }
    }
}
