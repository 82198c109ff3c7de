//! The verbs that change the files of a fleet.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use moenet_agent::fleet::validate;
use serde_json::Value;

pub const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

pub struct Fleet(pub tempfile::TempDir);

impl Fleet {
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    /// Calls the verb in the fleet's directory, and returns the exit code with all output.
    pub fn call(&self, arguments: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moenet-agent"));
        command.arg("fleet").args(arguments.split_whitespace());
        let output = command.current_dir(self.0.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    #[track_caller]
    pub fn done(&self, arguments: &str) -> String {
        let (code, text) = self.call(arguments);
        assert_eq!(code, 0, "{arguments}: {text}");
        text
    }

    #[track_caller]
    pub fn refused(&self, arguments: &str, why: &str) {
        let files = self.files();
        let (code, text) = self.call(arguments);
        assert_eq!(code, 1, "{arguments}: {text}");
        assert!(text.contains(why), "{arguments}: no {why:?} in {text}");
        assert_eq!(self.files(), files, "{arguments} wrote something");
    }

    /// Returns the name of the server's file for a session's status.
    pub fn status_file(&self, uuid: &str) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(uuid.as_bytes());
        let short: String = digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{uuid}-{short}.json")
    }

    /// Returns all files with their texts.
    fn files(&self) -> Vec<(String, String)> {
        fn add(folder: &Path, found: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.path() {
                    path if path.is_dir() => add(&path, found),
                    path => found.push((
                        path.display().to_string(),
                        fs::read_to_string(&path).unwrap(),
                    )),
                }
            }
        }
        let mut found = Vec::new();
        add(self.0.path(), &mut found);
        found.sort();
        found
    }

    #[track_caller]
    pub fn assert_valid(&self) {
        let problems = validate(self.0.path()).unwrap().problems;
        assert!(problems.is_empty(), "{problems:?}");
    }
}

/// A network with two routers and one session.
pub fn network() -> Fleet {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    fleet.done("init --asn 4242420998 --ipv4 172.23.105.176/28 --ipv6 fd48:4242:420::/48");
    fleet.done("add router jp1 --address jp1.example.net");
    fleet.done("add router hk1");
    fleet.done(&format!(
        "add session jp1 alice --asn 4242421080 --link-local fe80::1080 --public-key {KEY} --review"
    ));
    fleet
}

/// As root calls them for a server with a user of its own. A test that is not root changes no owner.
#[test]
fn new_files_belong_to_the_owner_of_the_fleet() {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    let _ = std::os::unix::fs::chown(fleet.path(""), Some(65_534), Some(65_534));
    let owner = |name| {
        let found = fs::metadata(fleet.path(name)).unwrap();
        (found.uid(), found.gid())
    };
    let server = owner("");
    fleet.done("init --asn 4242420998 --ipv6 fd48:4242:420::/48");
    fleet.done("add router jp1");
    fleet.done(&format!(
        "add session jp1 alice --asn 4242421080 --link-local fe80::1080 --public-key {KEY}"
    ));
    for name in [
        "routers/jp1.yaml",
        "sessions",
        "sessions/jp1",
        "sessions/jp1/alice.yaml",
    ] {
        assert_eq!(owner(name), server, "{name}");
    }
}

#[test]
fn ring_is_made_with_its_regions() {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    let init = "init --asn 4242420998 --ipv6 fd48:4242:420::/48 --topology ring";
    assert_eq!(fleet.call(init).0, 64);
    assert!(!fleet.path("routers").exists(), "nothing was written");
    fleet.done(&format!("{init} --regions asia,europe,america"));
    let text = fleet.text("network.yaml");
    assert!(text.contains("europe"), "{text}");
    fleet.done("add router jp1 --region asia");
}

