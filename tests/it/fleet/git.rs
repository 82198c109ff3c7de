//! A fleet that follows a reference of a Git repository.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use axum::Router;
use moenet_agent::fleet::{Access, FleetError, Follower, RateLimit, Serving, Watcher};
use moenet_agent::model::Secret;
use serde_json::{Value, json};

use super::network::{ask, write};
use super::verbs::Fleet;

const NETWORK: &str = "\
asn: 4242420998
prefixes: {ipv4: 172.23.105.176/28, ipv6: fd48:4da8:420::/48}
";

/// A repository with a network of two routers; its last commit adds jp1's limit.
pub(super) struct Repository(Fleet);

impl Repository {
    pub(super) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let repository = Self(Fleet(dir));
        repository.git(&["init", "-q", "-b", "main"]);
        let hash = |token: &str| {
            moenet_agent::fleet::TokenHash::of(&Secret::new(token.to_owned())).to_string()
        };
        let routers = [("jp1", 1), ("hk1", 2)];
        for (router, id) in routers {
            let text = format!(
                "{{id: {id}, address: {router}.example.net, tokenHashes: ['{}']}}\n",
                hash(router)
            );
            repository.write(&format!("routers/{router}.yaml"), &text);
        }
        repository.commit("network.yaml", NETWORK, "begin");
        repository
    }

    fn dir(&self) -> &Path {
        self.0.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        write(self.dir(), &[(path, text)]);
    }

    fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Alice", "-c", "user.email=a@example.net"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(self.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    /// Commits the whole tree with a file. Returns the id.
    fn commit(&self, path: &str, text: &str, subject: &str) -> String {
        self.write(path, text);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", subject]);
        self.head()
    }

    fn limit(&self, limit: u32) -> String {
        let text = format!("{NETWORK}policy: {{ebgpImportLimit: {limit}}}\n");
        self.commit("network.yaml", &text, &format!("limit {limit}"))
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) async fn follow(&self) -> Followed {
        let followed = Followed::open(self.dir().to_owned());
        let errors = followed.follower.look().await;
        assert_eq!(errors, Vec::<String>::new());
        followed
    }
}

pub(super) struct Followed {
    follower: Follower,
    pub(super) app: Router,
    watcher: Watcher,
}

impl Followed {
    fn open(dir: PathBuf) -> Self {
        // Between fork and exec, a child of another test has this process's lock on the directory.
        let opened = (0..50).find_map(|_| match Follower::open(dir.clone(), "main".to_owned()) {
            Err(FleetError::Served(_)) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
                None
            }
            opened => Some(opened.unwrap()),
        });
        let follower = opened.unwrap();
        let mut serving = Serving::new("127.0.0.1:0".parse().unwrap());
        let token = |text: &str| Secret::new(text.to_owned()).into();
        serving.access = Access {
            read: token("look"),
            write: token("change"),
            socket: None,
        };
        let (app, watcher) = follower.app(&serving, RateLimit::default());
        Self {
            follower,
            app,
            watcher,
        }
    }

    async fn look(&self) -> Vec<String> {
        self.follower.look().await
    }

    async fn get(&self, router: &str, what: &str) -> (u16, Value) {
        ask(&self.app, router, &format!("/agent/{router}/{what}"), None).await
    }

    async fn limit(&self) -> Value {
        let (status, answer) = self.get("jp1", "bird-config").await;
        assert_eq!(status, 200, "{answer}");
        answer["policy"]["ebgpImportLimit"].clone()
    }

    async fn state(&self) -> Value {
        let (status, state) = ask(&self.app, "look", "/v1/git", None).await;
        assert_eq!(status, 200, "{state}");
        state
    }
}

#[tokio::test]
async fn commit_reaches_a_router_and_a_revert_takes_it_back() {
    let repository = Repository::new();
    let mut followed = repository.follow().await;
    assert_eq!(followed.limit().await, Value::Null);
    followed.watcher.look().await;
    let revision = followed.get("jp1", "revision").await.1;

    // Not committed, or half of an edit: not served.
    repository.write("network.yaml", &format!("{NETWORK}policy: {{ebgp"));
    repository.write("routers/de1.yaml", "{id: 2}\n");
    assert!(followed.look().await.is_empty());
    assert_eq!(followed.limit().await, Value::Null);
    repository.git(&["reset", "-q", "--hard"]);
    fs::remove_file(repository.dir().join("routers/de1.yaml")).unwrap();

    let changed = repository.limit(9);
    // As a hook of the repository does after a push.
    let (status, state) = ask(&followed.app, "change", "/v1/git", Some(json!({}))).await;
    assert_eq!((status, &state["commit"]["id"]), (200, &json!(changed)));
    assert_eq!(followed.limit().await, 9);
    followed.watcher.look().await;
    assert_ne!(followed.get("jp1", "revision").await.1, revision);

    repository.git(&["revert", "--no-edit", "HEAD"]);
    assert!(followed.look().await.is_empty());
    assert_eq!(followed.limit().await, Value::Null);
    let commit = &followed.state().await["commit"];
    assert_eq!(commit["subject"], "Revert \"limit 9\"");
    assert_eq!(commit["author"], "Alice <a@example.net>");
}

