//! Limits of BGP channels: one line in the log when one is exceeded, and what an import limit held back is
//! fetched once there is room. BIRD drops what is over the limit and does not come back to it when the limit
//! is raised or other routes go (2.0.12 to 3.4, measured); its import table still has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Parts;
use crate::bird::{BirdName, Protocol};
use crate::telemetry::chain;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);
/// How old the look at BIRD may be that is shared with others.
const FRESH: Duration = Duration::from_secs(5);

/// Protocol and channel.
type Which = (String, String);

/// The channels that exceed a limit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exceeded {
    /// Routes are held back, by an import or receive limit of so many.
    import: BTreeMap<Which, u64>,
    /// More is announced than the limit of so many.
    export: BTreeMap<Which, u64>,
}

impl Exceeded {
    fn of(protocols: &[Protocol]) -> Self {
        let mut found = Self::default();
        let channels = protocols.iter().flat_map(|p| p.channels.iter().map(move |channel| (p, channel)));
        for (protocol, channel) in channels.filter(|(protocol, _)| protocol.bgp.is_some()) {
            let which = || (protocol.name.clone(), channel.name.clone());
            let import =
                [&channel.import_limit, &channel.receive_limit].into_iter().flatten().find(|l| l.hit);
            found.import.extend(import.map(|limit| (which(), limit.limit)));
            let export = channel.export_limit.as_ref().filter(|limit| limit.hit);
            found.export.extend(export.map(|limit| (which(), limit.limit)));
        }
        found
    }

    /// The protocols, up by now, that held routes back at the last look and do not any more.
    fn relieved(&self, before: &Self, protocols: &[Protocol]) -> Vec<BirdName> {
        let relieved = |protocol: &&Protocol| {
            let was = |(name, _): &Which| *name == protocol.name;
            protocol.is_established()
                && before.import.keys().any(was)
                && before
                    .import
                    .keys()
                    .filter(|which| was(which))
                    .any(|which| !self.import.contains_key(which))
        };
        let names = protocols.iter().filter(relieved).map(|protocol| BirdName::new(&protocol.name));
        names.flatten().collect()
    }
}

/// Looks after limits until the agent stops.
pub(super) async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let mut before = Exceeded::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let not_before = Instant::now().checked_sub(FRESH).unwrap_or_else(Instant::now);
        let bird = parts.context.observer.bird(not_before).await;
        // A BIRD that does not answer has not let go of anything.
        if !bird.is_running() {
            continue;
        }
        let now = Exceeded::of(&bird.protocols);
        tell(&now, &before);
        for name in now.relieved(&before, &bird.protocols) {
            match parts.bird().reload_in(name.clone()).await {
                Ok(()) => info!(protocol = %name, "below its limit again; what was held back is taken"),
                Err(error) => {
                    warn!(protocol = %name, error = %chain(&error), "what was held back cannot be taken")
                }
            }
        }
        before = now;
    }
}

fn tell(now: &Exceeded, before: &Exceeded) {
    for ((protocol, channel), limit) in
        now.import.iter().filter(|(which, _)| !before.import.contains_key(*which))
    {
        warn!(protocol, channel, limit, "import limit exceeded; more routes are not taken");
    }
    for ((protocol, channel), limit) in
        now.export.iter().filter(|(which, _)| !before.export.contains_key(*which))
    {
        warn!(protocol, channel, limit, "export limit exceeded; the routes are announced all the same");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bird::protocols::{Bgp, BgpState, Channel, Limit};

    fn protocols(import_hit: bool, up: bool) -> Vec<Protocol> {
        let text = "1002-ebgp_x BGP --- up 1 Established\n1006-\n0000 \n";
        let reply = crate::bird::framing::Decoder::new().push(text.as_bytes()).unwrap().unwrap();
        let mut protocols = crate::bird::protocols::parse(&reply);
        let state = if up { BgpState::Established } else { BgpState::Idle };
        protocols[0].bgp = Some(Bgp { state, ..Bgp::default() });
        let limit = |hit| Some(Limit { limit: 5, hit, action: None });
        protocols[0].channels = vec![
            Channel { name: "ipv4".into(), import_limit: limit(import_hit), ..Channel::default() },
            Channel { name: "ipv6".into(), export_limit: limit(true), ..Channel::default() },
        ];
        protocols
    }

    #[test]
    fn what_was_held_back_is_fetched_once_when_there_is_room() {
        let (full, free) = (Exceeded::of(&protocols(true, true)), Exceeded::of(&protocols(false, true)));
        assert_eq!((full.import.len(), full.export.len(), free.import.len()), (1, 1, 0));
        let relieved = free.relieved(&full, &protocols(false, true));
        assert_eq!(relieved.iter().map(BirdName::as_str).collect::<Vec<_>>(), ["ebgp_x"]);
        assert!(free.relieved(&free, &protocols(false, true)).is_empty());
        assert!(full.relieved(&full, &protocols(true, true)).is_empty());
        assert!(free.relieved(&full, &protocols(false, false)).is_empty(), "a new session says all anew");
    }
}