/// A router with a folder of its own.
pub fn folder() -> Fleet {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    fleet.write(
        "de1/router.yaml",
        "# who\ntoken: old-token # from the shelf\nnode: {id: 9, name: de1, asn: 4242420998}\n",
    );
    fleet.write("de1/mesh.yaml", "peers: []\n");
    fleet.write("de1/bird-config.yaml", "policy: {}\n");
    let sessions = format!(
        "sessions:\n  # the first\n  - uuid: a\n    asn: 4242421080\n    status: 3 # waits\n    interface: wg_alice\n    ipv6LinkLocal: fe80::1\n    credential: {KEY}\n  - {{uuid: b, asn: 4242421081, status: 1, ipv6LinkLocal: 'fe80::2', credential: {KEY}}}\n"
    );
    fleet.write("de1/sessions.yaml", &sessions);
    fleet.assert_valid();
    fleet
}

#[test]
fn network_is_written_by_verbs_alone_and_valid() {
    let fleet = network();
    fleet.assert_valid();
    let described = fleet.text("network.yaml");
    assert!(
        described.contains("\nasn: 4242420998\n") && described.contains("\n#regions: "),
        "{described}"
    );
    let router = fleet.text("routers/hk1.yaml");
    assert!(
        router.contains("\nid: 2\n") && router.contains("\n# The region, a name of"),
        "{router}"
    );
    assert!(
        fleet
            .text("sessions/jp1/alice.yaml")
            .contains("\nstatus: 3\n")
    );
}

#[test]
fn nothing_is_overwritten_or_added_invalid() {
    let fleet = network();
    fleet.refused("init --asn 1", "network.yaml exists already");
    fleet.refused("add router hk1", "routers/hk1.yaml exists already");
    fleet.refused("add router de1 --id 2", "routers/");
    fleet.refused(
        "add router de1 --region moon --bandwidth 1G --type moon",
        "routers/de1.yaml:",
    );
    let alice = "add session jp1 bob --asn 4242421081 --link-local fe80::2";
    fleet.refused(alice, "sessions/jp1/bob.yaml");
    fleet.refused(
        "add session de1 bob --asn 4242421081",
        "no router de1; it has hk1, jp1",
    );
    fleet.write("routers/jp1.yaml", "{id: 1, tokn: x}\n");
    fleet.refused("add router de1", "routers/jp1.yaml:1:15: tokn:");
}

#[test]
fn only_hashes_of_tokens_are_stored() {
    let (fleet, router, file) = (network(), "hk1", "routers/hk1.yaml");
    let token = |text: &str| {
        let token = text.lines().find_map(|line| line.strip_prefix("token: "));
        token.unwrap().to_owned()
    };
    let hashes = || fleet.text(file).matches("\"sha256:").count();
    let new = token(&fleet.done(&format!("token new {router}")));
    assert_eq!((new.len(), hashes()), (64, 1));
    let rotated = token(&fleet.done(&format!("token rotate {router}")));
    assert_ne!(rotated, new);
    assert_eq!(hashes(), 2);
    fleet.refused(&format!("token rotate {router}"), "token revoke");
    fleet.done(&format!("token revoke {router}"));
    assert_eq!(hashes(), 1);
    fleet.refused(&format!("token revoke {router}"), "only one token");
    let text = fleet.text(file);
    assert!(!text.contains(&new) && !text.contains(&rotated), "{text}");
    fleet.assert_valid();
    fleet.refused("token new moon", "no router moon");
    let fleet = folder();
    fleet.done("token rotate de1");
    let text = fleet.text("de1/router.yaml");
    assert!(
        text.starts_with("# who\nnode: ") && text.matches("\"sha256:").count() == 2,
        "{text}"
    );
    fleet.assert_valid();
    fleet.done("token revoke de1");
    assert_eq!(
        fleet.text("de1/router.yaml").matches("\"sha256:").count(),
        1
    );
}

#[test]
fn two_verbs_never_change_a_fleet_together() {
    let fleet = network();
    let folder = std::fs::File::open(fleet.path(".")).unwrap();
    folder.lock().unwrap();
    fleet.refused("disable jp1/alice", "another command changes the fleet");
    drop(folder);
    fleet.done("disable jp1/alice");
}