#[tokio::test]
async fn invalid_commit_is_not_served_and_the_reason_is_shown() {
    let repository = Repository::new();
    let followed = repository.follow().await;
    let served = repository.limit(9);
    assert!(followed.look().await.is_empty());
    for (path, text, why) in [
        ("network.yaml", "asn: [", "network.yaml:"),
        (
            "routers/jp1.yaml",
            "{id: 1, tokenFile: jp1.token}\n",
            "tokenHashes",
        ),
        (
            "sessions/jp1/alice.yaml",
            "uuid: a\n",
            "sessions/jp1/alice.yaml:",
        ),
        ("routers/de1.yml", "id: 3\n", "routers/de1.yml:"),
        ("routers/de1.yaml", &"#".repeat(300_000), "too large"),
    ] {
        let refused = repository.commit(path, text, "mistake");
        for _ in 0..2 {
            let errors = followed.look().await;
            assert!(
                errors.iter().any(|it| it.contains(why)),
                "{why}: {errors:?}"
            );
        }
        assert_eq!(followed.limit().await, 9);
        let state = followed.state().await;
        assert_eq!(state["commit"]["id"], json!(served));
        assert_eq!(state["refused"]["id"], json!(refused));
        let text = repository.0.done("get");
        assert!(text.contains("jp1") && text.contains(why), "{text}");
        repository.git(&["reset", "-q", "--hard", &served]);
    }
    assert!(followed.look().await.is_empty());
    assert_eq!(followed.state().await["refused"], Value::Null);
}

#[tokio::test]
async fn missing_reference_or_repository_keeps_the_last_commit() {
    let repository = Repository::new();
    let served = repository.limit(9);
    let followed = repository.follow().await;
    repository.git(&["checkout", "-q", "-b", "other"]);
    repository.git(&["branch", "-q", "-D", "main"]);
    assert!(followed.look().await[0].contains("no branch main"));
    assert_eq!(followed.limit().await, 9);
    // A commit of another branch, after a force-push.
    repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let other = repository.limit(8);
    repository.git(&["branch", "-f", "main", &other]);
    assert!(followed.look().await.is_empty());
    assert_eq!(followed.limit().await, 8);
    repository.git(&["branch", "-f", "main", &served]);

    let objects = repository.dir().join(".git/objects");
    fs::rename(&objects, repository.dir().join("gone")).unwrap();
    fs::create_dir(&objects).unwrap();
    assert!(!followed.look().await.is_empty());
    fs::remove_dir_all(repository.dir().join(".git")).unwrap();
    assert!(!followed.look().await.is_empty());
    assert_eq!(followed.limit().await, 8);
    drop(followed);
    // A restart needs no repository.
    let followed = Followed::open(repository.dir().to_owned());
    assert_eq!(followed.limit().await, 8);
    assert!(!followed.look().await.is_empty());
    assert_eq!(followed.limit().await, 8);
}

#[tokio::test]
async fn restart_serves_the_last_valid_commit() {
    let repository = Repository::new();
    repository.limit(9);
    drop(repository.follow().await);
    repository.commit("network.yaml", "asn: [", "mistake");
    let followed = Followed::open(repository.dir().to_owned());
    assert_eq!(followed.limit().await, 9);
    assert!(!followed.look().await.is_empty());
    assert_eq!(followed.limit().await, 9);
    // An incomplete file of the server that runs.
    let incomplete = repository.dir().join("reported/jp1/.moenet-tmp-1");
    write(repository.dir(), &[("reported/jp1/.moenet-tmp-1", "")]);
    assert!(matches!(
        Follower::open(repository.dir().to_owned(), "main".to_owned()),
        Err(FleetError::Served(_))
    ));
    assert!(incomplete.exists());
    drop(followed);

    // Without a commit that was served, the routers keep their state.
    fs::write(repository.dir().join("reported/.commit.json"), "{").unwrap();
    let followed = Followed::open(repository.dir().to_owned());
    followed.look().await;
    let (status, error) = followed.get("jp1", "config").await;
    assert_eq!((status, &error["code"]), (503, &json!("STORE_UNAVAILABLE")));
    assert!(
        repository
            .dir()
            .join("reported/.commit.json.broken")
            .exists()
    );
}

