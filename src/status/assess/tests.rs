use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::document::{Condition, ConditionStatus};
use crate::observed::Mark;
use crate::observed::bird::{Bgp, BgpState, Channel, Limit, ProtocolState, Routes};
use crate::observed::kernel::{LinkKind, WireGuard, WireGuardPeer};

mod bgp;

const NOW: i64 = 1_795_000_000;

/// The facts of a session, which a test changes.
struct Case {
    peer: WireGuardPeer,
    port: Option<u16>,
    missing: Option<&'static str>,
    error: Option<&'static str>,
    acceptance: Acceptance,
    applied: bool,
    service: Service,
    paused: Option<&'static str>,
    held: Option<Hold>,
    overridden: Vec<String>,
    name: Option<NameFacts<'static>>,
    route: Option<RouteFacts>,
    down: Option<&'static str>,
    loaded: bool,
    refused: Option<&'static str>,
    outside: Option<BirdProblem>,
    protocols: Vec<Protocol>,
}

fn protocol(state: BgpState, error: Option<&str>) -> Protocol {
    Protocol {
        name: "bgp_1".into(),
        proto: "BGP".into(),
        table: None,
        state: match state {
            BgpState::Established => ProtocolState::Up,
            _ => ProtocolState::Start,
        },
        since: None,
        info: String::new(),
        description: None,
        message: None,
        bgp: Some(Bgp {
            state,
            last_error: error.map(str::to_owned),
            ..Bgp::default()
        }),
        rpki: None,
        channels: Vec::new(),
    }
}

fn fresh() -> WireGuardPeer {
    WireGuardPeer {
        last_handshake: Timestamp::from_second(NOW - 20).ok(),
        endpoint: "192.0.2.1:1".parse().ok(),
        rx_bytes: 1,
        tx_bytes: 1,
        ..WireGuardPeer::default()
    }
}

/// A session whose tunnel works and whose BGP is down.
fn case() -> Case {
    Case {
        peer: fresh(),
        port: None,
        missing: None,
        error: None,
        acceptance: Acceptance::Valid,
        applied: false,
        service: Service::Enabled,
        paused: None,
        held: None,
        overridden: Vec::new(),
        name: None,
        route: None,
        down: None,
        loaded: true,
        refused: None,
        outside: None,
        protocols: vec![protocol(BgpState::Connect, None)],
    }
}

impl Case {
    fn link(&self, key: PublicKey) -> Link {
        let wireguard = WireGuard {
            peers: BTreeMap::from([(key, self.peer.clone().into())]),
            listen_port: self.port.and_then(|port| port.to_string().parse().ok()),
            ..WireGuard::default()
        };
        Link {
            index: 1,
            kind: LinkKind::WireGuard,
            mtu: 1420,
            up: true,
            mark: Mark::None,
            addrgen_none: true,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            wireguard: Some(wireguard),
            unread: None,
            gre: None,
            learnt: false,
            sysctls: BTreeMap::new(),
        }
    }

    fn assess(&self) -> StatusBody {
        let key = PublicKey::new([1; 32]);
        let link = self.link(key);
        let expected = [Expected {
            protocol: "bgp_1".into(),
            address: "fe80::2".parse().ok(),
            source: "fe80::1".parse().ok(),
        }];
        let bird = BirdFacts {
            down: self.down,
            loaded: self.loaded,
            refused: self.refused,
            blocked: None,
            outside: self.outside.as_ref(),
            trouble: None,
            protocols: &self.protocols,
            expected: &expected,
            our_asn: Some(64500),
            their_asn: Some(64501),
        };
        assess(&Facts {
            now: Timestamp::from_second(NOW).unwrap(),
            object: ObjectFacts {
                path: "sessions/wg_1",
                generation: 1,
                acceptance: self.acceptance.clone(),
                remark: None,
                admin_state: AdminState::Enabled,
                service: self.service,
                operator_owned: false,
                paused: self.paused,
                held: self.held.as_ref(),
                overridden: self.overridden.clone(),
            },
            applied: self.applied,
            error: self.error,
            tunnel: Some(TunnelFacts {
                link: Some(&link),
                peer: Some(key),
                missing: self.missing,
                name: self.name,
                route: self.route,
                babel: None,
            }),
            bird: Some(bird),
            rtt_ms: None,
            loss: None,
            steps: Vec::new(),
            before: &StatusBody::default(),
        })
    }

    fn about(&self, about: About) -> Condition {
        let conditions = self.assess().conditions;
        let mut conditions = conditions.into_iter();
        conditions
            .find(|condition| condition.condition_type == about)
            .unwrap()
    }