#[test]
fn new_token_replaces_every_other_one() {
    let fleet = folder();
    for tokens in [
        "token: old\ntokenFile: absent",
        "token: 123456",
        "token: [a]\ntokenHashes: wrong",
        "tokenFile: absent",
    ] {
        let node = "node: {id: 9, name: de1, asn: 4242420998}";
        fleet.write("de1/router.yaml", &format!("{tokens}\n{node}\n"));
        fleet.done("token new de1");
        let text = fleet.text("de1/router.yaml");
        assert!(
            !text.contains("token: ") && !text.contains("tokenFile"),
            "{text}"
        );
        assert_eq!(text.matches("\"sha256:").count(), 1, "{text}");
        fleet.assert_valid();
    }
    let hashes: Vec<String> = (1..4)
        .map(|digit| format!("  - sha256:{}\n", digit.to_string().repeat(64)))
        .collect();
    let text = format!("id: 2\ntoken: 123456\ntokenHashes:\n{}", hashes.concat());
    let fleet = network();
    fleet.write("routers/hk1.yaml", &text);
    fleet.done("token revoke hk1");
    assert_eq!(
        fleet.text("routers/hk1.yaml"),
        format!("id: 2\ntokenHashes:\n{}", hashes[2])
    );
}

#[test]
fn status_changes_at_its_place_in_both_layouts() {
    for (fleet, file, name) in [
        (network(), "sessions/jp1/alice.yaml", "jp1/alice"),
        (folder(), "de1/sessions.yaml", "wg_alice"),
    ] {
        let before = fleet.text(file);
        for (verb, status) in [("accept", 4), ("disable", 0), ("accept", 4), ("delete", 5)] {
            fleet.done(&format!("{verb} {name}"));
            let wanted = before.replace("status: 3", &format!("status: {status}"));
            assert_eq!(fleet.text(file), wanted, "{verb}");
        }
        fleet.refused(&format!("delete {name}"), "has not confirmed the removal");
        fleet.refused(&format!("accept {name}"), "is being deleted");
        fleet.refused("accept moon", "no session moon");
        let said = fleet.done(&format!("delete {name} --force"));
        // The list of a folder stays.
        let done = if name == "jp1/alice" {
            "removed"
        } else {
            "wrote"
        };
        assert!(said.contains(&format!("{done} {file}")), "{said}");
        assert!(!fleet.path(file).exists() || !fleet.text(file).contains("wg_alice"));
        fleet.assert_valid();
    }
}

#[test]
fn file_that_cannot_be_read_is_not_called_missing() {
    let fleet = network();
    for (name, verb) in [
        ("sessions/jp1/alice.yaml", "accept jp1/alice"),
        ("routers/jp1.yaml", "token new jp1"),
    ] {
        let text = fleet.text(name);
        fs::write(fleet.path(name), b"id: 1 # \xff\n").unwrap();
        let (code, said) = fleet.call(verb);
        let why = format!("error: {name}: cannot be read");
        assert!(code == 1 && said.contains(&why), "{said}");
        fleet.write(name, &text);
    }
}

#[test]
fn verb_says_that_a_server_serves_commits() {
    let fleet = network();
    let commit = "commit the change first";
    let said = fleet.done("accept jp1/alice");
    assert!(!said.contains(commit), "{said}");
    fleet.write("reported/.git.json", "{}\n");
    for verb in [
        "disable jp1/alice",
        "token rotate jp1",
        "add router de1 --address 192.0.2.3",
    ] {
        let said = fleet.done(verb);
        assert!(said.contains(commit), "{said}");
    }
}

#[test]
fn init_that_is_refused_leaves_no_file() {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    fleet.refused("init --asn 0", "asn: invalid AS number 0");
    assert_eq!(fs::read_dir(fleet.path("")).unwrap().count(), 0);
}

#[test]
fn session_is_disabled_beside_an_error_elsewhere() {
    let fleet = network();
    fleet.write("routers/hk1.yaml", "{id: 2, tokn: x}\n");
    fleet.done("disable jp1/alice");
    let said = fleet.done("disable jp1/alice");
    assert!(said.contains("No changes"), "{said}");
}

#[test]
fn session_is_added_to_the_list_of_a_folder() {
    let fleet = folder();
    fleet.done(&format!(
        "add session de1 carol --asn 4242421082 --link-local fe80::3 --public-key {KEY}"
    ));
    assert!(fleet.text("de1/sessions.yaml").contains("# the first\n"));
    let (_, text) = fleet.call("-o json accept de1/carol");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["files"], serde_json::json!([]));
}

