//! Metrics of a running agent, as Prometheus' own tools read them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// Returns what `promtool check metrics` says of a scrape.
fn checked(scrape: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing; tests/deps.sh tests installs it");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(scrape.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

#[test]
fn promtool_accepts_every_metric_but_the_references() {
    let world = World::converged(1);
    let scrape = world.router.api("", "/metrics").1;
    let said = checked(&scrape);
    assert_eq!(
        said.trim(),
        r#"moenet_agent_sessions_total non-counter metrics should not have "_total" suffix"#,
        "{scrape}"
    );
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        // A histogram has three series of each name.
        let mut suffixes = ["_bucket", "_sum", "_count"].iter();
        let histogram = suffixes.find_map(|suffix| name.strip_suffix(suffix));
        let is_histogram = |name: &&str| scrape.contains(&format!("# TYPE {name} histogram"));
        let name = histogram.filter(is_histogram).unwrap_or(name);
        for head in ["HELP", "TYPE"] {
            let head = format!("# {head} {name} ");
            assert!(scrape.contains(&head), "no {head:?} for {line}");
        }
    }
}

/// The names of a scrape, as its comments have them.
fn names(scrape: &str) -> BTreeSet<&str> {
    let heads = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split(' ').next()).collect()
}

#[test]
fn every_metric_of_a_scrape_is_in_the_reference() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (page, _) = page.split_once("\n## Control Plane\n").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let reference: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let world = World::converged(2);
    for call in [
        format!(
            "override {} tunnel.mtu=1400 --expires 2d --reason test",
            interface(1)
        ),
        format!("pause {} --reason test", interface(2)),
    ] {
        world.router.inside.shell(&world.router.command(&call));
    }
    let mut scrape = String::new();
    wait_until("each metric of the reference has a series", 60, || {
        scrape = world.router.api("", "/metrics").1;
        let found = names(&scrape);
        match found == reference {
            true => Ok(()),
            false => Err(format!(
                "only in the reference: {:?}; only in the scrape: {:?}",
                reference.difference(&found),
                found.difference(&reference)
            )),
        }
    });
}

#[test]
fn metrics_follow_a_session_and_its_repair() {
    let world = World::converged(1);
    let name = interface(1);
    let of_session = |metric: &str| {
        let series = format!("moenet_agent_session_{metric}{{session=\"{name}\"}}");
        world.router.metric(&series)
    };
    wait_until("the session is up in the metrics", 30, || {
        let state =
            format!("moenet_agent_session_bgp_state{{session=\"{name}\",state=\"established\"}}");
        let condition =
            format!("moenet_agent_condition{{object=\"sessions/{name}\",type=\"BgpEstablished\"}}");
        let found = [
            world.router.metric(&state),
            world.router.metric(&condition),
            of_session("established"),
            world.router.metric("moenet_agent_bird_up"),
        ];
        match found == [Some(1.0); 4] {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
    for metric in [
        "received_bytes_total",
        "sent_bytes_total",
        "last_handshake_timestamp_seconds",
        "bgp_state_since_timestamp_seconds",
    ] {
        assert!(
            of_session(metric).is_some_and(|value| value > 0.0),
            "{metric}"
        );
    }
    let scrape = world.router.api("", "/metrics").1;
    let info = scrape
        .lines()
        .find(|line| line.starts_with("moenet_agent_session_info{"));
    assert!(
        info.is_some_and(
            |line| line.contains(&format!("interface=\"{name}\",session=\"{name}\"}} 1"))
        ),
        "{info:?}"
    );

    let before = world.metric("moenet_agent_drift_repairs_total");
    world
        .router
        .inside
        .shell(&format!("ip link set {name} mtu 1290"));
    wait_until("the repair is counted", 30, || {
        match world.metric("moenet_agent_drift_repairs_total") > before {
            true => Ok(()),
            false => Err("no repair".to_owned()),
        }
    });
    let reconciles = world.metric("moenet_agent_reconcile_duration_seconds_count");
    let plans = world.metric("moenet_agent_plans_total");
    assert!(
        reconciles > 0 && reconciles <= plans,
        "{reconciles} of {plans}"
    );
    let faults = world.metric("moenet_agent_errors_total{class=\"bug\"}");
    assert_eq!(faults, 0);
    let memory = world.metric("process_resident_memory_bytes");
    assert!(memory > 1 << 20, "{memory}");
}
