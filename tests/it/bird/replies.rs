//! Recorded replies of five versions of BIRD, fed to the decoder in random chunks.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moenet_agent::observed::bird::framing::Decoder;
use moenet_agent::observed::bird::{
    BgpState, Channel, Phase, Protocol, ProtocolState, Reply, Routes, Version, protocols, status,
};
use proptest::prelude::*;

const VERSIONS: [&str; 5] = ["2.0.12", "2.17.6", "2.20.0", "3.1.8", "3.4.0"];

fn recorded(version: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/bird")
        .join(version)
        .join(format!("{name}.txt"))
}

fn reply(version: &str, name: &str) -> Reply {
    let bytes = fs::read(recorded(version, name)).unwrap();
    Decoder::new()
        .push(&bytes)
        .unwrap()
        .expect("a recorded reply is complete")
}

fn all(version: &str, name: &str) -> Vec<Protocol> {
    protocols::parse(&reply(version, &format!("show_protocols_all{name}")))
}

fn find<'a>(protocols: &'a [Protocol], name: &str) -> &'a Protocol {
    protocols
        .iter()
        .find(|protocol| protocol.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn channel<'a>(protocol: &'a Protocol, name: &str) -> &'a Channel {
    protocol
        .channels
        .iter()
        .find(|channel| channel.name == name)
        .unwrap()
}

fn files(version: &str) -> Vec<PathBuf> {
    let directory = recorded(version, "x").parent().unwrap().to_owned();
    let below = fs::read_dir(directory).unwrap().flat_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect()
        } else {
            vec![path]
        }
    });
    below
        .filter(|path| !path.ends_with("configure_timeout_expired_async.txt"))
        .collect()
}

#[test]
fn every_recorded_reply_is_parsed_completely() {
    for version in VERSIONS {
        for file in files(version) {
            let mut decoder = Decoder::new();
            assert!(
                decoder.push(&fs::read(&file).unwrap()).unwrap().is_some(),
                "{}",
                file.display()
            );
            assert_eq!(decoder.take().unwrap(), None, "{}", file.display());
        }
    }
}

#[test]
fn a_message_out_of_turn_is_no_reply() {
    for version in VERSIONS {
        let bytes = fs::read(recorded(version, "configure_timeout_expired_async")).unwrap();
        assert_eq!(Decoder::new().push(&bytes).unwrap(), None);
    }
}

#[test]
fn errors_are_told_from_successes_on_every_version() {
    let cases = [
        ("configure_ok", true),
        ("configure_timeout", true),
        ("configure_undo_again", true),
        ("configure_error", false),
        ("configure_error_include", false),
        ("configure_file_missing", false),
        ("configure_restricted", false),
        ("show_protocols_unknown", false),
        ("show_protocols_pattern_nomatch", false),
    ];
    for version in VERSIONS {
        for (name, success) in cases {
            assert_eq!(
                reply(version, name).is_success(),
                success,
                "{version} {name}"
            );
        }
        assert_eq!(reply(version, "configure_error").code, 8002);
        assert_eq!(
            reply(version, "eval").with_code(23).next(),
            Some("10.0.0.0/8")
        );
    }
}

#[test]
fn established_sessions_have_their_routes_on_every_version() {
    for version in VERSIONS {
        let protocols = all(version, "");
        let est = find(&protocols, "est");
        assert!(est.is_established(), "{version}");
        assert_eq!(
            est.description.as_deref(),
            Some("peer B over link-local (MP-BGP)")
        );
        let bgp = est.bgp.as_ref().unwrap();
        assert_eq!(bgp.neighbor_address.as_deref(), Some("fe80::2%wg_b"));
        assert_eq!((bgp.neighbor_as, bgp.local_as), (Some(65002), Some(65001)));
        assert_eq!(
            (bgp.source_address.as_deref(), bgp.last_error.as_deref()),
            (Some("fe80::1"), None)
        );
        let ipv4 = channel(est, "ipv4");
        let routes = ipv4.routes.unwrap();
        assert_eq!(
            (routes.imported, routes.filtered, routes.exported),
            (3, 2, 2),
            "{version}"
        );
        assert_eq!((ipv4.up, ipv4.table.as_deref()), (true, Some("master4")));
        let limit = ipv4.import_limit.as_ref().unwrap();
        assert_eq!(
            (limit.limit, limit.hit, limit.action.as_deref()),
            (1000, false, Some("block"))
        );
        assert!(protocols.is_sorted_by(|a, b| a.name <= b.name));
    }
}

