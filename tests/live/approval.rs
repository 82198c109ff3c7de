//! The guard holds what would be removed at once or reset everything, shows it, and `approve` approves exactly that, once.

use crate::lab::cli::{agent, commits};
use crate::lab::control_plane::Answer;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// Sessions whose neighbours are nowhere: what is configured is enough here.
fn sessions(numbers: std::ops::RangeInclusive<u32>) -> Vec<Value> {
    let one = |number: u32| {
        json!({
            "uuid": crate::lab::world::uuid(number), "asn": 4_242_421_000 + number, "status": 1,
            "ipv6LinkLocal": format!("fe80::1:{number}"), "interface": interface(number),
            "credential": {"publicKey": KeyPair::new().public}
        })
    };
    numbers.map(one).collect()
}

fn links(world: &World) -> usize {
    world
        .router
        .inside
        .shell("ip -o link")
        .matches(" wg_")
        .count()
}

fn wait_links(world: &World, wanted: usize) {
    wait_until(&format!("{wanted} tunnels"), 60, || {
        let found = links(world);
        let applied = world
            .router
            .path("state/applied/sessions")
            .read_dir()
            .unwrap()
            .count();
        if (found, applied) == (wanted, wanted) {
            Ok(())
        } else {
            Err(format!("{found} links, {applied} in force"))
        }
    });
}

#[test]
fn approval_releases_exactly_the_held_removals_once() {
    let mut world = World::new(0);
    let all = sessions(1..=6);
    world.control_plane.sessions(&all);
    world.router.start_agent();
    wait_links(&world, 6);
    // Four of six are more than 30 %.
    world.control_plane.sessions(&all[..2]);
    world.wait_polls("sessions", 4);
    assert_eq!(links(&world), 6, "removed without approval");
    let held: Vec<String> = (3..=6)
        .map(|number| format!("sessions/{}", interface(number)))
        .collect();
    let why = "4 of 6 sessions would be removed within 1h, and guard.maxRemovals allows 1";
    let plan = agent(&world.router, &["plan"]).ended(2);
    let get = agent(&world.router, &["get"]).ended(0);
    let (_, status) = world.router.api("", "/status");
    for object in &held {
        plan.says(&format!("{object}  removal held: {why}"));
        get.says(&format!("{object}: change held: {why}"));
        agent(&world.router, &["describe", object])
            .ended(0)
            .says(why);
        contains(&status, &format!("{object}: removal held: {why}")).unwrap();
    }
    let rows = agent(&world.router, &["plan", "-o", "json"]).json();
    assert_eq!(
        rows.as_array()
            .unwrap()
            .iter()
            .filter(|row| row["held"].is_string())
            .count(),
        4
    );
    let counts: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(counts["held"].as_array().map(Vec::len), Some(4), "{status}");
    assert_eq!(counts["held"][0]["object"], held[0]);
    assert_eq!(world.metric("moenet_agent_held_changes"), 4);
    agent(&world.router, &["status"])
        .ended(0)
        .says(&format!("held: {} removal: {why}", held[0]));
    assert_eq!(
        counts["sessions"]["total"], 6,
        "what is held is in force: {status}"
    );

    // What is held is looked after.
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(3)));
    wait_until("the drift of a held session is put right", 40, || {
        contains(
            &world
                .router
                .inside
                .shell(&format!("ip link show {}", interface(3))),
            "mtu 1420",
        )
    });

    // One of them is wanted again before it goes: the approval is not for its next removal.
    let approve: Vec<&str> = ["approve"]
        .into_iter()
        .chain(held.iter().map(String::as_str))
        .collect();
    agent(&world.router, &approve).ended(0).says("approved");
    wait_links(&world, 2);
    wait_until("the approval is spent", 20, || {
        let there = world.router.path("state/approved").exists();
        if there {
            Err("the file is there".into())
        } else {
            Ok(())
        }
    });
    wait_until("approval and removal are in the history", 40, || {
        let found = commits(&world.router).join("\n");
        contains(&found, "root|Approve 4 changes")?;
        contains(&found, "moenet-agent|The approval is spent")
    });
    world.control_plane.sessions(&all);
    wait_links(&world, 6);
    world.control_plane.sessions(&all[..2]);
    world.wait_polls("sessions", 4);
    assert_eq!(links(&world), 6, "an approval was spent twice");
}

