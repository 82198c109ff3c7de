//! The first start on a router that its operator set up by hand: nothing of theirs is lost, and what waits is said.

use crate::lab::cli::agent;
use crate::lab::control_plane::Answer;
use crate::lab::hands::Age;
use crate::lab::neighbour::Neighbour;
use crate::lab::router::ASN;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, uuid};
use crate::lab::{contains, wait_until};
use serde_json::json;

/// The session that the operator made by hand, on an interface that is not the agent's.
struct HandMade {
    neighbour: Neighbour,
}

/// Addresses of the veth link between router and hand-made neighbour.
const OLD: (&str, &str) = ("10.99.0.1", "10.99.0.2");

impl HandMade {
    /// A neighbour whose BIRD speaks with the router's hand-made one.
    fn join(world: &World) -> Self {
        let mut neighbour = Neighbour::new(77);
        world.router.inside.link(
            "old0",
            &["10.99.0.1/30"],
            &neighbour.inside,
            "old0",
            &["10.99.0.2/30"],
        );
        let config = format!(
            "router id 10.0.77.1;\nprotocol device {{}}\nprotocol bgp router {{ local {} as {};\n \
             neighbor {} as {ASN}; connect delay time 1; connect retry time 1; error wait time 1, 2;\n \
             ipv4 {{ import all; export all; }}; }}\n",
            OLD.1, neighbour.asn, OLD.0
        );
        neighbour.start_daemon(&crate::lab::bird::version(), "true", &config);
        Self { neighbour }
    }

    /// State and age of the session as the neighbour sees it.
    #[track_caller]
    fn session(&self) -> String {
        let all = self.neighbour.ask_bird("show protocols router");
        let row = all.lines().find(|line| line.starts_with("router "));
        row.unwrap_or_else(|| panic!("{all}")).to_owned()
    }

    #[track_caller]
    fn wait_established(&self) {
        wait_until("the hand-made session is Established", 30, || {
            contains(&self.session(), "Established")
        });
    }
}

/// The `bird.conf` of a case, for the hand-made neighbour.
fn case(name: &str, neighbour: &Neighbour) -> String {
    let file = format!(
        "{}/tests/cases/{name}/bird.conf",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(file)
        .unwrap()
        .replace("@LL@", OLD.0)
        .replace("@PEER@", OLD.1)
        .replace("@ASN@", &neighbour.asn.to_string())
        .replace("extended next hop on; ", "")
}

/// A router with a hand-made `bird.conf` that BIRD runs, and one session of the Control Plane's.
fn hand_made(version: &str, name: &str) -> (World, HandMade, String) {
    let world = World::with_bird(version, 1);
    let hand_made = HandMade::join(&world);
    let text = case(name, &hand_made.neighbour);
    // BIRD takes the file without the agent's files, which are not there yet.
    let bare = text.replace("include \"moenet/main.conf\";", "");
    let path = world.router.bird.folder.join("bird.conf");
    std::fs::write(&path, bare).unwrap();
    world.router.bird.ask(&world.router.inside, "configure");
    std::fs::write(&path, &text).unwrap();
    (world, hand_made, text)
}

fn main_file(world: &World) -> String {
    std::fs::read_to_string(world.router.bird.folder.join("bird.conf")).unwrap()
}

#[test]
fn hand_made_bird_conf_survives_the_first_start() {
    let (mut world, old, text) = hand_made(&crate::lab::bird::version(), "hand-made-bird-conf");
    old.wait_established();
    let before = Age::in_line(&old.session());
    // The plan says so before anything runs, from what the Control Plane wants, and writes nothing.
    let key = world.router.path("private.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let plan = agent(&world.router, &["plan"]);
    for word in [
        "bgp old_peer",
        "static static1",
        "create WireGuard link",
        "moenet/main.conf",
    ] {
        plan.says(word);
    }
    assert!(
        !plan.out.contains("write BIRD file bird.conf"),
        "{}",
        plan.out
    );
    assert_eq!(plan.code, 2, "{}{}", plan.out, plan.err);
    assert!(!world.router.path("state").exists() && !key.exists());
    std::fs::write(&key, kept).unwrap();

    world.router.start_agent();
    let why = world.wait_condition("node", "BirdConfigured", "False", "ForeignMainConfig");
    for word in [
        "bgp old_peer",
        "static static1",
        "include \"moenet/main.conf\";",
        "first remove from it each protocol",
    ] {
        assert!(why.contains(word), "no {word:?} in {why}");
    }
    assert!(!why.contains("mv "), "it would end old_peer: {why}");
    wait_until("the tunnel is up meanwhile", 30, || {
        let shown = world
            .router
            .inside
            .try_shell("wg show all latest-handshakes")?;
        let fresh = |line: &str| line.starts_with(&interface(1)) && !line.trim().ends_with("\t0");
        match shown.lines().any(fresh) {
            true => Ok(()),
            false => Err(shown),
        }
    });
    let object = format!("sessions/{}", interface(1));
    let why = world.wait_condition(&object, "BirdConfigured", "False", "ForeignMainConfig");
    assert!(why.contains("waits for the node"), "{why}");
    world.wait_polls("sessions", 5);
    assert_eq!(
        world.control_plane.reported(&uuid(1)),
        None,
        "no fault of the session"
    );
    let (_, status) = world.router.api("", "/status");
    let described = agent(&world.router, &["describe", "node"]);
    for (place, said) in [("/status", status), ("describe", described.out)] {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("bgp old_peer"), "{place}: {said}");
    }
    let log = world.router.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("bgp old_peer") && line.contains("node"));
    assert!(lines.count() >= 1, "{log}");
    assert_eq!(main_file(&world), text);
    let age = Age::in_line(&old.session());
    assert_eq!(age, before, "the hand-made session was disturbed");

    // A way out: the operator includes the agent's files.
    let included = format!("{text}include \"moenet/main.conf\";\n");
    std::fs::write(world.router.bird.folder.join("bird.conf"), &included).unwrap();
    world.neighbours[0].wait_established(60);
    assert_eq!(main_file(&world), included);
    let age = Age::in_line(&old.session());
    assert_eq!(age, before, "the hand-made session was disturbed");
    world.wait_condition("node", "BirdConfigured", "True", "Loaded");
    world.wait_reported(&uuid(1), 1, "");
}

