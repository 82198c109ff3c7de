//! `describe`, where the documents say why a session is not up.

use crate::describe::{
    configure, delete_override, described_by, expect, expect_up, object, own_document,
    save_override, text, with,
};
use crate::lab::control_plane::Answer;
use crate::lab::world::{World, interface, session};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

const DOWN: (&str, &str) = ("NotEstablished", "BGP ebgp_wg_");

#[test]
fn operator_causes_come_first_and_end_when_withdrawn() {
    let world = World::converged(1);
    expect_up(&world, 1);
    save_override(&world, 1, "set: {adminState: Disabled}");
    expect(
        &world,
        &object(1),
        false,
        &[(
            "Disabled",
            "its adminState is Disabled → set adminState: Enabled in the Control Plane or in an override; an override \
             sets spec.adminState",
        )],
    );
    save_override(&world, 1, "set: {bgp: {drained: true}}");
    expect(
        &world,
        &object(1),
        true,
        &[(
            "Drained",
            "drained (graceful shutdown, RFC 8326): its bgp.drained is true → set bgp.drained: false to end the drain; an \
             override sets spec.bgp.drained",
        )],
    );
    save_override(&world, 1, "paused: true");
    expect(
        &world,
        &object(1),
        true,
        &[
            ("Paused", "the agent observes and writes nothing: a test"),
            // BIRD still has the drain of the override before.
            ("NotLoaded", "see InService first"),
        ],
    );
    // describe reads the file itself; the agent may be a moment behind, and would put the link up again.
    wait_until("the agent knows that it is to write nothing", 60, || {
        let described = described_by(&world, "", &object(1))?;
        if described["phase"] == "Paused" {
            Ok(())
        } else {
            Err(described["phase"].to_string())
        }
    });
    world
        .router
        .inside
        .shell(&format!("ip link set {} down", interface(1)));
    expect(
        &world,
        &object(1),
        false,
        &[
            ("Paused", ""),
            ("Drift", "want"),
            ("NotLoaded", "see InService first"),
            DOWN,
        ],
    );
    delete_override(&world, 1);
    expect_up(&world, 1);
}

#[test]
fn what_the_control_plane_says_is_told_first() {
    let world = World::converged(1);
    for (status, reason, words) in [
        (0, "Disabled", "its adminState is Disabled"),
        (3, "PendingReview", "it waits for approval"),
    ] {
        world.control_plane.sessions(&with(&world, 1, |session| {
            session["status"] = status.into()
        }));
        expect(&world, &object(1), false, &[(reason, words)]);
    }
    world.control_plane.sessions(&world.sessions());
    expect_up(&world, 1);
    // What is in force stays while what is listed is nonsense.
    world
        .control_plane
        .sessions(&with(&world, 1, |session| session["mtu"] = 99.into()));
    expect(&world, &object(1), true, &[("Invalid", "mtu")]);
    world.control_plane.sessions(&world.sessions());
    expect_up(&world, 1);
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    expect(
        &world,
        &object(1),
        true,
        &[("Drained", "the router is in maintenance since 20")],
    );
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    expect_up(&world, 1);
}

#[test]
fn rejected_documents_name_the_cause() {
    let world = World::converged(1);
    let write = |name: &str, text: &str| {
        std::fs::write(
            world
                .router
                .path("state/sessions")
                .join(format!("{name}.yaml")),
            text,
        )
        .unwrap();
    };
    let ours = &world.neighbours[0];
    let broken =
        own_document("broken", "wg_broken", 9001, ours).replace("asn: 4242429999", "asn: none");
    write("broken", &broken);
    expect(
        &world,
        "sessions/broken",
        false,
        &[("Invalid", "until then the object is not configured")],
    );
    expect(
        &world,
        "sessions/broken",
        false,
        &[("Invalid", "sessions/broken.yaml:5:8: spec.asn: ")],
    );
    write("twin", &own_document("twin", &interface(1), 9002, ours));
    let clash = format!(
        "interface {0} is used by sessions/{0}, which was first",
        interface(1)
    );
    expect(&world, "sessions/twin", false, &[("Clash", &clash)]);
    world.router.inside.shell("ip link add theirs0 type bridge");
    write("foreign", &own_document("foreign", "theirs0", 9003, ours));
    expect(
        &world,
        "sessions/foreign",
        false,
        &[
            ("Failed", "theirs0 exists without the agent's mark"),
            ("NotLoaded", ""),
            ("NoProtocol", "ebgp_foreign"),
        ],
    );
    // One that the Control Plane lists, and of which no document can be made.
    let mut bad = session(1, ours);
    (bad["uuid"], bad["interface"], bad["mtu"]) = ("not-yet".into(), "wg_bad".into(), 99.into());
    world.control_plane.sessions(&[session(1, ours), bad]);
    expect(&world, "sessions/wg_bad", false, &[("Invalid", "mtu")]);
    write("twin", &own_document("twin", "wg_twin", 9002, ours));
    world.router.inside.shell("ip link del theirs0");
    for name in ["twin", "foreign"] {
        let waits = (
            "Never",
            "the agent waits for the peer to connect, and no packet was received on UDP port 900",
        );
        expect(
            &world,
            &format!("sessions/{name}"),
            false,
            &[waits, DOWN_OF_OWN],
        );
    }
    expect_up(&world, 1);
}

