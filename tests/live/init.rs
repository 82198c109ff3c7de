//! `init` on a host with BIRD and without a configuration.

use std::os::unix::fs::PermissionsExt;

use crate::lab::bird;
use crate::lab::cli::{Answer, answer};
use crate::lab::router::{Router, agent_program};

const EARLIER: &str = include_str!("../cases/go-agent-router/config.json");
/// A router that needs no Control Plane.
const ALONE: [&str; 8] = [
    "--name",
    "jp1",
    "--id",
    "1",
    "--asn",
    "4242420998",
    "--loopback-ipv4",
    "172.23.105.177",
];

fn router() -> Router {
    let mut router = Router::new(&bird::version());
    let config = "router id 172.23.105.177;\nprotocol device {}\n";
    std::fs::write(router.path("bird/bird.conf"), config).unwrap();
    router.start_bird();
    router
}

/// `init` with the paths of this router.
fn init(router: &Router, more: &[&str]) -> Answer {
    let path = |name: &str| router.path(name).display().to_string();
    let folder = router
        .bird
        .program()
        .parent()
        .unwrap()
        .display()
        .to_string();
    let mut command = router.inside.command(agent_program());
    command
        .args(["--config", &path("config.yaml"), "init"])
        .args(["--bird-socket", &path("bird/bird.ctl")])
        .args(["--bird-directory", &path("bird")])
        .args(["--private-key", &path("private.key")])
        .args(more)
        .env(
            "PATH",
            format!("{folder}:{}", std::env::var("PATH").unwrap()),
        )
        .env("MOENET_STATE_DIR", path("state"))
        .env("NO_COLOR", "1");
    answer(&mut command)
}

fn text(router: &Router) -> String {
    std::fs::read_to_string(router.path("config.yaml")).unwrap()
}

#[test]
fn written_configuration_is_checked_and_planned() {
    let router = router();
    let answer = init(&router, &ALONE).ended(0);
    answer.says("wrote ");
    answer.says("BIRD");
    answer.says("First plan");
    answer.says("Plan: ");
    let file = router.path("config.yaml");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!router.path("state").exists(), "a plan writes nothing");
    let before = text(&router);
    init(&router, &ALONE).ended(1).says("add --force");
    assert_eq!(text(&router), before);
    let forced = init(
        &router,
        &[&ALONE[..], &["--region", "eu", "--force"]].concat(),
    );
    forced.ended(0).says("config.yaml.before-moenet-agent");
    let copy = std::fs::read_to_string(router.path("config.yaml.before-moenet-agent"));
    assert_eq!(copy.unwrap(), before);
    assert!(text(&router).contains("\n  region: \"eu\"\n"));
}

#[test]
fn missing_and_invalid_values_write_nothing() {
    let router = router();
    init(&router, &["--name", "jp1"])
        .ended(1)
        .says("give --id, --asn");
    let bad = ["--name", "j p 1", "--id", "1", "--asn", "1"];
    init(&router, &bad).ended(1).says("node.name");
    let zero = ["--name", "jp1", "--id", "0", "--asn", "1"];
    init(&router, &zero).ended(1).says("nothing was written");
    assert!(!router.path("config.yaml").exists());
}

