//! What running sessions and tunnels lose while an adoption is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::intervals::ADOPT_SILENCE;
use crate::model::InterfaceName;
use crate::observed::bird::{Entered, HoldTimer, Protocol};
use crate::observed::kernel::{KernelView, Link};
use crate::util::sorted::Sorted as _;

/// One look at everything that is watched.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The time since the first look.
    pub at: Duration,
    pub protocols: &'a [Protocol],
    pub kernel: &'a KernelView,
    /// The interfaces whose neighbour was sent an echo.
    pub asked: &'a BTreeSet<InterfaceName>,
    /// Those whose neighbour answered it.
    pub answered: &'a BTreeSet<InterfaceName>,
}

/// The established sessions, and the tunnels that pass traffic, before an adoption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseline {
    sessions: BTreeMap<String, Session>,
    tunnels: BTreeMap<InterfaceName, Tunnel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    entered: Option<Entered>,
    imported: u64,
    updates: u64,
    has_keepalives: bool,
}

/// A tunnel, with the last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tunnel {
    answers: bool,
    received: u64,
    heard: Duration,
}

/// A loss for which an adoption is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error("session {session} {what}")]
    Session { session: String, what: Lost },
    #[error("interface {0} disappeared")]
    Interface(InterfaceName),
    #[error("nothing came through the tunnel {interface} for {} s", silence.as_secs())]
    Silent {
        interface: InterfaceName,
        silence: Duration,
    },
}

/// What a session lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The session is not established any more.
    Session,
    /// It was reset meanwhile.
    Reset,
    /// The neighbour's keepalives.
    Keepalives(HoldTimer),
    /// Imported prefixes, before and now.
    Prefixes(u64, u64),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("is not established any more"),
            Self::Reset => f.write_str("was reset"),
            Self::Keepalives(HoldTimer { remaining, total }) => write!(
                f,
                "gets no keepalives any more: {remaining} s of its hold time of {total} s remain"
            ),
            Self::Prefixes(before, now) => {
                write!(f, "imports {now} prefixes instead of {before}")
            }
        }
    }
}

impl Baseline {
    /// Returns what works before the adoption of these interfaces. A tunnel is watched if an echo could be sent into it, and
    /// was answered or a session is established in it: the neighbour's WireGuard answers every packet within 10 s (its
    /// section 6.5, "passive keepalive"), whether or not the neighbour answers echoes.
    pub fn of<'a>(seen: Seen<'a>, interfaces: impl Iterator<Item = &'a InterfaceName>) -> Self {
        let established = || seen.protocols.iter().filter(|it| it.is_established());
        let sessions = established().map(|protocol| (protocol.name.clone(), session(protocol)));
        let tunnels = interfaces.filter_map(|interface| {
            let link = seen.kernel.links.get(interface)?;
            let answers = seen.answered.contains(interface);
            let has_session = established().any(|it| leads_into(it, interface, link));
            let is_alive = seen.asked.contains(interface) && (answers || has_session);
            let received = received(link)?;
            is_alive.then(|| {
                let tunnel = Tunnel {
                    answers,
                    received,
                    heard: seen.at,
                };
                (interface.clone(), tunnel)
            })
        });
        Self {
            sessions: sessions.sorted_map(),
            tunnels: tunnels.sorted_map(),
        }
    }

    /// Returns the number of watched sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of watched tunnels.
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// Returns the number of their imported prefixes.
    pub fn prefixes(&self) -> u64 {
        self.sessions.values().map(|it| it.imported).sum()
    }

    /// Returns whether every tunnel has passed something since a time.
    pub fn is_heard_since(&self, time: Duration) -> bool {
        self.tunnels.values().all(|tunnel| tunnel.heard > time)
    }

    /// Notes the signs of life, and returns the first loss: a session that is down, was reset, or lost more than `percent`
    /// of its prefixes, or a tunnel that passes nothing any more.
    pub fn look(&mut self, seen: Seen<'_>, percent: u8) -> Option<Loss> {
        let lost = self.lost(seen.protocols, percent);
        let lost = lost.map(|(session, what)| Loss::Session { session, what });
        lost.or_else(|| self.silent(seen))
    }

    fn lost(&self, protocols: &[Protocol], percent: u8) -> Option<(String, Lost)> {
        let now: BTreeMap<_, _> = protocols.iter().map(|it| (&it.name, it)).sorted_map();
        self.sessions.iter().find_map(|(name, before)| {
            let protocol = now.get(name).filter(|it| it.is_established());
            let what = match protocol {
                None => Some(Lost::Session),
                Some(protocol) => before.lost(protocol, percent),
            };
            Some((name.clone(), what?))
        })
    }

    fn silent(&mut self, seen: Seen<'_>) -> Option<Loss> {
        self.tunnels.iter_mut().find_map(|(interface, tunnel)| {
            let Some(now) = seen.kernel.links.get(interface) else {
                return Some(Loss::Interface(interface.clone()));
            };
            // One that could not be read says nothing.
            let now = received(now).unwrap_or(tunnel.received);
            let is_heard = match tunnel.answers {
                true => seen.answered.contains(interface),
                false => now > tunnel.received,
            };
            tunnel.received = now;
            if is_heard {
                tunnel.heard = seen.at;
            }
            let silence = seen.at.saturating_sub(tunnel.heard);
            (silence >= ADOPT_SILENCE).then(|| Loss::Silent {
                interface: interface.clone(),
                silence,
            })
        })
    }
}

