//! A neighbour says all that it must not, and the others' tables show what the policy makes of it.

use crate::lab::control_plane::Answer;
use crate::lab::neighbour::Neighbour;
use crate::lab::router::{ASN, PREFIX4, PREFIX6, policy_with};
use crate::lab::wait_until;
use crate::lab::world::{Speaker, World, interface, uuid};
use serde_json::json;
use std::collections::BTreeSet;

/// What the first neighbour (AS4242421001) says beside its own prefixes. All but two have a ROA, so that it is
/// each time another rule that refuses.
const HOSTILE: &str = r"
protocol static says4 { ipv4;
  route 0.0.0.0/0 blackhole; route 8.8.8.0/24 blackhole; route 172.20.0.0/30 blackhole;
  route 172.23.105.176/28 blackhole; route 172.23.105.184/29 blackhole; route 172.23.105.177/32 blackhole;
  # With its own number a path of eleven, and one of ten.
  route 172.20.11.0/24 blackhole { bgp_path.prepend(11); bgp_path.prepend(9); bgp_path.prepend(8);
    bgp_path.prepend(7); bgp_path.prepend(6); bgp_path.prepend(5); bgp_path.prepend(4); bgp_path.prepend(3);
    bgp_path.prepend(2); bgp_path.prepend(1); };
  route 172.20.10.0/24 blackhole { bgp_path.prepend(11); bgp_path.prepend(8); bgp_path.prepend(7);
    bgp_path.prepend(6); bgp_path.prepend(5); bgp_path.prepend(4); bgp_path.prepend(3); bgp_path.prepend(2);
    bgp_path.prepend(1); };
  route 172.20.12.0/24 blackhole; # ROA invalid
  route 172.22.13.0/24 blackhole; # ROA unknown
  route 172.20.14.0/24 blackhole {
    bgp_large_community.add((4242420998, 1, 3)); bgp_large_community.add((4242420998, 3, 77));
    bgp_large_community.add((4242420998, 10, 5)); bgp_large_community.add((4242420998, 99, 1));
    bgp_large_community.add((4242421001, 1, 2)); };
  route 172.20.15.0/24 blackhole {
    bgp_community.add((64511, 9)); bgp_community.add((64511, 2)); bgp_community.add((64511, 21));
    bgp_community.add((64511, 31)); bgp_community.add((64511, 94)); bgp_community.add((64511, 89));
    bgp_community.add((64511, 41)); bgp_community.add((64511, 1276)); };
}
protocol static says6 { ipv6;
  route ::/0 blackhole; route fd00::/32 blackhole; route 2001:db8::/32 blackhole;
  route fd48:4242:420::/48 blackhole; route fd48:4242:420:1::/64 blackhole; route fd42:1:1::/65 blackhole;
}";

const ROAS: &str = "\
route 0.0.0.0/0 max 0 as 4242421001;
route 8.8.8.0/24 max 24 as 4242421001;
route 172.20.0.0/30 max 32 as 4242421001;
route 172.23.105.176/28 max 32 as 4242421001;
route 172.20.1.0/24 max 24 as 4242421001;
route 172.20.11.0/24 max 24 as 11;
route 172.20.10.0/24 max 24 as 11;
route 172.20.12.0/24 max 24 as 4242429999;
route 172.20.14.0/24 max 24 as 4242421001;
route 172.20.15.0/24 max 24 as 4242421001;
route 172.20.2.0/24 max 24 as 4242421002;
route 172.20.3.0/24 max 24 as 4242421003;
route ::/0 max 0 as 4242421001;
route fd00::/32 max 32 as 4242421001;
route 2001:db8::/32 max 32 as 4242421001;
route fd48:4242:420::/48 max 64 as 4242421001;
route fd42:1::/32 max 65 as 4242421001;
route fd42:2::/48 max 48 as 4242421002;
route fd42:3::/48 max 48 as 4242421003;
";

