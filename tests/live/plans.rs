//! `plan` is what the controller does: byte for byte what a following `apply --once` reports, and a mere look.

use crate::lab::cli::{Answer, agent, answer, exception};
use crate::lab::router::{Router, agent_program};
use crate::lab::watch::{NetlinkEvents, bird_history};
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};

/// The output of a plan once its steps are done: only the counts in the last line have another form.
fn done(planned: &str) -> String {
    let words = [
        ("Plan: ", "Applied: "),
        (" to add", " added"),
        (" to change", " changed"),
        (" to remove", " removed"),
    ];
    let (steps, counts) = planned
        .rfind("\nPlan: ")
        .map_or(("", planned), |at| planned.split_at(at));
    let counts = words.iter().fold(counts.to_owned(), |text, (from, to)| {
        text.replacen(from, to, 1)
    });
    format!("{steps}{counts}")
}

/// Everything that a look must leave as it is: every file, with its inode and times, and the kernel.
fn everything(router: &Router) -> String {
    let folder = router.path("");
    let folder = folder.display();
    // Times of access aside; logs of the harness and the daemons too.
    let files = format!(
        "cd {folder} && find . -not -name '*.log' -not -name 'events*' -not -name 'trace*' -not -path './bird/bird.ctl' \
         -printf '%p %i %m %u %s %T@ %C@ %l\\n' | sort && find . -type f -not -name '*.log' -not -name 'events*' \
         -not -name 'trace*' | sort | xargs -d '\\n' sha256sum"
    );
    let kernel = "ip -d addr; ip rule; wg show all dump | cut -f1-5,9 | sort; nft list ruleset; sysctl -a 2>/dev/null | \
                  grep -E 'forwarding|rp_filter|accept_ra|autoconf' | sort";
    let left = |text: String| {
        let counts = |line: &&str| !line.contains("valid_lft") && !line.contains("qdisc");
        text.lines().filter(counts).collect::<Vec<_>>().join("\n")
    };
    format!(
        "{}\n{}",
        router.inside.shell(&files),
        left(router.inside.shell(kernel))
    )
}

/// System calls by which something could be changed, and what is said to the kernel, WireGuard and BIRD.
fn traced(router: &Router, arguments: &[&str]) -> (Answer, String) {
    let file = router.path("trace");
    let mut command = router.inside.command("strace");
    let calls =
        "--trace=%file,%network,write,writev,pwrite64,ftruncate,fchmod,fchown,fallocate,setxattr";
    command
        .args(["-f", "-s", "300", calls, "-o"])
        .arg(&file)
        .arg(agent_program());
    command
        .arg("--config")
        .arg(router.path("config.yaml"))
        .args(arguments)
        .env("NO_COLOR", "1");
    let answer = answer(&mut command);
    assert!(
        answer.code >= 0,
        "is strace installed (tests/deps.sh tests)? {}",
        answer.err
    );
    (answer, std::fs::read_to_string(file).unwrap())
}

