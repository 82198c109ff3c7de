//! An operator's exceptions: in force at once, for as long as they say, and gone without a trace.

use crate::lab::hands::{
    Age, Untouched, condition, document_of, exception, mtu_exception, override_of,
};
use crate::lab::wait_until;
use crate::lab::world::{World, interface, session, uuid};

/// Name and text of every BIRD file, and the kernel's own words for the links.
fn in_effect(world: &World) -> String {
    let birds = "cd bird && find . -name '*.conf' | sort | xargs tail -n +1";
    let links = "for i in /sys/class/net/wg_*; do echo ${i##*/} $(cat $i/mtu $i/ifindex); done; wg show all dump \
                 | cut -f 1-4 | sort";
    let folder = world.router.path("").display().to_string();
    let applied = world.in_state("tail -n +1 applied/sessions/*");
    let text = world
        .router
        .inside
        .shell(&format!("cd {folder}; {birds}; cd ..; {links}"));
    format!("{text}{applied}")
}

/// Builds of the desired state, and plans.
fn work(world: &World) -> (u64, u64) {
    let builds = world.metric("moenet_agent_desired_builds_total");
    (builds, world.metric("moenet_agent_plans_total"))
}

#[test]
fn saved_override_costs_one_build_and_plans_of_one_object() {
    let world = World::converged(3);
    world.wait_measured();
    let mut costs = Vec::new();
    // The tick of all objects may fall into one of them.
    for mtu in [1380_u32, 1384, 1388] {
        let before = work(&world);
        world.write(&override_of(1), &mtu_exception(1, mtu));
        world.wait_mtu(1, mtu);
        std::thread::sleep(std::time::Duration::from_millis(700));
        let after = work(&world);
        costs.push((after.0 - before.0, after.1 - before.1));
    }
    let is_one = |cost: &(u64, u64)| cost.0 == 1 && (1..=3).contains(&cost.1);
    assert!(costs.iter().any(is_one), "builds and plans: {costs:?}");
    assert!(costs.iter().all(|(builds, _)| *builds <= 2), "{costs:?}");
}

#[test]
fn polls_without_a_change_build_nothing() {
    let world = World::converged(2);
    world.wait_measured();
    // A first listing of the last records may still follow.
    world.wait_polls("sessions", 2);
    std::thread::sleep(std::time::Duration::from_secs(31));
    let before = work(&world).0;
    world.wait_polls("sessions", 8);
    world.sync();
    assert_eq!(work(&world).0, before);
}

