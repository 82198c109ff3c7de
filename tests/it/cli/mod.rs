//! The command line, as a person and a program use it: the real binary on a copy of the sample state
//! directory, without a Control Plane, a daemon, or BIRD.

mod daemon;
mod golden;
mod secrets;
mod signals;
mod validate;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

const NAME: &str = "wg_4242421080";

/// A router's files, gone after the test.
struct Router {
    dir: TempDir,
}

/// What a call came to.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    #[track_caller]
    fn says(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let all = format!("{}{}", self.out, self.err);
        assert!(all.contains(words), "no {words:?} in {all}");
    }
}

impl Router {
    fn new() -> Self {
        Self::listening("127.0.0.1:1")
    }

    fn listening(listen: &str) -> Self {
        let dir = TempDir::new().unwrap();
        copy(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("state"),
            &dir.path().join("state"),
        );
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "node: {{name: jp1, id: 1, asn: 4242420998}}\n\
             server: {{listen: \"{listen}\", token: t0ken}}\n\
             state: {{directory: {}}}\n\
             bird: {{controlSocket: {}, directory: {}, binary: /nonexistent/bird}}\n\
             wireguard: {{privateKeyPath: {}}}\n",
            at("state"),
            at("bird.ctl"),
            at("bird"),
            at("private.key"),
        );
        fs::write(dir.path().join("config.yaml"), config).unwrap();
        Self { dir }
    }

    /// Lets the agent find the BIRD of the system, which `tests/deps.sh tests` installs.
    fn with_bird(&self) {
        assert!(
            Path::new("/usr/sbin/bird").exists(),
            "there is no BIRD: tests/deps.sh tests installs it"
        );
        let path = self.dir.path().join("config.yaml");
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("/nonexistent/bird", "/usr/sbin/bird");
        fs::write(path, text).unwrap();
    }

    /// Gives the router the key that its applied objects were configured with.
    fn with_key(&self) {
        let key = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n";
        fs::write(self.dir.path().join("private.key"), key).unwrap();
    }

    /// Replaces the names of endpoints by addresses, so that no answer depends on the DNS of this machine.
    fn with_addresses(&self) {
        for (name, address) in [
            ("hk.moenet.work", "192.0.2.2"),
            ("example.com", "192.0.2.3"),
        ] {
            for file in ["mesh/hk1.yaml", "sessions/wg_4242421080.yaml"] {
                for path in [self.state(file), self.state("applied").join(file)] {
                    let text = fs::read_to_string(&path).unwrap();
                    fs::write(path, text.replace(name, address)).unwrap();
                }
            }
        }
    }

    fn state(&self, file: &str) -> PathBuf {
        self.dir.path().join("state").join(file)
    }

    fn call(&self, arguments: &[&str]) -> Answer {
        let config = self.dir.path().join("config.yaml");
        call(
            Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
                .arg("--config")
                .arg(config)
                .args(arguments),
        )
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        let done = call(
            Command::new("git")
                .arg("-C")
                .arg(self.state(""))
                .args(identity)
                .args(arguments),
        );
        assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    }

    fn apply(&self, mtu: u16) {
        let applied = format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: {NAME}, uid: abc-123}}\n\
             applied:\n  interfaces: [{NAME}]\n  spec: {}\n",
            self.effective(mtu)
        );
        fs::create_dir_all(self.state("applied/sessions")).unwrap();
        fs::write(
            self.state(&format!("applied/sessions/{NAME}.yaml")),
            applied,
        )
        .unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", &format!("Apply MTU {mtu}")]);
    }

    /// The whole specification as it is in force now, with another MTU.
    fn effective(&self, mtu: u16) -> Value {
        let described = self.call(&["describe", NAME, "-o", "json"]).json();
        let mut spec = serde_json::json!({});
        for field in described["fields"].as_array().unwrap() {
            let path: Vec<_> = field["field"]
                .as_str()
                .unwrap()
                .split('.')
                .skip(1)
                .collect();
            match path.as_slice() {
                [one] => spec[one] = field["value"].clone(),
                [one, two] => spec[one][two] = field["value"].clone(),
                _ => panic!("deeper than two: {path:?}"),
            }
        }
        spec["tunnel"]["mtu"] = mtu.into();
        spec
    }
}