/// Internal neighbours stand in the files that all sessions share, and are held there too.
#[test]
fn held_internal_neighbours_stay_in_bird_until_they_are_approved() {
    let mut world = World::new(0);
    let policy = |peers: Value| {
        let mut policy = crate::lab::router::policy();
        policy["ibgpPeers"] = peers;
        world
            .control_plane
            .answer("bird-config", Answer::Json(policy));
    };
    let peer = |id: u32| {
        json!({"nodeId": id, "nodeName": format!("n{id}"), "loopbackIpv4": format!("172.23.105.18{id}"),
               "loopbackIpv6": format!("fd48:4242:420::{id}"), "isRr": false})
    };
    policy((2..=6).map(peer).collect());
    world.router.start_agent();
    let neighbours = |router: &crate::lab::router::Router| {
        router
            .bird
            .ask(&router.inside, "show protocols")
            .matches(" BGP ")
            .count()
    };
    let wait_neighbours = |world: &World, wanted: usize| {
        wait_until(&format!("{wanted} internal neighbours"), 60, || {
            let found = neighbours(&world.router);
            if found == wanted {
                Ok(())
            } else {
                Err(found.to_string())
            }
        });
    };
    wait_neighbours(&world, 5);
    wait_until("all are in force", 40, || {
        let applied = world
            .router
            .path("state/applied/ibgp")
            .read_dir()
            .unwrap()
            .count();
        if applied == 5 {
            Ok(())
        } else {
            Err(applied.to_string())
        }
    });
    policy(json!([]));
    world.wait_polls("bird-config", 3);
    agent(&world.router, &["plan"])
        .ended(2)
        .says("ibgp/n2  removal held: it would remove every one of the internal neighbours");
    assert_eq!(neighbours(&world.router), 5);
    contains(&world.router.api("", "/status").1, "ibgp/n6: removal held").unwrap();
    agent(&world.router, &["approve", "--all"]).ended(0);
    wait_neighbours(&world, 0);
}

#[test]
fn an_approval_ends_for_what_is_wanted_again() {
    let mut world = World::new(0);
    let all = sessions(1..=6);
    world.control_plane.sessions(&all);
    world.router.start_agent();
    wait_links(&world, 6);
    world.control_plane.sessions(&[]);
    world.wait_polls("sessions", 4);
    // Approved while the agent stands still; before it looks, the Control Plane wants all but one again.
    world.router.kill_agent();
    agent(&world.router, &["approve", "--all"]).ended(0);
    world.control_plane.sessions(&all[..5]);
    let copies = world.router.path("state/sessions");
    for (number, session) in (1..=5).zip(&all) {
        let text = document(number, session);
        std::fs::write(copies.join(format!("{}.yaml", interface(number))), text).unwrap();
    }
    world.router.start_agent();
    wait_links(&world, 5);
    world.wait_polls("sessions", 3);
    assert_eq!(links(&world), 5);
    assert!(
        !world.router.path("state/approved").exists(),
        "what is left of the approval waits for ever"
    );
}

/// As the sync writes it.
fn document(number: u32, session: &Value) -> String {
    format!(
        "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: {0}, uid: {1}, generation: 3}}\nspec:\n  \
         adminState: Enabled\n  asn: {2}\n  tunnel: {{type: wireguard, interface: {0}, listenPort: {3}, publicKey: {4}}}\n  \
         address: {{peerLinkLocal: \"fe80::1:{number}\"}}\n",
        interface(number),
        session["uuid"].as_str().unwrap(),
        session["asn"],
        21_000 + number,
        session["credential"]["publicKey"]
    )
}

/// A new ASN or loopback from the Control Plane would reset everything.
#[test]
fn a_new_node_from_the_control_plane_waits_for_approval() {
    let world = World::converged(1);
    world.wait_phase(1, "Established");
    world.wait_file("applied/node.yaml", "4242420998");
    let ages = world.ages();
    let mut node = crate::lab::router::node();
    node["node"]["asn"] = 4_242_421_111_u32.into();
    node["node"]["region"] = "elsewhere".into();
    world.control_plane.answer("config", Answer::Json(node));
    let change = "asn 4242420998 -> 4242421111";
    wait_until("the change is held and shown", 60, || {
        contains(&world.router.api("", "/status").1, change)
    });
    world.wait_polls("config", 2);
    assert_eq!(world.ages(), ages, "the session was reset");
    agent(&world.router, &["plan"]).ended(2).says(change);
    agent(&world.router, &["describe", "node"])
        .ended(0)
        .says(change);
    agent(&world.router, &["approve", "--list"])
        .ended(0)
        .says(change);
    let status: Value = serde_json::from_str(&world.router.api("", "/status").1).unwrap();
    assert_eq!(status["held"][0]["object"], "node", "{status}");
    assert_eq!(status["node"]["region"], "elsewhere", "other fields pass");
    // It waits across a restart, too.
    let mut world = world;
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_polls("config", 2);
    assert_eq!(world.ages(), ages);
    agent(&world.router, &["approve", "node"])
        .ended(0)
        .says("approved");
    wait_until("the approved ASN is in effect", 60, || {
        let text = std::fs::read_to_string(world.router.path("state/applied/node.yaml"));
        contains(&text.unwrap_or_default(), "4242421111")
    });
    wait_until("the approval is spent", 60, || {
        if world.router.path("state/approved").exists() {
            Err("the file is there".to_owned())
        } else {
            Ok(())
        }
    });
}

