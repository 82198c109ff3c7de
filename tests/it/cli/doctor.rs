//! `doctor`: each check on a host that fails it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Answer, NAME, Router, answer_once, call, serve};
use crate::support::small_disk::on_a_small_disk;

/// A router that fails only the checks of BIRD's socket and of the agent, which do not run.
fn healthy() -> Router {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    router.with_addresses();
    router
}

impl Router {
    /// Runs `doctor` as the last arguments of another command.
    fn doctor_within(&self, command: &[&str]) -> Answer {
        let config = self.dir.path().join("config.yaml");
        let (program, arguments) = command.split_first().unwrap();
        call(
            Command::new(program)
                .args(arguments)
                .arg(env!("CARGO_BIN_EXE_moenet-agent"))
                .arg("--config")
                .arg(config)
                .args(["doctor", "-o", "json"]),
        )
    }

    fn doctor(&self) -> Answer {
        self.call(&["doctor", "-o", "json"])
    }

    fn append(&self, text: &str) {
        let path = self.dir.path().join("config.yaml");
        let old = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{old}{text}\n")).unwrap();
    }
}

#[track_caller]
fn line(answer: &Answer, check: &str) -> Value {
    let lines = answer.json();
    let mut found = lines.as_array().unwrap().iter();
    let found = found.find(|line| line["check"] == check).cloned();
    found.unwrap_or_else(|| panic!("no {check} in {lines:#}"))
}

#[track_caller]
fn fails(answer: &Answer, check: &str, words: &str) {
    assert_eq!(answer.code, 1, "{}", answer.err);
    has(answer, check, "failed", words);
}

#[track_caller]
fn warns(answer: &Answer, check: &str, words: &str) {
    has(answer, check, "warning", words);
}

#[track_caller]
fn has(answer: &Answer, check: &str, status: &str, words: &str) {
    let line = line(answer, check);
    assert_eq!(line["status"], status, "{line:#}");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains(words), "no {words:?} in {message}");
    let action = line["nextAction"].as_str().unwrap_or_default();
    assert!(!action.is_empty(), "no advice: {line:#}");
}

#[test]
fn broken_configuration_is_the_only_line() {
    let router = healthy();
    router.append("lisen: x");
    let answer = router.doctor();
    fails(&answer, "configuration", "config.yaml:6:");
    assert_eq!(answer.json().as_array().map(Vec::len), Some(1));
}

#[test]
fn refused_start_is_a_line_of_the_configuration() {
    let router = healthy();
    router.append("controlPlane: {url: 'ftp://x', token: t}");
    fails(&router.doctor(), "configuration", "the scheme is");
}

#[test]
fn missing_capability_is_a_failure() {
    let drop = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ];
    fails(
        &healthy().doctor_within(&drop),
        "permissions",
        "CAP_NET_ADMIN",
    );
}

#[test]
fn unreadable_token_file_is_a_warning() {
    let router = healthy();
    let path = router.dir.path().join("config.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("token: t0ken", "tokenFile: /nonexistent/token"),
    )
    .unwrap();
    warns(&router.doctor(), "permissions", "/nonexistent/token");
}

#[test]
fn bird_that_is_absent_fails_twice() {
    let router = Router::new();
    let answer = router.doctor();
    fails(&answer, "bird program", "/nonexistent/bird");
    fails(&answer, "bird socket", "bird.ctl");
}

#[test]
fn absent_git_is_a_warning() {
    let router = healthy();
    let answer = router.doctor_within(&["env", "PATH=/nonexistent"]);
    warns(&answer, "git", "cannot run git");
    assert_eq!(line(&router.doctor(), "git")["status"], "ok");
}