fn call(command: &mut Command) -> Answer {
    let output = command.env("NO_COLOR", "1").output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Answers one call, and gives back the request.
fn answer_once(
    listener: TcpListener,
    status: &'static str,
    body: &'static str,
) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).unwrap();
        let length_of_body = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length_of_body}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    })
}

#[test]
fn get_joins_documents_with_their_status() {
    let router = Router::new();
    let table = router.call(&["get"]);
    table.says(0, "OVERRIDDEN");
    for word in [
        NAME,
        "BgpSession",
        "Established",
        "4242421080",
        "tunnel.mtu",
        "MeshPeer",
        "IbgpPeer",
    ] {
        assert!(table.out.contains(word), "{word}: {}", table.out);
    }
    let rows = router.call(&["get", "sessions", NAME, "-o", "json"]).json();
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!(rows[0]["spec"]["tunnel"]["mtu"], 1380);
    assert_eq!(rows[0]["status"]["bgp"]["state"], "established");
    let yaml = router.call(&["get", "mesh", "-o", "yaml"]);
    yaml.says(0, "kind: MeshPeer");
    router
        .call(&["get", "nothing"])
        .says(1, "no object named nothing");
}

#[test]
fn get_overrides_lists_each_with_its_state() {
    let router = Router::new();
    let file = |name: &str, spec: &str| {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        fs::write(
            router.state(&format!("overrides/sessions/{name}.yaml")),
            text,
        )
        .unwrap();
    };
    file("wg_typo", "{reason: typo, set: {tunnel: {mtu: 1300}}}");
    file(
        "wg_past",
        "{reason: past, expiresAt: '2020-01-01T00:00:00Z', paused: true}",
    );
    file("wg_none", "{}");
    let rows = router.call(&["get", "overrides", "-o", "json"]).json();
    let state = |object: &str| {
        let rows = rows.as_array().unwrap();
        let row = rows.iter().find(|row| row["object"] == object).unwrap();
        row["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&format!("sessions/{NAME}")), "InEffect");
    assert_eq!(state("sessions/wg_typo"), "Waiting");
    assert_eq!(state("sessions/wg_past"), "Expired");
    assert_eq!(state("sessions/wg_none"), "Invalid");
    let table = router.call(&["get", "overrides"]);
    table.says(0, "overrides/sessions/wg_typo");
    table.says(0, "tunnel.mtu");
    router
        .call(&["get", "overrides", "nothing"])
        .says(1, "no override of nothing");
}

#[test]
fn a_document_that_is_none_is_shown_as_such() {
    let router = Router::new();
    fs::write(router.state("sessions/broken.yaml"), "kind: [").unwrap();
    let got = router.call(&["get"]);
    got.says(0, "sessions/broken.yaml:1:");
    let row = got.out.lines().find(|line| line.starts_with("broken "));
    assert!(
        row.is_some_and(|row| row.contains(" Error ")),
        "{}",
        got.out
    );
    router.call(&["validate"]).says(1, "broken.yaml:");
}

#[test]
fn validate_names_file_line_and_column() {
    let router = Router::new();
    router.with_key();
    router.with_addresses();
    // The texts for BIRD are made for its version, so that without BIRD they cannot be looked at.
    let answer = router.call(&["validate"]);
    answer.says(
        0,
        "unchecked: the files for BIRD, since they cannot be rendered: cannot run \
         /nonexistent/bird",
    );
    answer.says(0, "Everything that could be checked is valid.");
    router.with_bird();
    router.call(&["validate"]).says(0, "Everything is valid.");
    let findings = router.call(&["validate", "-o", "json"]).json();
    assert_eq!(
        findings,
        serde_json::json!({"problems": [], "unchecked": []})
    );
    let file = router.state(&format!("sessions/{NAME}.yaml"));
    let path = file.display().to_string();
    router.call(&["validate", &path]).says(0, "valid");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("mtu: 1420", "mtu: 70000");
    fs::write(&file, text).unwrap();
    for arguments in [vec!["validate"], vec!["validate", &path]] {
        let answer = router.call(&arguments);
        answer.says(1, &format!("{path}:16:10: spec.tunnel.mtu"));
        assert_eq!(answer.out.lines().count(), 1, "said once: {}", answer.out);
    }
    let config = router.dir.path().join("config.yaml").display().to_string();
    router.call(&["validate", &config]).says(0, "valid");
    router
        .call(&["validate", "/nonexistent.yaml"])
        .says(1, "/nonexistent.yaml");
}

#[test]
fn validate_finds_two_sessions_that_want_the_same() {
    let router = Router::new();
    let text = fs::read_to_string(router.state(&format!("sessions/{NAME}.yaml"))).unwrap();
    let twin = text
        .replace(&format!("name: {NAME}"), "name: twin")
        .replace("abc-123", "def-456");
    fs::write(router.state("sessions/twin.yaml"), twin).unwrap();
    router.call(&["validate"]).says(1, "sessions/twin.yaml: ");
}

#[test]
fn describe_tells_origins_and_the_chain_of_causes() {
    let router = Router::new();
    let described = router
        .call(&["describe", &format!("sessions/{NAME}"), "-o", "json"])
        .json();
    let fields = described["fields"].as_array().unwrap();
    let origin = |name: &str| {
        let field = fields.iter().find(|field| field["field"] == name).unwrap();
        field["origin"].as_str().unwrap().to_owned()
    };
    assert_eq!(origin("spec.asn"), "controlPlane");
    assert_eq!(origin("spec.tunnel.mtu"), "override");
    assert_eq!(origin("spec.tunnel.persistentKeepalive"), "default");
    let endpoint = fields
        .iter()
        .find(|field| field["field"] == "spec.tunnel.mtu")
        .unwrap();
    assert_eq!(
        (&endpoint["value"], &endpoint["document"]),
        (&1380.into(), &1420.into())
    );
    assert_eq!(described["documentFrom"], "controlPlane");
    assert_eq!(
        (&described["up"], &described["agentRunning"]),
        (&false.into(), &false.into())
    );
    assert_eq!(
        described["override"]["reason"],
        "their side is on PPPoE until January"
    );
    assert_eq!(
        reasons(&described),
        ["Waiting", "AgentNotRunning", "Failed", "NotRunning"],
        "{}",
        described["why"]
    );
    let keys: Vec<_> = described
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let shape = [
        "object",
        "up",
        "phase",
        "agentRunning",
        "documentFrom",
        "override",
        "fields",
        "conditions",
        "lastSteps",
        "probes",
        "why",
    ];
    assert_eq!(keys, shape, "programs read these");
    router.with_bird();
    let described = router.call(&["describe", NAME, "-o", "json"]).json();
    assert_eq!(
        reasons(&described),
        ["AgentNotRunning", "Failed", "NotRunning"],
        "{}",
        described["why"]
    );
    let text = router.call(&["describe", NAME]);
    text.says(0, "override (the Control Plane says 1420)");
    text.says(0, "Why it is not up, root cause first");
    text.says(0, " TunnelConfigured (Failed): wireguard.privateKeyPath: ");
    text.says(0, "     → `moenet-agent plan sessions/");
    router.call(&["describe", "node"]).says(0, "spec.asn");
    router
        .call(&["describe", "hk1"])
        .says(1, "give the kind too");
}

/// The chain; whether example.com resolves depends on where the test runs.
fn reasons(described: &Value) -> Vec<&str> {
    let why = described["why"].as_array().unwrap().iter();
    why.map(|cause| cause["reason"].as_str().unwrap())
        .filter(|reason| *reason != "NotResolved")
        .collect()
}

#[test]
fn an_override_that_is_not_in_force_overrides_nothing() {
    let router = Router::new();
    let file = router.state(&format!("overrides/sessions/{NAME}.yaml"));
    router.call(&["get"]).says(0, "tunnel.mtu=1380 (1420)");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("mtu: 1380", "mtu: 70000")).unwrap();
    let refused = router.call(&["get", NAME, "-o", "json"]).json();
    assert_eq!(
        (
            &refused[0]["spec"]["tunnel"]["mtu"],
            &refused[0]["overridden"]
        ),
        (&1420.into(), &Value::Null)
    );
    router.call(&["get"]).says(
        0,
        &format!("overrides/sessions/{NAME}.yaml: spec.tunnel.mtu: invalid MTU"),
    );
    fs::write(&file, text.replace("2027-01-31", "2020-01-31")).unwrap();
    let ended = router.call(&["get", NAME, "-o", "json"]).json();
    assert_eq!(
        (&ended[0]["spec"]["tunnel"]["mtu"], &ended[0]["overridden"]),
        (&1420.into(), &Value::Null)
    );
    assert_eq!(
        ended[0]["override"]["set"]["tunnel"]["mtu"], 1380,
        "the file is shown all the same"
    );
}

#[test]
fn the_sample_is_planned_and_rendered() {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    let plan = router.call(&["plan"]);
    assert_eq!(plan.code, 2, "{}{}", plan.out, plan.err);
    for step in [
        format!("link {NAME}"),
        format!("write BIRD session {NAME}"),
        "link mesh_hk1".to_owned(),
    ] {
        assert!(plan.out.contains(&step), "no {step:?} in {}", plan.out);
    }
    let text = router.call(&["render", NAME]);
    text.says(0, "neighbor fe80::2 as 4242421080;");
    text.says(0, &format!("protocol bgp 'ebgp_{NAME}' from moe_ebgp"));
    router.call(&["plan", NAME]).says(2, "1380");
}

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
        "{}:2:1: apiVersion: this agent reads moenet.work/v1, not",
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
    alone(&["completions", "bash"]).says(0, "complete -F _moenet__agent");
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
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        let help = call(Command::new(env!("CARGO_BIN_EXE_moenet-agent")).args([name, "--help"]));
        help.says(0, "Example");
        help.says(0, &format!("moenet-agent {name}"));
    }
}