    /// Checks the reason of a condition that is not true, and words of its message and of its next action.
    #[track_caller]
    fn expect(&self, about: About, reason: &str, words: &str, action: &str) {
        let found = self.about(about);
        assert_ne!(found.status, ConditionStatus::True, "{found:#?}");
        assert_eq!(found.reason, reason, "{found:#?}");
        assert!(found.message.contains(words), "{words:?}: {found:#?}");
        let next = found.next_action.as_deref().unwrap_or_default();
        assert!(
            !next.is_empty() && next.contains(action),
            "{action:?}: {found:#?}"
        );
    }
}

#[test]
fn session_that_is_up_needs_no_action() {
    let up = Case {
        protocols: vec![protocol(BgpState::Established, None)],
        ..case()
    };
    let status = up.assess();
    let is_good = |it: &Condition| it.status == ConditionStatus::True && it.next_action.is_none();
    assert!(status.conditions.iter().all(is_good), "{status:#?}");
    assert_eq!(status.phase, Phase::Established);
}

#[test]
fn rejected_documents_say_what_stays_active() {
    let with = |acceptance, applied| Case {
        acceptance,
        applied,
        ..case()
    };
    let invalid = || Acceptance::Invalid("why".into());
    with(invalid(), false).expect(About::Accepted, "Invalid", "why", "is not configured");
    with(invalid(), true).expect(
        About::Accepted,
        "Invalid",
        "why",
        "the previous configuration stays active",
    );
    let clash = Acceptance::Clash("why".into());
    with(clash, false).expect(About::Accepted, "Clash", "why", "moenet-agent get");
    let waiting = Acceptance::Waiting("why".into());
    with(waiting, false).expect(About::Accepted, "Waiting", "why", "describe node");
}

#[test]
fn out_of_service_names_the_way_back() {
    let maintenance = Some(Timestamp::from_second(NOW).ok());
    let drained = |maintenance, loaded| Service::Drained {
        maintenance,
        loaded,
    };
    for (service, reason, words, action) in [
        (
            Service::Disabled,
            "Disabled",
            "adminState is Disabled",
            "override",
        ),
        (
            Service::PendingReview,
            "PendingReview",
            "waits for approval",
            "approve",
        ),
        (Service::Absent, "Absent", "or it has no document", "wait"),
        (
            Service::MeshDisabled,
            "MeshDisabled",
            "mesh.enabled",
            "mesh.enabled: true",
        ),
        (
            Service::OwnNode,
            "OwnNode",
            "this router's own",
            "spec.nodeId",
        ),
        (
            Service::ClosedByMaintenance,
            "ClosedByMaintenance",
            "external sessions are closed",
            "maintenance stop",
        ),
        (
            drained(maintenance, true),
            "Drained",
            "drained (graceful shutdown, RFC 8326): the router is in maintenance since 20",
            "maintenance stop",
        ),
        (
            drained(maintenance, false),
            "Drained",
            "to be drained",
            "maintenance stop",
        ),
        (
            drained(None, true),
            "Drained",
            "bgp.drained is true",
            "bgp.drained: false",
        ),
    ] {
        let off = Case { service, ..case() };
        off.expect(About::InService, reason, words, action);
    }
}

#[test]
fn pause_and_held_removal_name_the_way_out() {
    let paused = Case {
        paused: Some("why"),
        ..case()
    };
    paused.expect(
        About::InService,
        "Paused",
        "writes nothing: why",
        "overrides/sessions/wg_1.yaml",
    );
    let withheld = Case {
        missing: Some("x"),
        ..paused
    };
    withheld.expect(About::TunnelConfigured, "Drift", "x", "see InService first");
    let held = Case {
        held: Some(Hold::Approval("why".into())),
        ..case()
    };
    let found = held.about(About::RemovalHeld);
    let action = found.next_action.unwrap_or_default();
    assert!(action.contains("approve sessions/wg_1`"), "{action}");
}

#[test]
fn override_is_named_at_its_first_consequence_only() {
    let never = WireGuardPeer {
        tx_bytes: 5,
        ..WireGuardPeer::default()
    };
    let fields = ["spec.asn", "spec.tunnel.endpoint", "spec.tunnel.mtu"];
    let overridden = Case {
        peer: never,
        missing: Some("x"),
        overridden: fields.map(str::to_owned).into(),
        ..case()
    };
    let hint = "an override sets spec.tunnel.endpoint: `moenet-agent diff sessions/wg_1`";
    overridden.expect(About::TunnelConfigured, "Drift", "x", hint);
    let handshake = overridden.about(About::HandshakeRecent).next_action;
    assert!(!handshake.unwrap_or_default().contains("override"));
    overridden.expect(
        About::BgpEstablished,
        "NotEstablished",
        "",
        "an override sets spec.asn:",
    );
}