#[tokio::test]
async fn tag_does_not_take_the_place_of_a_branch() {
    let repository = Repository::new();
    repository.git(&["tag", "main"]);
    repository.limit(9);
    let followed = repository.follow().await;
    assert_eq!(followed.limit().await, 9);
    repository.git(&["checkout", "-q", "-b", "other"]);
    repository.git(&["update-ref", "-d", "refs/heads/main"]);
    assert!(followed.look().await[0].contains("no branch main"));
    assert_eq!(followed.limit().await, 9);
    // The branch of a remote.
    repository.limit(8);
    repository.git(&["update-ref", "refs/remotes/main", "HEAD"]);
    assert!(followed.look().await.is_empty());
    assert_eq!(followed.limit().await, 8);
}

#[tokio::test]
async fn repository_above_does_not_replace_a_lost_one() {
    let above = Repository::new();
    let repository = Repository::at(tempfile::tempdir_in(above.dir()).unwrap());
    repository.limit(9);
    let followed = repository.follow().await;
    let git = repository.dir().join(".git");
    let elsewhere = above.dir().join(".git/lost");
    fs::rename(&git, &elsewhere).unwrap();
    repository.write("network.yaml", NETWORK);
    above.commit("README.md", "an old copy", "copy");
    assert!(followed.look().await[0].contains("restore it"));
    assert_eq!(followed.limit().await, 9);
    drop(followed);
    let followed = Followed::open(repository.dir().to_owned());
    assert!(followed.look().await[0].contains("restore it"));
    assert_eq!(followed.limit().await, 9);
    fs::rename(&elsewhere, &git).unwrap();
    assert!(followed.look().await.is_empty());
}

#[tokio::test]
async fn too_large_commit_is_read_once() {
    let repository = Repository::new();
    let followed = repository.follow().await;
    let text = "#".repeat(16 * 1024 * 1024);
    for number in 1..=9 {
        repository.write(&format!("de{number}/sessions.yaml"), &text);
    }
    let large = repository.commit("README.md", "", "large");
    let errors = followed.look().await;
    assert!(errors[0].contains("bytes, more than"), "{errors:?}");
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    let (folder, file) = tree.split_at(2);
    let tree = repository.dir().join(".git/objects").join(folder);
    fs::remove_file(tree.join(file)).unwrap();
    assert_eq!(followed.look().await, errors);
    assert_eq!(followed.state().await["refused"]["id"], json!(large));
    // Another error is not that of the commit.
    repository.git(&["update-ref", "-d", "refs/heads/main"]);
    assert!(followed.look().await[0].contains("no branch main"));
    assert_eq!(followed.state().await["refused"], Value::Null);
}

#[tokio::test]
async fn too_large_kept_commit_does_not_prevent_the_start() {
    let repository = Repository::new();
    repository.limit(9);
    drop(repository.follow().await);
    let kept = repository.dir().join("reported/.commit.json");
    let file = fs::File::create(&kept).unwrap();
    file.set_len(600 * 1024 * 1024).unwrap();
    let followed = repository.follow().await;
    assert_eq!(followed.limit().await, 9);
}

/// Makes the tree of `main` with one more entry, which no command would add.
fn plant(repository: &Repository, mode: &str, kind: &str, id: &str, name: &[u8]) {
    let tree = repository.git(&["ls-tree", "-z", "main"]).into_bytes();
    let mut tree = [tree, format!("{mode} {kind} {id}\t").into_bytes()].concat();
    tree.extend(name);
    tree.push(0);
    let tree = repository.git_with(&["mktree", "-z", "--missing"], &tree);
    let parent = repository.head();
    let commit = repository.git(&["commit-tree", "-p", &parent, "-m", "hostile", &tree]);
    repository.git(&["branch", "-f", "main", &commit]);
}

