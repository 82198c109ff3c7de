//! Edits in place of what the Control Plane's sync wrote, and documents of the operator's own.

use crate::lab::control_plane::Answer;
use crate::lab::hands::{Untouched, document_of, mtu_exception, override_of};
use crate::lab::wait_until;
use crate::lab::world::{World, interface, session};
use std::os::unix::fs::MetadataExt as _;

fn control_plane_is_away(world: &World) {
    for endpoint in ["sessions", "config", "bird-config", "mesh"] {
        let down = Answer::Text {
            status: 503,
            kind: "text/plain",
            body: "down".into(),
        };
        world.control_plane.answer(endpoint, down);
    }
}

fn control_plane_is_back(world: &World) {
    world
        .control_plane
        .answer("config", Answer::Json(crate::lab::router::node()));
    world
        .control_plane
        .answer("bird-config", Answer::Json(crate::lab::router::policy()));
    world
        .control_plane
        .answer("mesh", Answer::Json(serde_json::json!({"peers": []})));
    world.control_plane.sessions(&world.sessions());
}

/// The edit is an override, the document is as the sync left it, and log, status and history say so.
fn assert_kept(world: &World, number: u32, synced: &str, words: &[&str]) {
    let file = override_of(number);
    for word in words.iter().chain(&["reason: edited in place"]) {
        world.wait_file(&file, word);
    }
    wait_until("the document is put back", 20, || {
        let now = world.read(&document_of(number));
        if now == synced { Ok(()) } else { Err(now) }
    });
    wait_until(
        "the history has the edit, by its author, and nothing is left to commit",
        30,
        || {
            let log = world.git("log --format='%an: %s' -- overrides");
            let subject = format!(
                "root: Keep an edit of {} as an override",
                document_of(number)
            );
            crate::lab::contains(&log, &subject)?;
            let status = world.git("status --porcelain");
            if status.is_empty() {
                Ok(())
            } else {
                Err(status)
            }
        },
    );
    world.wait_log("manual edit imported as an override");
    wait_until("the status says so", 30, || {
        let overridden = world.session_status(number)["overridden"].to_string();
        crate::lab::contains(&overridden, "spec.tunnel.mtu")
    });
}

#[test]
fn manual_edits_become_one_override() {
    let world = World::converged(1);
    world.wait_polls("sessions", 1);
    let (document, synced, ages) = (document_of(1), world.read(&document_of(1)), world.ages());
    world.replace(&document, "mtu: 1420", "mtu: 1380");
    world.wait_mtu(1, 1380);
    assert_kept(&world, 1, &synced, &["mtu: 1380"]);
    world.replace(
        &document,
        "asn: 4242421001",
        "asn: 4242421001\n  description: on loan",
    );
    world.replace(&document, "policy: full", "policy: downstream");
    world.wait_file(&override_of(1), "policy: downstream");
    assert_kept(
        &world,
        1,
        &synced,
        &["mtu: 1380", "description: on loan", "policy: downstream"],
    );

    // The Control Plane goes on, and what the operator did not touch follows it.
    let mut moved = session(1, &world.neighbours[0]);
    moved["mtu"] = 1340.into();
    moved["policy"] = "peer".into();
    moved["extensions"] = serde_json::json!(["mp-bgp", "extended-nexthop"]);
    world.control_plane.sessions(&[moved]);
    world.wait_file(&document, "policy: peer");
    world.wait_polls("sessions", 2);
    world.wait_mtu(1, 1380);
    world.wait_file(&format!("applied/{document}"), "policy: downstream");
    assert_eq!(world.ages(), ages, "nothing of this resets a session");
}

