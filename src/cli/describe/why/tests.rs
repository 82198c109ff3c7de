use super::*;

fn bgp(state: &str, error: Option<&str>) -> Option<Bird> {
    let session = Session {
        protocol: "bgp_1".into(),
        state: Some(state.into()),
        established: state == "Established",
        last_error: error.map(str::to_owned),
        neighbour: "fe80::2".parse().ok(),
        source: "fe80::1".parse().ok(),
        ..Session::default()
    };
    let (our_asn, their_asn) = (Some(64500), Some(64501));
    let state = Bird {
        running: true,
        loaded: true,
        base_current: true,
        our_asn,
        their_asn,
        ..Bird::default()
    };
    Some(Bird {
        sessions: vec![session],
        ..state
    })
}

fn with_session(facts: &Facts, change: impl FnOnce(&mut Session)) -> Facts {
    let mut facts = facts.clone();
    change(
        facts
            .bird
            .as_mut()
            .and_then(|bird| bird.sessions.first_mut())
            .unwrap(),
    );
    facts
}

fn with_peer(peer: Peer) -> Facts {
    let link = Some(Link::Up("wg_1".into(), Some(peer)));
    let tunnel = Tunnel {
        link,
        agent_runs: true,
        ..Tunnel::default()
    };
    let documents = Documents {
        object: "sessions/wg_1".into(),
        ..Documents::default()
    };
    Facts {
        documents,
        tunnel,
        bird: bgp("Connect", None),
    }
}

fn fresh() -> Peer {
    Peer {
        handshake_age: Some(20),
        received: 1,
        sent: 1,
        endpoint: Some("192.0.2.1:1".into()),
        ..Peer::default()
    }
}

fn documents(facts: &Facts, documents: Documents) -> Facts {
    Facts {
        documents: Documents {
            object: "sessions/wg_1".into(),
            ..documents
        },
        ..facts.clone()
    }
}

fn reasons(facts: &Facts) -> Vec<Reason> {
    chain(facts).iter().map(|cause| cause.reason).collect()
}

/// Checks the reasons of the chain, and words of its first message.
#[track_caller]
fn expect(facts: &Facts, wanted: &[Reason], words: &str) {
    let chain = chain(facts);
    assert_eq!(reasons(facts), wanted, "{chain:#?}");
    assert!(
        chain
            .first()
            .is_some_and(|first| first.message.contains(words)),
        "{words:?}: {chain:#?}"
    );
}

use Reason::BgpNotEstablished as Down;

#[test]
fn nothing_is_said_of_a_session_that_is_up() {
    let stale = Peer {
        handshake_age: Some(1000),
        ..fresh()
    };
    let up = Facts {
        bird: bgp("Established", None),
        ..with_peer(stale)
    };
    assert_eq!(chain(&up), []);
    assert!(is_up(&up));
}

#[test]
fn documents_come_before_everything_that_follows_from_them() {
    let why = || Some("why".to_owned());
    let down = with_peer(fresh());
    let with = |change| documents(&down, change);
    expect(
        &with(Documents {
            invalid: why(),
            ..Documents::default()
        }),
        &[Reason::DocumentInvalid, Down],
        "it is not configured",
    );
    let kept = Documents {
        invalid: why(),
        in_force: true,
        ..Documents::default()
    };
    expect(
        &with(kept),
        &[Reason::DocumentInvalid, Down],
        "the previous configuration stays active: why",
    );
    expect(
        &with(Documents {
            clash: why(),
            ..Documents::default()
        }),
        &[Reason::Clash, Down],
        "clashes",
    );
    expect(
        &with(Documents {
            paused: why(),
            ..Documents::default()
        }),
        &[Reason::Paused, Down],
        "paused",
    );
    expect(
        &with(Documents {
            held: why(),
            ..Documents::default()
        }),
        &[Reason::RemovalHeld, Down],
        "waits for approval: why",
    );
    expect(
        &with(Documents {
            waiting: why(),
            ..Documents::default()
        }),
        &[Reason::Waiting, Down],
        "cannot be made yet",
    );
}