#[tokio::test]
async fn hostile_tree_is_refused_and_runs_nothing() {
    let repository = Repository::new();
    let served = repository.head();
    repository.git(&["checkout", "-q", "-b", "work"]);
    let followed = repository.follow().await;
    let mark = repository.dir().join("ran");
    let hook = format!("#!/bin/sh\ntouch {}\n", mark.display());
    for name in ["post-checkout", "fsmonitor", "reference-transaction"] {
        let path = repository.dir().join(".git/hooks").join(name);
        fs::write(&path, &hook).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
    }
    for program in ["core.fsmonitor", "core.pager", "gpg.program"] {
        repository.git(&["config", program, ".git/hooks/fsmonitor"]);
    }
    repository.git(&["config", "log.showSignature", "true"]);
    let blob = repository.git_with(&["hash-object", "-w", "--stdin"], b"/etc/passwd");
    for (mode, kind, id, name) in [
        ("120000", "blob", &blob, &b"sessions"[..]),
        ("120000", "blob", &blob, b"jp2"),
        ("160000", "commit", &served, b"sessions"),
        ("100644", "blob", &blob, b"sessions"),
    ] {
        plant(&repository, mode, kind, id, name);
        let _ = fs::remove_file(&mark);
        assert!(!followed.look().await.is_empty(), "{mode} {name:?}");
        assert!(!mark.exists(), "a program of the repository ran");
        assert_eq!(followed.get("jp1", "config").await.0, 200);
        assert_eq!(followed.state().await["commit"]["id"], json!(served));
        repository.git(&["branch", "-f", "main", &served]);
    }
    // A name that is no file of the fleet is ignored.
    plant(&repository, "100644", "blob", &blob, b"notes\xff.txt");
    assert!(followed.look().await.is_empty());
}