const DOWN_OF_OWN: (&str, &str) = ("NotEstablished", "BGP ebgp_");

#[test]
fn held_removal_and_maintenance_closure_are_explained() {
    let mut world = World::new(1);
    configure(&world, |config| {
        config["guard"] = json!({"maxRemovals": 0});
        config["maintenance"] = json!({"disableAfter": "5s"});
    });
    world.router.start_agent();
    world.wait_established();
    world
        .control_plane
        .answer("sessions", Answer::Json(json!({"sessions": []})));
    let held = ("GuardTripped", "every one of the sessions");
    expect(&world, &object(1), true, &[held]);
    world.control_plane.sessions(&world.sessions());
    expect_up(&world, 1);
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    wait_until(
        "maintenance is told first, and that the protocol is off last",
        60,
        || {
            let described = described_by(&world, "", &object(1))?;
            let why = described["why"].as_array().ok_or("no why")?;
            let says = |cause: Option<&Value>, reason: &str, words: &str| {
                cause.is_some_and(|c| c["reason"] == reason && text(c).contains(words))
            };
            let good = says(
                why.first(),
                "ClosedByMaintenance",
                "maintenance.disableAfter",
            ) && says(why.last(), "NotEstablished", "(the protocol is off)");
            if good && described["up"] == false {
                Ok(())
            } else {
                Err(described["why"].to_string())
            }
        },
    );
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    expect_up(&world, 1);
}

#[test]
fn provenance_is_in_get_describe_status_and_metrics() {
    let world = World::converged(1);
    save_override(
        &world,
        1,
        "expiresAt: 2099-01-01T00:00:00Z, set: {tunnel: {mtu: 1380}}",
    );
    let name = interface(1);
    let metric = |name: &str, labels: &str, value: &str| format!("{name}{{{labels}}} {value}");
    let labels = format!(r#"field="spec.tunnel.mtu",session="{name}""#);
    let wanted = [
        metric("moenet_agent_session_overridden", &labels, "1"),
        metric(
            "moenet_agent_session_overridden_value",
            &format!(r#"{labels},source="here""#),
            "1380",
        ),
        metric(
            "moenet_agent_session_overridden_value",
            &format!(r#"{labels},source="document""#),
            "1420",
        ),
    ];
    wait_until("the metrics show the override", 30, || {
        let metrics = world.router.api("", "/metrics").1;
        wanted.iter().try_for_each(|line| contains(&metrics, line))
    });
    let status: Value = serde_json::from_str(&world.router.api("", "/status").1).unwrap();
    assert_eq!(
        status["overrides"],
        json!([{
            "object": object(1), "reason": "a test", "expiresAt": "2099-01-01T00:00:00Z", "paused": false,
            "fields": [{"field": "spec.tunnel.mtu", "value": 1380, "document": 1420}]
        }])
    );
    assert_eq!(
        status["overridden"],
        json!([format!("{}: spec.tunnel.mtu", object(1))])
    );
    let config = world.router.path("config.yaml");
    let call = |verb: &str| {
        let program = crate::lab::router::agent_program();
        world.router.inside.shell(&format!(
            "{} --config {} {verb}",
            program.display(),
            config.display()
        ))
    };
    contains(&call("get sessions"), "tunnel.mtu=1380 (1420)").unwrap();
    contains(
        &call("status"),
        "spec.tunnel.mtu is 1380, document 1420: a test",
    )
    .unwrap();
    // The history names who saved the file, a moment after it is in force.
    wait_until("describe says who, why and until when", 30, || {
        let text = call(&format!("describe {}", object(1)));
        contains(&text, "override (the Control Plane says 1420)")?;
        contains(&text, "Overridden by root since 20")?;
        contains(&text, ", until 2099-01-01T00:00:00Z: a test")
    });
    expect(&world, &object(1), true, &[]);
    delete_override(&world, 1);
    wait_until("the metrics forget the override", 30, || {
        let metrics = world.router.api("", "/metrics").1;
        if metrics.contains("moenet_agent_session_overridden{") {
            Err(metrics)
        } else {
            Ok(())
        }
    });
}
