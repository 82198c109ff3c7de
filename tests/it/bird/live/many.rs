//! Many fragments at once.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_fragments_at_once_are_one_reload() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        let start = Instant::now();
        let tasks = (0..50).map(|i| {
            let committer = committer.clone();
            async move {
                committer
                    .set_fragment(&format!("s{i}"), Some(fragment(&format!("s{i}"), "")))
                    .await
            }
        });
        let results = futures::future::join_all(tasks).await;
        assert!(
            results
                .iter()
                .all(|result| result.as_ref().is_ok_and(|done| done.loaded)),
            "{version}"
        );
        assert_eq!(committer.counters().configures(), 1, "{version}");
        println!("{version}: 50 fragments in {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_follow_each_other_are_one_reload() {
    let version = VERSIONS[0];
    let (router, _) = Router::running(version).await;
    let committer = Committer::start(CommitterConfig {
        gather: Duration::from_millis(600),
        ..router.config()
    });
    // The last comes after the gather time of the first.
    let tasks = (0..6).map(|i| {
        let committer = committer.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(200) * i).await;
            let name = format!("s{i}");
            committer
                .set_fragment(&name, Some(fragment(&name, "")))
                .await
        }
    });
    let results = futures::future::join_all(tasks).await;
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().is_ok_and(|done| done.loaded))
    );
    assert_eq!(committer.counters().configures(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_requested_waits_for_no_gather_time() {
    let version = VERSIONS[0];
    let (router, _) = Router::running(version).await;
    let committer = Committer::start(CommitterConfig {
        gather: Duration::from_secs(3600),
        ..router.config()
    });
    let set = async |i: usize| {
        let name = format!("s{i}");
        let set = committer.set_fragment(&name, Some(fragment(&name, "")));
        set.await.is_ok_and(|done| done.loaded)
    };
    for round in 0..2 {
        let requests = futures::future::join_all((0..50).map(|i| set(50 * round + i)));
        let (done, ()) = tokio::join!(requests, async { committer.all_requested() });
        assert!(done.into_iter().all(|is_loaded| is_loaded), "{version}");
        assert_eq!(committer.counters().configures(), round as u64 + 1);
    }
}

/// Prints what the committer costs at a thousand sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_fragments_are_one_reload_and_then_one_question() {
    for version in VERSIONS {
        let (router, _) = Router::running(version).await;
        // A slow machine takes longer than the usual gather time to ask for a thousand.
        let committer = Committer::start(CommitterConfig {
            gather: Duration::from_secs(1),
            ..router.config()
        });
        let set = |i: usize, extra: &'static str| {
            let committer = committer.clone();
            async move {
                committer
                    .set_fragment(&format!("s{i}"), Some(fragment(&format!("s{i}"), extra)))
                    .await
            }
        };
        let mut start = Instant::now();
        let mut lap = || std::mem::replace(&mut start, Instant::now()).elapsed();
        let results = futures::future::join_all((0..1000).map(|i| set(i, ""))).await;
        assert!(results.iter().all(Result::is_ok), "{version}");
        assert_eq!(committer.counters().configures(), 1, "{version}");
        let first = lap();
        assert!(set(500, "hold time 90;").await.unwrap().loaded, "{version}");
        let one = lap();
        let before = done(committer.counters());
        let reads = committer.counters().reads();
        committer.converge().await.unwrap();
        assert_eq!(
            (done(committer.counters()), committer.counters().reads()),
            (before, reads + 2),
            "{version}"
        );
        let none = lap();
        assert_eq!(
            committer.client().protocols().await.unwrap().len(),
            1003,
            "{version}"
        );
        println!(
            "{version}: 1000 new {first:?}, one changed {one:?}, none {none:?}, read all {:?}",
            lap()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_parser_gets_more_time_and_fails_no_fragment() {
    use std::os::unix::fs::PermissionsExt as _;
    let version = VERSIONS[0];
    let (router, _) = Router::running(version).await;
    let slow = router.path("slow-bird");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" != -p ] || sleep 0.6\nexec {} \"$@\"\n",
        router.config().bird_binary.display()
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    let committer = Committer::start(CommitterConfig {
        bird_binary: slow,
        check_deadline: Duration::from_millis(100),
        ..router.config()
    });
    let all = || {
        let set = |i: usize| {
            let (committer, name) = (committer.clone(), format!("s{i}"));
            let fragment = fragment(&name, "");
            async move { committer.set_fragment(&name, Some(fragment)).await }
        };
        futures::future::join_all((0..5).map(set))
    };
    let is_late = |result: &Result<Committed, FragmentError>| match result {
        Ok(_) => false,
        Err(FragmentError::Commit(error)) if error.is_late() => true,
        Err(error) => panic!("{error}"),
    };
    let first = all().await;
    assert!(first.iter().all(is_late), "{first:?}");
    assert_eq!(committer.counters().checks(), 1, "one check for all");
    let second = all().await;
    assert!(second.iter().all(is_late), "{second:?}");
    assert_eq!(committer.counters().checks(), 1, "the commit backs off");
    eventually("all are loaded", async || !all().await.iter().any(is_late)).await;
    assert_eq!(committer.counters().configures(), 1);
    let checks = committer.counters().checks();
    assert!((2..6).contains(&checks), "{checks} checks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_of_many_protocols_are_asked_for_when_states_change() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let text = (0..300).map(|n| format!("protocol static moe_s{n} {{ ipv4; }}\n"));
        let many = Fragment {
            text: text.collect::<String>().into(),
            protocols: Vec::new(),
        };
        committer.set_fragment("many", Some(many)).await.unwrap();
        let client = committer.client();
        eventually("all are up", async || {
            let rows = client.protocol_rows().await.unwrap();
            rows.iter().all(|row| row.state == ProtocolState::Up)
        })
        .await;
        client.protocols().await.unwrap();
        let asked = async || {
            let before = client.counters().reads();
            let found = client.protocols().await.unwrap();
            // A client that knows nothing reads everything.
            let all = Client::new(router.socket()).protocols().await.unwrap();
            assert_eq!(found, all, "{version}");
            client.counters().reads() - before
        };
        assert_eq!(asked().await, 1, "{version}: rows");
        // BIRD writes the time of a state in seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let name = BirdName::new("moe_s7").unwrap();
        let operator = Client::new(router.socket());
        operator.restart(name.clone()).await.unwrap();
        eventually("all are up again", async || {
            let rows = client.protocol_rows().await.unwrap();
            rows.iter().all(|row| row.state == ProtocolState::Up)
        })
        .await;
        assert_eq!(asked().await, 2, "{version}: rows and one protocol");
        assert_eq!(asked().await, 1, "{version}: rows");
        // What the agent itself does may change any detail.
        assert!(!client.enable(name).await.unwrap(), "{version}");
        assert_eq!(asked().await, 1, "{version}: everything");
        assert_eq!(asked().await, 1, "{version}: rows");
    }
}