#[tokio::test]
async fn posts_stay_beside_the_tree_and_admin_changes_are_refused() {
    let repository = Repository::new();
    let followed = repository.follow().await;
    let heartbeat = json!({"version": "9.9", "uptime": 1});
    let posted = ask(
        &followed.app,
        "jp1",
        "/agent/jp1/heartbeat",
        Some(heartbeat),
    )
    .await;
    assert_eq!(posted.0, 200, "{}", posted.1);
    assert_eq!(repository.git(&["status", "--porcelain"]), "");
    assert!(repository.0.done("get").contains("9.9"));
    let change = json!({"session": "alice", "change": "accept"});
    let path = "/v1/routers/jp1/sessions";
    let (status, refusal) = ask(&followed.app, "change", path, Some(change)).await;
    assert_eq!((status, &refusal["code"]), (409, &json!("READ_ONLY")));
    assert!(refusal["error"].as_str().unwrap().contains("commit"));
    assert_eq!(
        ask(&followed.app, "look", "/v1/git", Some(json!({})))
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn folders_of_routers_are_served_from_the_commit() {
    let repository = Repository::new();
    for (file, text) in [
        (
            "router.yaml",
            "tokenHashes: ['sha256:0000000000000000000000000000000000000000000000000000000000000000']\nnode: {id: 9, name: de1, asn: 4242420998}\n",
        ),
        ("sessions.yaml", "sessions: []\n"),
        ("mesh.yaml", "peers: []\n"),
        ("bird-config.yaml", "policy: {}\n"),
    ] {
        repository.write(&format!("de1/{file}"), text);
    }
    repository.git(&["rm", "-rq", "--cached", "network.yaml", "routers"]);
    fs::remove_dir_all(repository.dir().join("routers")).unwrap();
    fs::remove_file(repository.dir().join("network.yaml")).unwrap();
    let hash = moenet_agent::fleet::TokenHash::of(&Secret::new("de1".to_owned()));
    let router = format!("tokenHashes: ['{hash}']\nnode: {{id: 9, name: de1, asn: 4242420998}}\n");
    repository.commit("de1/router.yaml", &router, "folder");
    let followed = repository.follow().await;
    assert_eq!(followed.get("de1", "config").await.1["node"]["id"], 9);
    // The tree may be checked out at any moment.
    fs::remove_dir_all(repository.dir().join("de1")).unwrap();
    let heartbeat = json!({"version": "9.9", "uptime": 1});
    let posted = ask(
        &followed.app,
        "de1",
        "/agent/de1/heartbeat",
        Some(heartbeat),
    )
    .await;
    assert_eq!(posted.0, 200, "{}", posted.1);
    assert!(
        repository
            .dir()
            .join("reported/de1/heartbeat.json")
            .exists()
    );
    repository.commit("de1/maintenance", "", "maintenance");
    repository.git(&["rm", "-rq", "de1/maintenance"]);
    assert!(
        !followed.look().await.is_empty(),
        "the router's files are gone"
    );
}

impl Followed {
    /// Returns subject and list of what a router was served, and whether it has written its documents.
    async fn history(&self, router: &str) -> Vec<(String, String, bool)> {
        let path = format!("/v1/routers/{router}/history");
        let (status, answer) = ask(&self.app, "look", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        let served = answer["served"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        served
            .map(|it| {
                (
                    text(&it["commit"]["subject"]),
                    text(&it["list"]),
                    it["written"].is_string(),
                )
            })
            .collect()
    }

    async fn apply(&self, router: &str) {
        let path = format!("/v1/routers/{router}/history");
        let answer = ask(&self.app, "look", &path, None).await.1;
        let served = answer["served"].as_array().unwrap().iter();
        let lists: std::collections::BTreeMap<_, _> = served
            .map(|it| (it["list"].as_str().unwrap(), &it["content"]))
            .collect();
        let heartbeat = json!({"version": "9.9", "uptime": 1, "lists": lists});
        let path = format!("/agent/{router}/heartbeat");
        assert_eq!(ask(&self.app, router, &path, Some(heartbeat)).await.0, 200);
    }
}

#[tokio::test]
async fn history_tells_commit_and_author_of_each_served_list() {
    let repository = Repository::new();
    let followed = repository.follow().await;
    let policy = |subject: &str, written| (subject.to_owned(), "bird-config".to_owned(), written);
    assert!(followed.history("jp1").await.is_empty());
    for _ in 0..2 {
        followed.limit().await;
    }
    assert_eq!(followed.history("jp1").await, [policy("begin", false)]);
    // A heartbeat of an agent that does not name lists shows nothing.
    let heartbeat = json!({"version": "1", "uptime": 1});
    ask(
        &followed.app,
        "jp1",
        "/agent/jp1/heartbeat",
        Some(heartbeat),
    )
    .await;
    followed.apply("jp1").await;
    let other = repository.commit("README.md", "no file of the fleet", "notes");
    followed.look().await;
    assert_eq!(followed.state().await["commit"]["id"], json!(other));
    followed.limit().await;
    assert_eq!(followed.history("jp1").await, [policy("begin", true)]);

    repository.limit(9);
    followed.look().await;
    followed.limit().await;
    drop(followed);
    let followed = repository.follow().await;
    followed.limit().await;
    followed.apply("jp1").await;
    repository.git(&["revert", "--no-edit", "HEAD"]);
    followed.look().await;
    followed.limit().await;
    let wanted = [
        policy("begin", true),
        policy("limit 9", true),
        policy("Revert \"limit 9\"", false),
    ];
    assert_eq!(followed.history("jp1").await, wanted);
    let shown = repository.0.done("history jp1");
    assert!(
        shown.contains("Alice <a@example.net>") && shown.contains("limit 9"),
        "{shown}"
    );
    assert!(repository.0.done("history hk1").contains("no list yet"));
    let (code, text) = repository.0.call("history moon");
    assert!(code == 1 && text.contains("no router moon"), "{text}");
}

#[tokio::test]
async fn commit_reaches_the_canary_only_and_history_says_so() {
    let repository = Repository::new();
    let rollout = |limit: u32| {
        format!(
            "{NETWORK}rollout: {{waves: [[hk1]], observe: 1s}}\npolicy: {{ebgpImportLimit: {limit}}}\n"
        )
    };
    repository.commit("network.yaml", &rollout(8), "eight");
    let followed = repository.follow().await;
    assert_eq!(followed.limit().await, 8);
    repository.commit("network.yaml", &rollout(9), "nine");
    assert!(followed.look().await.is_empty());
    let canary = followed.get("hk1", "bird-config").await.1;
    assert_eq!(canary["policy"]["ebgpImportLimit"], 9);
    assert_eq!(followed.limit().await, 8);
    drop(followed);
    // A restart gives no router another description.
    let followed = repository.follow().await;
    assert_eq!(followed.limit().await, 8);
    let subjects = async |router| -> Vec<String> {
        let all = followed.history(router).await.into_iter();
        all.map(|(subject, ..)| subject).collect()
    };
    assert_eq!(subjects("jp1").await, ["eight"]);
    assert_eq!(subjects("hk1").await, ["nine"]);
}