#[test]
fn operators_main_file_keeps_its_own_device_and_kernel_protocols() {
    for version in ["2.0.12", "3.4"] {
        let (mut world, _old, text) = hand_made(version, "include-into-own-main");
        let path = world.router.bird.folder.join("bird.conf");
        world
            .router
            .edit_configuration(|config| config["bird"]["manageMainConfig"] = json!(false));
        world.router.start_agent();
        world.neighbours[0].wait_established(60);
        let protocols = world
            .router
            .bird
            .ask(&world.router.inside, "show protocols");
        for (name, count) in [(" Device ", 1), (" Kernel ", 2), ("mine ", 1)] {
            assert_eq!(
                protocols.matches(name).count(),
                count,
                "{version}: {protocols}"
            );
        }
        assert_eq!(main_file(&world), text, "{version}");
        let why = world.wait_condition("node", "BirdConfigured", "True", "Loaded");
        assert!(why.contains("kernel (IPv4)"), "{version}: {why}");

        // Their file is broken: plan and validate name it, the protocol and its line; the sessions stay.
        let broken = text.replace(
            "protocol static mine { ipv4;",
            "protocol static mine { ipv4; nonsense;",
        );
        std::fs::write(&path, broken).unwrap();
        for verb in ["plan", "validate"] {
            let answer = agent(&world.router, &[verb]);
            let said = format!("{}{}", answer.out, answer.err);
            assert_ne!(answer.code, 0, "{version} {verb}: {said}");
            let place = format!("{}:5", path.display());
            assert!(
                said.contains(&place) && said.contains("static mine"),
                "{version} {verb}: {said}"
            );
        }
        contains(&world.neighbours[0].session().unwrap(), "Established").unwrap();
        // A session that cannot be configured for it is an ERROR with BIRD's words.
        let mut sessions = world.sessions();
        let mut new = sessions[0].clone();
        new["uuid"] = json!("new");
        new["interface"] = json!("wg_new");
        new["listenPort"] = json!(29_999);
        new["ipv6LinkLocal"] = json!("fe80::99");
        new["credential"]["publicKey"] = json!(KeyPair::new().public);
        sessions.push(new);
        world.control_plane.sessions(&sessions);
        world.wait_reported("new", 2, "BIRD configuration failed");
        let (_, words) = world.control_plane.reported("new").unwrap();
        assert!(words.contains("bird.conf:5"), "{version}: {words}");
        contains(&world.neighbours[0].session().unwrap(), "Established").unwrap();
        std::fs::write(&path, &text).unwrap();
        world.wait_reported("new", 1, "");
        assert!(world.router.agent_runs());
    }
}

#[test]
fn distribution_bird_conf_is_taken_over_with_a_copy() {
    let mut world = World::new(1);
    let path = world.router.bird.folder.join("bird.conf");
    let shipped = include_str!("../fixtures/bird-conf/debian-bird2-2.17.conf");
    std::fs::write(&path, shipped).unwrap();
    world.router.bird.ask(&world.router.inside, "configure");
    let plan = agent(&world.router, &["plan"]);
    plan.says("write BIRD file bird.conf");
    world.router.start_agent();
    world.wait_established();
    let copy = world
        .router
        .bird
        .folder
        .join("bird.conf.before-moenet-agent");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), shipped);
    assert!(main_file(&world).starts_with("# Written by moenet-agent"));
}

#[test]
fn edited_file_of_the_agent_is_kept_as_a_copy() {
    let world = World::converged(1);
    let folder = world.router.bird.folder.clone();
    let edited = main_file(&world) + "# mine\n";
    std::fs::write(folder.join("bird.conf"), &edited).unwrap();
    wait_until("the file is the agent's again", 60, || {
        match main_file(&world).contains("# mine") {
            true => Err("not yet".into()),
            false => Ok(()),
        }
    });
    let copies = world
        .router
        .inside
        .shell(&format!("cat {}/bird.conf.edited-*", folder.display()));
    assert_eq!(copies, edited);
    contains(&world.neighbours[0].session().unwrap(), "Established").unwrap();
}

#[test]
fn plan_without_control_plane_does_not_claim_no_changes() {
    let world = World::new(1);
    world.control_plane.answer_everything(Some(Answer::Refusal {
        status: 503,
        code: "UNAVAILABLE",
        retry_after: None,
    }));
    let plan = agent(&world.router, &["plan"]);
    assert_eq!(plan.code, 1, "{}{}", plan.out, plan.err);
    assert!(!plan.out.contains("No changes"), "{}", plan.out);
    contains(&plan.err, "Control Plane").unwrap();
    assert!(!world.router.path("state").exists());
}
