//! The git that makes commits, and what others do to the repository between two of them.

use super::*;
use moenet_agent::history::HistoryHandle;
use tokio::task::JoinHandle;

/// A git that notes each call, with its process.
fn counted_git(state: &State) -> PathBuf {
    let calls = state.path().join("outbox/calls");
    slow_git(
        state,
        &format!("echo $$ $* >>{}; exec git \"$@\"", calls.display()),
    )
}

fn calls(state: &State) -> Vec<String> {
    let calls = fs::read_to_string(state.path().join("outbox/calls")).unwrap_or_default();
    calls.lines().map(str::to_owned).collect()
}

fn started(state: &State) -> (HistoryHandle, JoinHandle<()>) {
    let history = History::with_program(state.path(), counted_git(state), Duration::from_secs(10));
    Arc::new(history).start()
}

/// Records a change of the MTU of an object, and waits for its commit.
async fn record(state: &State, handle: &HistoryHandle, mtu: u32) {
    state.put("applied/sessions/a.yaml", &format!("mtu: {mtu}\n"));
    let path = ["applied/sessions/a.yaml"];
    handle.record(cause(Author::Agent, &path, &format!("Apply {mtu}")));
    handle.flush().await;
}

fn subjects(state: &State) -> String {
    state.git(&["log", "--format=%s", "main"])
}

#[tokio::test]
async fn a_start_and_its_commits_need_one_git() {
    let state = State::new();
    let (handle, _task) = started(&state);
    for subject in ["Sync what was not recorded", "Edit"] {
        handle.record(cause(Author::Agent, &["sessions/none.yaml"], subject));
    }
    for mtu in 1400..1420 {
        record(&state, &handle, mtu).await;
        assert_eq!(state.git(&["status", "--porcelain"]), "");
    }
    let calls = calls(&state);
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "20\n");
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn causes_of_one_moment_are_commits_in_one_pack() {
    let state = State::new();
    let (handle, _task) = started(&state);
    let record = |name: &str, text: &str, subject: &str| {
        let path = format!("sessions/{name}.yaml");
        state.put(&path, text);
        handle.record(cause(Author::Agent, &[&path], subject));
    };
    record("a", "a: 1\n", "Sync a");
    record("b", "b: 1\n", "Sync b");
    record("a", "a: 2\n", "Change a");
    record("a", "a: 2\n", "Change nothing");
    handle.flush().await;
    assert_eq!(subjects(&state), "Change a\nSync b\nSync a\n");
    let changed = state.git(&["log", "-1", "--format=", "--name-only", "main"]);
    assert_eq!(changed, "sessions/a.yaml\n");
    assert_eq!(state.git(&["status", "--porcelain"]), "");
    let packs = state.git(&["count-objects", "-v"]);
    assert!(packs.contains("packs: 1\n"), "{packs}");
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn restart_with_nothing_new_lists_the_newest_commit_once() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    for number in 0..50 {
        state.put(&format!("sessions/s{number}.yaml"), "a: 1\n");
    }
    commit(&history, all("First")).await;
    let (handle, _task) = started(&state);
    for number in 0..50 {
        let path = format!("sessions/s{number}.yaml");
        handle.record(cause(Author::ControlPlane, &[&path], "Sync"));
    }
    handle.record(all("All"));
    handle.record(Cause {
        paths: Paths::Gone,
        ..all("Gone")
    });
    handle.flush().await;
    let calls = calls(&state);
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert!(calls[0].contains("ls-tree"), "{calls:?}");
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "1\n");
}