#[test]
fn override_survives_sync_and_restart_and_leaves_no_trace() {
    let mut world = World::converged_without_polls(2);
    world.wait_phase(1, "Established");
    world.wait_phase(2, "Established");
    let (before, ages, asked) = (
        in_effect(&world),
        world.ages(),
        world.control_plane.asked("sessions"),
    );
    world.write(&override_of(1), &mtu_exception(1, 1380));
    let two = "reason: lab\nset:\n  description: on loan\n  tunnel: {mtu: 1340}\n  bgp: {policy: downstream}";
    world.write(&override_of(2), &exception(&interface(2), two));
    world.wait_mtu(1, 1380);
    world.wait_mtu(2, 1340);
    assert_eq!(
        world.control_plane.asked("sessions"),
        asked,
        "it waited for a fetch"
    );

    world.wait_file(&format!("applied/{}", document_of(2)), "policy: downstream");
    let (_, status) = world.router.api("", "/status");
    assert!(
        status.contains("spec.tunnel.mtu") && status.contains("spec.bgp.policy"),
        "{status}"
    );
    wait_until("the status names what is overridden", 20, || {
        let status = world.session_status(2);
        let wanted = serde_json::json!(["spec.bgp.policy", "spec.description", "spec.tunnel.mtu"]);
        if status["overridden"] == wanted {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });

    world.sync();
    let at_rest = Untouched::since_now(&world);
    world.sync();
    world.router.kill_agent();
    world.router.start_agent();
    world.sync();
    at_rest.assert_across_restart(&world);
    world.wait_mtu(1, 1380);
    assert_eq!(
        world.ages(),
        ages,
        "an MTU or a policy is changed without a reset"
    );

    world.remove(&override_of(1));
    world.remove(&override_of(2));
    wait_until("all is as it was", 40, || {
        let now = in_effect(&world);
        if now == before { Ok(()) } else { Err(now) }
    });
    assert_eq!(world.ages(), ages, "and back");
    let (_, status) = world.router.api("", "/status");
    assert!(!status.contains("spec.tunnel.mtu"), "{status}");
}

#[test]
fn paused_session_is_planned_and_not_changed() {
    let world = World::converged(1);
    let file = override_of(1);
    let paused = "reason: debugging\npaused: true\nset: {tunnel: {mtu: 1380}}";
    world.write(&file, &exception(&interface(1), paused));
    world.wait_phase(1, "Paused");
    let ages = world.ages();
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(1)));
    let writes = world.metric("moenet_agent_netlink_writes_total");
    world.wait_polls("sessions", 2);
    wait_until("what it would do is told", 20, || {
        let status = world.session_status(1);
        let planned = condition(&status, "TunnelConfigured");
        if planned["message"].to_string().contains("1380") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });

    // What cannot be read may still say "paused", and neither the Control Plane's word nor a restart ends it.
    world.write(&file, "spec: {reason: debug");
    world.wait_refused(1, &[&file]);
    let mut world = world;
    world.router.kill_agent();
    world.router.start_agent();
    world.control_plane.sessions(&[]);
    world.wait_polls("sessions", 3);
    world.wait_mtu(1, 1300);
    assert_eq!(world.session_status(1)["phase"], "Paused");
    world.control_plane.sessions(&world.sessions());
    world.write(&file, &exception(&interface(1), paused));
    world.wait_polls("sessions", 3);
    world.wait_mtu(1, 1300);
    assert_eq!(world.ages(), ages);
    assert!(
        world.metric("moenet_agent_netlink_writes_total") <= writes,
        "the kernel was written to"
    );

    world.replace(&file, "paused: true", "paused: false");
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    assert_eq!(world.ages(), ages);
}

#[test]
fn override_expires_without_restart_fetch_or_file_event() {
    let world = World::converged_without_polls(1);
    let ages = world.ages();
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(9);
    let until = |spec: &str| format!("reason: tonight\nexpiresAt: {end}\nset: {spec}");
    world.write(
        &override_of(1),
        &exception(&interface(1), &until("{tunnel: {mtu: 1380}}")),
    );
    world.write(
        "overrides/node.yaml",
        &exception("jp1", &until("{loopbackIpv6: 'fd48:4242:420::9'}")),
    );
    world.wait_mtu(1, 1380);
    let address =
        |wanted: &str| crate::lab::contains(&world.router.inside.try_shell("ip addr")?, wanted);
    wait_until("the node's address is the override's", 20, || {
        address("fd48:4242:420::9/128")
    });
    let (asked, lines) = (
        world.control_plane.asked("sessions"),
        world.log().lines().count(),
    );
    world.wait_mtu(1, 1420);
    wait_until("the node's address is the Control Plane's", 20, || {
        address("fd48:4242:420::1/128")
    });
    assert!(jiff::Timestamp::now() >= end, "it ended too early");
    assert_eq!(world.control_plane.asked("sessions"), asked);
    assert!(
        world.state(&override_of(1)).exists(),
        "the operator's file is the operator's to remove"
    );
    assert_eq!(world.ages(), ages);
    // The line comes after the step, which the kernel shows at once.
    wait_until("the log has the change", 20, || {
        let log = world.log();
        let since = log.lines().skip(lines).collect::<Vec<_>>().join("\n");
        crate::lab::contains(&since, "1420")
    });
}

