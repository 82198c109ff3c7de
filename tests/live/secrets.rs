//! Where keys, passwords and tokens must not be: everywhere that somebody looks, at the chattiest log level.

use crate::lab::cli::agent;
use crate::lab::control_plane::Answer;
use crate::lab::hands::{Age, exception, override_of};
use crate::lab::wait_until;
use crate::lab::watch::ifindex;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, session, uuid};
use serde_json::{Value, json};

const PASSWORD: &str = "hunter2hunter2";
const CP_TOKEN: &str = "cp-token-0123456789";
const API_TOKEN: &str = "api-token-0123456789";
const ENVIRONMENT: [&str; 2] = ["MOENET_CP_TOKEN=cp-token-0123456789", "RUST_LOG=trace"];

/// A session with both kinds of secrets, whose neighbour never answers.
fn secretive(world: &World, key: &str) -> Value {
    let mut second = session(2, &world.neighbours[0]);
    (second["endpoint"], second["ipv6LinkLocal"]) = (json!("192.0.2.250:1"), json!("fe80::1:99"));
    second["credential"] = json!({"presharedKey": key, "publicKey": KeyPair::new().public});
    second["password"] = json!(PASSWORD);
    second
}

/// Every spelling of what is to stay hidden: keys in base64 and in hexadecimal, as wireguard-go is told them.
fn hidden(world: &World, key: &str) -> Vec<String> {
    let hex = |key: &str| {
        let line = format!("echo {key} | base64 -d | od -An -tx1 -v | tr -d ' \\n'");
        world.router.inside.shell(&line).trim().to_owned()
    };
    let private = world.router.keys.private.clone();
    let texts = [key, &private, PASSWORD, CP_TOKEN, API_TOKEN].map(str::to_owned);
    texts.into_iter().chain([hex(key), hex(&private)]).collect()
}

#[track_caller]
fn assert_hides(what: &str, text: &str, hidden: &[String]) {
    for secret in hidden {
        let at = text.find(secret.as_str());
        let around = at.map(|at| text[..at].lines().last().unwrap_or_default());
        assert_eq!(around, None, "{what} shows {secret}");
    }
}

#[test]
fn no_secret_leaves_the_agent() {
    let mut world = World::new(1);
    let key = world.router.inside.shell("wg genpsk").trim().to_owned();
    let sessions = [world.sessions(), vec![secretive(&world, &key)]].concat();
    world.control_plane.sessions(&sessions);
    world.router.reconfigure(|config| {
        config["controlPlane"]
            .as_object_mut()
            .unwrap()
            .remove("token");
        config["server"]["token"] = json!(API_TOKEN);
        config["firewall"] = json!({"enabled": true});
    });
    world.router.start_agent_with(&ENVIRONMENT);
    world.wait_established();
    world.wait_reported(&uuid(2), 1, "");
    // The command line is a program of its own, and asks for the token too.
    world
        .router
        .reconfigure(|config| config["controlPlane"]["token"] = json!(CP_TOKEN));
    let (name, hidden) = (interface(2), hidden(&world, &key));
    provoke(&world, &sessions, &key);

    for line in [
        &["get", "-o", "yaml"][..],
        &["describe", &name],
        &["describe", &name, "-o", "json"],
        &["diff", &name],
        &["plan", "-o", "json"],
        &["render", &name],
        &["render", &name, "-o", "json"],
        &["history"],
        &["validate"],
        &["status"],
        &["get", "--help"],
    ] {
        let answer = agent(&world.router, line);
        assert_hides(
            &format!("{line:?}"),
            &format!("{}{}", answer.out, answer.err),
            &hidden,
        );
    }
    let shown = agent(&world.router, &["render", &name, "--secrets"]).ended(0);
    assert!(
        shown.out.contains(PASSWORD),
        "who asks for it sees it: {}",
        shown.out
    );
    for path in ["/status", "/metrics", "/maintenance", "/sync"] {
        let answer = world
            .router
            .api(&format!("-H 'Authorization: Bearer {API_TOKEN}'"), path)
            .1;
        assert_hides(path, &answer, &hidden);
    }
    paste(&world, &key, &hidden);
    // All documents, and all that was ever committed.
    let documents = world.in_state(
        "find . -type f -not -path './secrets/*' -not -path './.git/*' | xargs tail -n +1 2>/dev/null || true",
    );
    assert_hides("a document", &documents, &hidden);
    assert!(
        documents.contains("presharedKeyFile") && documents.contains("passwordFile"),
        "{documents}"
    );
    let all =
        "git -c safe.directory=* cat-file --batch-all-objects --batch --unordered | strings -n 6";
    assert_hides("the history", &world.in_state(all), &hidden);
    processes(&world, &hidden);
    modes(&world);
    let log = world.router.log();
    assert!(
        log.contains("TRACE") && log.contains("DEBUG"),
        "the log is as chatty as can be"
    );
    assert_hides("the log", &log, &hidden);
    assert_hides(
        "the Control Plane",
        &json!(world.control_plane.posts("modify")).to_string(),
        &hidden,
    );
}

