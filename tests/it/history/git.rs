//! The history, with the stock git that an auditor would use on it.

mod import;
mod load;
mod repair;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moenet_agent::history::{Author, Cause, CommitId, History, HistoryError, Paths};

struct State {
    dir: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        let state = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for folder in [
            "sessions",
            "applied/sessions",
            "status/sessions",
            "secrets",
            "outbox",
        ] {
            fs::create_dir_all(state.path().join(folder)).unwrap();
        }
        state
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.path().join(path), text).unwrap();
    }

    /// Stock git, as an operator calls it.
    fn git(&self, args: &[&str]) -> String {
        let (ok, text) = self.try_git(args);
        assert!(ok, "git {args:?}: {text}");
        text
    }

    fn try_git(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=op",
            "-c",
            "user.email=op@x",
        ]);
        let output = command
            .args(args)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    fn files(&self) -> String {
        self.git(&["ls-tree", "-r", "--name-only", "main"])
    }
}

fn cause(author: Author, paths: &[&str], subject: &str) -> Cause {
    let paths = Paths::Some(paths.iter().map(PathBuf::from).collect());
    Cause {
        author,
        paths,
        subject: subject.into(),
        body: vec![],
    }
}

fn all(subject: &str) -> Cause {
    Cause {
        author: Author::Agent,
        paths: Paths::All,
        subject: subject.into(),
        body: vec![],
    }
}

async fn commit(history: &History, cause: Cause) -> CommitId {
    history
        .commit(cause)
        .await
        .unwrap()
        .expect("something changed")
}

