use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::Session;
use crate::model::{InterfaceName, Port, Uid};
use crate::util::sorted::Sorted as _;

/// A resource that only one object of a router can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    Interface(InterfaceName),
    ListenPort(Port),
    /// A protocol name in BIRD.
    Protocol(String),
    /// A peer's address in the tunnel that is not link-local: its route leads into one tunnel.
    Address(IpAddr),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::ListenPort(port) => write!(f, "listen port {port}"),
            Self::Protocol(name) => write!(f, "BIRD protocol {name}"),
            Self::Address(address) => write!(f, "peer address {address}"),
        }
    }
}

/// The reason why an object must wait: another object has a resource that it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The resource that both claim.
    pub claim: Claim,
    /// The object that keeps it.
    pub keeper: String,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is used by {}, which was first; choose another one",
            self.claim, self.keeper
        )
    }
}

/// The claims of an object, and the claims that are already applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The object, such as `sessions/wg_4242421080`, so that two objects of different kinds may have the same name.
    pub name: String,
    /// Its identity, to break ties.
    pub uid: Uid,
    pub claims: BTreeSet<Claim>,
    /// The claims that `applied/` already records.
    pub holds: BTreeSet<Claim>,
}

impl Session {
    pub fn claims(&self) -> BTreeSet<Claim> {
        let mut claims = BTreeSet::from([Claim::Interface(self.tunnel.interface.clone())]);
        claims.extend(self.tunnel.listen_port.map(Claim::ListenPort));
        claims.extend(
            self.neighbours
                .iter()
                .map(|neighbour| Claim::Protocol(neighbour.protocol.clone())),
        );
        let peers = self.addresses.iter().filter_map(|address| address.peer);
        claims.extend(peers.map(Claim::Address));
        claims
    }
}

/// Returns the objects that must wait, each with the clash: of two objects with one claim, the one that already has
/// it keeps it; else the one with the smaller uid (docs/contract/session.md#claims).
pub fn conflicts<'a>(claimants: impl IntoIterator<Item = &'a Claimant>) -> BTreeMap<String, Clash> {
    let claimants: Vec<_> = claimants.into_iter().collect();
    let mut keepers: BTreeMap<&Claim, &Claimant> = BTreeMap::new();
    for &claimant in &claimants {
        for claim in &claimant.claims {
            let keeper = keepers.entry(claim).or_insert(claimant);
            if rank(claimant, claim) < rank(keeper, claim) {
                *keeper = claimant;
            }
        }
    }
    let clash = |claimant: &&Claimant| {
        let lost = claimant
            .claims
            .iter()
            .find(|claim| keepers[*claim].name != claimant.name)?;
        let clash = Clash {
            claim: lost.clone(),
            keeper: keepers[lost].name.clone(),
        };
        Some((claimant.name.clone(), clash))
    };
    claimants.iter().filter_map(clash).sorted_map()
}

fn rank<'a>(claimant: &'a Claimant, claim: &Claim) -> (bool, &'a Uid) {
    (!claimant.holds.contains(claim), &claimant.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(name: &str, port: u16, holds: bool) -> Claimant {
        let claims = BTreeSet::from([Claim::ListenPort(Port::new(port).unwrap())]);
        Claimant {
            name: name.to_owned(),
            uid: name.parse().unwrap(),
            holds: if holds {
                claims.clone()
            } else {
                BTreeSet::new()
            },
            claims,
        }
    }

    #[test]
    fn the_one_in_effect_keeps_its_claim() {
        let found = conflicts(&[
            claimant("a", 5, false),
            claimant("b", 5, true),
            claimant("c", 6, false),
        ]);
        assert_eq!(found.len(), 1);
        let text = found["a"].to_string();
        assert_eq!(
            text,
            "listen port 5 is used by b, which was first; choose another one"
        );
    }

    #[test]
    fn a_tie_goes_to_the_smaller_uid() {
        let found = conflicts(&[claimant("b", 5, false), claimant("a", 5, false)]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b"]);
    }

    fn at(name: &str, address: &str, applied: bool) -> Claimant {
        let claims = BTreeSet::from([Claim::Address(address.parse().unwrap())]);
        Claimant {
            name: name.to_owned(),
            uid: name.parse().unwrap(),
            holds: if applied {
                claims.clone()
            } else {
                BTreeSet::new()
            },
            claims,
        }
    }

    #[test]
    fn applied_peer_address_keeps_its_session() {
        for address in ["172.20.1.1", "fd42::1"] {
            let found = conflicts(&[
                at("a", address, false),
                at("b", address, true),
                at("c", "172.20.1.2", false),
            ]);
            assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
            let text = found["a"].to_string();
            let wanted = format!("peer address {address} is used by b, which was first");
            assert!(text.starts_with(&wanted), "{text}");
        }
    }

    #[test]
    fn new_peer_address_goes_to_the_smaller_uid() {
        let found = conflicts(&[at("b", "10.0.0.1", false), at("a", "10.0.0.1", false)]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn sessions_claim_routed_peer_addresses_only() {
        let claims = |address: serde_json::Value| {
            let spec = serde_json::json!({
                "asn": 4_242_421_080_u32, "address": address,
                "tunnel": {"publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="}
            });
            let spec: crate::document::BgpSessionSpec = serde_json::from_value(spec).unwrap();
            let node = serde_json::json!({
                "id": 1, "asn": 4_242_420_998_u32, "loopbackIpv4": "172.23.0.1", "loopbackIpv6": "fd00::1"
            });
            let node = serde_json::from_value(node).unwrap();
            let router = crate::effective::Router::new("jp1", &node, None);
            let filled = spec.filled(&router, &crate::effective::Defaults::default());
            let (name, uid) = ("a".parse().unwrap(), "a".parse().unwrap());
            let session =
                Session::resolve(&name, &uid, &filled, &router, &BTreeMap::new()).unwrap();
            let is_address = |claim: &Claim| matches!(claim, Claim::Address(_));
            session
                .claims()
                .into_iter()
                .filter(is_address)
                .collect::<Vec<_>>()
        };
        let routed = claims(serde_json::json!({"peerIpv4": "172.20.1.1", "peerIpv6": "fd42::1"}));
        let wanted = ["172.20.1.1", "fd42::1"].map(|it| Claim::Address(it.parse().unwrap()));
        assert_eq!(routed, wanted);
        assert_eq!(claims(serde_json::json!({"peerLinkLocal": "fe80::1"})), []);
        assert_eq!(claims(serde_json::json!({"peerIpv6": "fe80::1"})), []);
    }
}