#[test]
fn edit_is_kept_without_agent_and_control_plane() {
    let mut world = World::converged(2);
    world.wait_polls("sessions", 1);
    let (one, two, ages) = (
        world.read(&document_of(1)),
        world.read(&document_of(2)),
        world.ages(),
    );
    control_plane_is_away(&world);
    // Any list: an open breaker lets one fetch of all lists try at a time.
    world.wait_log("Control Plane call failed");
    world.replace(&document_of(1), "mtu: 1420", "mtu: 1380");
    world.wait_mtu(1, 1380);
    assert_kept(&world, 1, &one, &["mtu: 1380"]);
    world.router.kill_agent();
    world.in_state(&format!(
        "sed -i 's/mtu: 1420/mtu: 1340/' {}",
        document_of(2)
    ));
    world.router.start_agent();
    world.wait_mtu(2, 1340);
    assert_kept(&world, 2, &two, &["mtu: 1340"]);
    control_plane_is_back(&world);
    world.wait_polls("sessions", 2);
    world.wait_mtu(1, 1380);
    world.wait_mtu(2, 1340);
    assert_eq!(world.ages(), ages);
}

#[test]
fn policy_edit_applies_and_broken_override_delays_nothing() {
    let world = World::converged(2);
    world.wait_polls("bird-config", 1);
    let policy = world.read("policy.yaml");
    world.replace("policy.yaml", "asPathMaxLen: 10", "asPathMaxLen: 7");
    let bird = format!("grep -r . {}", world.router.path("bird/moenet").display());
    wait_until("the policy is in force", 30, || {
        crate::lab::contains(&world.router.inside.try_shell(&bird)?, "MOE_MAX_PATH = 7")
    });
    world.wait_file("overrides/policy.yaml", "reason: edited in place");
    assert_eq!(world.read("policy.yaml"), policy);

    // An edit cannot join an override that cannot be read; it waits, and all else goes on.
    world.write(&override_of(1), "spec: {reason: [");
    world.replace(&document_of(1), "mtu: 1420", "mtu: 1380");
    world.wait_log("manual edit not imported");
    let mut sessions = world.sessions();
    sessions[1]["mtu"] = 1400.into();
    world.control_plane.sessions(&sessions);
    world.wait_mtu(2, 1400);
    world.wait_polls("sessions", 3);
    assert_eq!(
        world.log().matches("manual edit not imported").count(),
        1,
        "said once"
    );
    world.write(&override_of(1), &mtu_exception(1, 1360));
    world.wait_mtu(1, 1380);
    world.wait_file(&override_of(1), "reason: lab; edited in place");
}

#[test]
fn deleted_synced_document_returns_without_teardown() {
    let mut world = World::converged(2);
    world.wait_phase(1, "Established");
    world.wait_phase(2, "Established");
    world.wait_polls("sessions", 2);
    let files = [document_of(1), "policy.yaml".into(), "node.yaml".into()];
    let before: Vec<String> = files.iter().map(|file| world.read(file)).collect();
    let back = |world: &World| {
        wait_until("the documents are back", 30, || {
            for (file, before) in files.iter().zip(&before) {
                let now = std::fs::read_to_string(world.state(file))
                    .map_err(|error| error.to_string())?;
                if now != *before {
                    return Err(now);
                }
            }
            Ok(())
        });
    };
    let untouched = Untouched::since_now(&world);
    control_plane_is_away(&world);
    for file in &files {
        world.remove(file);
    }
    back(&world);
    world.wait_log("Control Plane document restored");
    untouched.assert(&world);
    world.router.kill_agent();
    for file in &files {
        world.remove(file);
    }
    world.router.start_agent();
    back(&world);
    control_plane_is_back(&world);
    world.wait_polls("sessions", 3);
    untouched.assert_across_restart(&world);
}

