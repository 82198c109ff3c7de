//! The command line, as a person and a program use it: the real binary on a copy of the sample state
//! directory, without a Control Plane, a daemon, or BIRD.

mod api;
mod change;
mod changes;
mod completing;
mod daemon;
mod doctor;
mod edit;
mod effect;
mod faults;
mod golden;
mod hostile_text;
mod listing;
mod override_documents;
mod progress;
mod secrets;
mod signals;
mod validate;
mod wait;

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

/// Answers every call by its path, until the test ends. Returns the address.
fn serve(answer: impl Fn(&str) -> (&'static str, &'static str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address
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
    router.call(&["describe", "hk1"]).says(1, "add the kind");
}

/// The chain; whether example.com resolves depends on where the test runs.
fn reasons(described: &Value) -> Vec<&str> {
    let why = described["why"].as_array().unwrap().iter();
    why.map(|cause| cause["reason"].as_str().unwrap())
        .filter(|reason| *reason != "NotResolved")
        .collect()
}

#[test]
fn an_override_that_is_not_in_effect_overrides_nothing() {
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