#[tokio::test]
async fn moved_tree_is_not_committed() {
    let state = State::new();
    state.put("sessions/a.yaml", "a");
    let history = History::open(state.path()).await.unwrap();
    let all = |paths| Cause {
        author: Author::Agent,
        paths,
        subject: "All".into(),
        body: vec![],
    };
    history.commit(all(Paths::All)).await.unwrap().unwrap();
    state.put("sessions/b.yaml", "b");
    history.commit(all(Paths::All)).await.unwrap().unwrap();
    let tip = state.git(&["rev-parse", "main"]);
    state.git(&["checkout", "-q", "main~1"]);
    for paths in [Paths::Gone, Paths::All] {
        let refused = history.commit(all(paths)).await;
        assert!(
            matches!(refused, Err(HistoryError::Moved { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(state.git(&["rev-parse", "main"]), tip);
    state.git(&["checkout", "-q", "main"]);
    assert_eq!(history.commit(all(Paths::Gone)).await.unwrap(), None);
}

#[tokio::test]
async fn each_cause_is_one_commit_with_author_and_files() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    state.put("sessions/b.yaml", "b: 1\n");
    commit(
        &history,
        cause(Author::ControlPlane, &["sessions/a.yaml"], "Sync a"),
    )
    .await;
    assert!(
        !state.files().contains("sessions/b.yaml"),
        "{}",
        state.files()
    );
    commit(
        &history,
        cause(
            Author::Operator {
                name: "Ann <x>\n".into(),
            },
            &["sessions/b.yaml"],
            "Edit b",
        ),
    )
    .await;
    state.put("applied/sessions/a.yaml", "mtu: 1420\n");
    let mut apply = cause(Author::Agent, &["applied/sessions/a.yaml"], "Apply a");
    apply.body = vec![
        "- set the MTU of wg_1 to 1420 (have 1400)".into(),
        "# no remark".into(),
    ];
    let id = commit(&history, apply).await;

    let log = state.git(&["log", "--format=%an|%s"]);
    assert_eq!(
        log,
        "moenet-agent|Apply a\nAnn x|Edit b\nControl Plane|Sync a\n"
    );
    let shown = history.show(id.as_str()).await.unwrap();
    assert!(
        shown.contains("set the MTU of wg_1 to 1420 (have 1400)") && shown.contains("# no remark"),
        "{shown}"
    );
    assert!(shown.contains("+mtu: 1420"), "{shown}");
    assert_eq!(
        state.git(&["show", "--format=", "--name-only", id.as_str()]),
        "applied/sessions/a.yaml\n"
    );
    let entries = history
        .log(&["applied/sessions/a.yaml".into()], 10)
        .await
        .unwrap();
    assert_eq!(
        (entries.len(), entries[0].subject.as_str(), &entries[0].id),
        (1, "Apply a", &id)
    );
    assert_eq!(history.log(&[], 2).await.unwrap().len(), 2);
    assert_eq!(
        state.git(&["status", "--porcelain"]),
        "",
        "the index is where the history is"
    );
}

#[tokio::test]
async fn nothing_changed_is_no_commit() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    assert!(history.log(&[], 5).await.unwrap().is_empty());
    assert_eq!(
        history
            .last_committed(Path::new("sessions/a.yaml"))
            .await
            .unwrap(),
        None
    );
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
    assert_eq!(history.commit(all("Second")).await.unwrap(), None);
    let gone = cause(Author::Agent, &["sessions/none.yaml"], "Nothing");
    assert_eq!(history.commit(gone).await.unwrap(), None);
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "1\n");
}

#[tokio::test]
async fn removed_file_stays_readable_in_the_history() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    let first = commit(&history, all("First")).await;
    fs::remove_file(state.path().join("sessions/a.yaml")).unwrap();
    commit(
        &history,
        cause(Author::ControlPlane, &["sessions/a.yaml"], "Remove a"),
    )
    .await;
    let path = Path::new("sessions/a.yaml");
    assert_eq!(history.last_committed(path).await.unwrap(), None);
    assert_eq!(
        history
            .committed_at(first.short(), path)
            .await
            .unwrap()
            .as_deref(),
        Some("a: 1\n")
    );
    for bad in ["", "--all", "nonsense", "HEAD:sessions", "a\nb", "main~7"] {
        assert!(
            matches!(
                history.committed_at(bad, path).await,
                Err(HistoryError::NoCommit(_))
            ),
            "{bad}"
        );
    }
    assert!(matches!(
        history.last_committed(Path::new("secrets/a.psk")).await,
        Err(HistoryError::NotKept(_))
    ));
}

#[tokio::test]
async fn secrets_never_get_in_whoever_tries() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    for path in [
        "secrets/a.psk",
        "secrets/a.yaml",
        "status/sessions/a.yaml",
        "outbox/1.json",
        "id_rsa",
        ".synced.yaml",
    ] {
        state.put(path, "hunter2\n");
    }
    state.put("sessions/a.yaml", "a: 1\n");
    let named = [
        "secrets/a.psk",
        "secrets/a.yaml",
        "secrets",
        ".",
        "sessions/../secrets/a.psk",
        "status/sessions/a.yaml",
        "outbox",
        "/etc/passwd",
    ];
    assert_eq!(
        history
            .commit(cause(Author::Agent, &named, "Steal"))
            .await
            .unwrap(),
        None
    );
    state.put(".gitignore", "!secrets/\n");
    commit(&history, all("All")).await;
    state.git(&["add", "-f", "secrets", "status"]);
    state.put("sessions/a.yaml", "a: 2\n");
    commit(&history, all("All again")).await;
    assert_eq!(state.files(), ".gitignore\nsessions/a.yaml\n");
    assert!(!state.git(&["log", "--all", "-p"]).contains("hunter2"));
}

