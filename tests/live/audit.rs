//! The history of a running agent, read with stock git: each cause is one commit under its author, and what came
//! into force is the diff of its commit.

use crate::lab::cli::{agent, commits, exception, git, try_git, write_as};
use crate::lab::hands::{mtu_exception, override_of};
use crate::lab::wait_until;
use crate::lab::world::{World, interface, session, uuid};
use serde_json::{Value, json};

const PSK: &str = "SGlkZGVuIGluIHRoZSBzZWNyZXRzIGZvbGRlciBvbmw=";
const PASSWORD: &str = "hunter2hunter2";
/// User numbers that no machine knows.
const ANN: u32 = 4_001_001;
const BOB: u32 = 4_001_002;

/// A third session, whose neighbour never answers, with both kinds of secrets.
fn secretive(world: &World) -> Value {
    let mut third = session(3, &world.neighbours[0]);
    third["endpoint"] = "192.0.2.250:1".into();
    third["ipv6LinkLocal"] = "fe80::1:99".into();
    third["credential"]["presharedKey"] = PSK.into();
    third["credential"]["publicKey"] = crate::lab::wireguard::KeyPair::new().public.into();
    third["password"] = PASSWORD.into();
    third
}

/// Waits until the newest commits are these, and no others come.
#[track_caller]
fn wait_commits(world: &World, after: usize, wanted: &[&str]) {
    wait_until(&format!("commits {wanted:?}"), 60, || {
        let found = commits(&world.router);
        if found[after.min(found.len())..] == *wanted {
            Ok(())
        } else {
            Err(found.join("\n"))
        }
    });
}

fn files(world: &World, commit: &str) -> Vec<String> {
    let listed = git(&world.router, &["show", "--format=", "--name-only", commit]);
    listed.lines().map(Into::into).collect()
}

fn mtu(world: &World, number: u32) -> String {
    let link = world
        .router
        .inside
        .shell(&format!("cat /sys/class/net/{}/mtu", interface(number)));
    link.trim().into()
}

/// The message that a plan of `-o json` says an apply will have, for the objects with steps.
fn message_of(plan: &Value) -> Vec<String> {
    let objects = plan.as_array().unwrap().iter();
    let lines = objects.flat_map(|object| {
        let name = object["object"].as_str().unwrap();
        object["steps"].as_array().unwrap().iter().map(move |step| {
            let word = |key: &str| step[key].as_str().unwrap().to_owned();
            let [action, field, want, have] = ["action", "field", "want", "have"].map(word);
            format!("{name}: {action} ({field}: want {want}, have {have})")
        })
    });
    lines.collect()
}

/// An agent that has brought two sessions and a third into force, and recorded it.
fn recorded() -> (World, usize) {
    let mut world = World::new(2);
    let mut sessions = world.sessions();
    sessions.push(secretive(&world));
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    world.wait_established();
    wait_until("what came into force is in the history", 60, || {
        let listed = try_git(&world.router, &["ls-tree", "-r", "--name-only", "main"])?;
        let names = [
            "node",
            "policy",
            "sessions/wg_4242421001",
            "sessions/wg_4242421002",
        ];
        let third = names
            .iter()
            .find(|name| !listed.contains(&format!("applied/{name}.yaml")));
        if third.is_none() && listed.contains("applied/sessions/wg_4242421003") {
            Ok(())
        } else {
            Err(listed)
        }
    });
    world.wait_polls("sessions", 3);
    let count = commits(&world.router).len();
    world.wait_polls("sessions", 4);
    world.wait_polls("bird-config", 2);
    assert_eq!(
        commits(&world.router).len(),
        count,
        "nothing changed, and there is a commit"
    );
    (world, count)
}

