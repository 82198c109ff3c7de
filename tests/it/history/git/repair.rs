//! Repairs of a broken repository.

use super::*;

#[tokio::test]
async fn a_missing_repository_is_begun_again() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
    fs::remove_dir_all(state.path().join(".git")).unwrap();
    commit(&history, all("Second")).await;
    assert_eq!(state.git(&["rev-list", "--count", "main"]), "1\n");
}

#[tokio::test]
async fn broken_repository_is_moved_aside_and_replaced() {
    for (number, break_it) in [
        |git: &Path| {
            fs::write(git.join("refs/heads/main"), "").unwrap();
            let _ = fs::remove_file(git.join("logs/refs/heads/main"));
        },
        |git: &Path| {
            fs::write(
                git.join("refs/heads/main"),
                format!("{}\n", "12".repeat(20)),
            )
            .unwrap()
        },
        |git: &Path| fs::remove_dir_all(git.join("objects")).unwrap(),
        |git: &Path| fs::write(git.join("config"), "[core\n").unwrap(),
        |git: &Path| {
            for folder in fs::read_dir(git.join("objects")).unwrap() {
                for object in fs::read_dir(folder.unwrap().path()).unwrap() {
                    let object = object.unwrap().path();
                    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
                    fs::write(object, "").unwrap();
                }
            }
        },
        |git: &Path| {
            fs::remove_dir_all(git).unwrap();
            fs::write(git, "gitdir: /nowhere\n").unwrap();
        },
    ]
    .into_iter()
    .enumerate()
    {
        let state = State::new();
        let history = History::open(state.path()).await.unwrap();
        state.put("sessions/a.yaml", "a: 1\n");
        state.put("sessions/b.yaml", "b: 1\n");
        commit(&history, all("First")).await;
        break_it(&state.path().join(".git"));
        state.put("sessions/a.yaml", "a: 2\n");
        let outcome = history
            .commit(cause(Author::ControlPlane, &["sessions/a.yaml"], "Sync a"))
            .await;
        assert!(matches!(outcome, Ok(Some(_))), "case {number}: {outcome:?}");
        assert!(state.path().join(".git.broken").exists(), "case {number}");
        assert_eq!(
            state.files(),
            ".gitignore\nsessions/a.yaml\nsessions/b.yaml\n",
            "case {number}"
        );
        assert_eq!(
            state.git(&["log", "--format=%s"]),
            "Begin a new history\nSync a\n",
            "case {number}"
        );
    }
}

#[tokio::test]
async fn empty_head_or_branch_is_repaired_in_place() {
    for (file, text) in [
        ("HEAD", "nonsense"),
        ("HEAD", ""),
        ("refs/heads/main", ""),
        ("refs/heads/main", "0123\n"),
    ] {
        let state = State::new();
        let history = History::open(state.path()).await.unwrap();
        state.put("sessions/a.yaml", "a: 1\n");
        commit(&history, all("First")).await;
        fs::write(state.path().join(".git").join(file), text).unwrap();
        state.put("sessions/a.yaml", "a: 2\n");
        commit(&history, all("Second")).await;
        assert_eq!(
            state.git(&["log", "--format=%s"]),
            "Second\nFirst\n",
            "{file} {text:?}"
        );
        assert!(
            !state.path().join(".git.broken").exists(),
            "{file} {text:?}"
        );
    }
}

#[tokio::test]
async fn a_git_that_does_not_work_sets_nothing_aside() {
    let state = State::new();
    let history = History::open(state.path()).await.unwrap();
    state.put("sessions/a.yaml", "a: 1\n");
    commit(&history, all("First")).await;
    for script in ["exit 127", "kill -9 $$", "exit 128"] {
        let program = slow_git(&state, script);
        let broken = History::with_program(state.path(), program, Duration::from_secs(5));
        state.put("sessions/a.yaml", &format!("a: {script}\n"));
        let error = broken.commit(all("Second")).await.unwrap_err();
        assert!(
            matches!(error, HistoryError::Git { .. }),
            "{script}: {error}"
        );
        assert!(!state.path().join(".git.broken").exists(), "{script}");
    }
    commit(&history, all("Second")).await;
    assert_eq!(state.git(&["log", "--format=%s"]), "Second\nFirst\n");
}