#[test]
fn approve_lists_and_approves_held_changes() {
    let router = Router::new();
    router
        .call(&["approve", "--list"])
        .says(0, "No changes are held");
    router
        .call(&["approve", "--all"])
        .says(0, "No changes are held");
    assert_eq!(router.call(&["approve"]).code, 64);
    assert_eq!(router.call(&["approve", "wg_nothing"]).code, 1);
    for number in 0..8 {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: gone{number}, uid: u{number}}}\n\
             applied: {{interfaces: [gone{number}]}}\n"
        );
        fs::create_dir_all(router.state("applied/sessions")).unwrap();
        fs::write(
            router.state(&format!("applied/sessions/gone{number}.yaml")),
            text,
        )
        .unwrap();
    }
    let listed = router.call(&["approve", "--list", "-o", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(8));
    assert!(!router.state("approved").exists());
    assert_eq!(listed[0]["change"], "removal");
    let one = router.call(&["approve", "gone3", "-o", "json"]).json();
    assert_eq!(one[0]["object"], "sessions/gone3");
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    let approved = fs::read_to_string(router.state("approved")).unwrap();
    assert!(
        approved.contains("sessions/gone3") && !approved.contains("gone4"),
        "{approved}"
    );
    fs::remove_file(router.state("approved")).unwrap();
    router.call(&["approve", "--all"]).says(0, "sessions/gone7");
    assert_eq!(
        fs::read_to_string(router.state("approved"))
            .unwrap()
            .lines()
            .count(),
        8
    );
    router
        .call(&["approve", "--list"])
        .says(0, "No changes are held");
}