#[test]
fn what_is_not_wanted_needs_no_other_cause() {
    let down = with_peer(Peer::default());
    for (off, reason) in [
        (Off::Disabled, Reason::Disabled),
        (Off::Pending, Reason::PendingReview),
        (Off::Absent, Reason::ToBeGone),
        (Off::MeshDisabled, Reason::Disabled),
        (Off::Ourselves, Reason::Disabled),
    ] {
        expect(
            &documents(
                &down,
                Documents {
                    off: Some(off),
                    ..Documents::default()
                },
            ),
            &[reason],
            "",
        );
    }
}

#[test]
fn override_is_ranked_before_its_own_consequences_only() {
    let field = |name: &str, here: serde_json::Value, document: serde_json::Value| Overridden {
        field: name.into(),
        here,
        document,
    };
    let with = |fields| {
        let exception = Some(Exception {
            reason: "a test".into(),
            until: None,
            fields,
        });
        documents(
            &with_peer(Peer {
                sent: 5,
                ..Peer::default()
            }),
            Documents {
                exception,
                ..Documents::default()
            },
        )
    };
    let endpoint = || field("spec.tunnel.endpoint", "a:1".into(), "b:1".into());
    let mtu = || field("spec.tunnel.mtu", 1380.into(), 1420.into());
    let asn = || field("spec.asn", 1.into(), 2.into());
    expect(
        &with(vec![asn(), endpoint(), mtu()]),
        &[
            Reason::Overridden,
            Reason::NeverHandshake,
            Reason::Overridden,
            Down,
        ],
        "spec.tunnel.endpoint to a:1 (the Control Plane says b:1): a test.",
    );
    expect(&with(vec![mtu()]), &[Reason::NeverHandshake, Down], "never");
    let none = with(vec![field(
        "spec.address.peerLinkLocal",
        "fe80::9".into(),
        serde_json::Value::Null,
    )]);
    let told = chain(&none);
    assert!(
        told[1]
            .message
            .contains("the Control Plane says nothing of it"),
        "{told:#?}"
    );
}

#[test]
fn a_link_that_is_not_there_is_the_root() {
    let with = |link| Facts {
        tunnel: Tunnel {
            link: Some(link),
            agent_runs: true,
            drift: vec!["x: want 1, have 2".into()],
            ..Tunnel::default()
        },
        ..with_peer(fresh())
    };
    expect(
        &with(Link::Missing("wg_1".into())),
        &[Reason::NoLink, Down],
        "There is no link wg_1",
    );
    expect(
        &with(Link::Foreign("wg_1".into(), "no mark".into(), "x")),
        &[Reason::ForeignLink, Down],
        "not ours (no mark)",
    );
    expect(
        &with(Link::Down("wg_1".into())),
        &[Reason::LinkDown, Reason::Drift, Down],
        "is down",
    );
}

#[test]
fn unresolved_name_is_ranked_before_missing_handshake() {
    let mut facts = with_peer(Peer::default());
    facts.tunnel.unresolved = Some(("peer.example".into(), "NXDOMAIN".into()));
    expect(
        &facts,
        &[Reason::NameNotResolved, Reason::NeverHandshake, Down],
        "peer.example does not resolve: NXDOMAIN",
    );
}

#[test]
fn a_name_keeps_only_gre_from_having_a_link() {
    let mut facts = with_peer(Peer::default());
    facts.tunnel.unresolved = Some(("peer.example".into(), "NXDOMAIN".into()));
    facts.tunnel.link = Some(Link::Missing("wg_1".into()));
    expect(
        &facts,
        &[Reason::NoLink, Reason::NameNotResolved, Down],
        "There is no link",
    );
    facts.tunnel.needs_address = true;
    expect(
        &facts,
        &[Reason::NameNotResolved, Reason::NoLink, Down],
        "does not resolve",
    );
}