/// Nothing in the trace writes a file, changes the kernel, or has BIRD do something.
#[track_caller]
fn assert_mere_look(trace: &str) {
    let failed = |line: &str| line.contains(" = -1 ");
    for line in trace.lines().filter(|line| !failed(line)) {
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        let name = call.split('(').next().unwrap_or_default();
        let changes = [
            "unlink", "rename", "mkdir", "rmdir", "chmod", "chown", "link", "symlink", "truncate",
            "mknod",
        ];
        assert!(
            !changes
                .iter()
                .any(|word| name.trim_start_matches('f').starts_with(word)),
            "{line}"
        );
        assert!(
            !["ftruncate", "fallocate", "setxattr", "utimensat", "mount"].contains(&name),
            "{line}"
        );
        if name.starts_with("open") || name == "creat" {
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"]
                .iter()
                .any(|flag| line.contains(flag));
            assert!(!writes || line.contains("/dev/null"), "{line}");
        }
        let says = name.starts_with("send") || name.starts_with("write");
        if says {
            for word in [
                "RTM_NEW",
                "RTM_DEL",
                "RTM_SET",
                "WG_CMD_SET",
                "set=1",
                "NFT_MSG_NEW",
                "NFT_MSG_DEL",
            ] {
                assert!(!line.contains(word), "{line}");
            }
            // Of rtnetlink's messages each fourth asks (linux/rtnetlink.h); strace knows the names of most.
            let number = line.split_once("nlmsg_type=0x").and_then(|(_, rest)| {
                let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
                u32::from_str_radix(&digits, 16).ok()
            });
            // Of nftables' (subsystem 10), NFT_MSG_GET* do (linux/netfilter/nf_tables.h).
            let asks = |number: u32| match number >> 8 {
                10 => [1, 4, 7, 10, 13, 16, 19, 23].contains(&(number & 0xff)),
                _ => number % 4 == 2,
            };
            assert!(number.is_none_or(asks), "{line}");
            let bird = [
                "configure",
                "disable",
                "enable",
                "restart",
                "reload",
                "down",
                "graceful",
            ];
            let told = bird.iter().find(|word| line.contains(&format!("\"{word}")));
            assert!(
                told.is_none() || line.contains("\"configure status"),
                "{line}"
            );
        }
    }
    // It did look: the proof is not that of an agent that did nothing.
    assert!(
        trace.contains("RTM_NEWLINK") && trace.contains("recvfrom("),
        "links were not listed"
    );
    assert!(
        trace.contains("show protocols") || trace.contains("bird.ctl"),
        "BIRD was not asked"
    );
}

/// Plans, and applies: the words are the same, and the plan changed nothing. Without a daemon.
#[track_caller]
fn apply_does_as_planned(router: &Router, format: &str, wanted: &[&str]) {
    let before = everything(router);
    let arguments = ["-o", format];
    let planned = agent(router, &[&["plan"], &arguments[..]].concat());
    assert_eq!(everything(router), before, "the plan changed something");
    for word in wanted {
        assert!(planned.out.contains(word), "no {word:?} in {}", planned.out);
    }
    let applied = agent(router, &[&["apply", "--once"], &arguments[..]].concat());
    assert_eq!(applied.out, done(&planned.out), "\n{}", applied.err);
    assert_eq!(planned.code, if wanted.is_empty() { 0 } else { 2 });
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    let again = agent(router, &["plan"]).ended(0);
    assert_eq!(again.out, "No changes.\n");
}

/// A router whose documents are there, and of which nothing is in force.
fn fresh() -> World {
    let mut world = World::converged(2);
    world.wait_polls("sessions", 2);
    world.wait_polls("bird-config", 1);
    world.router.kill_agent();
    for number in 1..=2 {
        world
            .router
            .inside
            .shell(&format!("ip link del {}", interface(number)));
    }
    let state = world.router.path("state").display().to_string();
    let bird = world.router.bird.folder.display().to_string();
    world.router.inside.shell(&format!(
        "rm -rf {state}/applied/*/* {state}/applied/*.yaml {state}/status/*/* {state}/status/*.yaml {bird}/moenet && \
         echo 'protocol device {{}}' >{bird}/bird.conf && ip link del dummy0 2>/dev/null || ip addr flush dev lo scope global"
    ));
    world.router.bird.ask(&world.router.inside, "configure");
    world
}