/// Looks of which one alone proves no loss: BIRD may be busy for a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubt {
    failed: bool,
}

impl Doubt {
    /// Returns the failure of a look if the one before it failed too.
    ///
    /// # Errors
    /// The second failure in a row.
    pub fn judge<E>(&mut self, looked: Result<(), E>) -> Result<(), E> {
        let is_second = std::mem::replace(&mut self.failed, looked.is_err());
        looked.or_else(|why| if is_second { Err(why) } else { Ok(()) })
    }

    /// Returns whether the last look failed.
    pub fn is_open(&self) -> bool {
        self.failed
    }
}

impl Session {
    fn lost(&self, protocol: &Protocol, percent: u8) -> Option<Lost> {
        let now = session(protocol);
        if self.was_reset(&now) {
            return Some(Lost::Reset);
        }
        let hold = protocol.bgp.as_ref().and_then(|bgp| bgp.hold);
        if let Some(hold) = hold.filter(|hold| self.has_keepalives && !has_keepalives(*hold)) {
            return Some(Lost::Keepalives(hold));
        }
        let lost = self.imported.saturating_sub(now.imported);
        let most = self.imported.saturating_mul(u64::from(percent));
        // A neighbour withdraws one prefix every day, which is a large share of few.
        let is_one_of_few = lost == 1 && self.imported > 1 && percent > 0;
        let is_lost = lost.saturating_mul(100) > most && !is_one_of_few;
        is_lost.then_some(Lost::Prefixes(self.imported, now.imported))
    }

    /// The counter of updates begins again with a session, also where the time format is unknown.
    fn was_reset(&self, now: &Self) -> bool {
        let entered = self.entered.zip(now.entered);
        entered.is_some_and(|(before, now)| before.differs(now)) || now.updates < self.updates
    }
}

fn session(protocol: &Protocol) -> Session {
    let channels = || protocol.channels.iter();
    let routes = channels().filter_map(|it| it.routes);
    let bgp = protocol.bgp.as_ref();
    Session {
        entered: bgp.and_then(|bgp| bgp.entered),
        imported: routes.map(|it| it.imported).sum(),
        updates: channels().filter_map(|it| it.updates).sum(),
        has_keepalives: bgp.and_then(|bgp| bgp.hold).is_some_and(has_keepalives),
    }
}

/// Returns whether keepalives come: a third of the hold time is the usual interval, so two of them are missing when less
/// than that remains.
fn has_keepalives(hold: HoldTimer) -> bool {
    u64::from(hold.remaining) * 3 >= u64::from(hold.total)
}

/// Returns whether a session's neighbour is reached through this interface.
fn leads_into(protocol: &Protocol, interface: &InterfaceName, link: &Link) -> bool {
    let bgp = protocol.bgp.as_ref();
    let Some(text) = bgp.and_then(|bgp| bgp.neighbor_address.as_deref()) else {
        return false;
    };
    if let Some((_, scope)) = text.split_once('%') {
        return scope == interface.as_str();
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return false;
    };
    let mut routes = link.addresses.iter().filter_map(|it| it.route());
    routes.any(|net| net.contains(&address))
}

