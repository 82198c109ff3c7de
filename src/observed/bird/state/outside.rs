//! BGP sessions that BIRD runs from the operator's configuration, beside the agent's files. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::BirdState;
use crate::observed::bird::main_file::{BirdProblem, MainFile};
use crate::observed::bird::protocols::{Bgp, Protocol};

/// The neighbour of a wanted BGP session.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    pub address: IpAddr,
    /// The interface of a link-local address.
    pub interface: Option<&'a str>,
    pub asn: u32,
}

/// What is known of such sessions, computed at the first use.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    /// The positions of the BGP protocols, by their neighbours' addresses.
    pub(super) neighbours: OnceLock<Arc<BTreeMap<IpAddr, Vec<usize>>>>,
    /// The protocols of the agent's files.
    pub(super) ours: OnceLock<Arc<BTreeSet<String>>>,
}

impl BirdState {
    /// Returns the session with this neighbour that BIRD does not have from the agent's files: an established one, if
    /// there are several.
    pub fn outside(&self, peer: Peer<'_>) -> Option<&Protocol> {
        if self.files_unknown().is_some() {
            return None;
        }
        let neighbours = self
            .outside
            .neighbours
            .get_or_init(|| self.neighbours().into());
        let all = neighbours.get(&peer.address)?.iter();
        let all = all.filter_map(|index| self.protocols.get(*index));
        let all = all.filter(|protocol| peer.is_of(protocol) && !self.is_ours(&protocol.name));
        all.max_by_key(|protocol| protocol.is_established())
    }

    fn neighbours(&self) -> BTreeMap<IpAddr, Vec<usize>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for (index, protocol) in self.protocols.iter().enumerate() {
            let neighbour = protocol.bgp.as_ref().and_then(Bgp::neighbour);
            if let Some((address, _)) = neighbour {
                found.entry(address).or_default().push(index);
            }
        }
        found
    }

    /// Returns whether the agent's files define a protocol. BIRD accepts each name once.
    fn is_ours(&self, name: &str) -> bool {
        if self.live.main.protocol(name).is_some() {
            return false;
        }
        let ours = &self.outside.ours;
        let ours = ours.get_or_init(|| self.live.tree.protocols().into());
        ours.contains(name)
    }
}

impl Peer<'_> {
    fn is_of(&self, protocol: &Protocol) -> bool {
        let Some(bgp) = &protocol.bgp else {
            return false;
        };
        let scope = bgp.neighbour().and_then(|(_, scope)| scope);
        bgp.neighbor_as == Some(self.asn) && scope.is_none_or(|scope| self.interface == Some(scope))
    }
}

impl MainFile {
    /// Returns that BIRD runs a session as this protocol of the operator's, and how to hand it over to the agent.
    pub fn runs_outside(&self, protocol: &str) -> BirdProblem {
        let place = match self.protocol(protocol) {
            Some(found) => format!("from {}", found.place()),
            None => format!(
                "and neither {} nor a file that it includes has it",
                self.path.display()
            ),
        };
        let include = match self.included {
            true => "run `birdc configure`".to_owned(),
            false => format!(
                "add the line `include \"moenet/main.conf\";` at the end of {}",
                self.path.display()
            ),
        };
        BirdProblem {
            reason: "OperatorsProtocol",
            message: format!(
                "BIRD runs the session as the operator's protocol {protocol}, {place}; the agent's own text is not in effect"
            ),
            action: format!(
                "leave it so, or hand it over: remove protocol {protocol} there and {include}; the session resets once"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::observed::bird::framing::Decoder;
    use crate::observed::bird::protocols::parse;
    use crate::observed::bird::tree::{LiveTree, Tree};

    const MAIN: &str =
        "protocol device {}\nprotocol bgp dn42_a { neighbor fe80::1%'wg_a' as 7; }\n";

    fn row(name: &str, state: &str, neighbour: &str, asn: u32) -> String {
        format!(
            "1002-{name} BGP --- {state}\n1006-  BGP state: Established\n    Neighbor address: {neighbour}\n    \
             Neighbor AS: {asn}\n"
        )
    }

    fn bird(rows: &[String]) -> BirdState {
        let text = format!("{}0000 \n", rows.concat());
        let reply = Decoder::new().push(text.as_bytes()).unwrap().unwrap();
        let path = Path::new("/etc/bird/bird.conf");
        let main = MainFile::of_operator(path.into(), true, false, [(path, MAIN)].into_iter());
        let fragment = ("wg_b".to_owned(), "protocol bgp ebgp_wg_b {}".into());
        let tree = Tree {
            fragments: [fragment].into(),
            ..Tree::default()
        };
        let live = LiveTree {
            main,
            tree,
            ..LiveTree::default()
        };
        BirdState {
            protocols: parse(&reply).into(),
            live: Arc::new(live),
            ..BirdState::default()
        }
    }

    fn peer(address: &str, asn: u32) -> Peer<'_> {
        Peer {
            address: address.parse().unwrap(),
            interface: Some("wg_a"),
            asn,
        }
    }

    #[test]
    fn session_is_found_by_address_interface_and_asn() {
        let bird = bird(&[
            row("dn42_a", "up 1 Established", "fe80::1%wg_a", 7),
            row("other", "up 1 Established", "fe80::2%wg_c", 7),
            row("v4", "start 1 Active", "10.0.0.1", 7),
            row("v4_up", "up 1 Established", "10.0.0.1", 7),
        ]);
        let found = |address, asn| {
            let found = bird.outside(peer(address, asn));
            found.map(|it| it.name.as_str())
        };
        assert_eq!(found("fe80::1", 7), Some("dn42_a"));
        assert_eq!(found("fe80::1", 8), None, "another AS");
        assert_eq!(found("fe80::2", 7), None, "another interface");
        assert_eq!(found("10.0.0.1", 7), Some("v4_up"), "the established one");
        let problem = bird.live.main.runs_outside("dn42_a").to_string();
        for words in [
            "protocol dn42_a",
            "/etc/bird/bird.conf:2",
            "include \"moenet/main.conf\";",
        ] {
            assert!(problem.contains(words), "{problem}");
        }
        let lost = bird.live.main.runs_outside("v4_up").to_string();
        assert!(lost.contains("neither /etc/bird/bird.conf"), "{lost}");
    }

    #[test]
    fn sessions_of_the_agents_files_are_not_outside() {
        let mut bird = bird(&[row("ebgp_wg_b", "up 1 Established", "10.0.0.1", 7)]);
        assert!(bird.outside(peer("10.0.0.1", 7)).is_none());
        for (live, is_outside) in [(Arc::clone(&bird.live), false), (Arc::default(), true)] {
            let mut next = BirdState {
                outside: Outside::default(),
                live,
                ..bird.clone()
            };
            next.remember(&bird);
            bird = next;
            assert_eq!(bird.outside(peer("10.0.0.1", 7)).is_some(), is_outside);
        }
        bird.files_error = Some("unreadable".to_owned());
        assert!(
            bird.outside(peer("10.0.0.1", 7)).is_none(),
            "its files are unknown"
        );
    }
}
