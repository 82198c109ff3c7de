//! Observed state of BIRD.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Neighbour, Wanted, condition, since};
use crate::cli::describe::why::{Bird, Session};
use crate::cli::offline::Offline;
use crate::controller::world::Object;
use crate::document::{ConditionType, Kind, StatusBody};
use crate::model::ObjectKey;
use crate::observed::bird::{BgpState, Channel, Protocol, ProtocolState};
use crate::plan::Action;

pub(super) fn bird(
    offline: &Offline,
    object: &Object,
    wanted: &Wanted<'_>,
    status: Option<&StatusBody>,
) -> Option<Bird> {
    if object.kind == Kind::MeshPeer {
        return None;
    }
    let state = &offline.bird;
    let find = |name: &String| {
        state
            .protocols
            .iter()
            .find(|protocol| protocol.name == *name)
    };
    let sessions = wanted
        .protocols
        .iter()
        .map(|neighbour| match find(&neighbour.protocol) {
            Some(protocol) => session(protocol, neighbour),
            None => Session {
                protocol: neighbour.protocol.clone(),
                ..Session::default()
            },
        });
    let base = offline.plan(&ObjectKey::Router);
    let of_base =
        |action: &Action| matches!(action, Action::WriteBase { .. } | Action::RemoveBase { .. });
    let router = offline.world.router.as_ref().ok();
    let our_asn = router.map(|router| router.asn.get());
    let their_asn = object
        .spec
        .as_ref()
        .and_then(|spec| u32::try_from(spec.get("asn")?.as_u64()?).ok());
    Some(Bird {
        running: state.is_running(),
        refused: condition(status, ConditionType::BirdConfigured, "Refused"),
        trouble: condition(status, ConditionType::BirdConfigured, "Failed"),
        loaded: state.loaded,
        base_current: base.is_ok_and(|plan| !plan.steps.iter().any(|step| of_base(&step.action))),
        our_asn,
        their_asn: their_asn.or(our_asn),
        sessions: sessions.collect(),
    })
}

fn session(protocol: &Protocol, wanted: &Neighbour) -> Session {
    let bgp = protocol.bgp.as_ref();
    let has = bgp.and_then(|bgp| bgp.neighbor_address.clone());
    Session {
        protocol: protocol.name.clone(),
        state: bgp.map(|bgp| state_word(&bgp.state)),
        age: protocol.since.map(since),
        established: protocol.is_established(),
        off: protocol.state == ProtocolState::Down,
        last_error: bgp.and_then(|bgp| bgp.last_error.clone()),
        message: protocol.message.clone(),
        neighbour: wanted.address,
        has: has.filter(|has| wanted.address.is_some_and(|wanted| is_another(has, wanted))),
        source: wanted.source,
        answers: None,
        others: BTreeSet::new(),
        limits: limits(&protocol.channels),
    }
}

/// Returns a BGP state in BIRD's own word.
pub(in crate::cli::describe) fn state_word(state: &BgpState) -> String {
    match state {
        BgpState::Other(word) => word.clone(),
        known => format!("{known:?}"),
    }
}

/// Returns whether BIRD's neighbour differs from the wanted one.
fn is_another(has: &str, wanted: IpAddr) -> bool {
    let bare = has.split('%').next().unwrap_or_default();
    bare.parse::<IpAddr>().is_ok_and(|bare| bare != wanted)
}

/// Returns the limits that are exceeded now. BIRD 3 keeps the mark of a limit that was raised since (seen on 3.1.8), so
/// the route count decides where possible. It cannot for a receive limit, because it does not include rejected routes.
fn limits(channels: &[Channel]) -> Vec<String> {
    let named = channels.iter().flat_map(|channel| {
        let all = [
            (
                "import",
                &channel.import_limit,
                channel.routes.map(|routes| routes.imported),
            ),
            ("receive", &channel.receive_limit, None),
            (
                "export",
                &channel.export_limit,
                channel.routes.map(|routes| routes.exported),
            ),
        ];
        all.into_iter().filter_map(move |(word, limit, count)| {
            let limit = limit.as_ref().filter(|limit| limit.hit)?;
            if count.is_some_and(|count| count < limit.limit) {
                return None;
            }
            let action = limit
                .action
                .as_ref()
                .map(|action| format!(" ({action})"))
                .unwrap_or_default();
            Some(format!(
                "{} {word} limit of {}{action}",
                channel.name, limit.limit
            ))
        })
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::{Limit, Routes};

    #[test]
    fn stale_limit_mark_is_not_reported_as_exceeded() {
        let told = |imported, limit| {
            let routes = Some(Routes {
                imported,
                ..Routes::default()
            });
            let limit = Some(Limit {
                limit,
                hit: true,
                action: Some("block".into()),
            });
            limits(&[Channel {
                name: "ipv4".into(),
                routes,
                import_limit: limit,
                ..Channel::default()
            }])
        };
        assert_eq!(told(1, 1), ["ipv4 import limit of 1 (block)"]);
        assert_eq!(told(2, 10000), Vec::<String>::new());
        let limit = Some(Limit {
            limit: 5,
            hit: true,
            action: Some("disable".into()),
        });
        let closed = Channel {
            name: "ipv6".into(),
            import_limit: limit,
            ..Channel::default()
        };
        assert_eq!(limits(&[closed]), ["ipv6 import limit of 5 (disable)"]);
    }
}
