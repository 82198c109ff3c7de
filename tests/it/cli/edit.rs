//! `edit`, with editors that are scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use super::change::{OWN, plain};
use super::{Answer, NAME, Router, call};

impl Router {
    /// Edits with a shell script, whose first argument is the file.
    fn edit(&self, script: &str, arguments: &[&str]) -> Answer {
        let editor = self.file("editor", &format!("#!/bin/sh\nset -e\n{script}\n"));
        fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
        call(
            Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
                .env("EDITOR", editor)
                .env_remove("VISUAL")
                .env("TMPDIR", self.dir.path())
                .arg("--config")
                .arg(self.dir.path().join("config.yaml"))
                .arg("edit")
                .args(arguments),
        )
    }
}

#[test]
fn change_of_a_synced_document_becomes_an_override() {
    let router = plain();
    let script =
        "grep -q '^#| .*becomes overrides/sessions/' $1; sed -i 's/mtu: 1420/mtu: 1390/' $1";
    router.edit(script, &[NAME]).says(1, "needs --reason");
    router
        .edit(script, &[NAME, "--reason", "their uplink"])
        .says(0, "created");
    assert_eq!(router.exception()["set"], json!({"tunnel": {"mtu": 1390}}));
    // The override is part of the text, so that a second edit keeps it.
    router
        .edit("sed -i 's/policy: full/policy: peer/' $1", &[NAME])
        .says(0, "changed");
    let set = json!({"tunnel": {"mtu": 1390}, "bgp": {"policy": "peer"}});
    assert_eq!(router.exception()["set"], set);
}

#[test]
fn invalid_text_is_opened_again_with_its_errors() {
    let router = plain();
    let script = "case $(cat $1) in\n\
                  *'#| '*'spec.tunnel.mtu: invalid MTU'*)\n\
                  line=$(sed -n 's/^#| .*yaml:\\([0-9]*\\):.*/\\1/p' $1 | head -n 1)\n\
                  sed -n ${line}p $1 | grep -q 'mtu: 70000'\n\
                  sed -i 's/mtu: 70000/mtu: 1400/' $1;;\n\
                  *) sed -i 's/mtu: 1420/mtu: 70000/' $1;; esac";
    router
        .edit(script, &[NAME, "--reason", "x"])
        .says(0, "created");
    assert_eq!(router.exception()["set"], json!({"tunnel": {"mtu": 1400}}));
}

#[test]
fn text_that_stays_invalid_is_kept_and_not_written() {
    let router = plain();
    let answer = router.edit(
        "sed -i 's/mtu: 1420/mtu: 70000/' $1",
        &[NAME, "--reason", "x"],
    );
    answer.says(1, "nothing was written; your text is in ");
    answer.says(1, "invalid MTU");
    let (_, rest) = answer.err.split_once("your text is in ").unwrap();
    let (path, _) = rest.split_once(": ").unwrap();
    assert!(fs::read_to_string(path).unwrap().contains("mtu: 70000"));
    assert!(!router.override_file().exists());
}

#[test]
fn unchanged_and_empty_texts_cancel() {
    let router = plain();
    for script in ["true", ": > $1"] {
        router
            .edit(script, &[NAME, "--reason", "x"])
            .says(0, "Edit cancelled");
    }
    router
        .edit("exit 3", &[NAME, "--reason", "x"])
        .says(1, "failed (exit status: 3), so nothing was written");
    assert!(!router.override_file().exists());
}

#[test]
fn own_document_is_written_with_its_comments() {
    let router = plain();
    let file = router.state("sessions/wg_own.yaml");
    fs::write(&file, OWN).unwrap();
    router
        .edit("sed -i 's/fe80::777/fe80::1777/' $1", &["wg_own"])
        .says(0, "sessions/wg_own.yaml changed");
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(written, OWN.replace("fe80::777", "fe80::1777"));
    router
        .edit("sed -i 's/wg_own/wg_two/' $1", &["wg_own"])
        .says(1, "the document is of sessions/wg_two now");
}

#[test]
fn same_invalid_text_is_not_opened_a_third_time() {
    let router = plain();
    let script = "echo >>$0.times; sed -i '/^#| /d; s/mtu: 1420/mtu: 70000/' $1";
    let answer = router.edit(script, &[NAME, "--reason", "x"]);
    answer.says(1, "nothing was written; your text is in ");
    answer.says(1, "invalid MTU");
    let times = fs::read_to_string(router.dir.path().join("editor.times")).unwrap();
    assert_eq!(times.lines().count(), 2);
}

#[test]
fn broken_document_of_the_operator_can_be_edited() {
    let router = plain();
    let file = router.state("sessions/wg_own.yaml");
    fs::write(&file, OWN.replace("asn: 4242420777", "asn: [")).unwrap();
    router
        .edit("sed -i 's/asn: \\[/asn: 4242420777/' $1", &["wg_own"])
        .says(0, "changed");
    assert_eq!(fs::read_to_string(&file).unwrap(), OWN);
}

#[test]
fn document_that_changes_meanwhile_is_opened_again() {
    let router = plain();
    let file = router.state("sessions/wg_own.yaml");
    let theirs = OWN.replace("asn: 4242420777", "asn: 4242420778");
    for (again, code, says) in [
        ("true", 1, "nothing was written; your text is in "),
        ("sed -i '/^#| /d' $1", 0, "changed"),
    ] {
        fs::write(&file, OWN).unwrap();
        let script = format!(
            "if grep -q '^#| wg_own changed while you edited it' $1; then\n\
             grep -q '^#| +  asn: 4242420778' $1; {again}\n\
             else sed -i 's/fe80::777/fe80::1777/' $1; sed -i 's/asn: 4242420777/asn: 4242420778/' {}; fi",
            file.display()
        );
        router.edit(&script, &["wg_own"]).says(code, says);
        let ours = OWN.replace("fe80::777", "fe80::1777");
        let wanted = if code == 0 { &ours } else { &theirs };
        assert_eq!(fs::read_to_string(&file).unwrap(), *wanted);
    }
}