#[test]
fn changed_file_keeps_its_owner_and_a_link_stays() {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    let fleet = network();
    let file = fleet.path("routers/hk1.yaml");
    chown(&file, Some(65534), Some(65534)).unwrap();
    fleet.done("token rotate hk1");
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.uid(), found.gid()), (65534, 65534));
    fs::rename(&file, fleet.path("hk1.private")).unwrap();
    symlink("../hk1.private", &file).unwrap();
    fleet.refused("token new hk1", "routers/hk1.yaml: is a symbolic link");
}

#[test]
fn missing_value_on_the_command_line_is_wrong_usage() {
    let fleet = network();
    let files = fleet.files();
    for (arguments, why) in [
        ("init new", "give --asn"),
        ("init new --asn 1 --topology ring", "give --regions"),
        ("add session jp1 x", "give --asn"),
        ("add router", "<NAME>"),
        ("token new", "<ROUTER>"),
    ] {
        let (code, text) = fleet.call(arguments);
        assert_eq!(code, 64, "{arguments}: {text}");
        assert!(text.contains(why), "{arguments}: {text}");
        assert_eq!(fleet.files(), files, "{arguments} wrote something");
    }
}

#[test]
fn validate_refuses_what_is_no_fleet() {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    let validate = || fleet.refused("validate .", "network.yaml: does not exist");
    validate();
    fleet.write("fleet.git/HEAD", "ref: refs/heads/main\n");
    fleet.refused("validate fleet.git", "no fleet is here");
    fleet.write("sessions/jp1/alice.yaml", "asn: 4242421080\n");
    validate();
    fleet.write("routers/jp1.yaml", "id: 1\n");
    fleet.refused("validate .", "restore it");
    // A network without routers is how a fleet begins.
    let fleet = Fleet(tempfile::tempdir().unwrap());
    fleet.done("init --asn 4242420998 --ipv6 fd48:4242:420::/48");
    assert!(fleet.done("validate .").contains("0 routers"));
}

#[test]
fn findings_name_the_place_of_the_given_value() {
    let fleet = network();
    fleet.done("accept jp1/alice");
    let give = |file: &str, from: &str, to: &str| {
        let before = fleet.text(file);
        assert!(before.contains(from), "{from}: {before}");
        fleet.write(file, &before.replacen(from, to, 1));
        let (code, text) = fleet.call("validate .");
        fleet.write(file, &before);
        assert_eq!(code, 1, "{text}");
        text
    };
    let loopback =
        |id: u8, address: u8| format!("\nid: {id}\nloopbackIpv4: 172.23.105.{address}\n");
    for (file, from, to, field) in [
        (
            "routers/hk1.yaml",
            "\nid: 2\n",
            loopback(2, 177),
            "loopbackIpv4: ",
        ),
        (
            "routers/jp1.yaml",
            "\nid: 1\n",
            loopback(1, 178),
            "loopbackIpv4: ",
        ),
        (
            "sessions/jp1/alice.yaml",
            "4242421080",
            "4242420998".to_owned(),
            "asn: ",
        ),
        (
            "network.yaml",
            "105.176/28",
            "105.177/28".to_owned(),
            "prefixes.ipv4: ",
        ),
        (
            "routers/hk1.yaml",
            "\nid: 2\n",
            "\nid: 0\n".to_owned(),
            "id: must be 1..65535",
        ),
        (
            "routers/hk1.yaml",
            "\nid: 2\n",
            "\nid: -1\n".to_owned(),
            "id: must be 1..65535",
        ),
        (
            "routers/hk1.yaml",
            "\nid: 2\n",
            "\nid: 70000\n".to_owned(),
            "id: must be 1..65535",
        ),
    ] {
        let text = give(file, from, &to);
        let is_found = text.lines().any(|line| {
            let (place, message) = line.split_once(' ').unwrap();
            place.starts_with(file) && place.matches(':').count() == 3 && message.starts_with(field)
        });
        assert!(is_found, "{file} {field}: {text}");
    }
}