#[test]
fn a_silent_peer_is_told_by_which_way_packets_go() {
    let never = [Reason::NeverHandshake, Down];
    let endpoint = Some("192.0.2.1:1".to_owned());
    let sent = Peer {
        sent: 148,
        endpoint: endpoint.clone(),
        ..Peer::default()
    };
    expect(
        &with_peer(sent.clone()),
        &never,
        "148 bytes have gone out to 192.0.2.1:1, and nothing that WireGuard takes",
    );
    expect(
        &with_peer(Peer {
            received: 9,
            ..sent.clone()
        }),
        &never,
        "9 bytes have come in that were made for our key",
    );
    expect(
        &with_peer(Peer {
            port: Some(5),
            ..Peer::default()
        }),
        &never,
        "we wait for the peer to call, and nothing has come in on UDP port 5",
    );
    expect(
        &with_peer(Peer {
            endpoint,
            ..Peer::default()
        }),
        &never,
        "nothing has gone out to 192.0.2.1:1",
    );
    let stale = Peer {
        handshake_age: Some(600),
        ..fresh()
    };
    expect(
        &with_peer(stale),
        &[Reason::StaleHandshake, Down],
        "10 minutes ago; since the tunnel was made 1 bytes have come in and 1 gone out to",
    );
    expect(&with_peer(fresh()), &[Down], "BGP bgp_1 is Connect");
    let closed = Peer {
        answer: Some(Answer::Closed),
        ..sent
    };
    expect(
        &with_peer(closed),
        &[Reason::PortClosed, Reason::NeverHandshake, Down],
        "port unreachable",
    );
}

#[test]
fn our_own_side_is_blamed_before_the_peer() {
    let chain = [Reason::NoRoute, Reason::NeverHandshake, Down];
    let sent = Peer {
        sent: 148,
        endpoint: Some("[2001:db8::1]:51820".to_owned()),
        ..Peer::default()
    };
    let no_route = Peer {
        answer: Some(Answer::NoRoute("Network is unreachable".to_owned())),
        ..sent.clone()
    };
    expect(&with_peer(no_route), &chain, "has no route to the endpoint");
    let through = |up, is_tunnel| Peer {
        uplink: Some(Uplink {
            name: "eth0".to_owned(),
            up,
            is_tunnel,
        }),
        answer: Some(Answer::Closed),
        ..sent.clone()
    };
    expect(
        &with_peer(through(false, false)),
        &chain,
        "eth0 towards the endpoint",
    );
    expect(
        &with_peer(through(true, true)),
        &chain,
        "leads into the tunnel eth0",
    );
    expect(
        &with_peer(through(true, false)),
        &[Reason::PortClosed, Reason::NeverHandshake, Down],
        "port unreachable",
    );
}

#[test]
fn bird_is_blamed_for_what_bird_says() {
    use Reason::{RefusedByNeighbour, RefusedByUs};
    let with = |bird| Facts {
        bird,
        ..with_peer(fresh())
    };
    expect(
        &with(Some(Bird::default())),
        &[Reason::BirdNotRunning],
        "does not answer",
    );
    for (error, reason, words) in [
        (
            "Received: Bad peer AS",
            RefusedByNeighbour,
            "refuses our AS number, AS64500",
        ),
        (
            "Received: Administrative shutdown",
            RefusedByNeighbour,
            "on purpose",
        ),
        (
            "Received: Cease",
            RefusedByNeighbour,
            "the neighbour refuses",
        ),
        (
            "BGP Error: Bad peer AS",
            RefusedByUs,
            "another AS than AS64501",
        ),
        (
            "Socket: Connection refused",
            RefusedByNeighbour,
            "fe80::2 refuses the connection on TCP port 179",
        ),
        (
            "Socket: Connection closed",
            RefusedByNeighbour,
            "closed the connection",
        ),
        (
            "Socket: No route to host",
            Down,
            "“Socket: No route to host”",
        ),
        ("Error: Neighbor lost", Down, "“Error: Neighbor lost”"),
    ] {
        expect(&with(bgp("Active", Some(error))), &[reason], words);
    }
    let refused = bgp("Idle", None).map(|bird| Bird {
        refused: Some("syntax error".into()),
        ..bird
    });
    expect(
        &with(refused),
        &[Reason::BirdRefused, Down],
        "refused the session's text: syntax error",
    );
    let unloaded = bgp("Idle", None).map(|bird| Bird {
        loaded: false,
        ..bird
    });
    expect(
        &with(unloaded),
        &[Reason::BirdNotLoaded, Down],
        "another configuration",
    );
}

