//! Completions, as a shell asks for them.

use std::fs;
use std::process::Command;

use super::{NAME, Router, call};

impl Router {
    /// Returns the completions of the last word.
    fn completed(&self, words: &[&str]) -> Vec<String> {
        let config = self.dir.path().join("config.yaml").display().to_string();
        let words = [&["moenet-agent", "--config", &config], words].concat();
        let answer = call(
            Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
                .env("COMPLETE", "bash")
                .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
                .env("_CLAP_IFS", "\n")
                .arg("--")
                .args(words),
        );
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert!(answer.err.is_empty(), "{}", answer.err);
        answer
            .out
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }
}

#[test]
fn names_and_kinds_of_the_router_are_completed() {
    let router = Router::new();
    assert_eq!(router.completed(&["describe", "wg"]), [NAME]);
    let path = format!("sessions/{NAME}");
    assert_eq!(router.completed(&["edit", "sessions/"]), [path]);
    // The name of two objects needs its kind.
    assert_eq!(router.completed(&["pause", "mesh"]), ["mesh/hk1"]);
    let all = router.completed(&["get", ""]);
    for word in ["sessions", "overrides", NAME, "ibgp/hk1", "node"] {
        assert!(all.iter().any(|it| it == word), "no {word} in {all:?}");
    }
    assert!(router.completed(&["wai"]).contains(&"wait".to_owned()));
}

#[test]
fn fields_are_those_of_the_kind() {
    let router = Router::new();
    let fields = router.completed(&["override", NAME, "tunnel.m"]);
    assert_eq!(fields, ["tunnel.mtu="]);
    assert!(router.completed(&["override", "nothing", "tun"]).is_empty());
    let below = router.completed(&["explain", "bgpsession.tunnel.mt"]);
    assert_eq!(below, ["bgpsession.tunnel.mtu"]);
    let top = router.completed(&["explain", "bgpsession.tun"]);
    assert_eq!(top, ["bgpsession.tunnel"]);
    assert!(router.completed(&["explain", "nothing.tun"]).is_empty());
}

#[test]
fn unreadable_router_completes_nothing_and_says_nothing() {
    let router = Router::new();
    fs::remove_dir_all(router.state("")).unwrap();
    assert!(router.completed(&["describe", "wg"]).is_empty());
    fs::write(router.dir.path().join("config.yaml"), "kind: [").unwrap();
    assert!(router.completed(&["describe", "wg"]).is_empty());
}

#[test]
fn scripts_of_all_shells_ask_the_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Router::new().call(&["completions", shell]);
        script.says(0, "COMPLETE");
        script.says(0, "moenet-agent");
    }
}