#[test]
fn silent_peer_is_explained_by_the_direction_of_packets() {
    let with = |peer| Case { peer, ..case() };
    let endpoint = "192.0.2.1:1".parse().ok();
    let sent = WireGuardPeer {
        tx_bytes: 148,
        endpoint,
        ..WireGuardPeer::default()
    };
    let never = |case: &Case, words: &str, action: &str| {
        case.expect(About::HandshakeRecent, "Never", words, action);
    };
    never(
        &with(sent.clone()),
        "packets were sent to 192.0.2.1:1, and no valid WireGuard packet was received",
        "firewalls",
    );
    let answered = WireGuardPeer {
        rx_bytes: 9,
        ..sent.clone()
    };
    never(&with(answered), "to this router's key", "preshared keys");
    let waits = Case {
        port: Some(5),
        ..with(WireGuardPeer::default())
    };
    never(
        &waits,
        "no packet was received on UDP port 5",
        "ask the peer to connect to that port",
    );
    let idle = WireGuardPeer {
        endpoint,
        ..WireGuardPeer::default()
    };
    never(
        &with(idle),
        "no packet was sent to 192.0.2.1:1",
        "persistentKeepalive",
    );
    let stale = WireGuardPeer {
        last_handshake: Timestamp::from_second(NOW - 600).ok(),
        ..fresh()
    };
    let stale = with(stale);
    stale.expect(
        About::HandshakeRecent,
        "Stale",
        "three minutes",
        "it worked before",
    );
    stale.expect(
        About::BgpEstablished,
        "NotEstablished",
        "",
        "see HandshakeRecent first",
    );
    let counts = WireGuardPeer {
        tx_bytes: 149,
        ..sent.clone()
    };
    assert!(!crate::status::changed(
        &with(sent).assess(),
        &with(counts).assess()
    ));
}

#[test]
fn own_side_comes_before_the_peer() {
    let name = NameFacts {
        host: "peer.example",
        address: None,
        error: Some("NXDOMAIN"),
    };
    let unresolved = Case {
        peer: WireGuardPeer::default(),
        name: Some(name),
        ..case()
    };
    unresolved.expect(
        About::EndpointResolved,
        "NotResolved",
        "NXDOMAIN",
        "getent ahosts peer.example",
    );
    unresolved.expect(
        About::HandshakeRecent,
        "Never",
        "",
        "see EndpointResolved first",
    );
    let no_route = Case {
        peer: WireGuardPeer::default(),
        route: Some(RouteFacts {
            to: "192.0.2.1".parse().unwrap(),
            found: false,
        }),
        ..case()
    };
    no_route.expect(
        About::EndpointRouted,
        "NoRoute",
        "no route to 192.0.2.1",
        "ip route get 192.0.2.1",
    );
    no_route.expect(
        About::HandshakeRecent,
        "Never",
        "",
        "see EndpointRouted first",
    );
}

#[test]
fn tunnel_that_differs_names_the_plan() {
    let with = |missing, error| Case {
        missing,
        error,
        ..case()
    };
    let about = About::TunnelConfigured;
    let plan = "moenet-agent plan sessions/wg_1";
    with(Some("mtu: want 1, have 2"), None).expect(about, "Drift", "want 1, have 2", plan);
    with(Some("x"), Some("EPERM")).expect(about, "Failed", "EPERM", plan);
}

#[test]
fn bird_is_named_for_its_own_faults() {
    let refused = Case {
        refused: Some("syntax error"),
        ..case()
    };
    refused.expect(
        About::BirdConfigured,
        "Refused",
        "syntax error",
        "correct the template",
    );
    refused.expect(
        About::BgpEstablished,
        "NotEstablished",
        "",
        "see BirdConfigured first",
    );
    let unloaded = Case {
        loaded: false,
        ..case()
    };
    unloaded.expect(About::BirdConfigured, "NotLoaded", "not loaded", "wait");
    let down = Case {
        down: Some("BIRD is not running (/run/bird.ctl)"),
        ..case()
    };
    for about in [
        About::BirdConfigured,
        About::BgpEstablished,
        About::WithinLimits,
    ] {
        down.expect(about, "NotRunning", "/run/bird.ctl", "systemctl start bird");
    }
}