/// As somebody with a taste of their own writes it, on a machine that ends lines with CR LF.
fn own(world: &World) -> String {
    let neighbour = &world.neighbours[1];
    let text = format!(
        "# peering with a friend, agreed on IRC\n---\napiVersion:   moenet.work/v1\nkind: BgpSession\nmetadata:   {{ \
         name: 'friend' }}   # no uid\nspec:\n        asn: 0x{:x}\n        tunnel:\n              interface: \
         \"{}\"\n              publicKey: {}\n              endpoint: 192.0.2.18:51820\n              mtu: 1_420\n\n\n\
         \n        address: {{peerLinkLocal: 'FE80:0::1:2'}}\n...\n",
        neighbour.asn,
        interface(2),
        neighbour.keys.public
    );
    text.replace("mtu: 1_420", "mtu: 1420")
        .replace('\n', "\r\n")
}

#[test]
fn operator_document_is_applied_and_never_rewritten() {
    let mut world = World::new(2);
    world.control_plane.sessions(&world.sessions()[..1]);
    std::fs::create_dir_all(world.state("sessions")).unwrap();
    let text = own(&world);
    world.write("sessions/friend.yaml", &text);
    world.router.start_agent();
    world.wait_established();
    let ages = world.ages();
    let inode = |world: &World| {
        let metadata = world.state("sessions/friend.yaml").metadata().unwrap();
        (metadata.ino(), metadata.mtime_nsec(), metadata.ctime_nsec())
    };
    let before = inode(&world);
    world.wait_polls("sessions", 2);
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(2)));
    world.wait_mtu(2, 1420);
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_polls("sessions", 2);
    assert_eq!(
        (world.read("sessions/friend.yaml"), inode(&world)),
        (text, before)
    );
    assert_eq!(world.ages(), ages);
    world.remove("sessions/friend.yaml");
    wait_until("the session is gone", 30, || world.has_no_link(2));
    world.has_link(1).unwrap();
}

#[test]
fn an_operator_who_deletes_own_documents_is_not_held() {
    let world = World::converged(1);
    let document = |number: u32| {
        format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: own{number}}}\nspec:\n  asn: {}\n  \
             tunnel: {{interface: {}, publicKey: {}}}\n  address: {{peerLinkLocal: 'fe80::9:{number}'}}\n",
            4_242_421_000 + number,
            interface(number),
            crate::lab::wireguard::KeyPair::new().public
        )
    };
    for number in 11..=14 {
        world.write(&format!("sessions/own{number}.yaml"), &document(number));
    }
    wait_until("they are there", 40, || {
        (11..=14).try_for_each(|number| world.has_link(number))
    });
    let ages = world.ages();
    world.in_state("rm sessions/own*.yaml");
    wait_until("they are gone", 40, || {
        (11..=14).try_for_each(|number| world.has_no_link(number))
    });
    assert_eq!(world.ages(), ages);
}

#[test]
fn copied_uid_is_rejected_and_lost_uid_keeps_the_session() {
    let world = World::converged(1);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let synced = world.read(&document_of(1));
    let untouched = Untouched::since_now(&world);
    let copy = synced
        .replace(&interface(1), "wg_copy")
        .replace("21001", "21999");
    world.write("sessions/wg_copy.yaml", &copy);
    wait_until("the copy is refused", 30, || {
        let status = world.status("sessions/wg_copy").to_string();
        crate::lab::contains(&status, "wg_copy.yaml:")?;
        crate::lab::contains(&status, &format!("{} has the same uid", interface(1)))
    });
    world.wait_polls("sessions", 2);
    assert_eq!(
        world.read("sessions/wg_copy.yaml"),
        copy,
        "the operator's file is not written over"
    );
    world.remove("sessions/wg_copy.yaml");
    untouched.assert(&world);

    let without: String = synced
        .split_inclusive('\n')
        .filter(|line| !line.contains("uid:"))
        .collect();
    world.write(&document_of(1), &without);
    world.wait_polls("sessions", 3);
    world.has_link(1).unwrap();
    let recorded = |what: &str, uid: bool| {
        wait_until(what, 30, || {
            let text = world.git(&format!("show main:{}", document_of(1)));
            if text.contains("uid:") == uid {
                Ok(())
            } else {
                Err(text)
            }
        });
    };
    recorded("the history has it as the operator's own", false);
    world.remove(&document_of(1));
    world.wait_file(&document_of(1), "uid:");
    recorded("the history has it as the Control Plane's again", true);
    wait_until("nothing is left to commit", 30, || {
        let status = world.git("status --porcelain");
        if status.is_empty() {
            Ok(())
        } else {
            Err(status)
        }
    });
    assert_eq!(world.ages(), untouched.ages);
}