#[test]
fn an_apply_does_byte_for_byte_what_the_plan_says() {
    let world = fresh();
    let router = &world.router;
    let (first, second) = (interface(1), interface(2));
    let state = |file: &str| router.path("state").join(file);
    apply_does_as_planned(
        router,
        "json",
        &[
            "create WireGuard link",
            "write BIRD session",
            "write BIRD file bird.conf",
        ],
    );
    world.wait_established();
    apply_does_as_planned(router, "table", &[]);

    // Drift of MTU, address and key.
    router.inside.shell(&format!(
        "ip link set {first} mtu 1300; ip addr del fe80::998:1/64 dev {second}"
    ));
    let other = crate::lab::wireguard::KeyPair::new().public;
    router.inside.shell(&format!(
        "wg set {second} peer {other} allowed-ips fd00::/8"
    ));
    apply_does_as_planned(router, "table", &["set MTU", "add address", "remove peer"]);
    router.inside.shell(&format!("ip link del {second}"));
    apply_does_as_planned(router, "json", &["create WireGuard link"]);

    // BIRD's files, changed by hand: of a session, and of all.
    let bird = router.bird.folder.join("moenet");
    std::fs::write(bird.join(format!("sessions/{first}.conf")), "# nothing\n").unwrap();
    apply_does_as_planned(router, "table", &["write BIRD session"]);
    std::fs::write(bird.join("defines.conf"), "# nothing\n").unwrap();
    apply_does_as_planned(router, "json", &["write BIRD file moenet/defines.conf"]);

    // An override that waits, and an edit in place that is not yet one.
    let file = state(&format!("overrides/sessions/{first}.yaml"));
    std::fs::write(
        &file,
        exception(&first, "PPPoE", "{tunnel: {mtu: 1380}}", ""),
    )
    .unwrap();
    let document = state(&format!("sessions/{second}.yaml"));
    let text = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, text.replace("mtu: 1420", "mtu: 1390")).unwrap();
    apply_does_as_planned(router, "json", &["to 1380", "to 1390"]);
    // A synced document that was deleted comes back; nothing is torn down.
    std::fs::remove_file(&document).unwrap();
    apply_does_as_planned(router, "table", &[]);
    assert!(document.exists());

    // Paused: shown, and not done.
    std::fs::write(
        &file,
        exception(
            &first,
            "hands off",
            "{tunnel: {mtu: 1310}}",
            "  paused: true\n",
        ),
    )
    .unwrap();
    let planned = agent(router, &["plan"]).ended(2);
    planned.says(&format!("set MTU of {first} to 1310"));
    planned.says("paused, so the agent observes and writes nothing: hands off");
    assert_eq!(
        agent(router, &["apply", "--once"]).ended(0).out,
        done(&planned.out)
    );
    assert_eq!(
        router
            .inside
            .shell(&format!("cat /sys/class/net/{first}/mtu"))
            .trim(),
        "1380"
    );
    std::fs::remove_file(&file).unwrap();
    apply_does_as_planned(router, "json", &["to 1420"]);

    // A removal, as the sync leaves it, and a link of ours that nothing knows of.
    std::fs::remove_file(&document).unwrap();
    std::fs::remove_file(state(&format!(".synced/sessions/{second}.yaml"))).unwrap();
    // Neither the mark of another state directory nor one of an earlier build without a record is ours.
    for (name, alias) in [
        ("lost0", router.mark("lost-1")),
        (
            "other0",
            "moenet-agent:2:00000000000000ff:lost-2".to_owned(),
        ),
        ("older0", "moenet-agent:lost-3".to_owned()),
    ] {
        router.inside.shell(&format!(
            "ip link add {name} type bridge && ip link set {name} alias {alias}"
        ));
    }
    apply_does_as_planned(
        router,
        "table",
        &[
            "remove BIRD session",
            "delete link",
            "orphan/lost-1  delete link lost0",
        ],
    );
    let links = router.inside.shell("ip -o link");
    assert!(!links.contains("lost0"), "{links}");
    assert!(
        links.contains("other0") && links.contains("older0"),
        "{links}"
    );
    let history = agent(router, &["history", &second]).ended(0);
    history.says(&format!("sessions/{second}: delete link {second}"));
}

#[test]
fn plan_diff_and_approve_list_change_nothing() {
    let mut world = World::converged(1);
    world.wait_polls("sessions", 3);
    let name = interface(1);
    // Beside a running agent that is at rest.
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        bird_history(&world.router),
    );
    let (answer, trace) = traced(&world.router, &["plan"]);
    assert_eq!(answer.ended(0).out, "No changes.\n");
    assert_mere_look(&trace);
    assert_eq!(events.seen(), Vec::<String>::new());
    assert_eq!(bird_history(&world.router), before);
    world.router.kill_agent();

    // And alone, with much to do.
    world
        .router
        .inside
        .shell(&format!("ip link set {name} mtu 1300"));
    std::fs::write(
        world.router.bird.folder.join("moenet/defines.conf"),
        "# nothing\n",
    )
    .unwrap();
    let file = world
        .router
        .path("state")
        .join(format!("overrides/sessions/{name}.yaml"));
    std::fs::write(
        &file,
        exception(&name, "PPPoE", "{tunnel: {mtu: 1380}}", ""),
    )
    .unwrap();
    let events = NetlinkEvents::record(&world.router);
    let before = everything(&world.router);
    let code = |arguments: &[&str]| {
        let (answer, trace) = traced(&world.router, arguments);
        assert_mere_look(&trace);
        answer.code
    };
    assert_eq!(code(&["plan"]), 2);
    assert_eq!(code(&["plan", &name, "-o", "json"]), 2);
    assert_eq!(code(&["plan", "nobody"]), 1);
    assert_eq!(code(&["approve", "--list"]), 0);
    assert_eq!(agent(&world.router, &["diff", &name]).code, 2);
    assert_eq!(agent(&world.router, &["diff", "nobody"]).code, 1);
    for verb in [
        &["get"][..],
        &["describe", &name],
        &["history"],
        &["render", &name],
        &["validate"],
    ] {
        agent(&world.router, verb).ended(0);
    }
    assert_eq!(everything(&world.router), before);
    assert_eq!(events.seen(), Vec::<String>::new());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(agent(&world.router, &["diff", &name]).code, 0);
    std::fs::write(world.router.path("broken.yaml"), "node: [").unwrap();
    let broken = world.router.path("broken.yaml").display().to_string();
    assert_eq!(agent(&world.router, &["plan", "--config", &broken]).code, 1);
}