#[test]
fn disk_without_room_is_a_failure() {
    fn body(disk: &Path) {
        let router = healthy();
        let path = router.dir.path().join("config.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let state = router.state("").display().to_string();
        let state = state.trim_end_matches('/');
        let small = disk.join("state").display().to_string();
        fs::write(&path, text.replace(state, &small)).unwrap();
        fails(&router.doctor(), "disk", "1 MiB free");
    }
    on_a_small_disk("cli::doctor::disk_without_room_is_a_failure", body);
}

#[test]
fn name_that_does_not_resolve_is_a_warning() {
    let router = healthy();
    let path = router.state(&format!("sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("192.0.2.3", "peer.invalid")).unwrap();
    warns(&router.doctor(), "dns", "peer.invalid");
}

#[test]
fn silent_control_plane_fails_only_a_first_start() {
    let router = healthy();
    router.append("controlPlane: {url: 'http://127.0.0.1:1', token: t}");
    warns(&router.doctor(), "control plane", "no answer");
    fs::remove_dir_all(router.state("")).unwrap();
    fails(&router.doctor(), "control plane", "no answer");
}

#[test]
fn refused_token_and_wrong_clock_are_warnings() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = healthy();
    let url = format!("http://{}", listener.local_addr().unwrap());
    router.append(&format!("controlPlane: {{url: '{url}', token: t}}"));
    let server = answer_once(
        listener,
        "401 Unauthorized\r\ndate: Tue, 01 Jan 2030 00:00:00 GMT",
        r#"{"error":"no such token","code":"INVALID_TOKEN"}"#,
    );
    let answer = router.doctor();
    server.join().unwrap();
    warns(&answer, "control plane", "refuses the token");
    warns(&answer, "clock", "s behind the Control Plane's");
}

#[test]
fn clock_behind_the_state_directory_is_a_warning() {
    let router = healthy();
    assert_eq!(line(&router.doctor(), "clock")["status"], "ok");
    let document = router.state(&format!("sessions/{NAME}.yaml"));
    let later = SystemTime::now() + Duration::from_secs(3600);
    let document = fs::File::open(document).unwrap();
    document.set_modified(later).unwrap();
    warns(&router.doctor(), "clock", "s behind the time of /");
}

#[test]
fn conditions_of_the_node_are_lines() {
    let router = healthy();
    let answer = router.doctor();
    assert_eq!(line(&answer, "node KeyAvailable")["status"], "ok");
    assert_eq!(line(&answer, "agent")["status"], "warning");
    fs::remove_file(router.dir.path().join("private.key")).unwrap();
    fails(&router.doctor(), "node KeyAvailable", "private.key");
}

#[test]
fn agent_that_cannot_do_its_work_is_a_failure() {
    let status = r#"{"status":"failed","reasons":["the kernel cannot be read: no buffer"]}"#;
    let listen = serve(move |path| match path {
        "/healthz" => ("200 OK", r#"{"status":"ok"}"#),
        "/status" => ("200 OK", status),
        _ => ("404 Not Found", "{}"),
    });
    let router = Router::listening(&listen);
    fails(&router.doctor(), "agent", "no buffer");
}

#[test]
fn files_with_secrets_that_others_may_read_are_a_warning() {
    let router = healthy();
    let config = router.dir.path().join("config.yaml");
    let key = router.dir.path().join("private.key");
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&config, 0o600);
    set(&key, 0o600);
    assert_eq!(line(&router.doctor(), "secrets")["status"], "ok");
    set(&key, 0o604);
    warns(&router.doctor(), "secrets", "private.key has mode 604");
    set(&key, 0o600);
    set(&config, 0o644);
    warns(&router.doctor(), "secrets", "config.yaml has mode 644");
    let text = fs::read_to_string(&config).unwrap();
    let token = router.file("token", "t0ken");
    let text = text.replace("token: t0ken", &format!("tokenFile: {token}"));
    fs::write(&config, text).unwrap();
    set(Path::new(&token), 0o640);
    assert_eq!(line(&router.doctor(), "secrets")["status"], "ok");
    chown(&token, None, Some(12345)).unwrap();
    warns(&router.doctor(), "secrets", "token has mode 640");
}

#[test]
fn sysctls_that_are_read_only_are_a_warning() {
    let script =
        "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec \"$@\"";
    let unshare = [
        "unshare",
        "--mount",
        "--map-root-user",
        "sh",
        "-ec",
        script,
        "sh",
    ];
    let answer = healthy().doctor_within(&unshare);
    warns(&answer, "sysctls", "Read-only file system");
}

#[test]
fn unreadable_state_directory_is_a_failure() {
    let router = healthy();
    fs::remove_dir_all(router.state("")).unwrap();
    fs::write(router.dir.path().join("state"), "not a directory").unwrap();
    fails(&router.doctor(), "documents", "directory");
}

#[test]
fn table_ends_with_what_to_do() {
    let router = Router::new();
    let answer = router.call(&["doctor"]);
    answer.says(1, "CHECK");
    answer.says(1, "What to do\n");
    answer.says(1, "  bird socket: `systemctl start bird`");
}
