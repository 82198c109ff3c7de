//! Mistakes in documents and arguments.

use super::*;

#[test]
fn agent_failure_is_not_blamed_on_the_document() {
    let router = Router::new();
    let status = |accepted: &str| {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: wg_new}}\nstatus:\n  phase: Error\n  \
             lastError: a reason\n  conditions:\n  - {{type: Accepted, status: \"{accepted}\", reason: Invalid, message: a reason, \
             lastTransitionTime: 2026-11-23T18:02:11Z}}\n"
        );
        fs::write(router.state("status/sessions/wg_new.yaml"), text).unwrap();
        router.call(&["describe", "wg_new", "-o", "json"]).json()
    };
    assert_eq!(reasons(&status("False")), ["Invalid"]);
    assert_eq!(reasons(&status("True")), ["Failed"]);
}

#[test]
fn a_document_of_another_version_is_told_as_such() {
    let router = Router::new();
    let file = router.state("policy.yaml");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("moenet.work/v1", "moenet.work/v2");
    fs::write(&file, &text).unwrap();
    let told = format!(
        "{}:2:1: apiVersion: \"moenet.work/v2\" is not supported, only moenet.work/v1;",
        file.display()
    );
    router.call(&["validate"]).says(1, &told);
    router.call(&["describe", "policy"]).says(0, &told);
    let policy = router.call(&["describe", "policy", "-o", "json"]).json();
    assert_eq!(
        (&policy["why"][0]["reason"], &policy["phase"]),
        (&"Invalid".into(), &"Error".into())
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        text,
        "the file was touched"
    );
}

#[test]
fn diff_has_both_values_and_exit_code_two() {
    let router = Router::new();
    let answer = router.call(&["diff", NAME, "-o", "json"]);
    assert_eq!(answer.code, 2);
    let differences = answer.json();
    assert_eq!(differences[0]["field"], "spec.tunnel.mtu");
    assert_eq!(
        (
            &differences[0]["controlPlane"],
            &differences[0]["effective"]
        ),
        (&1420.into(), &1380.into())
    );
    router
        .call(&["diff", NAME])
        .says(2, "their side is on PPPoE until January");
    router
        .call(&["diff", "mesh/hk1"])
        .says(0, "is as in its document");
}

#[test]
fn what_needs_no_router_works_without_a_configuration() {
    let alone = |arguments: &[&str]| {
        call(
            Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
                .current_dir("/")
                .args(arguments),
        )
    };
    for kind in [
        "BgpSession",
        "sessions",
        "status",
        "config",
        "applied",
        "BgpSessionOverride",
    ] {
        assert!(
            alone(&["schema", kind]).json()["properties"].is_object(),
            "{kind}"
        );
    }
    alone(&["completions", "bash"]).says(0, "-F _clap_complete_moenet_agent moenet-agent");
    alone(&["man"]).says(0, ".TH moenet-agent");
}

#[test]
fn a_mistake_in_the_arguments_is_exit_code_64() {
    for arguments in [
        vec![],
        vec!["nonsense"],
        vec!["schema", "nonsense"],
        vec!["schema"],
        vec!["describe"],
        vec!["maintenance", "pause"],
        vec!["restart", "a name that is no interface"],
        vec!["get", "-o", "xml"],
        vec!["completions", "cmd.exe"],
    ] {
        let answer = call(Command::new(env!("CARGO_BIN_EXE_moenet-agent")).args(&arguments));
        assert_eq!(
            answer.code, 64,
            "{arguments:?}: {}{}",
            answer.out, answer.err
        );
    }
}

#[test]
fn every_verb_shows_an_example() {
    let help = call(Command::new(env!("CARGO_BIN_EXE_moenet-agent")).arg("--help"));
    let (_, verbs) = help.out.split_once("Commands:\n").unwrap();
    let verbs = verbs.lines().take_while(|line| !line.is_empty());
    let names: Vec<_> = verbs
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    // `help` takes the name of a verb, and no option.
    let verbs = names
        .into_iter()
        .filter(|name| !["", "help"].contains(name));
    for name in verbs {
        let help = call(Command::new(env!("CARGO_BIN_EXE_moenet-agent")).args([name, "--help"]));
        help.says(0, "Example");
        help.says(0, &format!("moenet-agent {name}"));
    }
}

#[test]
fn wrong_arguments_of_adopt_are_found_before_anything_is_read() {
    let router = Router::new();
    for (arguments, words) in [
        (["--watch", "0s"], "--watch 0s: "),
        (["--watch", "soon"], "--watch soon: "),
        (
            ["--wg-quick", "/nonexistent"],
            "--wg-quick /nonexistent: no",
        ),
        (
            ["--networkd", "/nonexistent"],
            "--networkd /nonexistent: no",
        ),
    ] {
        for plan in [&["--plan"][..], &[]] {
            let arguments = [&["adopt"][..], plan, &arguments[..]].concat();
            let answer = router.call(&arguments);
            answer.says(1, words);
            assert!(answer.out.is_empty(), "{}", answer.out);
        }
    }
}