#[test]
fn broken_document_does_not_keep_a_dropped_session_up() {
    let world = World::converged(3);
    world.wait_polls("sessions", 2);
    let other = crate::lab::hands::Age::of(&world.neighbours[2]);
    let half = "spec: {asn: 4242421001, tunnel: {mtu: 1400}  # to be continued";
    for number in [1, 2] {
        world.write(&document_of(number), half);
        world.wait_refused(
            number,
            &[
                &document_of(number),
                "The previous configuration stays active",
            ],
        );
    }
    let mut sessions = world.sessions();
    sessions[0]["mtu"] = 1400.into();
    world.control_plane.sessions(&sessions);
    world.wait_polls("sessions", 2);
    world.wait_mtu(1, 1420);
    assert_eq!(world.read(&document_of(1)), half);

    // One is to be removed, the other is not listed any more.
    sessions[0]["status"] = 5.into();
    world
        .control_plane
        .sessions(&[sessions[0].clone(), sessions[2].clone()]);
    for number in [1, 2] {
        wait_until("the session is gone", 30, || world.has_no_link(number));
        wait_until("its document is gone", 30, || {
            if world.state(&document_of(number)).exists() {
                Err("it is there".into())
            } else {
                Ok(())
            }
        });
        assert_eq!(
            world.read(&format!("{}.broken", document_of(number))),
            half,
            "nothing is lost"
        );
    }
    world.wait_reported(&crate::lab::world::uuid(1), 0, "");
    world.wait_log("file quarantined");
    assert_eq!(crate::lab::hands::Age::of(&world.neighbours[2]), other);
    assert!(!world.git("log -p").contains("to be continued"));
}

