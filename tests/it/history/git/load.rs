//! Packing, and other gits at work.

use super::*;

#[tokio::test]
async fn a_year_of_commits_is_packed() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    // Each commit leaves a pack.
    for number in 0..150 {
        state.put("sessions/a.yaml", &format!("a: {number}\n"));
        commit(
            &history,
            cause(Author::Agent, &["sessions/a.yaml"], &format!("{number}")),
        )
        .await;
    }
    history.maintain().await.unwrap();
    let count = state.git(&["count-objects", "-v"]);
    assert!(
        count.contains("count: 0\n") && count.contains("packs: 1\n"),
        "{count}"
    );
    assert_eq!(history.log(&[], 1000).await.unwrap().len(), 150);
    history.maintain().await.unwrap();
}

#[tokio::test]
async fn hundreds_of_commits_in_an_hour_leave_few_files() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    let mut most = 0;
    // Each commit leaves a pack, and never packed together these would be 440 files.
    for number in 0..220 {
        state.put("sessions/a.yaml", &format!("a: {number}\n"));
        commit(
            &history,
            cause(Author::Agent, &["sessions/a.yaml"], &format!("{number}")),
        )
        .await;
        history.maintain().await.unwrap();
        if number % 10 == 9 {
            let packs = fs::read_dir(state.path().join(".git/objects/pack")).unwrap();
            let count = state.git(&["count-objects"]);
            let loose: usize = count.split(' ').next().unwrap().parse().unwrap();
            most = most.max(packs.count() + loose);
        }
    }
    assert!(
        (80..200).contains(&most),
        "{most} files of objects: either too many, or this counts nothing"
    );
    assert_eq!(history.log(&[], 1000).await.unwrap().len(), 220);
    assert!(state.git(&["fsck", "--strict"]).is_empty());
}

/// The agent commits and packs while an operator reads, stages and works in a tree of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn committing_and_packing_disturb_no_operator() {
    let state = State::new();
    let history = Arc::new(History::open(state.path()).await.unwrap());
    for number in 0..60 {
        state.put("sessions/a.yaml", &format!("a: {number}\n"));
        commit(
            &history,
            cause(Author::Agent, &["sessions/a.yaml"], &format!("{number}")),
        )
        .await;
    }
    state.git(&["worktree", "add", "-q", "-b", "mine", "outbox/mine", "main"]);
    let path = state.path().to_owned();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&done);
    let operator = std::thread::spawn(move || {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.args([
                "-c",
                "safe.directory=*",
                "-c",
                "user.name=op",
                "-c",
                "user.email=op@x",
            ]);
            let output = command.args(arguments).current_dir(&path).output().unwrap();
            assert!(
                output.status.success(),
                "{arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let mut rounds = 0;
        while !seen.load(std::sync::atomic::Ordering::Relaxed) || rounds < 3 {
            git(&["log", "-p", "main"]);
            git(&["blame", "main", "--", "sessions/a.yaml"]);
            fs::write(
                path.join("outbox/mine/sessions/mine.yaml"),
                format!("{rounds}\n"),
            )
            .unwrap();
            git(&["-C", "outbox/mine", "add", "."]);
            git(&["-C", "outbox/mine", "commit", "-q", "-m", "mine"]);
            // All that main leads to. `git fsck` would complain of a commit that is made while it runs.
            git(&["rev-list", "--objects", "--quiet", "main"]);
            rounds += 1;
        }
        rounds
    });
    for number in 60..180 {
        state.put("sessions/a.yaml", &format!("a: {number}\n"));
        commit(
            &history,
            cause(Author::Agent, &["sessions/a.yaml"], &format!("{number}")),
        )
        .await;
        history.maintain().await.unwrap();
    }
    // Not with `--prune=now`, which git-gc(1) forbids beside a writer: the operator's commit may be its victim.
    state.git(&["gc", "--quiet"]);
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let rounds = operator.join().expect("an operator's git failed");
    assert_eq!(
        state.git(&["rev-list", "--count", "main..mine"]).trim(),
        rounds.to_string()
    );
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "180\n");
    assert!(state.git(&["fsck", "--strict", "--no-dangling"]).is_empty());
}

#[tokio::test]
async fn failing_history_is_a_condition_until_it_works() {
    let state = State::new();
    let flag = state.path().join("outbox/works");
    let script = format!("test -e {} || exit 1; exec git \"$@\"", flag.display());
    let program = slow_git(&state, &script);
    let history = Arc::new(History::with_program(
        state.path(),
        program,
        Duration::from_secs(10),
    ));
    let (handle, _task) = history.start();
    let mut health = handle.health();
    state.put("sessions/a.yaml", "a: 1\n");
    handle.record(all("First"));
    health.wait_for(Option::is_some).await.unwrap();
    fs::write(flag, "").unwrap();
    health.wait_for(Option::is_none).await.unwrap();
    assert!(state.files().contains("sessions/a.yaml"));
}

#[test]
fn the_author_of_an_edit_is_who_owns_the_file() {
    assert_eq!(
        Author::operator(0),
        Author::Operator {
            name: "root".into()
        }
    );
    assert_eq!(
        Author::operator(4_000_000_000),
        Author::Operator {
            name: "uid 4000000000".into()
        }
    );
}

/// Waits for the background task of a history, which takes causes and looks after the index.
async fn wait_clean(state: &State) {
    for _ in 0..300 {
        if state.git(&["status", "--porcelain"]).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{}", state.git(&["status", "--porcelain"]));
}

#[tokio::test]
async fn index_catches_up_after_another_git_held_its_lock() {
    let state = State::new();
    let history = Arc::new(History::open(state.path()).await.unwrap());
    let (handle, _task) = Arc::clone(&history).start();
    state.put("applied/sessions/a.yaml", "mtu: 1420\n");
    handle.record(all("First"));
    handle.flush().await;
    state.put(".git/index.lock", "");
    state.put("applied/sessions/a.yaml", "mtu: 1400\n");
    handle.record(all("While `git status` holds the index"));
    handle.flush().await;
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "2\n");
    fs::remove_file(state.path().join(".git/index.lock")).unwrap();
    assert_eq!(
        state.git(&["status", "--porcelain"]),
        "MM applied/sessions/a.yaml\n",
        "the commit is made and the index is behind"
    );
    wait_clean(&state).await;
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "2\n");
}

#[tokio::test]
async fn index_catches_up_after_a_crash_between_commit_and_index() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("applied/sessions/a.yaml", "mtu: 1420\n");
    commit(&history, all("First")).await;
    state.put(".git/index.lock", "");
    state.put("applied/sessions/a.yaml", "mtu: 1400\n");
    commit(&history, all("Before the crash")).await;
    drop(history);
    fs::remove_file(state.path().join(".git/index.lock")).unwrap();
    let restarted = Arc::new(History::new(state.path()));
    let (handle, _task) = Arc::clone(&restarted).start();
    handle.record(all("Nothing is left to record"));
    handle.flush().await;
    assert_eq!(state.git(&["status", "--porcelain"]), "");
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "2\n");
}

#[tokio::test]
async fn index_of_another_branch_is_left_alone() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
    state.git(&["checkout", "-q", "-b", "look"]);
    state.put("sessions/b.yaml", "b: 1\n");
    state.git(&["add", "sessions/b.yaml"]);
    state.put("sessions/a.yaml", "a: 2\n");
    commit(
        &history,
        cause(Author::Agent, &["sessions/a.yaml"], "Beside it"),
    )
    .await;
    assert_eq!(
        state.git(&["status", "--porcelain"]),
        " M sessions/a.yaml\nA  sessions/b.yaml\n"
    );
}
