//! The command line and stock git, as an operator on the router calls them.

use super::router::{Router, agent_program};
use serde_json::Value;

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The answer, when it ended so.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "no {words:?} in {}{}",
            self.out,
            self.err
        );
    }
}

/// `moenet-agent ARGUMENTS` on the router.
pub(crate) fn agent(router: &Router, arguments: &[&str]) -> Answer {
    let mut command = router.inside.command(agent_program());
    command
        .arg("--config")
        .arg(router.path("config.yaml"))
        .args(arguments)
        .env("NO_COLOR", "1");
    answer(&mut command)
}

pub(crate) fn answer(command: &mut std::process::Command) -> Answer {
    let output = command
        .output()
        .expect("cannot run `nsenter`: install util-linux");
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Stock git in the state directory, as root calls it.
#[track_caller]
pub(crate) fn git(router: &Router, arguments: &[&str]) -> String {
    try_git(router, arguments).unwrap_or_else(|error| panic!("git {arguments:?}: {error}"))
}

pub(crate) fn try_git(router: &Router, arguments: &[&str]) -> Result<String, String> {
    let mut command = router.inside.command("git");
    let identity = [
        "-c",
        "safe.directory=*",
        "-c",
        "user.name=op",
        "-c",
        "user.email=op@x",
    ];
    command
        .arg("-C")
        .arg(router.path("state"))
        .args(identity)
        .args(arguments);
    let Answer { code, out, err } = answer(&mut command);
    if code == 0 {
        Ok(out)
    } else {
        Err(format!("{code}: {out}{err}"))
    }
}

/// Author and subject of every commit, oldest first.
pub(crate) fn commits(router: &Router) -> Vec<String> {
    let log = try_git(router, &["log", "--reverse", "--format=%an|%s", "main"]).unwrap_or_default();
    log.lines().map(Into::into).collect()
}

/// Puts a file into the state directory as a person with this user number does: written elsewhere, renamed.
pub(crate) fn write_as(router: &Router, uid: u32, file: &str, text: &str) {
    let beside = router.path("beside.yaml");
    std::fs::write(&beside, text).unwrap();
    std::os::unix::fs::chown(&beside, Some(uid), Some(uid)).unwrap();
    std::fs::rename(beside, router.path("state").join(file)).unwrap();
}

/// An override's text.
pub(crate) fn exception(name: &str, reason: &str, set: &str, more: &str) -> String {
    format!(
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {name}}}\n\
         spec:\n  reason: {reason}\n  set: {set}\n{more}"
    )
}