#[test]
fn early_override_waits_and_shapes_the_first_configuration() {
    let world = World::converged(2);
    world.control_plane.sessions(&world.sessions()[1..]);
    wait_until("session 1 is gone", 30, || world.has_no_link(1));
    world.write(&override_of(1), &mtu_exception(1, 1380));
    let told = || {
        world
            .router
            .api("", "/status")
            .1
            .contains(&format!("{} waits", override_of(1)))
    };
    wait_until("/status says that it waits", 20, || {
        if told() { Ok(()) } else { Err(String::new()) }
    });
    world.wait_polls("sessions", 2);
    let begin = world.git("rev-parse HEAD");
    world.control_plane.sessions(&world.sessions());
    world.wait_established();
    world.wait_mtu(1, 1380);
    assert!(!told());
    let applied = format!(
        "log -p --format= {}..HEAD -- applied/{}",
        begin.trim(),
        document_of(1)
    );
    wait_until("the history has what came into force", 20, || {
        let log = world.git(&applied);
        assert!(
            !log.contains("mtu: 1420"),
            "it was first configured without the override:\n{log}"
        );
        crate::lab::contains(&log, "mtu: 1380")
    });
}

#[test]
fn invalid_override_is_rejected_with_line_and_column() {
    let world = World::converged(1);
    let (file, name) = (override_of(1), interface(1));
    world.write(&file, &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    let untouched = Untouched::since_now(&world);
    let ours = "fe80::998:1";
    let mut wrong = session(1, &world.neighbours[0]);
    wrong["mtu"] = 1410.into();
    for (text, place, word) in [
        (
            exception(&name, "reason: lab\nset:\n  tunnel:\n    mtu: 70000"),
            ":8:12: ",
            "invalid MTU 70000",
        ),
        (
            exception(&name, "reason: lab\nset: {tunnel: {mtuu: 1400}}"),
            ":6:24: ",
            "did you mean `mtu`",
        ),
        // The Control Plane's own word for it.
        (
            exception(&name, "reason: lab\nset: {tunnel: {presharedKey: hunter2}}"),
            ":6:32: ",
            "presharedKeyFile",
        ),
        (
            exception(&name, "set: {tunnel: {mtu: 1400}}"),
            ":5:3: ",
            "reason",
        ),
        (
            exception(&name, "reason: ''\nset: {tunnel: {mtu: 1400}}"),
            ":5:11: ",
            "reason",
        ),
        (
            exception(&name, "reason: lab\nset: {asn: null}"),
            ":6:",
            "asn",
        ),
        (
            exception(&name, "reason: lab\nset: {adminState: Absent}"),
            ":6:21: ",
            "Disabled",
        ),
        (
            exception(
                &name,
                &format!("reason: lab\nset:\n  address: {{peerLinkLocal: '{ours}'}}"),
            ),
            ":7:30: ",
            "peerLinkLocal",
        ),
        (
            mtu_exception(1, 1400).replace("/v1", "/v9"),
            ":",
            "apiVersion",
        ),
        (
            mtu_exception(1, 1400).replace("kind: Override", "kind: Node"),
            ":",
            "kind",
        ),
        (
            mtu_exception(1, 1400).replace(&name, "wg_other"),
            ":",
            "metadata.name",
        ),
        ("spec: [1, 2".into(), ":1:", ""),
    ] {
        world.write(&file, &text);
        world.wait_refused(1, &[&format!("{file}{place}"), word]);
        wait_until("the Control Plane hears of it", 30, || {
            match world.control_plane.reported(&uuid(1)) {
                Some((2, text)) if text.contains(word) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
    world.control_plane.sessions(&[wrong]);
    world.wait_polls("sessions", 2);
    world.control_plane.sessions(&world.sessions());
    untouched.assert(&world);
    world.write(&file, &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    world.wait_reported(&uuid(1), 1, "");
    world.wait_phase(1, "Established");
    wait_until("the history has what came into force", 30, || {
        crate::lab::contains(&world.git(&format!("log -p -- {file}")), "mtu: 1340")
    });
    let history = world.git("log -p --all");
    assert!(
        !history.contains("hunter2") && !world.log().contains("hunter2"),
        "a secret got out"
    );
}

#[test]
fn override_disables_a_session_and_its_removal_restores_it() {
    let world = World::converged(2);
    let other = world.ages().remove(1);
    world.write(
        &override_of(1),
        &exception(&interface(1), "reason: abuse\nset: {adminState: Disabled}"),
    );
    wait_until("the tunnel is gone", 30, || world.has_no_link(1));
    world.wait_phase(1, "Disabled");
    world.wait_polls("sessions", 2);
    world.has_no_link(1).unwrap();
    assert!(world.state(&document_of(1)).exists(), "the document stays");
    world.remove(&override_of(1));
    world.wait_established();
    // The Control Plane's wish to have it removed passes an exception that has taken it down.
    world.write(
        &override_of(1),
        &exception(&interface(1), "reason: abuse\nset: {adminState: Disabled}"),
    );
    wait_until("the tunnel is gone again", 30, || world.has_no_link(1));
    let mut sessions = world.sessions();
    sessions[0]["status"] = 5.into();
    world.control_plane.sessions(&sessions);
    world.wait_reported(&uuid(1), 0, "");
    assert_eq!(Age::of(&world.neighbours[1]), other);
}

#[test]
fn overrides_of_node_policy_and_mesh_apply() {
    let world = World::new(1);
    let peer = serde_json::json!({
        "nodeId": 2, "name": "hk1", "publicKey": world.neighbours[0].keys.public,
        "loopbackIpv4": "172.23.105.178", "loopbackIpv6": "fd48:4242:420::2"
    });
    world.control_plane.answer(
        "mesh",
        crate::lab::control_plane::Answer::Json(serde_json::json!({"peers": [peer]})),
    );
    let mut world = world;
    world.router.start_agent();
    world.wait_established();
    let ages = world.ages();
    let shell = |line: &str, wanted: &str| {
        wait_until(&format!("{line}: {wanted}"), 30, || {
            crate::lab::contains(&world.router.inside.try_shell(line)?, wanted)
        });
    };
    shell("ip link show mesh_hk1", "mtu 1420");
    let bird = format!("grep -r . {}", world.router.path("bird/moenet").display());
    world.write(
        "overrides/mesh/hk1.yaml",
        &exception("hk1", "reason: lab\nset: {mtu: 1400}"),
    );
    world.write(
        "overrides/node.yaml",
        &exception(
            "jp1",
            "reason: lab\nset: {loopbackIpv6: 'fd48:4242:420::9'}",
        ),
    );
    let limits = "reason: lab\nset: {limits: {asPathMaxLen: 7}}";
    world.write("overrides/policy.yaml", &exception("policy", limits));
    shell("ip link show mesh_hk1", "mtu 1400");
    shell("ip addr", "fd48:4242:420::9/128");
    shell(&bird, "MOE_MAX_PATH = 7");
    wait_until("the statuses say so", 30, || {
        for (object, field) in [
            ("mesh/hk1", "spec.mtu"),
            ("node", "spec.loopbackIpv6"),
            ("policy", "spec.limits.asPathMaxLen"),
        ] {
            crate::lab::contains(&world.status(object)["overridden"].to_string(), field)
                .map_err(|error| format!("{object}: {error}"))?;
        }
        Ok(())
    });
    world.write(
        "overrides/policy.yaml",
        &exception("policy", "reason: lab\nset: {limits: {asPathMaxLen: -1}}"),
    );
    wait_until("the policy's status names the place", 30, || {
        let status = world.status("policy").to_string();
        crate::lab::contains(&status, "overrides/policy.yaml:6:")
    });
    shell(&bird, "MOE_MAX_PATH = 7");
    world.write(
        "overrides/node.yaml",
        &exception("jp1", "reason: lab\npaused: true"),
    );
    wait_until(
        "/status says what the node's override cannot be",
        30,
        || {
            let said = world.router.api("", "/status").1;
            crate::lab::contains(&said, "overrides/node.yaml:6:")?;
            crate::lab::contains(&said, "spec.paused: is for a session")
        },
    );
    world.in_state("rm overrides/mesh/hk1.yaml overrides/node.yaml overrides/policy.yaml");
    shell("ip link show mesh_hk1", "mtu 1420");
    shell("ip addr", "fd48:4242:420::1/128");
    shell(&bird, "MOE_MAX_PATH = 10");
    assert_eq!(world.ages(), ages);
}
