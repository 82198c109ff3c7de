//! `adopt --undo`: everything back, except for what someone else has changed since.

use std::os::unix::fs::PermissionsExt;

use super::super::{Built, DEVICE, GO_AGENT, WIKI};
use super::same;
use crate::lab::cli::agent;
use crate::lab::control_plane::ControlPlane;
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// What the operator has changed since stays, and the undo names it.
#[test]
fn operators_changes_survive_a_later_undo() {
    let built = Built::new(&WIKI);
    built.apply(&["--watch", "1s"]).ended(0);
    built.router.inside.shell(&format!(
        "ip link set {DEVICE} mtu 1300; ip addr add 172.20.97.1/32 dev {DEVICE}"
    ));
    let answer = built.apply(&["--undo"]).ended(0);
    answer.says(&format!(
        "left alone: the MTU of {DEVICE} was changed since"
    ));
    answer.says(&format!(
        "left alone: address 172.20.97.1/32 of {DEVICE} was added"
    ));
    answer.says(&format!("clear the mark of {DEVICE}"));
    answer.says("Adoption undone, except for 2 things");
    let now = built.router.inside.shell(&format!("ip addr show {DEVICE}"));
    assert!(
        now.contains("mtu 1300") && now.contains("172.20.97.1/32"),
        "{now}"
    );
}

/// Nothing can be renamed from a mount to its parent.
#[test]
fn undo_moves_files_within_a_mounted_state_directory() {
    let built = Built::new(&GO_AGENT);
    let state = built.router.path("state").display().to_string();
    built.router.inside.shell(&format!(
        "mkdir {state} && mount -t tmpfs -o mode=755 tmpfs {state}"
    ));
    let before = built.whole();
    built.apply(&["--watch", "1s"]).ended(0);
    built.is_adopted();
    let note = format!("echo mine >{state}/overrides/note");
    built.router.inside.shell(&note);
    built.apply(&["--undo"]).ended(0).says("/.undone-");
    same(&before, &built.whole());
    let kept = built
        .router
        .inside
        .shell(&format!("cat {state}/.undone-*/overrides/note"));
    assert_eq!(kept, "mine\n");
}