#[test]
fn last_errors_and_states_are_read_on_every_version() {
    let cases = [
        ("act", BgpState::Connect, Some("Socket: No route to host")),
        (
            "refused",
            BgpState::Active,
            Some("Socket: Connection refused"),
        ),
        ("idl", BgpState::Idle, Some("BGP Error: Bad peer AS")),
        ("noif", BgpState::Idle, None),
    ];
    for version in VERSIONS {
        let protocols = all(version, "");
        for (name, state, error) in &cases {
            let protocol = find(&protocols, name);
            let bgp = protocol.bgp.as_ref().unwrap();
            assert_eq!(
                (&bgp.state, bgp.last_error.as_deref()),
                (state, *error),
                "{version} {name}"
            );
            assert_eq!(protocol.state, ProtocolState::Start);
            assert!(
                protocol
                    .channels
                    .iter()
                    .all(|channel| !channel.up && channel.routes.is_none())
            );
        }
        let down = all(version, "_disabled_msg");
        let bgp = down[0].bgp.as_ref().unwrap();
        assert_eq!(
            (&down[0].state, &bgp.state),
            (&ProtocolState::Down, &BgpState::Down),
            "{version}"
        );
        assert_eq!(down[0].message.as_deref(), Some("going away"));
        let passive = all(version, "_dynamic_template");
        assert_eq!(passive[0].bgp.as_ref().unwrap().state, BgpState::Passive);
    }
}

#[test]
fn limits_that_were_hit_are_read_on_every_version() {
    for version in VERSIONS {
        for action in ["block", "disable", "restart"] {
            let protocols = all(version, &format!("_limit_{action}"));
            let limit = channel(&protocols[0], "ipv4").import_limit.clone().unwrap();
            assert_eq!(
                (limit.limit, limit.hit, limit.action.as_deref()),
                (1, true, Some(action)),
                "{version}"
            );
        }
        let disabled = all(version, "_limit_disable");
        let error = disabled[0].bgp.as_ref().unwrap().last_error.as_deref();
        assert_eq!(
            error,
            Some("Automatic shutdown: Route limit exceeded"),
            "{version}"
        );
    }
}

#[test]
fn the_state_of_rpki_caches_is_read_on_every_version() {
    for version in VERSIONS {
        let protocols = all(version, "");
        let live = find(&protocols, "rpki1").rpki.clone().unwrap();
        assert_eq!(
            (live.server.as_deref(), live.port),
            (Some("127.0.0.1"), Some(8282)),
            "{version}"
        );
        assert_eq!(
            (live.status.as_deref(), live.serial),
            (Some("Established"), Some(1))
        );
        assert!(live.expires_in.unwrap() > 172_000);
        assert_eq!(
            channel(find(&protocols, "rpki1"), "roa4")
                .routes
                .unwrap()
                .imported,
            2
        );
        let dead = find(&protocols, "rpki_dead").rpki.clone().unwrap();
        assert_eq!(
            (dead.status.as_deref(), dead.serial),
            (Some("Transport-Error"), None)
        );
    }
}