#[tokio::test]
async fn blame_and_bisect_work_as_on_any_repository() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    for mtu in 1400..1408 {
        state.put("sessions/a.yaml", &format!("kind: x\nmtu: {mtu}\n"));
        commit(
            &history,
            cause(
                Author::ControlPlane,
                &["sessions/a.yaml"],
                &format!("MTU {mtu}"),
            ),
        )
        .await;
    }
    let blame = state.git(&["blame", "-s", "sessions/a.yaml"]);
    assert_eq!(blame.lines().count(), 2, "{blame}");
    state.git(&["clone", "-q", ".", "copy"]);
    let clone = |args: &[&str]| state.git(&[&["-C", "copy"], args].concat());
    clone(&["bisect", "start", "HEAD", "HEAD~7"]);
    let found = clone(&[
        "bisect",
        "run",
        "sh",
        "-c",
        "! grep -q 'mtu: 140[567]' sessions/a.yaml",
    ]);
    assert!(found.contains("MTU 1405"), "{found}");
    assert!(
        state
            .git(&["log", "-p", "--follow", "sessions/a.yaml"])
            .contains("+mtu: 1407")
    );
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn the_content_is_that_of_the_moment_it_was_recorded() {
    let state = State::new();
    let history = Arc::new(History::open(state.path()).await.unwrap());
    let (handle, task) = Arc::clone(&history).start();
    for mtu in 1400..1410 {
        state.put("applied/sessions/a.yaml", &format!("mtu: {mtu}\n"));
        handle.record(cause(
            Author::Agent,
            &["applied/sessions/a.yaml"],
            &format!("Apply {mtu}"),
        ));
    }
    handle.flush().await;
    let entries = history.log(&[], 100).await.unwrap();
    assert_eq!(entries.len(), 10);
    for (entry, mtu) in entries.iter().zip((1400..1410).rev()) {
        assert_eq!(entry.subject, format!("Apply {mtu}"));
        let diff = history.show(entry.id.as_str()).await.unwrap();
        assert!(diff.contains(&format!("+mtu: {mtu}\n")), "{diff}");
    }
    handle.close();
    task.await.unwrap();
}

#[tokio::test]
async fn what_waits_too_long_is_merged_and_nothing_is_lost() {
    let state = State::new();
    let program = slow_git(&state, "sleep 0.02; exec git \"$@\"");
    let history = Arc::new(History::with_program(
        state.path(),
        program,
        Duration::from_secs(20),
    ));
    let (handle, _task) = Arc::clone(&history).start();
    // More than twice what may wait.
    for number in 0..150 {
        state.put(&format!("sessions/s{number}.yaml"), "a: 1\n");
        handle.record(cause(
            Author::ControlPlane,
            &[&format!("sessions/s{number}.yaml")],
            &format!("Sync {number}"),
        ));
    }
    drop(history);
    let state_files = || {
        state
            .try_git(&["ls-tree", "-r", "--name-only", "main"])
            .1
            .lines()
            .count()
    };
    let end = Instant::now() + Duration::from_secs(120);
    while state_files() < 151 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(state_files(), 151);
    let messages = state.git(&["log", "--format=%B"]);
    assert!((0..150).all(|number| messages.contains(&format!("Sync {number}\n"))));
}

fn slow_git(state: &State, script: &str) -> PathBuf {
    let program = state.path().join("outbox/git");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[tokio::test]
async fn hanging_or_missing_git_is_a_clear_error() {
    let state = State::new();
    state.put("sessions/a.yaml", "a: 1\n");
    let hanging = History::with_program(
        state.path(),
        slow_git(&state, "exec sleep 60"),
        Duration::from_millis(200),
    );
    let start = Instant::now();
    let error = hanging.commit(all("x")).await.unwrap_err();
    assert!(
        matches!(error, HistoryError::Deadline { .. }) && start.elapsed() < Duration::from_secs(5),
        "{error}"
    );
    let missing = History::with_program(state.path(), "/nowhere/git", Duration::from_secs(1));
    let error = missing.commit(all("x")).await.unwrap_err().to_string();
    assert!(error.contains("install git"), "{error}");
}

#[tokio::test]
async fn commit_is_found_by_unique_prefix() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    for number in 0..18 {
        state.put("sessions/a.yaml", &format!("a: {number}\n"));
        commit(&history, all(&format!("{number}"))).await;
    }
    let ids = state.git(&["rev-list", "main"]);
    for id in ids.lines() {
        assert_eq!(history.resolve(&id[..12]).await.unwrap().as_str(), id);
    }
    // Of eighteen names two begin with the same of sixteen digits; git itself takes no less than four characters.
    let twice = |n: usize| {
        let mut starts: Vec<_> = ids.lines().map(|id| &id[..n]).collect();
        starts.sort_unstable();
        starts
            .windows(2)
            .find(|pair| pair[0] == pair[1])
            .map(|pair| pair[0].to_owned())
    };
    let start = twice(1).unwrap();
    let error = history.resolve(&start).await.unwrap_err().to_string();
    assert!(
        error.contains("may be") && error.contains("give more digits"),
        "{error}"
    );
}