#[test]
fn each_cause_is_one_commit_with_exactly_its_changes() {
    let (world, start) = recorded();
    first_commits(&world);
    let (first, second) = (interface(1), interface(2));

    // An edit by hand. While the agent stands still, its plan is the message of the commit to come.
    let file = format!("overrides/sessions/{first}.yaml");
    let plan = world.router.with_agent_stopped(|| {
        write_as(
            &world.router,
            ANN,
            &file,
            &exception(&first, "PPPoE", "{tunnel: {mtu: 1380}}", ""),
        );
        agent(&world.router, &["plan", "-o", "json"])
            .ended(2)
            .json()
    });
    let ann = format!("uid {ANN}|Edit {file}");
    let apply = format!("moenet-agent|Apply sessions/{first}");
    wait_commits(&world, start, &[&ann, &apply]);
    assert_eq!(files(&world, "main~1"), [file.as_str()]);
    let applied = format!("applied/sessions/{first}.yaml");
    assert_eq!(files(&world, "main"), [applied.as_str()]);
    let message = git(&world.router, &["log", "-1", "--format=%b", "main"]);
    assert_eq!(
        message
            .lines()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>(),
        message_of(&plan)
    );
    assert!(
        message.contains("set MTU") && message.contains("want 1380, have 1420"),
        "{message}"
    );
    let diff = git(&world.router, &["show", "--format=", "-U0", "main"]);
    assert!(
        diff.contains("-      mtu: 1420") && diff.contains("+      mtu: 1380"),
        "{diff}"
    );
    assert!(diff.contains("+    reason: PPPoE"), "{diff}");
    assert_eq!(mtu(&world, 1), "1380");

    // An edit in place is an override of whoever made it, and the document is back.
    let document = format!("sessions/{second}.yaml");
    let text = std::fs::read_to_string(world.router.path("state").join(&document)).unwrap();
    write_as(
        &world.router,
        BOB,
        &document,
        &text.replace("mtu: 1420", "mtu: 1390"),
    );
    let bob = format!("uid {BOB}|Keep an edit of {document} as an override");
    let apply = format!("moenet-agent|Apply sessions/{second}");
    wait_commits(&world, start + 2, &[&bob, &apply]);
    assert_eq!(
        files(&world, "main~1"),
        [format!("overrides/sessions/{second}.yaml")]
    );
    assert_eq!(mtu(&world, 2), "1390");
    assert_eq!(
        std::fs::read_to_string(world.router.path("state").join(&document)).unwrap(),
        text
    );

    // An override that is taken away is its owner's doing.
    std::fs::remove_file(world.router.path("state").join(&file)).unwrap();
    let apply = format!("moenet-agent|Apply sessions/{first}");
    wait_commits(
        &world,
        start + 4,
        &[&format!("uid {ANN}|Remove {file}"), &apply],
    );
    assert_eq!(mtu(&world, 1), "1420");

    // A removal: the sync takes the document away, and the agent what was in force.
    world.control_plane.sessions(&world.sessions());
    let third = interface(3);
    let sync = format!("Control Plane|Sync sessions/{third}.yaml");
    let apply = format!("moenet-agent|Apply sessions/{third}");
    wait_commits(&world, start + 6, &[&sync, &apply]);
    let gone = |commit| {
        git(
            &world.router,
            &["show", "--format=", "--name-status", commit],
        )
    };
    assert_eq!(gone("main~1"), format!("D\tsessions/{third}.yaml\n"));
    assert_eq!(gone("main"), format!("D\tapplied/sessions/{third}.yaml\n"));
    let message = git(&world.router, &["log", "-1", "--format=%b", "main"]);
    assert!(
        message.contains(&format!("sessions/{third}: remove BIRD session")),
        "{message}"
    );
    assert!(
        message.contains(&format!("sessions/{third}: delete link {third}")),
        "{message}"
    );

    // Maintenance through the local API is its caller's, and in force.
    world.router.api("-X POST", "/maintenance/start");
    wait_commits(
        &world,
        start + 8,
        &["local API|Start maintenance", "moenet-agent|Apply node"],
    );
    assert_eq!(files(&world, "main"), ["applied/maintenance.yaml"]);
    let message = git(&world.router, &["log", "-1", "--format=%b", "main"]);
    assert!(message.contains("write BIRD file moenet/"), "{message}");

    stock_git_reads_it(&world, start, &applied);
    nothing_secret_is_in_it(&world);

    // One that is queued for deletion: the document goes with what was in force, and is the agent's to remove.
    let mut sessions = world.sessions();
    sessions[1]["status"] = 5.into();
    world.control_plane.sessions(&sessions);
    wait_until("the session is gone, and reported", 40, || {
        match world.control_plane.reported(&uuid(2)) {
            Some((0, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let removed = [
        "log",
        "--diff-filter=D",
        "--format=%an|%s",
        "main",
        "--",
        &document,
    ];
    wait_until("its removal is in the history", 40, || {
        let found = git(&world.router, &removed);
        if found.starts_with(&format!("moenet-agent|Apply sessions/{second}")) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

/// The first documents are the Control Plane's, and what is in force is the agent's.
fn first_commits(world: &World) {
    let log = git(
        &world.router,
        &["log", "--format=commit %an", "--name-only", "main"],
    );
    let mut author = "";
    for line in log.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("commit ") {
            Some(name) => author = name,
            None if line.starts_with("applied/") => {
                assert_eq!(author, "moenet-agent", "{line}\n{log}")
            }
            None if line == ".gitignore" => {}
            None => assert_eq!(author, "Control Plane", "{line}\n{log}"),
        }
    }
    let all = git(
        &world.router,
        &["log", "--author=moenet-agent", "--format=%B", "main"],
    );
    for wanted in [
        format!("sessions/{}: create WireGuard link {}", interface(1), interface(1)),
        format!("sessions/{}: write BIRD session", interface(2)),
        "node: write BIRD file moenet/filters.conf (bird.file: want moenet/filters.conf, have (none))"
            .into(),
    ] {
        assert!(all.contains(&wanted), "no {wanted:?} in\n{all}");
    }
}

fn stock_git_reads_it(world: &World, start: usize, applied: &str) {
    let router = &world.router;
    let count = commits(router).len();
    assert_eq!(git(router, &["status", "--porcelain"]), "");
    assert_eq!(git(router, &["fsck", "--strict"]), "");
    assert!(
        git(router, &["log", "-p", "--follow", "main", "--", applied]).contains("+      mtu: 1380")
    );
    let blame = git(
        router,
        &["blame", "--line-porcelain", "main", "--", applied],
    );
    let line = blame
        .split("\n\t")
        .find(|part| part.contains("mtu: "))
        .is_some()
        || blame.contains("mtu: 1420");
    assert!(line && blame.contains("author moenet-agent"), "{blame}");
    // A bisection beside the running agent, in a tree of its own: the state directory is what is wanted.
    let tree = router.path("bisect").display().to_string();
    git(
        router,
        &["worktree", "add", "-q", "--detach", &tree, "main"],
    );
    let bad = format!("main~{}", count - start - 2);
    let within = |arguments: &[&str]| git(router, &[&["-C", &tree], arguments].concat());
    within(&["bisect", "start", &bad, &format!("main~{}", count - start)]);
    let found = within(&[
        "bisect",
        "run",
        "sh",
        "-c",
        &format!("grep -q 'mtu: 1420' {applied}"),
    ]);
    assert!(
        found.contains(&format!("Apply sessions/{}", interface(1))),
        "{found}"
    );
    within(&["bisect", "reset"]);
    git(router, &["worktree", "remove", "--force", &tree]);
    let table = agent(router, &["history", "-n", "500"]).ended(0).out;
    assert_eq!(table.lines().count(), count + 1, "{table}");
    let rows: Vec<_> = table.lines().collect();
    let column = rows[0].find("WHAT").unwrap();
    assert!(
        rows[1..]
            .iter()
            .all(|row| row.is_char_boundary(column) && row[..column].ends_with("  ")),
        "{table}"
    );
    let entries = agent(router, &["history", "-o", "json", "-n", "500"])
        .ended(0)
        .json();
    assert_eq!(entries.as_array().map(Vec::len), Some(count));
    assert_eq!(entries[0]["subject"], "Apply node");
    let one = agent(router, &["history", &interface(1)]).ended(0);
    one.says(
        "    sessions/wg_4242421001: set MTU of wg_4242421001 to 1380 (tunnel.mtu: want 1380, have 1420)",
    );
    assert!(!one.out.contains("wg_4242421002: "), "{}", one.out);
}

/// Every object of the repository, also what no branch leads to.
fn nothing_secret_is_in_it(world: &World) {
    let state = world.router.path("state").display().to_string();
    let all = format!(
        "git -c safe.directory=* -C {state} cat-file --batch-all-objects --batch --unordered"
    );
    let all = world.router.inside.shell(&format!("{all} | strings -n 6"));
    assert!(
        all.contains("secrets/wg_4242421003.psk"),
        "the search finds what is there"
    );
    for secret in [PSK, PASSWORD, world.router.keys.private.as_str()] {
        assert!(!all.contains(&secret[..12]), "a secret is in the history");
    }
    let names = git(&world.router, &["log", "--all", "--format=", "--name-only"]);
    let outside = names.lines().find(|name| {
        ["status/", "secrets/", "outbox/", ".synced/"]
            .iter()
            .any(|f| name.starts_with(f))
    });
    assert_eq!(outside, None);
    assert!(json!(names).to_string().contains("applied/"), "{names}");
}

/// A policy, and an override of it, come into force in the texts of the sessions: their steps are its steps.
#[test]
fn policy_commit_has_the_steps_of_other_objects() {
    let world = World::converged(2);
    world.wait_polls("sessions", 2);
    wait_until("what came into force is in the history", 60, || {
        let found = git(&world.router, &["ls-tree", "-r", "--name-only", "main"]);
        let all = [
            "applied/policy.yaml",
            "applied/sessions/wg_4242421001",
            "applied/sessions/wg_4242421002",
        ];
        if all.iter().all(|name| found.contains(name)) {
            Ok(())
        } else {
            Err(found)
        }
    });
    let start = commits(&world.router).len();
    let file = "overrides/policy.yaml";
    write_as(
        &world.router,
        ANN,
        file,
        &exception("policy", "transit", "{limits: {ebgpImport: 20000}}", ""),
    );
    let ann = format!("uid {ANN}|Edit {file}");
    wait_commits(&world, start, &[&ann, "moenet-agent|Apply policy"]);
    assert_eq!(files(&world, "main"), ["applied/policy.yaml"]);
    let message = git(&world.router, &["log", "-1", "--format=%b", "main"]);
    for number in 1..=2 {
        let step = format!(
            "sessions/{0}: write BIRD session {0} (bird.session: want",
            interface(number)
        );
        assert!(message.contains(&step), "no {step:?} in {message}");
    }
    // A drift that is put right brings nothing new into force.
    let start = commits(&world.router).len();
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(1)));
    wait_until("the drift is put right", 40, || {
        if mtu(&world, 1) == "1420" {
            Ok(())
        } else {
            Err(mtu(&world, 1))
        }
    });
    world.wait_polls("sessions", 3);
    assert_eq!(commits(&world.router).len(), start);

    // What one person does at one moment is one cause, and stock git follows it.
    let [from, to] = [1, 2].map(|number| format!("overrides/sessions/{}.yaml", interface(number)));
    write_as(
        &world.router,
        BOB,
        &from,
        &exception(&interface(1), "PPPoE", "{tunnel: {mtu: 1380}}", ""),
    );
    let (bob, apply) = (
        format!("uid {BOB}|Edit {from}"),
        format!("moenet-agent|Apply sessions/{}", interface(1)),
    );
    wait_commits(&world, start, &[&bob, &apply]);
    let state = world.router.path("state");
    std::fs::rename(state.join(&from), state.join(&to)).unwrap();
    let bob = format!("uid {BOB}|Rename {from} to {to}");
    wait_commits(&world, start + 2, &[&bob, &apply]);
    let renamed = git(
        &world.router,
        &["show", "--format=", "--name-status", "main~1"],
    );
    assert_eq!(renamed, format!("R100\t{from}\t{to}\n"));
}

/// A key that an operator pasted where none belongs is in no object of the history, no status and no log.
#[test]
fn misplaced_key_is_stored_nowhere_and_reported() {
    let world = World::converged(1);
    let name = interface(1);
    let file = format!("overrides/sessions/{name}.yaml");
    let state = world.router.path("state");
    let save = |text: &str| write_as(&world.router, ANN, &file, text);
    let status = || {
        std::fs::read_to_string(state.join(format!("status/sessions/{name}.yaml")))
            .map_err(|e| e.to_string())
    };
    for (set, words) in [
        (
            format!("{{tunnel: {{presharedKey: \"{PSK}\"}}}}"),
            "unknown field `presharedKey`",
        ),
        (
            format!("{{tunnel: {{presharedKeyFile: \"{PSK}\"}}}}"),
            "write it to secrets/<name>",
        ),
        (
            format!("{{bgp: {{password: {PASSWORD}}}}}"),
            "unknown field `password`",
        ),
        (
            format!("{{bgp: {{passwordFile: {PASSWORD}}}}}"),
            "write it to secrets/<name>",
        ),
    ] {
        save(&exception(&name, "pasted", &set, ""));
        wait_until(&format!("{words} is in the status"), 40, || {
            let text = status()?;
            if text.contains(words) {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
    // In a comment it hurts nobody, so the override is in force; the history leaves the file out.
    save(&format!(
        "# psk: {PSK}\n{}",
        exception(&name, "pasted", "{tunnel: {mtu: 1390}}", "")
    ));
    wait_until("the override is in force", 40, || {
        if mtu(&world, 1) == "1390" {
            Ok(())
        } else {
            Err(mtu(&world, 1))
        }
    });
    wait_until("somebody is told", 40, || {
        let (_, text) = world.router.api("", "/status");
        if text.contains("holds a key in plain text") {
            Ok(())
        } else {
            Err(text)
        }
    });
    wait_until("the apply is in the history", 40, || {
        let text = git(
            &world.router,
            &["show", &format!("main:applied/sessions/{name}.yaml")],
        );
        if text.contains("mtu: 1390") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let edits = |world: &World| {
        let found = commits(&world.router);
        found
            .iter()
            .filter(|line| line.starts_with(&format!("uid {ANN}|")))
            .count()
    };
    assert_eq!(edits(&world), 0, "{:?}", commits(&world.router));
    let all = format!(
        "git -c safe.directory=* -C {} cat-file --batch-all-objects --batch",
        state.display()
    );
    let all = world.router.inside.shell(&format!("{all} | strings -n 6"));
    assert!(all.contains("mtu: 1390"), "the search finds what is there");
    for secret in [PSK, PASSWORD] {
        assert!(!all.contains(&secret[..12]), "a secret is in the history");
        assert!(
            !world.router.log().contains(&secret[..12]),
            "a secret is in the log:\n{}",
            world.router.log()
        );
        assert!(
            !status().unwrap().contains(&secret[..12]),
            "{}",
            status().unwrap()
        );
    }
    // Without it the file is recorded.
    save(&exception(&name, "cleaned", "{tunnel: {mtu: 1390}}", ""));
    wait_until("the edit is in the history", 40, || {
        if edits(&world) == 1 {
            Ok(())
        } else {
            Err(String::new())
        }
    });
}

#[test]
fn crash_at_any_moment_leaves_nothing_to_commit() {
    let mut world = World::converged(1);
    let delays = [0, 100, 300, 450, 550, 650, 800, 1000, 1500, 2500];
    for (mtu, delay) in (1301..).zip(delays) {
        let text = mtu_exception(1, mtu);
        world.write(&override_of(1), &text);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        world.router.kill_agent();
        world.router.start_agent();
        world.wait_mtu(1, mtu);
        let applied = format!("main:applied/sessions/{}.yaml", interface(1));
        wait_until(
            &format!("killed {delay} ms after the edit, and nothing is left to commit"),
            40,
            || {
                let shown = try_git(&world.router, &["show", &applied])?;
                crate::lab::contains(&shown, &format!("mtu: {mtu}"))?;
                let status = try_git(&world.router, &["status", "--porcelain"])?;
                if status.is_empty() {
                    Ok(())
                } else {
                    Err(status)
                }
            },
        );
    }
    assert_eq!(
        git(&world.router, &["fsck", "--strict", "--no-dangling"]),
        ""
    );
}