/// Creates links with this router's mark and without a document, while the agent stands still.
fn orphans(world: &World, numbers: std::ops::RangeInclusive<u32>) {
    world.router.while_agent_stands_still(|| {
        for number in numbers {
            let mark = world.router.mark(&crate::lab::world::uuid(number));
            world.router.inside.shell(&format!(
                "ip link add br{number} type bridge && ip link set br{number} alias {mark}"
            ));
        }
    });
}

#[test]
fn held_orphans_are_shown_everywhere_and_go_by_approval() {
    let mut world = World::converged(1);
    let ages = world.ages();
    orphans(&world, 71..=74);
    let orphan = |number: u32| format!("orphan/{}", crate::lab::world::uuid(number));
    let why = "4 of 5 tunnels have no record, and guard.maxRemovals allows 1 to go";
    let wait_held = |world: &World, wanted: &[u32]| {
        wait_until(&format!("{wanted:?} are held"), 60, || {
            let (_, text) = world.router.api("", "/status");
            let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let held = status["held"].as_array().into_iter().flatten();
            let held: Vec<_> = held.filter_map(|held| held["object"].as_str()).collect();
            let wanted: Vec<_> = wanted.iter().copied().map(orphan).collect();
            match held == wanted && world.metric("moenet_agent_held_changes") == wanted.len() as u64
            {
                true => Ok(()),
                false => Err(text),
            }
        });
    };
    let bridges = |world: &World| {
        let links = world.router.inside.shell("ip -o link");
        (71..=74)
            .filter(|number| links.contains(&format!(" br{number}:")))
            .collect::<Vec<u32>>()
    };
    wait_held(&world, &[71, 72, 73, 74]);
    let (_, status) = world.router.api("", "/status");
    contains(&status, "\"status\":\"degraded\"").unwrap();
    contains(&status, why).unwrap();
    let list = agent(&world.router, &["approve", "--list"]).ended(0);
    let plan = agent(&world.router, &["plan"]).ended(2);
    for number in 71..=74 {
        list.says(&orphan(number));
        plan.says(&orphan(number));
        let lines = world.log();
        let said = lines.lines().filter(|line| line.contains(&orphan(number)));
        assert_eq!(said.count(), 1, "{lines}");
    }
    list.says(why);
    assert_eq!(bridges(&world), [71, 72, 73, 74]);

    // One by approval, one by hand; the others are still held after a restart.
    agent(&world.router, &["approve", &orphan(72)])
        .ended(0)
        .says("approved");
    wait_held(&world, &[71, 73, 74]);
    wait_until("the approved orphan is gone", 30, || {
        let left = bridges(&world);
        (left == [71, 73, 74])
            .then_some(())
            .ok_or(format!("{left:?}"))
    });
    world.router.inside.shell("ip link del br73");
    wait_held(&world, &[71, 74]);
    world.router.kill_agent();
    world.router.start_agent();
    wait_held(&world, &[71, 74]);
    assert_eq!(bridges(&world), [71, 74]);
    agent(&world.router, &["approve", "--all"]).ended(0);
    wait_held(&world, &[]);
    wait_until("every orphan is gone", 30, || match &*bridges(&world) {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(world.ages(), ages, "a session was reset");
}

#[test]
fn approvers_at_once_approve_each_change_once() {
    let mut world = World::new(0);
    let all = sessions(1..=6);
    world.control_plane.sessions(&all);
    world.router.start_agent();
    wait_links(&world, 6);
    world.control_plane.sessions(&all[..2]);
    world.wait_polls("sessions", 4);
    assert_eq!(links(&world), 6, "removed without approval");
    // Each succeeds, or says that another one was faster.
    let approve = world.router.command("approve --all 2>&1");
    let line = format!(
        "for n in 1 2 3 4; do ({approve} || echo \"exit $?\") & done; wait; {approve} || true"
    );
    let said = world.router.inside.shell(&line);
    contains(&said, "approved").unwrap();
    assert!(!said.contains("os error"), "{said}");
    wait_links(&world, 2);
    wait_until("the approval is spent", 30, || {
        match world.router.path("state/approved").exists() {
            true => Err("the file is there".into()),
            false => Ok(()),
        }
    });
    world.control_plane.sessions(&all);
    wait_links(&world, 6);
    world.control_plane.sessions(&all[..2]);
    world.wait_polls("sessions", 4);
    assert_eq!(links(&world), 6, "an approval was used twice");
}