#[test]
fn wrong_address_needs_working_tunnel_and_silent_address() {
    let others: std::collections::BTreeSet<_> = ["fe80::9".parse().unwrap()].into();
    let silent = |session: &mut Session| session.answers = Some(false);
    let elsewhere =
        |session: &mut Session| (session.answers, session.others) = (Some(false), others.clone());
    let works = with_peer(fresh());
    expect(
        &with_session(&works, silent),
        &[Reason::NeighbourSilent, Down],
        "Nothing answers a ping at fe80::2",
    );
    expect(
        &with_session(&works, elsewhere),
        &[Reason::WrongAddress, Down],
        "its other end answers as fe80::9",
    );
    let answers =
        |session: &mut Session| (session.answers, session.others) = (Some(true), others.clone());
    expect(
        &with_session(&works, answers),
        &[Down],
        "knows of no error, though fe80::2 answers a ping.",
    );
    expect(
        &with_session(&with_peer(Peer::default()), silent),
        &[Reason::NeverHandshake, Down],
        "",
    );
    let another = |session: &mut Session| session.has = Some("fe80::7%wg_1".into());
    expect(
        &with_session(&works, another),
        &[Reason::WrongAddress, Down],
        "speaks to fe80::7%wg_1, expected fe80::2",
    );
}

#[test]
fn limit_is_shown_when_up_and_ranked_before_down() {
    let hit =
        |session: &mut Session| session.limits = vec!["ipv4 import limit of 5 (block)".into()];
    let up = Facts {
        bird: bgp("Established", None),
        ..with_peer(fresh())
    };
    expect(
        &with_session(&up, hit),
        &[Reason::LimitHit],
        "ipv4 import limit of 5",
    );
    let closed = with_session(&with_peer(fresh()), |session| session.off = true);
    expect(
        &with_session(&closed, hit),
        &[Reason::LimitHit, Down],
        "ipv4 import limit of 5",
    );
}

#[test]
fn a_drain_closes_nothing_until_maintenance_does() {
    let up = Facts {
        bird: bgp("Established", None),
        ..with_peer(fresh())
    };
    let maintenance = Documents {
        maintenance: Some(None),
        ..Documents::default()
    };
    expect(
        &documents(&up, maintenance.clone()),
        &[Reason::Drained],
        "Drained (graceful shutdown, RFC 8326)",
    );
    let alone = Documents {
        drained_alone: true,
        ..Documents::default()
    };
    expect(
        &documents(&up, alone),
        &[Reason::Drained],
        "its bgp.drained is true",
    );
    let mut unloaded = documents(&up, maintenance.clone());
    unloaded.bird.as_mut().unwrap().base_current = false;
    expect(&unloaded, &[Reason::Drained], "To be drained");
    let closed = Documents {
        closed_by_maintenance: true,
        ..maintenance
    };
    expect(
        &documents(&with_peer(fresh()), closed),
        &[Reason::ClosedByMaintenance, Down],
        "external sessions are closed",
    );
}

#[test]
fn drift_names_the_finding_and_the_stopped_agent() {
    let mut facts = with_peer(fresh());
    facts.tunnel.drift = vec!["tunnel.listenPort: want 1, have 2".into(), "x".into()];
    expect(&facts, &[Reason::Drift, Down], "want 1, have 2, and 1 more");
    facts.tunnel.agent_runs = false;
    expect(
        &facts,
        &[Reason::AgentNotRunning, Reason::Drift, Down],
        "nothing is put right",
    );
    facts.documents.paused = Some("why".into());
    expect(&facts, &[Reason::Paused, Reason::Drift, Down], "paused");
}

#[test]
fn spans_have_one_unit() {
    for (seconds, text) in [
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7200, "2 hours"),
        (172_800, "2 days"),
    ] {
        assert_eq!(span(seconds), text);
    }
}