#[tokio::test]
async fn a_commit_may_hold_exactly_what_it_is_told() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("applied/sessions/a.yaml", "mtu: 2\n");
    let exactly = [
        ("applied/sessions/a.yaml".into(), Some(b"mtu: 1\n".to_vec())),
        ("secrets/a".into(), None),
    ];
    let paths = Paths::Exactly(exactly.into());
    let id = commit(
        &history,
        Cause {
            paths,
            ..all("Apply")
        },
    )
    .await;
    assert!(
        history
            .show(id.as_str())
            .await
            .unwrap()
            .contains("+mtu: 1\n")
    );
    fs::remove_file(state.path().join("applied/sessions/a.yaml")).unwrap();
    state.put("sessions/b.yaml", "b: 1\n");
    commit(
        &history,
        Cause {
            paths: Paths::Gone,
            ..all("Gone")
        },
    )
    .await;
    assert_eq!(state.files(), ".gitignore\n");
}

#[tokio::test]
async fn rejected_file_neither_enters_nor_removes_a_committed_one() {
    let state = State::new();
    let history = History::new(state.path()).accepting(|_, text| !text.starts_with(b"hunter2"));
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
    state.put("sessions/a.yaml", "hunter2\n");
    assert_eq!(history.commit(all("Second")).await.unwrap(), None);
    assert_eq!(
        history
            .last_committed(Path::new("sessions/a.yaml"))
            .await
            .unwrap()
            .as_deref(),
        Some("a: 1\n")
    );
}

#[tokio::test]
async fn locks_staged_files_and_checkouts_by_hand_hold_nothing_up() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    let first = commit(&history, all("First")).await;
    state.put(".git/index.lock", "");
    state.put("sessions/a.yaml", "a: 2\n");
    commit(&history, all("While the index is locked")).await;
    assert!(
        state.path().join(".git/index.lock").exists(),
        "a young lock is somebody's"
    );
    let old = std::time::SystemTime::now() - Duration::from_secs(700);
    for lock in ["index.lock", "refs/heads/main.lock"] {
        let path = state.path().join(".git").join(lock);
        fs::File::create(path).unwrap().set_modified(old).unwrap();
    }
    state.put("sessions/a.yaml", "a: 3\n");
    commit(&history, all("After a stale lock")).await;
    assert!(!state.path().join(".git/index.lock").exists());
    state.git(&["checkout", "-q", "--detach", first.as_str()]);
    state.put("sessions/b.yaml", "b: 1\n");
    commit(
        &history,
        cause(Author::Agent, &["sessions/b.yaml"], "While detached"),
    )
    .await;
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "4\n");
    assert!(!state.path().join(".git.broken").exists());
}

#[tokio::test]
async fn a_repository_further_up_is_not_taken_for_ours() {
    let state = State::new();
    state.git(&["init", "-q", "."]);
    let inner = state.path().join("sessions");
    fs::write(inner.join("node.yaml"), "a: 1\n").unwrap();
    let history = History::new(&inner);
    commit(&history, all("Ours")).await;
    assert!(inner.join(".git").is_dir());
    assert!(!state.try_git(&["log"]).0);
}

#[tokio::test]
async fn an_operators_configuration_and_hooks_change_nothing() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    fs::create_dir_all(state.path().join(".git/hooks")).unwrap();
    let hook = state.path().join(".git/hooks/reference-transaction");
    fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    state.git(&["config", "commit.gpgSign", "true"]);
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
}