/// What probes measured shapes a session's text, and only a running agent probes.
#[test]
fn plan_and_next_start_know_measured_classes() {
    let mut world = World::new(1);
    let name = interface(1);
    let file = world.router.path("config.yaml");
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["probe"] = serde_json::json!({"interval": 1, "count": 1, "timeout": 1});
    std::fs::write(file, config.to_string()).unwrap();
    world.router.start_agent();
    world.wait_established();
    wait_until("a round-trip time is measured", 40, || {
        contains(
            &world.router.api("", "/metrics").1,
            "moenet_agent_session_rtt_seconds{",
        )
    });
    // Any hint has the world made anew, with the class of the link.
    let file = world
        .router
        .path("state")
        .join(format!("overrides/sessions/{name}.yaml"));
    std::fs::write(&file, exception(&name, "nothing", "{}", "")).unwrap();
    let fragment = world
        .router
        .bird
        .folder
        .join(format!("moenet/sessions/{name}.conf"));
    wait_until("the class is in the session's text", 40, || {
        let text = std::fs::read_to_string(&fragment).unwrap();
        if text.contains("moe_link(0,") {
            Err(text)
        } else {
            Ok(())
        }
    });
    wait_until("nothing is left to do", 20, || {
        let answer = agent(&world.router, &["plan"]);
        if answer.code == 0 {
            Ok(())
        } else {
            Err(answer.out)
        }
    });
    let before = bird_history(&world.router);
    world.router.kill_agent();
    assert_eq!(
        agent(&world.router, &["plan"]).ended(0).out,
        "No changes.\n"
    );
    world.router.start_agent();
    world.wait_polls("sessions", 3);
    assert_eq!(
        bird_history(&world.router),
        before,
        "a restart forgot the class and told the neighbour so"
    );
}

#[test]
fn plan_before_the_first_run_names_the_missing_key() {
    let world = World::new(0);
    std::fs::remove_file(world.router.path("private.key")).unwrap();
    let state = world.router.path("state");
    std::fs::create_dir_all(state.join("sessions")).unwrap();
    let document = "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {name: own}\nspec:\n  asn: 4242421080\n  \
                    tunnel: {publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=, listenPort: 21080}\n  \
                    address: {peerLinkLocal: \"fe80::2\"}\n";
    std::fs::write(state.join("sessions/own.yaml"), document).unwrap();
    let node = "apiVersion: moenet.work/v1\nkind: Node\nmetadata: {name: node}\nspec: {id: 1, asn: 4242420998}\n";
    std::fs::write(state.join("node.yaml"), node).unwrap();
    let planned = agent(&world.router, &["plan"]).ended(2);
    planned.says("ourKey a new key");
    planned.says("no WireGuard key at");
    assert!(!world.router.path("private.key").exists());
    let applied = agent(&world.router, &["apply", "--once"]).ended(0);
    let key = world.router.inside.shell(&format!(
        "wg pubkey <{}",
        world.router.path("private.key").display()
    ));
    assert_eq!(
        applied.out,
        done(&planned.out).replace("a new key", key.trim())
    );
}