/// What the operator writes while the sessions are watched is not the adoption's.
#[test]
fn files_of_the_watch_go_aside() {
    let built = Built::new(&GO_AGENT);
    let before = built.whole();
    built.kill_in_the_middle();
    let document = built.router.path("state/sessions/wg_mine.yaml");
    std::fs::write(&document, "mine\n").unwrap();
    // Without a recorded machine identity the agent does not undo by itself.
    let path = built.router.path("state/.adoption/record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["machine"] = Value::Null;
    std::fs::write(&path, record.to_string()).unwrap();
    let refused = built.apply(&["--watch", "1s"]).ended(1);
    refused.says("without the machine that it belongs to");
    built.is_adopted();
    let undone = built.apply(&["--undo"]).ended(0);
    undone.says("left alone: files were written meanwhile: moved ");
    same(&before, &built.whole());
    let folder = built.router.path("").display().to_string();
    let list = format!("cd {folder}/state.undone-* && find . -type f");
    let left = built.router.inside.shell(&list);
    assert_eq!(left, "./sessions/wg_mine.yaml\n");
}

/// A copied state directory must not undo the adoption of the router that it comes from.
#[test]
fn record_of_another_machine_is_refused() {
    let mut built = Built::new(&WIKI);
    built.apply(&["--watch", "1s"]).ended(0);
    let path = built.router.path("state/.adoption/record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["machine"].as_str().map(str::len), Some(64));
    record["machine"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let whole = built.whole();
    for arguments in [&["--undo"][..], &["--plan"], &["--watch", "1s"]] {
        let refused = built.apply(arguments).ended(1);
        refused.says("has the record of another machine's adoption");
    }
    same(&whole, &built.whole());
    // A kept adoption is no reason not to start.
    built.router.start_agent();
    built.is_adopted();
}

/// The kernel makes its addresses again when the link comes up.
#[test]
fn link_that_was_down_is_down_after_the_undo() {
    let built = Built::new(&GO_AGENT);
    built
        .router
        .inside
        .shell(&format!("ip link set {DEVICE} down"));
    wait_until("BIRD sees the link down", 30, || {
        let shown = built
            .router
            .bird
            .try_ask(&built.router.inside, "show protocols")?;
        match shown.contains("Established") {
            true => Err(shown),
            false => Ok(()),
        }
    });
    let before = built.whole();
    built.apply(&["--watch", "1s"]).ended(0);
    let up = format!("ip link show {DEVICE}");
    contains(&built.router.inside.shell(&up), ",UP").unwrap();
    built.apply(&["--undo", "--yes"]).ended(0);
    same(&before, &built.whole());
}

#[test]
fn control_planes_documents_survive_a_later_undo() {
    let built = Built::new(&WIKI);
    let control_plane = ControlPlane::new(&built.router.inside);
    let config = built.router.config(&control_plane.url, 60);
    built.router.write_config(&config);
    let before = built.whole();
    std::thread::scope(|scope| {
        let adopting = scope.spawn(|| built.apply(&["--watch", "60s"]));
        built.wait_adopted();
        assert!(built.router.path("state/node.yaml").exists());
        built.neighbour.ask_bird("disable says1");
        adopting.join().unwrap().ended(1);
    });
    same(&before, &built.whole());
    built.apply(&["--watch", "1s"]).ended(0);
    built.apply(&["--undo"]).ended(0);
    let alias = format!("cat /sys/class/net/{DEVICE}/ifalias");
    assert_eq!(built.router.inside.shell(&alias).trim(), "");
    assert!(
        !built
            .router
            .path(&format!("state/sessions/{DEVICE}.yaml"))
            .exists()
    );
    assert!(built.router.path("state/node.yaml").exists());
}

#[test]
fn session_that_the_control_plane_lists_gets_an_override() {
    let mut built = Built::new(&GO_AGENT);
    let control_plane = ControlPlane::new(&built.router.inside);
    control_plane.sessions(&[json!({
        "uuid": "7d9f6a3e-0b1c-4c55-9a53-1f2f3a1c0001", "asn": 4_242_421_001_u32, "status": 4, "interface": DEVICE,
        "ipv6LinkLocal": "fe80::1:1", "mtu": 1400, "endpoint": "192.0.2.10:51820", "listenPort": 21_001,
        "credential": {"publicKey": built.neighbour.keys.public}
    })]);
    let config = built.router.config(&control_plane.url, 60);
    built.router.write_config(&config);
    let (before, state) = (built.whole(), built.state());
    let answer = built.apply(&["--watch", "1s"]).ended(0);
    answer.says(
        "Adopt: 0 documents, 1 override, 0 link re-creations, 0 other interruptions, 0 BGP resets.",
    );
    built.is_adopted();
    let path = built
        .router
        .path(&format!("state/overrides/sessions/{DEVICE}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("adopt: true") && text.contains("mtu: 1420"),
        "{text}"
    );
    built.router.start_agent();
    let name = format!("sessions/{DEVICE}");
    wait_until("the agent has nothing to do for the tunnel", 30, || {
        let plan = agent(&built.router, &["plan", &name]).out;
        match plan.contains("set WireGuard") || plan.contains("MTU") || plan.contains("mark ") {
            true => Err(plan),
            false => Ok(()),
        }
    });
    assert_eq!(built.state(), state);
    built.router.stop_agent();
    // The operator uses the override too.
    let text = std::fs::read_to_string(&path).unwrap();
    let own = text.replace("persistentKeepalive: 1\n", "persistentKeepalive: 7\n");
    assert_ne!(own, text);
    std::fs::write(&path, own).unwrap();
    let undone = built.apply(&["--undo"]).ended(0);
    undone.says("removed tunnel.mtu, tunnel.adopt, ");
    undone.says("left alone: tunnel.persistentKeepalive of the override");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("persistentKeepalive: 7") && !text.contains("adopt: true"),
        "{text}"
    );
    assert!(
        built
            .router
            .path(&format!("state/sessions/{DEVICE}.yaml"))
            .exists()
    );
    let kernel = |text: &str| {
        text.split("────")
            .skip(3)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let addresses = |text: &str| {
        text.split("────")
            .nth(2)
            .unwrap()
            .matches("scope link")
            .count()
    };
    let after = built.whole();
    assert_eq!(addresses(&before), addresses(&after));
    assert_eq!(kernel(&before)[..4], kernel(&after)[..4]);
    assert_eq!(built.state(), state);
}

#[test]
fn undo_after_a_handover_is_refused() {
    let built = Built::new(&WIKI);
    built.apply(&["--watch", "1s"]).ended(0);
    let main = built.router.bird.folder.join("bird.conf");
    let before = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, format!("{before}include \"moenet/main.conf\";\n")).unwrap();
    let whole = built.whole();
    built
        .apply(&["--undo"])
        .ended(1)
        .says("take the include out");
    same(&whole, &built.whole());
    std::fs::write(&main, before).unwrap();
    built.apply(&["--undo"]).ended(0);
}

#[test]
fn accepted_interruption_is_undone_exactly() {
    let built = Built::new(&WIKI);
    let bird = built.router.bird.folder.join("moenet");
    for folder in [&bird, &built.router.path("state")] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("notes.txt"), "of the operator\n").unwrap();
    }
    // A file that the agent replaces.
    let replaced = built.router.path("state/public-key");
    std::fs::write(&replaced, "before\n").unwrap();
    std::fs::set_permissions(&replaced, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&replaced, Some(1234), Some(4321)).unwrap();
    built.router.inside.shell(&format!(
        "ip addr add 172.20.98.1/24 dev {DEVICE}; ip addr add fd00:98::1/64 nodad dev {DEVICE}; \
         ip route add 172.31.0.0/24 dev {DEVICE} src 172.20.98.1; \
         wg set {DEVICE} peer {} allowed-ips 172.16.0.0/12,fe80::/10",
        built.neighbour.keys.public
    ));
    let (before, state) = (built.whole(), built.state());
    built.apply(&["--watch", "1s"]).ended(1).says("add --yes");
    same(&before, &built.whole());
    built.apply(&["--watch", "1s", "--yes"]).ended(0);
    built.is_adopted();
    let adopted = built.whole();
    assert_ne!(before, adopted);
    let refused = built.apply(&["--undo"]).ended(1);
    refused.says("nothing was undone: this interrupts tunnels: set WireGuard");
    same(&adopted, &built.whole());
    built.apply(&["--undo", "--yes"]).ended(0);
    same(&before, &built.whole());
    assert_eq!(built.state(), state);
}
