//! The conditions of BGP sessions.

use super::*;

#[test]
fn bgp_errors_name_the_rejecting_side() {
    let about = About::BgpEstablished;
    for (error, reason, words, action) in [
        (
            "Received: Bad peer AS",
            "RefusedByNeighbour",
            "rejects this router's AS number, AS64500",
            "AS64500",
        ),
        (
            "Received: Administrative shutdown",
            "RefusedByNeighbour",
            "administratively",
            "ask the peer why",
        ),
        (
            "Received: Cease",
            "RefusedByNeighbour",
            "the neighbour rejects",
            "its log",
        ),
        (
            "BGP Error: Bad peer AS",
            "RefusedByUs",
            "whose AS number is not AS64501",
            "spec.asn",
        ),
        (
            "Socket: Connection refused",
            "RefusedByNeighbour",
            "fe80::2 refuses the connection on TCP port 179",
            "listens there",
        ),
        (
            "Socket: Connection closed",
            "RefusedByNeighbour",
            "closed the connection",
            "knows the address fe80::1 and the AS number AS64500",
        ),
        (
            "Socket: No route to host",
            "NotEstablished",
            "“Socket: No route to host”",
            "ask the peer",
        ),
    ] {
        let down = Case {
            protocols: vec![protocol(BgpState::Active, Some(error))],
            ..case()
        };
        down.expect(about, reason, words, action);
    }
    case().expect(
        about,
        "NotEstablished",
        "BGP bgp_1 is connect, and BIRD reports no error",
        "ping fe80::2; if it answers, compare the session's password",
    );
    let mut another = protocol(BgpState::Active, None);
    another.bgp.as_mut().unwrap().neighbor_address = Some("fe80::7%wg_1".into());
    let another = Case {
        protocols: vec![another],
        ..case()
    };
    another.expect(
        about,
        "WrongAddress",
        "speaks to fe80::7%wg_1, expected fe80::2",
        "spec.address",
    );
    let none = Case {
        protocols: Vec::new(),
        ..case()
    };
    none.expect(
        about,
        "NoProtocol",
        "BIRD has no session bgp_1",
        "moenet-agent plan",
    );
}

#[test]
fn stale_limit_mark_is_not_reported_as_exceeded() {
    let with = |imported: Option<u64>, limit, action: &str| {
        let limit = Limit {
            limit,
            hit: true,
            action: Some(action.to_owned()),
        };
        let routes = imported.map(|imported| Routes {
            imported,
            ..Routes::default()
        });
        let channel = Channel {
            name: "ipv4".into(),
            routes,
            import_limit: Some(limit),
            ..Channel::default()
        };
        let protocol = Protocol {
            channels: vec![channel],
            ..protocol(BgpState::Established, None)
        };
        Case {
            protocols: vec![protocol],
            ..case()
        }
    };
    let hit = with(Some(1), 1, "block");
    hit.expect(
        About::WithinLimits,
        "LimitExceeded",
        "bgp_1 ipv4: import limit of 1 exceeded (block)",
        "raise bgp.importLimit",
    );
    assert_eq!(hit.assess().phase, Phase::Degraded);
    let raised = with(Some(2), 10000, "block");
    assert_eq!(
        raised.about(About::WithinLimits).status,
        ConditionStatus::True
    );
    assert_eq!(raised.assess().phase, Phase::Established);
    let closed = with(None, 5, "disable");
    closed.expect(
        About::WithinLimits,
        "LimitExceeded",
        "import limit of 5 exceeded (disable)",
        "raise the limit",
    );
}

#[test]
fn session_of_the_operator_is_told_as_it_is() {
    let outside = BirdProblem {
        reason: "OperatorsProtocol",
        message: "BIRD runs the session as dn42_a".to_owned(),
        action: "remove protocol dn42_a there".to_owned(),
    };
    let runs = |state: BgpState| Case {
        protocols: vec![protocol(state, None)],
        outside: Some(outside.clone()),
        loaded: false,
        ..case()
    };
    let up = runs(BgpState::Established);
    up.expect(
        About::BirdConfigured,
        "OperatorsProtocol",
        "as dn42_a",
        "remove protocol",
    );
    let established = up.about(About::BgpEstablished).status;
    assert_eq!(established, ConditionStatus::True);
    let status = up.assess();
    assert_eq!(status.phase, Phase::Established);
    assert_eq!(status.bgp.unwrap().state, "established");
    let down = runs(BgpState::Active);
    let established = down.about(About::BgpEstablished).status;
    assert_eq!(established, ConditionStatus::False);
    assert_eq!(down.assess().phase, Phase::Configured);
}