#[test]
fn git_that_moves_cleans_or_restores_the_tree_changes_nothing() {
    let mut world = World::converged(2);
    world.wait_polls("sessions", 1);
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    let clean = |world: &World| {
        wait_until("nothing is left to commit", 40, || {
            let status = world.git("status --porcelain");
            if status.is_empty() {
                Ok(())
            } else {
                Err(status)
            }
        });
    };
    clean(&world);
    let oldest = world.git("rev-list --max-parents=0 main");
    let oldest = oldest.trim();
    let files = |world: &World| world.in_state("cat sessions/*.yaml overrides/sessions/*.yaml");
    let (before, ages) = (files(&world), world.ages());
    let unchanged = |world: &World, what: &str| {
        clean(world);
        assert_eq!(files(world), before, "{what}");
        assert_eq!(world.ages(), ages, "{what}");
        world.wait_mtu(1, 1380);
    };

    // The tree of an old commit, which has neither all sessions nor the override.
    world.git(&format!("checkout -q {oldest}"));
    world.wait_log("HEAD of the state directory left branch main");
    wait_until("the condition says so", 20, || {
        crate::lab::contains(&world.read("status/node.yaml"), "HeadMoved")
    });
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(1)));
    world.wait_mtu(1, 1380);
    world.router.kill_agent();
    world.router.start_agent();
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(1)));
    world.wait_mtu(1, 1380);
    assert_eq!(
        world.ages(),
        ages,
        "a restart on an old tree changes nothing"
    );
    assert_eq!(world.git("status --porcelain"), "", "Git can go back");

    wait_until("the restarted agent logs it too", 40, || {
        match world.log().matches("left branch main").count() {
            2 => Ok(()),
            times => Err(times.to_string()),
        }
    });

    // Maintenance takes effect all the same, and is not lost with the return.
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    let drained = |world: &World| {
        world.neighbours[0].wait_route(crate::lab::router::PREFIX4, "(65535,0)", 40);
    };
    drained(&world);
    assert_eq!(world.git("status --porcelain"), "", "Git can go back");
    world.git("checkout -q main");
    world.wait_file("maintenance.yaml", "enabled: true");
    drained(&world);
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    world.wait_file("maintenance.yaml", "enabled: false");
    let written = "because=\"bird.file: want define MOE_DRAINED = false;";
    world.wait_log(written);
    let log = world.log();
    assert_eq!(log.matches(written).count(), 1, "drained until the stop");
    world.wait_log("HEAD of the state directory is at branch main again");
    unchanged(&world, "git checkout of an old commit");
    world.git("checkout -q -b look");
    world.wait_log("on branch look");
    world.git("checkout -q main");
    unchanged(&world, "git checkout of a branch");

    for line in [
        "git stash -q",
        "git restore .",
        "git reset -q --hard",
        "git clean -qxfd",
    ] {
        let line_of_operator = line.replace(
            "git ",
            "git -c safe.directory='*' -c user.name=op -c user.email=op@x ",
        );
        // What the agent writes again while `git clean` runs makes that end with a warning.
        let may_warn = if line.contains("clean") { " || :" } else { "" };
        world.in_state(&format!("{line_of_operator}{may_warn}"));
        world.sync();
        unchanged(&world, line);
    }
    wait_until("what the agent derives is written again", 60, || {
        let listed = world.in_state("ls status/sessions .synced/sessions secrets outbox -d");
        crate::lab::contains(&listed, "status/sessions")?;
        crate::lab::contains(&world.in_state("ls status/sessions"), &interface(2))?;
        crate::lab::contains(&world.in_state("ls .synced/sessions"), &interface(2))
    });
    let log = world.log();
    let left = log.matches("left branch main").count();
    assert_eq!(left, 3, "once for each time, the restart included");
    assert!(!log.contains("edited in place"), "no edit is made up");
}

#[test]
fn git_reset_revives_no_session_that_the_control_plane_removed() {
    let mut world = World::converged(4);
    world.wait_polls("sessions", 1);
    let clean = |world: &World| {
        wait_until("nothing is left to commit", 40, || {
            let status = world.git("status --porcelain");
            if status.is_empty() {
                Ok(())
            } else {
                Err(status)
            }
        });
    };
    clean(&world);
    let old = world.git("rev-parse main");
    world.control_plane.sessions(&world.sessions()[..3]);
    wait_until("the session and its record are gone", 40, || {
        world.has_no_link(4)?;
        match world.state(&format!("applied/{}", document_of(4))).exists() {
            true => Err("the record is there".into()),
            false => Ok(()),
        }
    });
    clean(&world);
    control_plane_is_away(&world);
    let ages = |world: &World| -> Vec<_> {
        let left = &world.neighbours[..3];
        left.iter().map(crate::lab::hands::Age::of).collect()
    };
    let before = ages(&world);
    let reset = format!(
        "git -c safe.directory='*' -c user.name=op -c user.email=op@x reset -q --hard {}",
        old.trim()
    );
    let stays_away = |world: &World, what: &str| {
        wait_until("the revived document is removed again", 40, || match world
            .state(&document_of(4))
            .exists()
        {
            true => Err("it is there".into()),
            false => Ok(()),
        });
        clean(world);
        world
            .has_no_link(4)
            .unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!(!world.log().contains(&format!("create {}", interface(4))));
        (1..=3).for_each(|number| world.has_link(number).unwrap());
        assert_eq!(ages(world), before, "{what}");
    };
    world.in_state(&reset);
    world.wait_log("Git restored documents that the Control Plane has removed");
    stays_away(&world, "while the agent runs");

    world.router.kill_agent();
    world.in_state(&reset);
    world.in_state("git -c safe.directory='*' clean -qxfd");
    world.router.start_agent();
    stays_away(&world, "while the agent is down");
}