/// What of it is fit for others.
const GOOD: [&str; 4] = [
    "172.20.1.0/24",
    "172.20.10.0/24",
    "172.20.14.0/24",
    "172.20.15.0/24",
];

fn set<'a>(prefixes: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    prefixes.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn wait_heard(world: &World, number: usize, family: u8, wanted: &BTreeSet<String>) {
    wait_until(
        &format!("neighbour {number} hears of exactly these of IPv{family}"),
        40,
        || {
            let heard: BTreeSet<String> = world.neighbours[number - 1]
                .heard(family)?
                .into_iter()
                .collect();
            if heard == *wanted {
                Ok(())
            } else {
                Err(format!("{heard:?}\nlog: {}", bird_log(world)))
            }
        },
    );
}

fn bird_log(world: &World) -> String {
    std::fs::read_to_string(world.router.bird.folder.join("bird.log")).unwrap_or_default()
}

/// The attribute of the one route, its items sorted, in one spelling for all versions and makes.
fn items(route: &str, names: [&str; 3]) -> Vec<String> {
    let line = route
        .lines()
        .find_map(|line| names.iter().find_map(|name| line.trim().strip_prefix(name)));
    let text = line
        .unwrap_or_default()
        .replace(", ", ",")
        .replace(['(', ')'], "")
        .replace(':', ",");
    let mut items: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    items.sort();
    items
}

fn communities(route: &str) -> Vec<String> {
    items(route, ["BGP.community:", "bgp_community:", "Community:"])
}

fn large(route: &str) -> Vec<String> {
    items(
        route,
        [
            "BGP.large_community:",
            "bgp_large_community:",
            "Large Community:",
        ],
    )
}

fn sorted(items: &[&str]) -> Vec<String> {
    let mut items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
    items.sort();
    items
}

/// Router under test with a hostile neighbour, a BIRD and an FRR; nothing asked of any RPKI server.
fn world(version: &str) -> World {
    let speakers = vec![
        Speaker::Bird(HOSTILE.into()),
        Speaker::Bird(String::new()),
        Speaker::Frr,
    ];
    let mut world = World::with_speakers(version, speakers);
    let mut policy = policy_with(&json!({"rejectUnknownRoa": null}));
    policy["node"]["country"] = json!(392);
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy));
    let state = world.router.path("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("roa.conf"), ROAS).unwrap();
    // BIRD's own words, which go to syslog otherwise.
    let templates = world.router.path("templates");
    std::fs::create_dir_all(&templates).unwrap();
    let main =
        include_str!("../../templates/bird.conf").replace("log syslog all;", "log stderr all;");
    std::fs::write(templates.join("bird.conf"), main).unwrap();
    world.router.edit_configuration(|config| {
        config["probe"] = json!({"interval": 2, "count": 1});
        config["bird"]["templates"] = json!(templates);
    });
    world.router.start_agent();
    world.wait_established();
    world
}

/// The classes of a link: 34 and 83 as all WireGuard tunnels, 25 by the node's bandwidth, nothing lost, and the
/// latency as the agent measured it.
fn link(latency: u64) -> Vec<String> {
    let others = ["64511,25", "64511,34", "64511,83", "64511,91"].map(str::to_owned);
    others
        .into_iter()
        .chain([format!("64511,{latency}")])
        .collect()
}

/// The class of a session's latency, as the agent keeps it.
fn latency(world: &World, number: usize) -> Result<u64, String> {
    let text = std::fs::read_to_string(world.router.path("state/classes.json"));
    let classes: serde_json::Value =
        serde_json::from_str(&text.map_err(|error| error.to_string())?).unwrap();
    let class = &classes[format!("wg_{}", 4_242_421_000 + number)]["latency"]["class"];
    class.as_u64().ok_or_else(|| classes.to_string())
}

#[track_caller]
fn wait_communities(
    neighbour: &Neighbour,
    prefix: &str,
    wanted: impl Fn() -> Result<Vec<String>, String>,
) {
    wait_until(
        &format!("AS{} sees the communities of {prefix}", neighbour.asn),
        60,
        || {
            let (route, mut wanted) = (neighbour.route(prefix)?, wanted()?);
            wanted.sort();
            if communities(&route) == wanted {
                Ok(())
            } else {
                Err(format!("{wanted:?} are wanted: {route}"))
            }
        },
    );
}

