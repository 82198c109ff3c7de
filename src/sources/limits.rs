//! Limits of BGP channels: logs one line when a limit is exceeded, and reloads the routes that an
//! import limit held back once there is room. BIRD drops routes over the limit and does not import
//! them when the limit is raised or other routes are withdrawn (2.0.12 to 3.4, measured); its
//! import table still has them. Routes that a receive limit held back are not in that table, so
//! only a new session brings them, and the operator has to restart it: BIRD does not report whether
//! there is room again. BIRD 2 forgets at a reload of the channel that the limit is hit, and BIRD 3
//! reports it as hit until the session ends (2.0.12 and 3.4, measured).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::bird::Client;
use crate::observed::bird::{BirdName, BirdState, Limit, Protocol};
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;

/// Protocol and channel.
type Which = (String, String);

/// The channels that exceed a limit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exceeded {
    /// A receive limit of this size holds routes back.
    receive: BTreeMap<Which, u64>,
    /// An import limit of this size holds routes back.
    import: BTreeMap<Which, u64>,
    /// More routes are announced than this limit.
    export: BTreeMap<Which, u64>,
}

impl Exceeded {
    fn of(protocols: &[Protocol]) -> Self {
        let mut found = Self::default();
        let channels = protocols
            .iter()
            .flat_map(|p| p.channels.iter().map(move |channel| (p, channel)));
        for (protocol, channel) in channels.filter(|(protocol, _)| protocol.bgp.is_some()) {
            let which = || (protocol.name.clone(), channel.name.clone());
            let hit = |limit: &Option<Limit>| {
                limit
                    .as_ref()
                    .filter(|limit| limit.hit)
                    .map(|l| (which(), l.limit))
            };
            found.receive.extend(hit(&channel.receive_limit));
            found.import.extend(hit(&channel.import_limit));
            found.export.extend(hit(&channel.export_limit));
        }
        found
    }

    /// The established protocols whose import limit held routes back at the last observation and no longer does.
    fn relieved(&self, before: &Self, protocols: &[Protocol]) -> BTreeSet<BirdName> {
        let up = |name: &str| {
            protocols
                .iter()
                .any(|p| p.name == name && p.is_established())
        };
        let gone = before
            .import
            .keys()
            .filter(|which| !self.import.contains_key(*which));
        gone.filter(|(name, _)| up(name))
            .filter_map(|(name, _)| BirdName::new(name).ok())
            .sorted_set()
    }
}

/// Watches limits until the agent stops, at every observation of BIRD by the controller: one every
/// few seconds at rest, and one before and after each change, so that a limit which is hit and
/// raised is seen as both.
pub(crate) async fn run(
    client: Client,
    mut looks: watch::Receiver<Arc<BirdState>>,
    stop: CancellationToken,
) {
    let mut before = Exceeded::default();
    loop {
        let look = tokio::select! {
            () = stop.cancelled() => return,
            look = looks.changed() => look,
        };
        if look.is_err() {
            return;
        }
        let bird = Arc::clone(&looks.borrow_and_update());
        // If BIRD does not answer, no limit counts as relieved.
        if !bird.is_running() {
            continue;
        }
        let now = Exceeded::of(&bird.protocols);
        for name in now.relieved(&before, &bird.protocols) {
            match client.reload_in(name.clone()).await {
                Ok(()) => {
                    info!(protocol = %name, "below the import limit, reloading held-back routes")
                }
                Err(error) => {
                    warn!(protocol = %name, error = %chain(&error), "reload of held-back routes failed")
                }
            }
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::{Bgp, BgpState, Channel};

    fn protocols(receive_hit: bool, import_hit: bool, up: bool) -> Vec<Protocol> {
        let text = "1002-ebgp_x BGP --- up 1 Established\n1006-\n0000 \n";
        let reply = crate::observed::bird::framing::Decoder::new()
            .push(text.as_bytes())
            .unwrap()
            .unwrap();
        let mut protocols = crate::observed::bird::protocols::parse(&reply);
        let state = if up {
            BgpState::Established
        } else {
            BgpState::Idle
        };
        protocols[0].bgp = Some(Bgp {
            state,
            ..Bgp::default()
        });
        let limit = |hit| {
            Some(Limit {
                limit: 5,
                hit,
                action: None,
            })
        };
        let (receive_limit, import_limit) = (limit(receive_hit), limit(import_hit));
        protocols[0].channels = vec![
            Channel {
                name: "ipv4".into(),
                receive_limit,
                import_limit,
                ..Channel::default()
            },
            Channel {
                name: "ipv6".into(),
                export_limit: limit(true),
                ..Channel::default()
            },
        ];
        protocols
    }

    #[test]
    fn held_back_routes_are_reloaded_once_below_the_limit() {
        let (at_limit, below) = (protocols(false, true, true), protocols(false, false, true));
        let (full, free) = (Exceeded::of(&at_limit), Exceeded::of(&below));
        assert_eq!(
            (full.import.len(), full.export.len(), free.import.len()),
            (1, 1, 0)
        );
        let relieved = free.relieved(&full, &below);
        assert_eq!(
            relieved.iter().map(BirdName::as_str).collect::<Vec<_>>(),
            ["ebgp_x"]
        );
        assert!(free.relieved(&free, &below).is_empty());
        assert!(full.relieved(&full, &at_limit).is_empty());
        let down = protocols(false, false, false);
        assert!(
            free.relieved(&full, &down).is_empty(),
            "a new session sends all routes again"
        );
    }

    #[test]
    fn a_receive_limit_that_is_hit_no_more_brings_nothing() {
        let (flood, below) = (protocols(true, false, true), protocols(false, false, true));
        let (full, free) = (Exceeded::of(&flood), Exceeded::of(&below));
        assert_eq!((full.receive.len(), free.receive.len()), (1, 0));
        assert!(free.relieved(&full, &below).is_empty());
    }
}
