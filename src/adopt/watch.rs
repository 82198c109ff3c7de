//! What running sessions lose while an adoption is watched.

use std::collections::BTreeMap;
use std::fmt;

use crate::observed::bird::Protocol;

/// The established sessions before an adoption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baseline {
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    since: Option<i64>,
    imported: u64,
}

/// A loss for which an adoption is undone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Loss {
    pub session: String,
    pub what: Lost,
}

/// What a session lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The session is not established any more.
    Session,
    /// It was reset meanwhile.
    Reset,
    /// Imported prefixes, before and now.
    Prefixes(u64, u64),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = &self.session;
        match self.what {
            Lost::Session => write!(f, "session {session} is not established any more"),
            Lost::Reset => write!(f, "session {session} was reset"),
            Lost::Prefixes(before, now) => {
                write!(
                    f,
                    "session {session} imports {now} prefixes instead of {before}"
                )
            }
        }
    }
}

impl Baseline {
    pub fn of(protocols: &[Protocol]) -> Self {
        let established = protocols.iter().filter(|it| it.is_established());
        let sessions = established.map(|protocol| (protocol.name.clone(), session(protocol)));
        Self {
            sessions: sessions.collect(),
        }
    }

    /// Returns the number of watched sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of their imported prefixes.
    pub fn prefixes(&self) -> u64 {
        self.sessions.values().map(|it| it.imported).sum()
    }

    /// Returns the first loss: a session that is down or was reset, or one that lost more than `percent` of its prefixes.
    pub fn loss(&self, protocols: &[Protocol], percent: u8) -> Option<Loss> {
        let now: BTreeMap<_, _> = protocols.iter().map(|it| (&it.name, it)).collect();
        self.sessions.iter().find_map(|(name, before)| {
            let protocol = now.get(name).filter(|it| it.is_established());
            let what = match protocol.map(|it| session(it)) {
                None => Lost::Session,
                Some(now) if before.since.is_some() && now.since != before.since => Lost::Reset,
                Some(now) => {
                    let lost = before.imported.saturating_sub(now.imported);
                    let most = before.imported.saturating_mul(u64::from(percent));
                    let is_lost = lost.saturating_mul(100) > most;
                    is_lost.then_some(Lost::Prefixes(before.imported, now.imported))?
                }
            };
            Some(Loss {
                session: name.clone(),
                what,
            })
        })
    }
}

fn session(protocol: &Protocol) -> Session {
    let routes = protocol.channels.iter().filter_map(|it| it.routes);
    Session {
        since: protocol.since,
        imported: routes.map(|it| it.imported).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::{Bgp, BgpState, Channel, ProtocolState, Routes};

    fn protocol(state: BgpState, since: Option<i64>, imported: u64) -> Protocol {
        Protocol {
            name: "peer".into(),
            proto: "BGP".into(),
            table: None,
            state: ProtocolState::Up,
            since,
            info: String::new(),
            description: None,
            message: None,
            bgp: Some(Bgp {
                state,
                ..Bgp::default()
            }),
            rpki: None,
            channels: vec![Channel {
                routes: Some(Routes {
                    imported,
                    ..Routes::default()
                }),
                ..Channel::default()
            }],
        }
    }

    fn loss(now: Protocol) -> Option<Lost> {
        let before = protocol(BgpState::Established, Some(5), 100);
        let loss = Baseline::of(&[before]).loss(&[now], 10);
        loss.map(|loss| loss.what)
    }

    #[test]
    fn lost_session_and_reset_are_losses() {
        let before = Baseline::of(&[protocol(BgpState::Established, None, 0)]);
        assert_eq!(before.loss(&[], 10).unwrap().what, Lost::Session);
        let idle = protocol(BgpState::Idle, Some(5), 100);
        assert_eq!(loss(idle), Some(Lost::Session));
        let reset = protocol(BgpState::Established, Some(6), 100);
        assert_eq!(loss(reset), Some(Lost::Reset));
    }

    #[test]
    fn prefixes_beyond_the_share_are_a_loss() {
        let now = |imported| loss(protocol(BgpState::Established, Some(5), imported));
        assert_eq!(now(90), None);
        assert_eq!(now(89), Some(Lost::Prefixes(100, 89)));
        assert_eq!(now(0), Some(Lost::Prefixes(100, 0)));
        assert_eq!(now(u64::MAX), None);
    }

    #[test]
    fn session_that_was_down_is_not_watched() {
        let down = protocol(BgpState::Active, None, 0);
        let baseline = Baseline::of(std::slice::from_ref(&down));
        assert_eq!((baseline.sessions(), baseline.prefixes()), (0, 0));
        assert_eq!(baseline.loss(&[down], 0), None);
    }

    #[test]
    fn loss_of_one_prefix_of_none_allowed_is_a_loss() {
        let before = Baseline::of(&[protocol(BgpState::Established, None, 1000)]);
        let now = protocol(BgpState::Established, None, 999);
        assert!(before.loss(std::slice::from_ref(&now), 0).is_some());
        assert_eq!(before.loss(&[now], 1), None);
    }
}