/// An operator pastes both secrets into an override: it is in effect, and nothing shows them.
fn paste(world: &World, key: &str, hidden: &[String]) {
    let reason = format!("reason: the psk is {key} and the password {PASSWORD}");
    for (valid, spec) in [
        (
            false,
            format!(
                "{reason}\nset: {{tunnel: {{presharedKey: {key}}}, bgp: {{password: {PASSWORD}}}}}"
            ),
        ),
        (
            true,
            format!("{reason}\nset: {{description: \"{key} {PASSWORD}\", tunnel: {{mtu: 1380}}}}"),
        ),
    ] {
        world.write(&override_of(2), &exception(&interface(2), &spec));
        if valid {
            world.wait_log("override in effect");
        } else {
            world.wait_refused(2, &["presharedKey"]);
        }
        let header = format!("-H 'Authorization: Bearer {API_TOKEN}'");
        for path in ["/status", "/metrics"] {
            assert_hides(path, &world.router.api(&header, path).1, hidden);
        }
        for verb in [
            &["get"][..],
            &["status"],
            &["describe", &interface(2)],
            &["diff", &interface(2)],
        ] {
            for format in ["table", "json", "yaml"] {
                let answer = agent(&world.router, &[verb, &["-o", format]].concat());
                let said = format!("{}{}", answer.out, answer.err);
                assert_hides(&format!("{verb:?} -o {format}"), &said, hidden);
            }
        }
        if valid {
            world.wait_file(
                &format!("applied/sessions/{}.yaml", interface(2)),
                "the psk is (a key)",
            );
        }
        world.remove(&override_of(2));
    }
    let record = world.state(&format!("applied/sessions/{}.yaml", interface(2)));
    wait_until("the record has no description of the override", 30, || {
        let text = std::fs::read_to_string(&record).unwrap();
        if text.contains(key) {
            Err(text)
        } else {
            Ok(())
        }
    });
}

/// Has the agent say all that it can: errors that quote, changes, a restart of a session.
fn provoke(world: &World, sessions: &[Value], key: &str) {
    let say = |field: &str, value: Value| {
        let mut sessions = sessions.to_vec();
        sessions[1][field] = value;
        world.control_plane.sessions(&sessions);
        world.wait_polls("sessions", 2);
    };
    // Secrets where something else belongs, or with something that does not belong.
    say("password", json!(format!("{PASSWORD}\n")));
    say(
        "credential",
        json!({"publicKey": key, "presharedKey": format!("{key}x")}),
    );
    say(
        "credential",
        json!(format!("{{\"presharedKey\": \"{key}\"")),
    );
    let refusal = format!("{{\"error\": \"who is {CP_TOKEN}?\", \"code\": \"INVALID_TOKEN\"}}");
    let refusal = Answer::Text {
        status: 401,
        kind: "application/json",
        body: refusal,
    };
    world.control_plane.answer("mesh", refusal);
    say("mtu", json!(1400));
    let restart = format!(
        "-X POST -H 'Authorization: Bearer {API_TOKEN}' -H 'Content-Type: application/json' \
         -d '{{\"interface\":\"{}\"}}'",
        interface(2)
    );
    assert_eq!(world.router.api(&restart, "/restart").0, 200);
    let wrong = "-H 'Authorization: Bearer wrong'";
    assert_eq!(world.router.api(wrong, "/status").0, 401);
}

/// The agent was told the Control Plane's token in its environment; nobody it starts is.
fn processes(world: &World, hidden: &[String]) {
    let agent = "$(pgrep -xo moenet-agent)";
    let arguments = world
        .router
        .inside
        .shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert_hides(
        "an argument",
        &arguments.replace(CP_TOKEN, ""),
        &hidden[..3],
    );
    let environment = format!(
        "for p in $(pgrep -f 'wireguard-go wg_'); do [ $p = {agent} ] || cat /proc/$p/environ; done | tr '\\0' '\\n'"
    );
    assert_hides(
        "the environment of a child",
        &world.router.inside.shell(&environment),
        hidden,
    );
}

fn modes(world: &World) {
    let bird = world.router.bird.folder.display().to_string();
    let open = format!("find {bird}/moenet {bird}/bird.conf secrets outbox -perm /o+rwx");
    assert_eq!(world.in_state(&open), "", "for others to read");
    let private = "find secrets outbox -perm /g+rwx";
    assert_eq!(world.in_state(private), "", "for the group to read");
    assert_eq!(world.in_state("ls secrets | wc -l").trim(), "2");
}

#[test]
fn files_emptied_by_power_cut_are_recreated() {
    let mut world = World::new(2);
    let key = world.router.inside.shell("wg genpsk").trim().to_owned();
    let mut sessions = world.sessions();
    sessions[1]["credential"]["presharedKey"] = json!(key);
    let file = world.router.path("psk");
    std::fs::write(&file, &key).unwrap();
    let peer = world.neighbours[1].inside.shell("wg show wg0 peers");
    let set = format!(
        "wg set wg0 peer {} preshared-key {}",
        peer.trim(),
        file.display()
    );
    world.neighbours[1].inside.shell(&set);
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    world.router.kill_agent();
    let (ages, index) = (world.ages(), ifindex(&world.router, &interface(2)));
    world.in_state(
        "printf x > outbox/x.json; \
         find applied .synced status outbox secrets approved classes.json -type f -exec truncate -s 0 {} + || true",
    );
    world.router.start_agent();
    for number in [1, 2] {
        world.wait_file(
            &format!("applied/sessions/{}.yaml", interface(number)),
            "interfaces",
        );
        world.wait_phase(number, "Established");
    }
    wait_until("no file is empty, and the key is there again", 40, || {
        let empty = world.in_state("find applied .synced status secrets -type f -empty");
        let there = world.in_state("cat secrets/*.psk");
        if empty.is_empty() && there.trim() == key {
            Ok(())
        } else {
            Err(format!("{empty}{there}"))
        }
    });
    world.wait_polls("sessions", 3);
    let now: Vec<Age> = world.ages();
    assert_eq!(now, ages, "a session was reset");
    assert_eq!(
        ifindex(&world.router, &interface(2)),
        index,
        "a link was made anew"
    );
}
