//! Maintenance of one of three routers, while traffic goes through it.

use crate::lab::backbone::{Backbone, Member, each_route, edge, without_times};
use crate::lab::traffic::Traffic;
use crate::lab::wait_until;
use crate::lab::watch::session_ages;

const SHUTDOWN: &str = "(65535,0)";

/// Network 1 is at jp1, which it prefers, and at jp2; network 2 is at jp3; network 3 is at jp1 alone.
fn three_routers() -> Backbone {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2"), edge(3, "jp3")]);
    backbone.full_mesh();
    backbone.network(1, &[("jp1", 200), ("jp2", 100)]);
    backbone.network(2, &[("jp3", 100)]);
    backbone.network(3, &[("jp1", 100)]);
    backbone.start();
    backbone.wait_established();
    backbone
}

/// Between networks 1 and 2, over both families.
fn traffic(backbone: &Backbone) -> Vec<Traffic> {
    let [one, two, _] = &backbone.networks[..] else {
        panic!("three networks")
    };
    let pairs = one.addresses().into_iter().zip(two.addresses());
    pairs
        .map(|(source, destination)| Traffic::start(&one.inside, source, &two.inside, destination))
        .collect()
}

/// Waits until the packets of network 1 come in at this router and no more at the other.
#[track_caller]
fn wait_path(backbone: &Backbone, by: &str, not: &str) {
    let interface = backbone.networks[0].interface();
    wait_until(&format!("packets go by {by} and not by {not}"), 60, || {
        let (here, there) = (backbone.at(by), backbone.at(not));
        let count = |member: &Member| member.received(&interface);
        let from_afar = |member: &Member| member.received(&member.interface_to("jp3"));
        let before = [count(here), count(there), from_afar(here), from_afar(there)];
        std::thread::sleep(std::time::Duration::from_secs(2));
        let after = [count(here), count(there), from_afar(here), from_afar(there)];
        let moved: Vec<u64> = after
            .iter()
            .zip(before)
            .map(|(after, before)| after - before)
            .collect();
        // Sessions and probes speak a few times a second at most, and the traffic is a hundred packets.
        if moved[0] > 40 && moved[2] > 40 && moved[1] < 20 && moved[3] < 20 {
            Ok(())
        } else {
            Err(format!("{moved:?}"))
        }
    });
}

/// What the other routers and networks have in their tables, whoever it is from.
fn tables(backbone: &Backbone) -> Result<String, String> {
    let routers = ["jp2", "jp3"].map(|name| backbone.at(name).ask("show route all"));
    let networks = backbone
        .networks
        .iter()
        .map(|network| network.ask("show route all"));
    let tables: Vec<String> = routers
        .into_iter()
        .chain(networks)
        .collect::<Result<_, _>>()?;
    Ok(tables
        .iter()
        .map(|table| unmeasured(&without_times(table)))
        .collect::<Vec<_>>()
        .join("\n\n"))
}

fn files(backbone: &Backbone) -> String {
    unmeasured(&backbone.at("jp1").bird_files())
}