/// Returns the bytes that all peers of a link have sent; `None` if it could not be read.
fn received(link: &Link) -> Option<u64> {
    let wireguard = link.wireguard.as_ref()?;
    Some(wireguard.peers.values().map(|peer| peer.rx_bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PublicKey;
    use crate::observed::Mark;
    use crate::observed::bird::{Bgp, BgpState, Channel, ProtocolState, Routes};
    use crate::observed::kernel::{LinkKind, WireGuard, WireGuardPeer};

    const NAME: &str = "wg1";

    fn protocol(state: BgpState, entered: i64, imported: u64) -> Protocol {
        Protocol {
            name: "peer".into(),
            proto: "BGP".into(),
            table: None,
            state: ProtocolState::Up,
            since: None,
            info: String::new(),
            description: None,
            message: None,
            bgp: Some(Bgp {
                state,
                entered: Some(Entered::OfDay(entered)),
                neighbor_address: Some("fe80::1%wg1".into()),
                ..Bgp::default()
            }),
            rpki: None,
            channels: vec![Channel {
                routes: Some(Routes {
                    imported,
                    ..Routes::default()
                }),
                updates: Some(imported),
                ..Channel::default()
            }],
        }
    }

    fn established(entered: i64) -> Protocol {
        protocol(BgpState::Established, entered, 100)
    }

    fn with_hold(remaining: u32) -> Protocol {
        let mut protocol = established(5);
        let hold = HoldTimer {
            remaining,
            total: 90,
        };
        protocol.bgp.as_mut().unwrap().hold = Some(hold);
        protocol
    }

    /// Everything that one look sees.
    #[derive(Default)]
    struct World {
        protocols: Vec<Protocol>,
        kernel: KernelView,
        asked: BTreeSet<InterfaceName>,
        answered: BTreeSet<InterfaceName>,
    }

    impl World {
        fn of(protocol: Protocol) -> Self {
            Self {
                protocols: vec![protocol],
                ..Self::default()
            }
        }

        /// With a tunnel that has received so much, and whether its neighbour answers.
        fn tunnel(received: u64, answers: bool) -> Self {
            let name: InterfaceName = NAME.parse().unwrap();
            let peer = WireGuardPeer {
                rx_bytes: received,
                ..WireGuardPeer::default()
            };
            let link = Link {
                index: 1,
                kind: LinkKind::WireGuard,
                mtu: 1420,
                up: true,
                mark: Mark::None,
                addrgen_none: true,
                addresses: Default::default(),
                routes: Default::default(),
                wireguard: Some(WireGuard {
                    public_key: None,
                    listen_port: None,
                    peers: [(PublicKey::new([1; 32]), peer.into())].into(),
                }),
                unread: None,
                gre: None,
                learnt: false,
                sysctls: Default::default(),
            };
            let mut world = Self::of(established(5));
            world.kernel.links.insert(name.clone(), link);
            world.asked.insert(name.clone());
            world.answered.extend(answers.then_some(name));
            world
        }

        fn seen(&self, second: u64) -> Seen<'_> {
            Seen {
                at: Duration::from_secs(second),
                protocols: &self.protocols,
                kernel: &self.kernel,
                asked: &self.asked,
                answered: &self.answered,
            }
        }

        fn baseline(&self) -> Baseline {
            let name = NAME.parse().unwrap();
            Baseline::of(self.seen(0), [&name].into_iter())
        }
    }

    fn loss_of(before: Protocol, now: Protocol, percent: u8) -> Option<Lost> {
        let loss = World::of(before)
            .baseline()
            .look(World::of(now).seen(1), percent)?;
        match loss {
            Loss::Session { what, .. } => Some(what),
            other => panic!("{other}"),
        }
    }

    fn loss(now: Protocol) -> Option<Lost> {
        loss_of(established(5), now, 10)
    }

    #[test]
    fn lost_session_and_reset_are_losses() {
        let mut before = World::of(established(5)).baseline();
        let none = World::default();
        let lost = before.look(none.seen(1), 10).unwrap();
        assert_eq!(lost.to_string(), "session peer is not established any more");
        let idle = protocol(BgpState::Idle, 5, 100);
        assert_eq!(loss(idle), Some(Lost::Session));
        assert_eq!(loss(established(9)), Some(Lost::Reset));
    }

    #[test]
    fn restarted_counters_are_a_reset() {
        let mut now = established(5);
        now.channels[0].updates = Some(99);
        assert_eq!(loss(now), Some(Lost::Reset));
    }

    #[test]
    fn missing_keepalives_are_a_loss() {
        let lost = |remaining| loss_of(with_hold(85), with_hold(remaining), 10);
        assert_eq!(lost(30), None);
        let hold = HoldTimer {
            remaining: 29,
            total: 90,
        };
        assert_eq!(lost(29), Some(Lost::Keepalives(hold)));
        // It was so before.
        assert_eq!(loss_of(with_hold(29), with_hold(20), 10), None);
    }

    #[test]
    fn prefixes_beyond_the_share_are_a_loss() {
        let now = |imported| {
            let mut now = protocol(BgpState::Established, 5, imported);
            now.channels[0].updates = Some(1000);
            loss(now)
        };
        assert_eq!(now(90), None);
        assert_eq!(now(89), Some(Lost::Prefixes(100, 89)));
        assert_eq!(now(0), Some(Lost::Prefixes(100, 0)));
        assert_eq!(now(u64::MAX), None);
    }

    #[test]
    fn session_that_was_down_is_not_watched() {
        let down = World::of(protocol(BgpState::Active, 0, 0));
        let mut baseline = down.baseline();
        assert_eq!((baseline.sessions(), baseline.prefixes()), (0, 0));
        assert_eq!(baseline.look(down.seen(1), 0), None);
    }

    #[test]
    fn loss_of_one_prefix_of_none_allowed_is_a_loss() {
        let lost = |percent| {
            let mut now = established(5);
            now.channels[0].routes.as_mut().unwrap().imported = 99;
            loss_of(established(5), now, percent)
        };
        assert!(lost(0).is_some());
        assert_eq!(lost(1), None);
    }

    #[test]
    fn one_prefix_of_few_is_no_loss() {
        let lost = |before, now, percent| {
            let mut after = protocol(BgpState::Established, 5, now);
            after.channels[0].updates = Some(1000);
            loss_of(protocol(BgpState::Established, 5, before), after, percent)
        };
        for before in 2..=9 {
            assert_eq!(lost(before, before - 1, 10), None, "{before}");
            assert!(lost(before, before - 1, 0).is_some(), "{before}");
        }
        assert_eq!(lost(4, 2, 10), Some(Lost::Prefixes(4, 2)));
        assert_eq!(lost(1, 0, 10), Some(Lost::Prefixes(1, 0)), "all of them");
    }

    #[test]
    fn only_the_second_failed_look_in_a_row_counts() {
        let mut doubt = Doubt::default();
        assert_eq!(doubt.judge(Err(1)), Ok(()));
        assert!(doubt.is_open());
        assert_eq!(doubt.judge::<u8>(Ok(())), Ok(()));
        assert!(!doubt.is_open());
        assert_eq!(doubt.judge(Err(2)), Ok(()));
        assert_eq!(doubt.judge(Err(3)), Err(3));
    }

    #[test]
    fn silent_tunnel_is_a_loss() {
        for answers in [true, false] {
            let mut baseline = World::tunnel(7, answers).baseline();
            assert_eq!(baseline.tunnels(), 1);
            let mut look = |received, answers, at| {
                let now = World::tunnel(received, answers);
                baseline.look(now.seen(at), 10)
            };
            assert_eq!(look(8, answers, 10), None);
            assert_eq!(look(8, false, 29), None);
            assert!(matches!(look(8, false, 30), Some(Loss::Silent { .. })));
        }
    }

    /// Keepalives of WireGuard pass although nothing else does.
    #[test]
    fn answering_neighbour_must_answer_again() {
        let mut baseline = World::tunnel(7, true).baseline();
        let lost = baseline.look(World::tunnel(9, false).seen(20), 10);
        assert!(matches!(lost, Some(Loss::Silent { .. })));
    }

    #[test]
    fn tunnel_counts_as_heard_only_after_the_pass() {
        let mut baseline = World::tunnel(7, false).baseline();
        let at = Duration::from_secs;
        assert!(!baseline.is_heard_since(at(0)));
        assert_eq!(baseline.look(World::tunnel(8, false).seen(3), 10), None);
        assert!(baseline.is_heard_since(at(2)) && !baseline.is_heard_since(at(3)));
    }

    #[test]
    fn tunnel_without_a_sign_of_life_is_not_watched() {
        let mut down = World::tunnel(7, false);
        down.protocols.clear();
        assert_eq!(down.baseline().tunnels(), 0);
        let mut unasked = World::tunnel(7, false);
        unasked.asked.clear();
        assert_eq!(unasked.baseline().tunnels(), 0);
    }

    #[test]
    fn deleted_interface_is_a_loss() {
        let mut baseline = World::tunnel(7, true).baseline();
        let lost = baseline.look(World::of(established(5)).seen(1), 10);
        assert!(matches!(lost, Some(Loss::Interface(_))));
    }
}
