//! `rollback` against a running agent: what was applied then is applied again, and the neighbour sees it.

use crate::lab::cli::{agent, commits, exception, git, try_git};
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

fn wait_mtu(world: &World, wanted: &str) {
    let command = format!("cat /sys/class/net/{}/mtu", interface(1));
    wait_until(&format!("an MTU of {wanted}"), 40, || {
        let found = world.router.inside.try_shell(&command)?;
        if found.trim() == wanted {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// Waits until this many commits changed what is applied. At first there is no branch.
fn wait_applied(world: &World, count: usize) {
    let applied = format!("applied/sessions/{}.yaml", interface(1));
    wait_until(&format!("{count} applies"), 40, || {
        let log = try_git(
            &world.router,
            &["log", "--format=%s", "main", "--", &applied],
        )?;
        if log.lines().count() == count {
            Ok(())
        } else {
            Err(log)
        }
    });
}

#[test]
fn rollback_restores_the_applied_state_at_the_neighbour() {
    let world = World::converged(1);
    let name = interface(1);
    wait_applied(&world, 1);
    let mut sessions = world.sessions();
    sessions[0]["mtu"] = 1400.into();
    world.control_plane.sessions(&sessions);
    wait_mtu(&world, "1400");
    wait_applied(&world, 2);
    agent(&world.router, &["rollback", &name])
        .ended(0)
        .says("rolled back to");
    wait_mtu(&world, "1420");
    wait_applied(&world, 3);
    agent(&world.router, &["diff", &name]).ended(2).says("1420");

    // With an override that is there, only --force, and then exactly.
    let file = world
        .router
        .path("state")
        .join(format!("overrides/sessions/{name}.yaml"));
    std::fs::write(&file, exception(&name, "ours", "{bgp: {policy: peer}}", "")).unwrap();
    wait_mtu(&world, "1400");
    wait_applied(&world, 4);
    let refused = agent(&world.router, &["rollback", &name, "main~0"]);
    assert_eq!(refused.code, 1);
    refused.says("--force");
    let first = git(
        &world.router,
        &[
            "log",
            "--format=%h",
            "--reverse",
            "main",
            "--",
            &format!("applied/sessions/{name}.yaml"),
        ],
    );
    let first = first.lines().next().unwrap();
    let done = agent(
        &world.router,
        &["rollback", &name, first, "--force", "-o", "json"],
    )
    .ended(0)
    .json();
    assert_eq!(
        done["override"]["set"],
        serde_json::json!({"tunnel": {"mtu": 1420}}),
        "nothing is merged"
    );
    assert!(
        done["override"]["reason"]
            .as_str()
            .unwrap()
            .ends_with("before: ours")
    );
    wait_mtu(&world, "1420");
    wait_applied(&world, 5);
    for (arguments, word) in [
        (["nobody", "main"], "no object named nobody"),
        ([name.as_str(), "nonsense"], "no commit \"nonsense\""),
        ([name.as_str(), ""], "no commit"),
        ([name.as_str(), "main~4000"], "no commit"),
    ] {
        let answer = agent(
            &world.router,
            &[&["rollback", "--force"], &arguments[..]].concat(),
        )
        .ended(1);
        answer.says(word);
    }

    // Taken down by the Control Plane, and brought back: the neighbour is the judge.
    std::fs::remove_file(&file).unwrap();
    wait_applied(&world, 6);
    sessions[0]["status"] = 0.into();
    world.control_plane.sessions(&sessions);
    wait_applied(&world, 7);
    assert!(
        world
            .router
            .inside
            .try_shell(&format!("ip link show {name}"))
            .is_err()
    );
    agent(&world.router, &["rollback", &name, "main"])
        .ended(1)
        .says("was not applied at");
    agent(&world.router, &["rollback", &name])
        .ended(0)
        .says("adminState: Enabled");
    world.wait_established();
    wait_applied(&world, 8);
    let of_root = |line: &&String| {
        ["root|Edit overrides/", "root|Remove overrides/"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let root = commits(&world.router).iter().filter(of_root).count();
    assert_eq!(root, 5, "{:?}", commits(&world.router));
}