#[test]
fn protocols_other_than_bgp_are_read_on_every_version() {
    for version in VERSIONS {
        let protocols = all(version, "");
        let fixed = find(&protocols, "static4");
        assert_eq!(
            (fixed.proto.as_str(), fixed.table.as_deref()),
            ("Static", Some("master4")),
            "{version}"
        );
        let routes = Routes {
            imported: 2,
            preferred: 2,
            ..Routes::default()
        };
        assert_eq!(channel(fixed, "ipv4").routes, Some(routes));
        assert!(
            find(&protocols, "bfd1").channels.is_empty()
                && find(&protocols, "device1").bgp.is_none()
        );
    }
}

#[test]
fn since_is_seconds_only_with_the_format_we_configure() {
    for version in VERSIONS {
        let since = |name: &str| {
            let protocols = protocols::parse(&reply(
                version,
                &format!("timeformat_{name}/show_protocols_all"),
            ));
            let long = find(&protocols, "averyveryverylongprotocolname_x");
            assert_eq!(
                long.bgp.as_ref().unwrap().state,
                BgpState::Active,
                "{version} {name}"
            );
            long.since
        };
        assert_eq!(
            since("epoch").map(|seconds| seconds / 1_000_000),
            Some(1795),
            "{version}"
        );
        assert_eq!((since("tz"), since("protocol_iso_long_ms")), (None, None));
    }
}

#[test]
fn the_greeting_names_the_version() {
    for version in VERSIONS {
        let found = Version::find(&reply(version, "greeting").text);
        assert_eq!(found.unwrap().to_string(), version);
    }
}

#[test]
fn the_progress_of_a_reconfiguration_is_read_on_every_version() {
    for version in VERSIONS {
        let read = |name| status::parse_configure(&reply(version, name)).unwrap();
        assert_eq!(
            (
                read("configure_status_later").phase,
                read("configure_status_later").undo_in
            ),
            (Phase::Settled, None)
        );
        assert_eq!(
            read("configure_status_timeout").undo_in,
            Some(Duration::from_secs_f64(19.999)),
            "{version}"
        );
    }
    assert_eq!(
        status::parse_configure(&reply("3.4.0", "configure_status_after"))
            .unwrap()
            .phase,
        Phase::InProgress
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_reply(which in 0..VERSIONS.len(), cuts in proptest::collection::vec(1..900_usize, 1..40)) {
        let bytes = fs::read(recorded(VERSIONS[which], "show_protocols_all")).unwrap();
        let (mut decoder, mut rest, mut got) = (Decoder::new(), &bytes[..], None);
        for cut in cuts.iter().cycle() {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            got = decoder.push(chunk).unwrap();
            rest = after;
            if rest.is_empty() { break; }
            prop_assert!(got.is_none());
        }
        prop_assert_eq!(got.unwrap(), reply(VERSIONS[which], "show_protocols_all"));
    }

    #[test]
    fn a_damaged_reply_never_panics(which in 0..VERSIONS.len(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60)) {
        let mut bytes = fs::read(recorded(VERSIONS[which], "show_protocols_all")).unwrap();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(Some(reply)) = Decoder::new().push(&bytes) {
            protocols::parse(&reply);
            status::parse_configure(&reply);
        }
    }
}

#[test]
fn disabled_by_a_command_is_told_from_a_limit() {
    let one = |version: &str, name: &str| all(version, name).remove(0).is_disabled_by_command();
    for version in VERSIONS {
        for by_command in ["_disabled_by_cli", "_disabled_msg"] {
            assert!(one(version, by_command), "{version} {by_command}");
        }
        for other in [
            "_limit_disable",
            "_established",
            "_active",
            "_remote_shutdown",
        ] {
            assert!(!one(version, other), "{version} {other}");
        }
        let every = all(version, "_disabled_system");
        let disabled = every
            .iter()
            .filter(|protocol| protocol.is_disabled_by_command());
        let names: Vec<_> = disabled.map(|protocol| protocol.name.as_str()).collect();
        let expected = [
            "device1",
            "ebgp_x",
            "moe_babel",
            "moe_kernel4",
            "moe_loopback",
            "moe_own4",
            "moe_rpki",
        ];
        assert_eq!(names, expected, "{version}");
    }
}