#[test]
fn rollback_brings_back_what_was_in_force() {
    let router = Router::new();
    router.call(&["history"]).says(0, "No history");
    fs::remove_file(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.apply(1400);
    router.call(&["rollback", NAME]).says(1, "no earlier state");
    router.apply(1420);
    router.call(&["history", NAME]).says(0, "Apply MTU 1400");
    assert_eq!(
        router
            .call(&["history", "-o", "json"])
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    router
        .call(&["rollback", NAME, "HEAD"])
        .says(0, "No changes");
    let answer = router.call(&["rollback", NAME, "-o", "json"]).json();
    assert_eq!(
        answer["override"]["set"],
        serde_json::json!({"tunnel": {"mtu": 1400}})
    );
    router.call(&["diff", NAME]).says(2, "rolled back to ");
    router.call(&["rollback", NAME]).says(1, "--force");
    // What was in force then is brought back exactly, also where that takes no override at all.
    router
        .call(&["rollback", NAME, "HEAD~1", "--force"])
        .says(0, "before: rolled back to ");
    router
        .call(&["rollback", NAME, "HEAD", "--force"])
        .says(0, "is back to");
    assert!(
        !router
            .state(&format!("overrides/sessions/{NAME}.yaml"))
            .exists()
    );
    router
        .call(&["diff", NAME])
        .says(0, "is as in its document");
    router
        .call(&["rollback", "nobody"])
        .says(1, "there is no object named nobody");
    router
        .call(&["rollback", NAME, "nonsense", "--force"])
        .says(1, "nonsense");
}

#[test]
fn mistyped_name_is_an_error_and_not_an_empty_plan() {
    let router = Router::new();
    router.with_bird();
    for verb in ["get", "describe", "diff", "render", "plan", "rollback"] {
        router.call(&[verb, "wg_4242421081"]).says(
            1,
            &format!("no object named wg_4242421081; did you mean {NAME}?"),
        );
        router
            .call(&[verb, "sesions/wg_4242421080"])
            .says(1, &format!("did you mean sessions/{NAME}?"));
        router
            .call(&[verb, "x"])
            .says(1, "no object named x; `moenet-agent get` lists them");
    }
    router
        .call(&["history", "wg_4242421081"])
        .says(1, &format!("did you mean {NAME}?"));
    // One of several.
    router
        .call(&["plan", NAME, "wg_4242421081"])
        .says(1, "did you mean");
    router
        .call(&["plan", NAME, "node", "policy"])
        .says(2, "write BIRD file");
}

#[test]
fn an_override_that_waits_for_its_document_is_seen() {
    let router = Router::new();
    router.with_key();
    let text =
        fs::read_to_string(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    fs::write(
        router.state("overrides/sessions/wg_4242421081.yaml"),
        text.replace(NAME, "wg_4242421081"),
    )
    .unwrap();
    let waits =
        "overrides/sessions/wg_4242421081.yaml waits for a document of sessions/wg_4242421081.";
    router.call(&["get"]).says(0, waits);
    router.call(&["validate"]).says(0, waits);
    router.call(&["describe", "wg_4242421081"]).says(1, waits);
    let row = router.call(&["get", "wg_4242421081", "-o", "json"]).json();
    assert_eq!(
        (&row[0]["spec"], &row[0]["override"]["set"]["tunnel"]["mtu"]),
        (&Value::Null, &1380.into())
    );
}

#[test]
fn node_and_policy_show_applied_state_and_roll_back() {
    let router = Router::new();
    fs::remove_file(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    fs::remove_dir_all(router.state("applied")).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    let policy = |limit: u32| {
        let document = fs::read_to_string(router.state("policy.yaml")).unwrap();
        let spec = document
            .split_once("spec:")
            .map(|(_, spec)| spec.to_owned())
            .unwrap();
        let spec = spec
            .replace("ebgpImport: 10000", &format!("ebgpImport: {limit}"))
            .replace('\n', "\n  ");
        fs::create_dir_all(router.state("applied")).unwrap();
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: RoutingPolicy\nmetadata: {{name: policy}}\napplied:\n  spec:{spec}\n"
        );
        fs::write(router.state("applied/policy.yaml"), text.trim_end()).unwrap();
        router.git(&["add", "-A"]);
        router.git(&["commit", "-qm", &format!("Apply limit {limit}")]);
    };
    policy(20000);
    policy(10000);
    let answer = router.call(&["rollback", "policy", "-o", "json"]).json();
    assert_eq!(
        answer["override"]["set"],
        serde_json::json!({"limits": {"ebgpImport": 20000}})
    );
    router
        .call(&["diff", "policy"])
        .says(2, "spec.limits.ebgpImport");
    let described = router.call(&["describe", "policy", "-o", "json"]).json();
    let fields = described["fields"].as_array().unwrap();
    let limit = fields
        .iter()
        .find(|field| field["field"] == "spec.limits.ebgpImport")
        .unwrap();
    assert_eq!(
        *limit,
        serde_json::json!({
            "field": "spec.limits.ebgpImport", "value": 20000, "origin": "override", "document": 10000
        })
    );
    assert!(
        described["override"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("rolled back to ")
    );
    // What the configuration says of the node wins, and says so.
    fs::write(
        router.state("overrides/node.yaml"),
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: node}\nspec: {reason: x, set: {asn: 4242420001, region: eu-west}}\n",
    )
    .unwrap();
    let described = router.call(&["describe", "node", "-o", "json"]).json();
    let fields = described["fields"].as_array().unwrap();
    let origin = |name: &str| {
        let field = fields.iter().find(|field| field["field"] == name).unwrap();
        (field["value"].clone(), field["origin"].clone())
    };
    assert_eq!(origin("spec.region"), ("eu-west".into(), "override".into()));
    assert_eq!(origin("spec.asn").0, 4_242_420_998u32);
    assert_ne!(origin("spec.asn").1, "override");
    router
        .call(&["get", "node", "policy"])
        .says(0, "limits.ebgpImport=20000 (10000)");
}

#[test]
fn a_history_that_cannot_be_read_is_no_empty_one() {
    let router = Router::new();
    router.call(&["history"]).says(0, "No history yet");
    fs::write(router.state(".git"), "garbage").unwrap();
    router.call(&["history"]).says(1, "cannot read the history");
    fs::remove_file(router.state(".git")).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.call(&["history"]).says(0, "No history yet");
    fs::write(router.state(".git/refs/heads/main"), "").unwrap();
    router
        .call(&["history"])
        .says(1, "its branch points to a missing commit");
    fs::remove_dir_all(router.state("")).unwrap();
    router.call(&["history"]).says(1, "the state directory");
    for verb in [
        &["get"][..],
        &["validate"],
        &["describe", NAME],
        &["rollback", NAME],
    ] {
        let answer = router.call(verb);
        answer.says(1, "state directory");
        answer.says(1, "First start: run `moenet-agent run`");
    }
    // A plan is made from what the Control Plane wants, and of the files for BIRD there is none without a BIRD.
    router.call(&["plan"]).says(1, "No steps, 1 in error.");
    assert!(!router.state("").exists());
}

#[test]
fn what_may_be_a_secret_is_not_shown_again() {
    let router = Router::new();
    let key = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";
    let file = router.state(&format!("overrides/sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&file).unwrap();
    for set in [
        format!("{{tunnel: {{presharedKeyFile: \"{key}\"}}}}"),
        format!("{{tunnel: {{presharedKey: \"{key}\"}}}}"),
        format!("{{tunnel: {{listenPort: \"{key}\"}}}}"),
        format!("{{tunnel: {{endpoint: \"{key}\"}}}}"),
        format!("{{asn: \"{key}\"}}"),
    ] {
        let (head, _) = text.split_once("  set:").unwrap();
        fs::write(&file, format!("{head}  set: {set}\n")).unwrap();
        for verb in [&["get"][..], &["validate"], &["describe", NAME], &["plan"]] {
            let answer = router.call(verb);
            assert!(
                !format!("{}{}", answer.out, answer.err).contains(&key[..20]),
                "{verb:?} {}{}",
                answer.out,
                answer.err
            );
        }
        router.call(&["validate"]).says(1, "spec.");
    }
    fs::write(&file, format!("# psk: {key}\n{text}")).unwrap();
    router
        .call(&["validate"])
        .says(1, "wg_4242421080.yaml:1:1: holds a key in plain text");
}

#[test]
fn the_local_api_is_called_with_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&format!(
        "0.0.0.0:{}",
        listener.local_addr().unwrap().port()
    ));
    let server = answer_once(
        listener.try_clone().unwrap(),
        "200 OK",
        r#"{"status":"ok","version":"1","commit":"c","uptime":5,"node":{"id":1,"name":"jp1","region":null},
            "sessions":{"total":3,"active":2,"error":1,"pending":0},"circuitBreaker":"closed"}"#,
    );
    router
        .call(&["status"])
        .says(0, "3 total, 2 active, 1 in error");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /status HTTP/1.1"), "{request}");
    assert!(request.contains("authorization: Bearer t0ken"), "{request}");
    let server = answer_once(
        listener,
        "404 Not Found",
        r#"{"error":"no such interface","code":"X"}"#,
    );
    let answer = router.call(&["restart", "wg_1"]);
    answer.says(1, "no such interface");
    assert!(server.join().unwrap().contains(r#"{"interface":"wg_1"}"#));
    Router::new()
        .call(&["sync"])
        .says(1, "no daemon answers on 127.0.0.1:1");
}

#[test]
fn the_local_api_is_called_over_a_unix_socket() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("api.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let length = stream.read(&mut [0; 4096]).unwrap();
        let body = r#"{"enabled":true,"since":"2026-11-23T00:00:00Z"}"#;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        length
    });
    let router = Router::listening(&format!("unix:{}", path.display()));
    router
        .call(&["maintenance"])
        .says(0, "drained since 2026-11-23T00:00:00Z");
    assert!(server.join().unwrap() > 0);
}

#[test]
fn yaml_mistakes_are_told_in_words_of_the_trade() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/yaml-words-of-the-library");
    let validate = |file: &str| {
        call(
            Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
                .arg("validate")
                .arg(folder.join(file)),
        )
    };
    for file in ["closing-dashes", "description-007", "description-no"] {
        validate(&format!("{file}.yaml")).says(0, "");
    }
    for (file, place, words) in [
        (
            "asn-asdot",
            "6:",
            "asn: expected a whole number without quotes",
        ),
        (
            "leading-zero",
            "6:",
            "tunnel.mtu: expected a whole number without quotes",
        ),
        (
            "quoted-number",
            "6:",
            "tunnel.mtu: expected a whole number without quotes",
        ),
        ("paused-1", "6:", "paused: expected true or false, found"),
        (
            "reason-is-a-comment",
            "5:",
            "reason: a reason is needed (a # begins a comment)",
        ),
        (
            "set-is-empty",
            "",
            "spec.set: expected a mapping, its fields indented below it",
        ),
        ("two-documents", "", "one document a file"),
    ] {
        let answer = validate(&format!("{file}.yaml"));
        answer.says(1, words);
        answer.says(1, &format!("{file}.yaml:{place}"));
        for word in [
            "u16",
            "u32",
            "Option",
            "from_",
            "struct",
            "invalid type",
            "strict",
        ] {
            assert!(!answer.out.contains(word), "{file}: {}", answer.out);
        }
    }
}
