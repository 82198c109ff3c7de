//! What is removed, when, and what is said about it.

use crate::lab::wait_until;
use crate::lab::world::{World, interface, uuid};

fn gone(world: &World, number: u32) -> Result<(), String> {
    let links = world.router.inside.try_shell("ip -o link")?;
    if links.contains(&interface(number)) {
        Err(links)
    } else {
        Ok(())
    }
}

#[test]
fn queued_delete_is_removed_before_it_is_reported() {
    let mut world = World::converged(2);
    world.wait_reported(&uuid(1), 1, "");
    world.router.kill_agent();
    let mut sessions = world.sessions();
    sessions[0]["status"] = 5.into();
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    wait_until("session 1 is reported 0", 40, || {
        match world.control_plane.reported(&uuid(1)) {
            Some((0, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // Looked at right after the report: it must have been true by then.
    gone(&world, 1).unwrap();
    let protocols = world
        .router
        .bird
        .ask(&world.router.inside, "show protocols");
    assert_eq!(
        protocols.matches(" BGP ").count(),
        1,
        "only the other session is left:\n{protocols}"
    );
    world.neighbours[1].wait_established(5);

    // The Control Plane goes on listing it.
    world.wait_polls("sessions", 2);
    let commits = || world.in_state("git rev-list --count main");
    let (before, posts) = (commits(), world.control_plane.posts("modify").len());
    world.wait_polls("sessions", 4);
    assert_eq!(commits(), before, "{}", world.in_state("git log --stat -5"));
    let modifications = world.control_plane.posts("modify");
    assert_eq!(modifications.len(), posts, "{modifications:#?}");
    let document = format!("sessions/{}.yaml", interface(1));
    assert!(!world.state(&document).exists());
}

#[test]
fn a_disabled_session_goes_and_comes_back() {
    let world = World::converged(1);
    let mut sessions = world.sessions();
    sessions[0]["status"] = 0.into();
    world.control_plane.sessions(&sessions);
    wait_until("the tunnel is gone", 20, || gone(&world, 1));
    world.control_plane.sessions(&world.sessions());
    world.wait_established();
}

#[test]
fn session_absent_from_complete_list_loses_its_secrets() {
    let world = World::converged(2);
    let mut sessions = world.sessions();
    sessions[0]["presharedKey"] = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=".into();
    world.control_plane.sessions(&sessions);
    let secrets = || world.in_state("ls secrets");
    wait_until("the key is there", 20, || {
        crate::lab::contains(&secrets(), &interface(1))
    });
    world.control_plane.sessions(&world.sessions()[1..]);
    wait_until("the tunnel is gone", 20, || gone(&world, 1));
    wait_until("the key is gone", 20, || {
        if secrets().is_empty() {
            Ok(())
        } else {
            Err(secrets())
        }
    });
    world.neighbours[1].wait_established(5);
}

#[test]
fn guard_holds_excess_removals_until_approved() {
    let world = World::converged(4);
    world.control_plane.sessions(&[]);
    world.wait_polls("sessions", 4);
    for number in 1..=4 {
        assert!(
            gone(&world, number).is_err(),
            "session {number} was removed without approval"
        );
    }
    let config = world.router.path("config.yaml");
    let agent = crate::lab::router::agent_program();
    world.router.inside.shell(&format!(
        "{} --config {} approve --all",
        agent.display(),
        config.display()
    ));
    wait_until("all four are gone", 40, || {
        (1..=4).try_for_each(|number| gone(&world, number))
    });
}