/// A text without the classes of latency and loss, and without Babel's metrics, which round trips make: what
/// is measured may well change in the meantime.
pub(crate) fn unmeasured(text: &str) -> String {
    let mut text = text.to_owned();
    for class in (0..=9).chain(91..=94) {
        for community in [format!("(64511,{class})"), format!("(64511, {class})")] {
            text = text
                .replace(&format!("{community} "), "")
                .replace(&format!(" {community}"), "");
        }
        text = text
            .replace(&format!("moe_link({class},"), "moe_link(-,")
            .replace(&format!(", {class});"), ", -);");
    }
    let steady = |line: &&str| {
        // The mark has a hash of the text, classes included.
        if line.starts_with("# Written by moenet-agent") {
            return false;
        }
        let attribute = line
            .trim_start()
            .split(':')
            .next()
            .unwrap_or_default()
            .to_lowercase();
        let measured = ["metric", "seqno"]
            .iter()
            .any(|end| attribute.ends_with(end));
        !measured && !line.starts_with("define MOE_GENERATION")
    };
    text.lines()
        .filter(steady)
        .map(without_metric)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A route without the metric behind its preference, `(100/96)`.
fn without_metric(line: &str) -> String {
    let preference = |word: &str| {
        word.strip_prefix('(')?
            .strip_suffix(')')?
            .split_once('/')
            .map(|(p, _)| p.to_owned())
    };
    let words = line
        .split(' ')
        .map(|word| preference(word).map_or(word.to_owned(), |p| format!("({p}/-)")));
    words.collect::<Vec<_>>().join(" ")
}

/// The first lines that differ, as an error.
pub(crate) fn same(before: &str, now: &str) -> Result<(), String> {
    let differs = before
        .lines()
        .zip(now.lines())
        .find(|(before, now)| before != now);
    match differs {
        None if before.lines().count() == now.lines().count() => Ok(()),
        None => Err("one is longer".into()),
        Some((before, now)) => Err(format!("before: {before}\nnow:    {now}")),
    }
}

fn everything_from_jp1_is_leaving(backbone: &Backbone) -> Result<(), String> {
    for network in [&backbone.networks[0], &backbone.networks[2]] {
        each_route(&network.table_from("jp1")?, SHUTDOWN)?;
    }
    for peer in ["jp2", "jp3"] {
        let table = without_times(&backbone.at(peer).ask("show route protocol ibgp_jp1 all")?);
        each_route(&table, SHUTDOWN)?;
        each_route(&table, "local_pref: 0")?;
    }
    everything_at_jp1_is_last(backbone)
}

/// The drained router itself takes a route, of inside as of outside, only where there is no other.
fn everything_at_jp1_is_last(backbone: &Backbone) -> Result<(), String> {
    let jp1 = backbone.at("jp1");
    for protocol in [
        "ibgp_jp2",
        "ibgp_jp3",
        "ebgp_wg_4242421001",
        "ebgp_wg_4242421003",
    ] {
        let table = without_times(&jp1.ask(&format!("show route protocol {protocol} all"))?);
        each_route(&table, "local_pref: 0").map_err(|error| format!("{protocol}: {error}"))?;
    }
    Ok(())
}

#[test]
fn drain_loses_no_packet_and_stop_restores_routes() {
    let mut backbone = three_routers();
    let traffic = traffic(&backbone);
    wait_path(&backbone, "jp1", "jp2");
    let (tables_before, files_before) = (tables(&backbone).unwrap(), files(&backbone));
    let ages = session_ages(&backbone.at("jp1").router);
    let start = backbone
        .at("jp1")
        .router
        .api("-X POST", "/maintenance/start");
    assert_eq!(start.0, 200, "{}", start.1);
    wait_until("every route of jp1 is about to go", 60, || {
        everything_from_jp1_is_leaving(&backbone)
    });
    wait_path(&backbone, "jp2", "jp1");

    backbone.at_mut("jp1").router.kill_agent();
    backbone.at_mut("jp1").router.start_agent();
    let polls = backbone.at("jp1").control_plane.asked("sessions");
    wait_until("the new agent has synced", 30, || {
        let asked = backbone.at("jp1").control_plane.asked("sessions");
        if asked > polls + 3 {
            Ok(())
        } else {
            Err(asked.to_string())
        }
    });
    everything_from_jp1_is_leaving(&backbone).unwrap();

    let stop = backbone
        .at("jp1")
        .router
        .api("-X POST", "/maintenance/stop");
    assert_eq!(stop.0, 200, "{}", stop.1);
    wait_path(&backbone, "jp1", "jp2");
    for traffic in traffic {
        traffic.stop_without_loss();
    }
    assert_eq!(
        session_ages(&backbone.at("jp1").router),
        ages,
        "a session was reset"
    );
    wait_until("BIRD's files are as before", 30, || {
        same(&files_before, &files(&backbone))
    });
    wait_until("the neighbours' tables are as before", 30, || {
        same(&tables_before, &tables(&backbone)?)
    });
}