#[test]
fn unreachable_control_plane_and_bird_fail_the_checks() {
    let mut router = router();
    router.bird.kill();
    let arguments = ["--name", "jp1", "--control-plane", "http://127.0.0.1:9"];
    init(&router, &arguments).ended(1).says("a token is needed");
    let token = router.path("token");
    std::fs::write(&token, "lab-token\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let token = token.display().to_string();
    let arguments = [&arguments[..], &["--token-file", &token]].concat();
    let answer = init(&router, &arguments).ended(1);
    answer.says("control plane");
    answer.says("the configuration is written, and the plan failed");
    assert!(router.path("config.yaml").exists());
}

#[test]
fn earlier_configuration_is_taken_over() {
    let router = router();
    let from = router.path("earlier.json");
    std::fs::write(&from, EARLIER).unwrap();
    let from = from.display().to_string();
    // Its Control Plane does not answer.
    let answer = init(&router, &["--from", &from, "-o", "json"])
        .ended(1)
        .json();
    let keys = answer["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 30);
    let found = keys.iter().find(|it| it["key"] == "bird.poolSize").unwrap();
    assert!(found["becomes"].is_null() && found["note"].is_string());
    let written = text(&router);
    for line in [
        "  url: \"https://api.example.net\"",
        "  loopbackIpv6: \"fd48:4242:420::1\"",
        "  count: 4",
    ] {
        assert!(written.contains(&format!("\n{line}\n")), "{line}");
    }
    std::fs::remove_file(router.path("config.yaml")).unwrap();
    let spoken = init(&router, &["--from", &from]).ended(1);
    spoken.says("taken over   wireguard.dn42Ipv4: node.loopbackIpv4");
    spoken.says("unsupported  autoUpdate.enabled (the package manager updates the agent)");
    assert!(!spoken.out.contains("example-token") && !spoken.err.contains("example-token"));
}

#[test]
fn answer_for_programs_has_checks_and_plan() {
    let mut router = router();
    let arguments = [&ALONE[..], &["-o", "json"]].concat();
    let answer = init(&router, &arguments).ended(0).json();
    let checks = answer["checks"].as_array().unwrap();
    assert!(
        checks.iter().any(|it| it["check"] == "bird program"),
        "{checks:#?}"
    );
    assert!(!answer["plan"].as_array().unwrap().is_empty());
    router.bird.kill();
    let arguments = [&arguments[..], &["--force"]].concat();
    let answer = init(&router, &arguments).ended(1).json();
    let failed = answer["checks"].as_array().unwrap().iter();
    assert!(
        failed.clone().any(|it| it["status"] == "failed"),
        "{answer:#}"
    );
}

#[test]
fn link_in_place_of_the_configuration_is_not_replaced() {
    let router = router();
    let (target, link) = (router.path("kept.yaml"), router.path("config.yaml"));
    std::fs::write(&target, "of the operator\n").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let arguments = [&ALONE[..], &["--force"]].concat();
    init(&router, &arguments)
        .ended(1)
        .says("is a symbolic link to");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(
        std::fs::read_to_string(&target).unwrap(),
        "of the operator\n"
    );
}

#[test]
fn terminal_is_restored_after_an_interrupted_token() {
    let router = router();
    let config = router.path("config.yaml").display().to_string();
    let program = agent_program().display().to_string();
    let inner = format!("{program} --config {config} init; echo ended $?; stty -a");
    let line = format!(
        "(printf 'jp1\\nhttps://cp.example\\n\\n'; sleep 3; printf 'zqx\\003'; sleep 3) | \
         script -qec '{inner}' /dev/null || true"
    );
    let shown = router.inside.shell(&line);
    assert!(shown.contains("Token (not shown)"), "{shown}");
    assert!(
        shown.contains("interrupted") && shown.contains("ended 1"),
        "{shown}"
    );
    let modes = shown.split_whitespace();
    for mode in ["echo", "icanon", "isig"] {
        assert!(modes.clone().any(|it| it == mode), "{mode}: {shown}");
    }
    assert!(!shown.contains("zqx"), "{shown}");
    assert!(!router.path("config.yaml").exists());
}

#[test]
fn person_on_a_terminal_is_asked() {
    let router = router();
    let path = |name: &str| router.path(name).display().to_string();
    let program = format!(
        "MOENET_STATE_DIR={} {} --config {} init --bird-socket {} --bird-directory {} --private-key {}",
        path("state"),
        agent_program().display(),
        path("config.yaml"),
        path("bird/bird.ctl"),
        path("bird"),
        path("private.key")
    );
    let typed =
        "j p 1\\njp1\\nftp://cp\\n\\nx\\n0\\n1\\n4242420998\\n\\nfd48:g\\nfd48:4242:420::1\\n";
    let line = format!("printf '{typed}' | script -qec '{program}' /dev/null || true");
    let shown = router.inside.shell(&line);
    assert!(shown.contains("Name of this router"), "{shown}");
    for reason in [
        "invalid name \"j p 1\"",
        "the scheme is",
        "a number, please",
        "invalid id 0",
        "node.loopbackIpv6: ",
    ] {
        assert!(shown.contains(reason), "{reason}: {shown}");
    }
    let written = text(&router);
    for line in [
        "  name: \"jp1\"",
        "  asn: 4242420998",
        "  loopbackIpv6: \"fd48:4242:420::1\"",
        "#  loopbackIpv4: \"172.23.105.177\"",
    ] {
        assert!(written.contains(&format!("\n{line}\n")), "{line}: {shown}");
    }
}

#[test]
fn ended_token_prompt_leaves_the_terminal_as_it_was() {
    let router = router();
    let program = format!(
        "{} --config {} init --name jp1 --control-plane http://127.0.0.1:1",
        agent_program().display(),
        router.path("config.yaml").display()
    );
    let script = router.path("asked.sh");
    // Without job control the shell gives a program in the background /dev/null as its input.
    let text = format!(
        "stty -a\n{program} </dev/tty &\nsleep 1\nkill -TERM $!\nwait $!\necho code $?\necho after\nstty -a\n"
    );
    std::fs::write(&script, text).unwrap();
    let line = format!(
        "(sleep 0.5; echo; sleep 2) | script -qec 'sh {}' /dev/null || true",
        script.display()
    );
    let shown = router.inside.shell(&line);
    assert!(shown.contains("Token (not shown)"), "{shown}");
    assert!(shown.contains("code 143"), "{shown}");
    let (_, after) = shown.split_once("after").unwrap();
    assert!(
        after.contains(" echo ") && after.contains(" icanon "),
        "{shown}"
    );
    assert!(!router.path("config.yaml").exists());
}