#[tokio::test]
async fn commit_of_an_operator_in_between_is_kept() {
    let state = State::new();
    let (handle, _task) = started(&state);
    record(&state, &handle, 1400).await;
    // A name that sorts between a folder and its files, and one that is not the agent's to write.
    state.put("applied.md", "remarks\n");
    state.put("sessions/mine.sh", "exit\n");
    fs::set_permissions(
        state.path().join("sessions/mine.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    state.git(&["add", "-f", "applied.md", "sessions/mine.sh"]);
    state.git(&["commit", "-q", "-m", "Mine"]);
    record(&state, &handle, 1380).await;
    assert_eq!(subjects(&state), "Apply 1380\nMine\nApply 1400\n");
    assert_eq!(state.git(&["status", "--porcelain"]), "");
    assert_eq!(
        state.files(),
        ".gitignore\napplied.md\napplied/sessions/a.yaml\nsessions/mine.sh\n"
    );
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn branch_that_an_operator_resets_stays_where_it_is() {
    let state = State::new();
    let (handle, task) = started(&state);
    record(&state, &handle, 1400).await;
    record(&state, &handle, 1380).await;
    state.git(&["reset", "-q", "--hard", "main~1"]);
    handle.close();
    task.await.unwrap();
    assert_eq!(subjects(&state), "Apply 1400\n");
    let (handle, _task) = started(&state);
    record(&state, &handle, 1360).await;
    assert_eq!(subjects(&state), "Apply 1360\nApply 1400\n");
}

#[tokio::test]
async fn killed_git_and_packed_objects_delay_no_commit() {
    let state = State::new();
    let (handle, task) = started(&state);
    let health = handle.health();
    record(&state, &handle, 1400).await;
    let process = calls(&state)[0].split(' ').next().unwrap().to_owned();
    assert!(
        Command::new("kill")
            .args(["-9", &process])
            .status()
            .unwrap()
            .success()
    );
    record(&state, &handle, 1380).await;
    state.git(&["gc", "--quiet", "--prune=now"]);
    record(&state, &handle, 1360).await;
    state.git(&["pack-refs", "--all"]);
    record(&state, &handle, 1340).await;
    assert!(!health.has_changed().unwrap(), "{:?}", health.borrow());
    handle.close();
    task.await.unwrap();
    let packs = fs::read_dir(state.path().join(".git/objects/pack")).unwrap();
    let names = packs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.ends_with(".keep")));
    assert_eq!(
        subjects(&state),
        "Apply 1340\nApply 1360\nApply 1380\nApply 1400\n"
    );
    assert_eq!(state.git(&["status", "--porcelain"]), "");
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn stream_cut_at_any_byte_leaves_a_whole_history() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("applied/sessions/a.yaml", "mtu: 1400\n");
    commit(&history, all("First")).await;
    state.put("applied/sessions/a.yaml", "mtu: 1380\n");
    for cut in (1..480).step_by(23) {
        // The end of the agent is the end of the stream; git may be killed with it.
        let script = format!("head -c {cut} | git \"$@\"");
        let cutting = slow_git(&state, &script);
        let cutting = History::with_program(state.path(), cutting, Duration::from_secs(10));
        let _ = cutting.commit(all("Second")).await;
        assert!(!state.path().join(".git.broken").exists(), "{cut}");
        assert!(
            state.git(&["fsck", "--strict", "--no-dangling"]).is_empty(),
            "{cut}"
        );
        let found = subjects(&state);
        assert!(
            ["First\n", "Second\nFirst\n"].contains(&found.as_str()),
            "{cut}: {found}"
        );
    }
    let _ = history.commit(all("Second")).await.unwrap();
    state.put("applied/sessions/a.yaml", "mtu: 1360\n");
    commit(&history, all("Third")).await;
    assert_eq!(subjects(&state), "Third\nSecond\nFirst\n");
    let left = fs::read_dir(state.path().join(".git")).unwrap().flatten();
    let mut names = left.map(|entry| entry.file_name().into_string().unwrap());
    assert!(names.all(|name| !name.contains("crash") && !name.ends_with(".lock")));
}

#[tokio::test]
async fn repository_with_long_hashes_takes_commits() {
    let state = State::new();
    state.git(&[
        "init",
        "-q",
        "--initial-branch=main",
        "--object-format=sha256",
    ]);
    let (handle, _task) = started(&state);
    for mtu in [1400, 1380] {
        record(&state, &handle, mtu).await;
        assert_eq!(state.git(&["status", "--porcelain", "-uno"]), "");
    }
    assert_eq!(subjects(&state), "Apply 1380\nApply 1400\n");
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

#[tokio::test]
async fn crash_while_the_repository_is_begun_leaves_none() {
    let state = State::new();
    let unfinished = state.path().join(".git.new/objects");
    fs::create_dir_all(&unfinished).unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&History::new(state.path()), all("First")).await;
    assert!(!state.path().join(".git.new").exists());
    assert_eq!(subjects(&state), "First\n");
}