fn what_a_hostile_neighbour_says(version: &str) {
    let world = world(version);
    // To the router itself, to a BIRD and to an FRR.
    let (own4, own6) = (PREFIX4, PREFIX6);
    wait_heard(
        &world,
        2,
        4,
        &set(GOOD.into_iter().chain([own4, "172.20.3.0/24"])),
    );
    wait_heard(
        &world,
        3,
        4,
        &set(GOOD.into_iter().chain([own4, "172.20.2.0/24"])),
    );
    wait_heard(&world, 2, 6, &set(["fd42:1::/48", own6, "fd42:3::/48"]));
    wait_heard(&world, 3, 6, &set(["fd42:1::/48", own6, "fd42:2::/48"]));
    let ours = world.router.bird.ask(
        &world.router.inside,
        "show route protocol ebgp_wg_4242421001",
    );
    assert_eq!(
        ours.matches(" blackhole").count() + ours.matches("* (").count(),
        5,
        "{ours}"
    );
    what_is_written_on_routes(&world);
    let here = [
        "4242420998,1,1",
        "4242420998,2,101",
        "4242420998,3,1",
        "4242420998,4,83",
        "4242420998,5,1000",
    ];
    for number in [2, 3] {
        let spoofed = world.neighbours[number - 1]
            .route("172.20.14.0/24")
            .unwrap();
        let wanted = sorted(&[&here[..], &["4242421001,1,2"]].concat());
        assert_eq!(large(&spoofed), wanted, "neighbour {number}: {spoofed}");
    }
    // Once more, and nothing was lost or reset by all that.
    for number in 1..=3 {
        wait_until("the session's status is Established", 30, || {
            let status = world.status(&format!("sessions/{}", interface(number)));
            if status["phase"] == "Established" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        world.wait_reported(&uuid(number), 1, "");
    }
    // BIRD 3 may see a route of the kernel before it has looked at the interfaces.
    let early = |line: &str| line.contains("with unknown ifindex");
    let wrong = |line: &&str| (line.contains("<ERR>") || line.contains("<BUG>")) && !early(line);
    let log = bird_log(&world);
    assert!(log.contains("Reconfigured"), "BIRD logs elsewhere: {log}");
    assert_eq!(log.lines().find(wrong), None);
}

fn what_is_written_on_routes(world: &World) {
    for number in [2, 3] {
        let neighbour = &world.neighbours[number - 1];
        let with = |classes: Vec<String>, more: &[&str]| {
            classes
                .into_iter()
                .chain(more.iter().map(|class| (*class).to_owned()))
                .collect()
        };
        // Region (52, East Asia) and country (1392, Japan) on our own routes.
        let own = || {
            Ok(with(
                link(latency(world, number)?),
                &["64511,1392", "64511,52"],
            ))
        };
        wait_communities(neighbour, PREFIX4, own);
        let place = [
            "4242420998,1,1",
            "4242420998,2,101",
            "4242420998,3,1",
            "4242420998,5,1000",
        ];
        let own = neighbour.route(PREFIX4).unwrap();
        assert_eq!(large(&own), sorted(&place), "{own}");
        // On others' neither is added, and what they say of region and country stays. Of both links of the way
        // the slower one counts.
        wait_communities(neighbour, "172.20.1.0/24", || {
            Ok(link(latency(world, 1)?.max(latency(world, number)?)))
        });
        let worst = [
            "64511,9",
            "64511,21",
            "64511,31",
            "64511,89",
            "64511,94",
            "64511,41",
            "64511,1276",
        ];
        wait_communities(neighbour, "172.20.15.0/24", || Ok(sorted(&worst)));
    }
    assert!(
        world.neighbours[1]
            .route("172.20.14.0/24")
            .unwrap()
            .contains(&ASN.to_string())
    );
}

#[test]
fn hostile_neighbour_is_filtered_by_bird_2_0_12() {
    what_a_hostile_neighbour_says("2.0.12");
}

#[test]
fn hostile_neighbour_is_filtered_by_bird_2_20() {
    what_a_hostile_neighbour_says("2.20");
}

#[test]
fn hostile_neighbour_is_filtered_by_bird_3_4() {
    what_a_hostile_neighbour_says("3.4");
}

#[test]
fn preshared_key_is_announced_and_restart_keeps_classes() {
    let mut world = World::new(2);
    let key = world.router.inside.shell("wg genpsk");
    let mut sessions = world.sessions();
    sessions[1]["credential"]["presharedKey"] = json!(key.trim());
    world.control_plane.sessions(&sessions);
    let file = world.router.path("psk");
    std::fs::write(&file, key).unwrap();
    let peer = world.neighbours[1].inside.shell("wg show wg0 peers");
    let set = format!(
        "wg set wg0 peer {} preshared-key {}",
        peer.trim(),
        file.display()
    );
    world.neighbours[1].inside.shell(&set);
    world
        .router
        .edit_configuration(|config| config["probe"] = json!({"interval": 2, "count": 1}));
    world.router.start_agent();
    world.wait_established();
    // The classes of encryption are 31 to 35; 3 alone is one of latency.
    let crypto = |number: usize| {
        let mut classes = communities(&world.neighbours[number - 1].route(PREFIX4)?);
        classes.retain(|class| class.len() == "64511,3x".len() && class.starts_with("64511,3"));
        Ok::<_, String>(classes)
    };
    wait_until("35 with a preshared key, 34 without", 30, || {
        let found = (crypto(1)?, crypto(2)?);
        if found == (vec!["64511,34".into()], vec!["64511,35".into()]) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    // Of the way over both, the weaker one counts.
    let over_both = world.neighbours[1].route("172.20.1.0/24").unwrap();
    assert!(
        communities(&over_both).contains(&"64511,34".to_owned()),
        "{over_both}"
    );
    let classes = world.router.path("state/classes.json");
    // A link whose first echo is lost is measured after the others, and classes change at most once a minute.
    wait_until("both links are measured", 120, || {
        latency(&world, 1).and(latency(&world, 2)).map(drop)
    });
    for number in [1, 2] {
        wait_until("and told", 120, || {
            let told = format!("64511,{}", latency(&world, number)?);
            let heard = communities(&world.neighbours[number - 1].route(PREFIX4)?);
            if heard.contains(&told) {
                Ok(())
            } else {
                Err(format!("{told}: {heard:?}"))
            }
        });
    }
    let (before, kept) = (
        crate::lab::watch::bird_history(&world.router),
        std::fs::read(&classes).unwrap(),
    );
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_polls("bird-config", 3);
    assert_eq!(
        crate::lab::watch::bird_history(&world.router),
        before,
        "a class was forgotten"
    );
    assert_eq!(
        std::fs::read(&classes).unwrap(),
        kept,
        "no class changed, so nothing is written"
    );
}

#[test]
fn gobgp_and_bird_hear_of_each_other_through_the_router() {
    let speakers = vec![Speaker::GoBgp, Speaker::Bird(String::new())];
    let mut world = World::with_speakers(&crate::lab::bird::version(), speakers);
    world.router.start_agent();
    world.wait_established();
    let [gobgp, bird] = &world.neighbours[..] else {
        panic!("two neighbours")
    };
    for prefix in [&gobgp.prefix4, &gobgp.prefix6] {
        bird.wait_route(prefix, "4242420998 4242421001", 30);
        bird.wait_route(prefix, "(64511,34)", 10);
    }
    for prefix in [PREFIX4, PREFIX6, &bird.prefix4, &bird.prefix6] {
        gobgp.wait_route(prefix, "4242420998:3:1", 30);
        gobgp.wait_route(prefix, "64511:34", 10);
    }
}
