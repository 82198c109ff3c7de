//! Files of operators, of other agents and of strangers.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trial_of_a_tree_delays_no_commit() {
    let (router, _) = Router::running(VERSIONS[0]).await;
    // A parser that answers when it is let go, for the trial's files only.
    let slow = router.path("slow-bird");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *.moenet-trial*) while [ ! -e {0} ]; do sleep 0.05; done;; esac\nexec {1} \"$@\"\n",
        router.path("go").display(),
        router.config().bird_binary.display()
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let committer = Committer::start(CommitterConfig {
        bird_binary: slow,
        ..router.config()
    });
    let live = committer.live().await.unwrap();
    let trying = tokio::spawn({
        let (committer, tree) = (committer.clone(), live.tree.clone());
        async move { committer.check(tree).await }
    });
    eventually("the trial has begun", async || {
        router.path("etc/.moenet-trial").exists()
    })
    .await;
    let done = committer.set_fragment("a", Some(fragment("a", ""))).await;
    assert!(done.unwrap().loaded);
    assert!(!trying.is_finished(), "the commit did not wait for it");
    fs::write(router.path("go"), "").unwrap();
    trying.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_main_file_is_checked_and_not_changed() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc/peers")).unwrap();
        let theirs =
            "define THEIRS = 3;\ninclude \"peers/*.conf\";\ninclude \"moenet/main.conf\";\n";
        fs::write(router.path("etc/bird.conf"), theirs).unwrap();
        fs::write(
            router.path("etc/peers/p.conf"),
            "protocol static theirs { ipv4; }\n",
        )
        .unwrap();
        let committer = Committer::start(CommitterConfig {
            manage_main_config: false,
            ..router.config()
        });
        committer.set_base(base()).await.unwrap();
        router.start().await;
        let uses = Fragment {
            text: "protocol static moe_a { ipv4 { preference THEIRS; }; }\n".into(),
            protocols: vec!["moe_a".into()],
        };
        assert!(
            committer
                .set_fragment("a", Some(uses))
                .await
                .unwrap()
                .loaded,
            "{version}"
        );
        let clash = Fragment {
            text: "protocol static theirs { ipv4; }\n".into(),
            protocols: vec![],
        };
        assert!(
            matches!(
                committer.set_fragment("b", Some(clash)).await,
                Err(FragmentError::Refused { .. })
            ),
            "{version}"
        );
        assert_eq!(
            fs::read_to_string(router.path("etc/bird.conf")).unwrap(),
            theirs
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_base_that_clashes_is_every_sessions_error() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc")).unwrap();
        let theirs = "router id 10.0.0.1;\nprotocol static theirs { ipv4; }\nfilter moe_static { accept; }\n";
        fs::write(router.path("etc/bird.conf"), theirs).unwrap();
        router.start().await;
        let include = format!("{theirs}include \"moenet/main.conf\";\n");
        fs::write(router.path("etc/bird.conf"), &include).unwrap();
        let committer = Committer::start(CommitterConfig {
            manage_main_config: false,
            ..router.config()
        });
        let (base_error, together) = tokio::join!(
            committer.set_base(base()),
            committer.set_fragment("a", Some(fragment("a", "")))
        );
        let alone = committer.set_fragment("b", Some(fragment("b", ""))).await;
        for error in [
            base_error.unwrap_err().to_string(),
            together.unwrap_err().to_string(),
            alone.unwrap_err().to_string(),
        ] {
            assert!(error.contains("moe_static"), "{version}: {error}");
            assert!(!error.contains("Unable to open"), "{version}: {error}");
        }
        fs::write(
            router.path("etc/bird.conf"),
            include.replace("filter moe_static { accept; }\n", ""),
        )
        .unwrap();
        assert!(
            committer.set_base(base()).await.unwrap().loaded,
            "{version}"
        );
        let after = committer.set_fragment("b", Some(fragment("b", ""))).await;
        assert!(after.unwrap().loaded, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bird_without_the_agents_include_is_detected() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc")).unwrap();
        let theirs = "router id 10.0.0.1;\nprotocol static theirs { ipv4; }\n";
        fs::write(router.path("etc/bird.conf"), theirs).unwrap();
        router.start().await;
        let committer = Committer::start(CommitterConfig {
            manage_main_config: false,
            ..router.config()
        });
        let error = committer.set_base(base()).await.unwrap_err();
        let BaseError::Commit(error) = error else {
            panic!("{version}: {error}")
        };
        let CommitError::Blocked(blocked) = &*error else {
            panic!("{version}: {error}")
        };
        assert!(
            blocked.action.contains("include \"moenet/main.conf\";"),
            "{version}: {blocked}"
        );
        let client = committer.client();
        assert_eq!(committer.counters().configures(), 0, "{version}");
        let rows = client.protocol_rows().await.unwrap();
        assert!(rows.iter().any(|row| row.name == "theirs"), "{version}");
        // The files are ready for the line that the message asks for.
        let include = format!("{theirs}include \"moenet/main.conf\";\n");
        fs::write(router.path("etc/bird.conf"), include).unwrap();
        assert!(
            committer.set_base(base()).await.unwrap().loaded,
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_main_file_is_never_replaced_and_its_protocols_stay() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc")).unwrap();
        let theirs = "router id 10.0.0.1;\nprotocol device {}\n\
                      protocol static theirs { ipv4; route 10.9.0.0/16 blackhole; }\n";
        fs::write(router.path("etc/bird.conf"), theirs).unwrap();
        router.start().await;
        let committer = router.committer();
        let before = committer.client().protocol_rows().await.unwrap();
        let (base, session) = tokio::join!(
            committer.set_base(base()),
            committer.set_fragment("a", Some(fragment("a", "")))
        );
        for error in [
            base.unwrap_err().to_string(),
            session.unwrap_err().to_string(),
        ] {
            assert!(error.contains("static theirs"), "{version}: {error}");
        }
        let read = || fs::read_to_string(router.path("etc/bird.conf")).unwrap();
        assert_eq!(
            (read().as_str(), committer.counters().configures()),
            (theirs, 0),
            "{version}"
        );
        assert_eq!(
            committer.client().protocol_rows().await.unwrap(),
            before,
            "{version}"
        );
        // The operator includes the agent's files: those of both are loaded, and the main file is still theirs.
        let include = theirs.replace("protocol device {}", "include \"moenet/main.conf\";");
        fs::write(router.path("etc/bird.conf"), &include).unwrap();
        assert!(committer.converge().await.unwrap().loaded, "{version}");
        let names = names(&committer).await;
        assert!(
            ["theirs", "moe_a"]
                .iter()
                .all(|name| names.contains(&(*name).into())),
            "{version}"
        );
        assert_eq!(read(), include, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distribution_file_is_taken_over_and_edits_kept() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc")).unwrap();
        let shipped = include_str!("../../../fixtures/bird-conf/debian-bird2-2.17.conf");
        fs::write(router.path("etc/bird.conf"), shipped).unwrap();
        router.start().await;
        let committer = router.committer();
        assert!(
            committer.set_base(base()).await.unwrap().loaded,
            "{version}"
        );
        let read = |name: &str| fs::read_to_string(router.path(name)).unwrap();
        assert_eq!(
            read("etc/bird.conf.before-moenet-agent"),
            shipped,
            "{version}"
        );
        assert!(
            read("etc/bird.conf").starts_with("# Written by moenet-agent"),
            "{version}"
        );
        // An edit of the agent's file is repaired, and its text is not lost.
        let edited = read("etc/moenet/main.conf") + "# by hand\n";
        fs::write(router.path("etc/moenet/main.conf"), &edited).unwrap();
        committer.set_base(base()).await.unwrap();
        assert!(
            !read("etc/moenet/main.conf").contains("by hand"),
            "{version}"
        );
        let copies = fs::read_dir(router.path("etc/moenet")).unwrap();
        let copies: Vec<_> = copies
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains(".edited-"))
            .collect();
        assert_eq!(copies.len(), 1, "{version}: {copies:?}");
        assert_eq!(fs::read_to_string(&copies[0]).unwrap(), edited, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_in_the_way_of_one_session_stops_no_other() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let file = router.path("etc/moenet/sessions/b.conf");
        let theirs = "protocol static mine { ipv4; }\n";
        fs::write(&file, theirs).unwrap();
        let (a, b) = tokio::join!(
            committer.set_fragment("a", Some(fragment("a", ""))),
            committer.set_fragment("b", Some(fragment("b", "")))
        );
        assert!(a.unwrap().loaded, "{version}");
        let error = b.unwrap_err().to_string();
        assert!(
            error.contains("sessions/b.conf was not written by the agent"),
            "{version}: {error}"
        );
        committer.set_fragment("b", None).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), theirs, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_kills_the_parser_never_reaches_the_daemon() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        let killer = fragment("k", &format!("description \"{}\";", "x".repeat(5000)));
        let (killer, good) = tokio::join!(
            committer.set_fragment("k", Some(killer)),
            committer.set_fragment("a", Some(fragment("a", "")))
        );
        assert!(
            matches!(killer, Err(FragmentError::Refused { .. })),
            "{version}: {killer:?}"
        );
        assert!(good.unwrap().loaded, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocols_are_reloaded_restarted_and_enabled_on_every_version() {
    for (version, full) in VERSIONS
        .into_iter()
        .zip(["2.0.12", "2.17.6", "2.20.0", "3.1.8", "3.4.0"])
    {
        let (_router, committer) = Router::running(version).await;
        let client = committer.client();
        let name = || BirdName::new("moe_static").unwrap();
        assert_eq!(client.version().await.unwrap().to_string(), full);
        let checker = Checker::new(bird(version), Duration::from_secs(5), Default::default());
        assert_eq!(checker.version().await.unwrap().to_string(), full);
        client.reload_in(name()).await.unwrap();
        client.restart(name()).await.unwrap();
        assert!(!client.enable(name()).await.unwrap());
        let unknown = client
            .restart(BirdName::new("all").unwrap())
            .await
            .unwrap_err();
        assert!(
            matches!(unknown, BirdError::Refused { code: 8003, .. }),
            "{version}: {unknown}"
        );
        assert_eq!(
            (client.counters().actions(), client.counters().configures()),
            (4, 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_read_with_restricted_access_on_every_version() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        let routes = async |net: &str| {
            let lines = committer.client().routes_to(net.parse().unwrap()).await;
            lines.unwrap_or_else(|error| panic!("{version}: {error}"))
        };
        eventually("the route is there", async || {
            !routes("10.1.0.0/24").await.is_empty()
        })
        .await;
        for net in ["10.1.0.0/24", "10.1.0.7/32"] {
            let lines = routes(net).await.join("\n");
            assert!(lines.contains("10.1.0.0/24"), "{version} {net}: {lines}");
        }
        for net in ["10.2.0.0/24", "fd00::1/128"] {
            let lines = routes(net).await.join("\n");
            assert!(!lines.contains("moe_static"), "{version} {net}: {lines}");
        }
    }
}

/// A daemon that does not restrict the access is asked for nothing.
#[tokio::test]
async fn routes_are_not_read_without_restricted_access() {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("bird.ctl");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let daemon = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.split();
        write.write_all(b"0001 BIRD 2.17.6 ready.\n").await.unwrap();
        let mut lines = BufReader::new(read).lines();
        let first = lines.next_line().await.unwrap();
        write.write_all(b"9001 syntax error\n").await.unwrap();
        (first, lines.next_line().await.unwrap())
    });
    let client = Client::new(&socket);
    let refused = client.routes_to("10.1.0.0/24".parse().unwrap()).await;
    assert!(matches!(
        refused,
        Err(BirdError::Refused { code: 9001, .. })
    ));
    assert_eq!(daemon.await.unwrap(), (Some("restrict".to_owned()), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_bird_hits_the_deadline_and_changes_no_file() {
    let router = Router::new("2.0.12");
    let (silent, greeted) = (router.path("silent"), router.socket());
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let start = Instant::now();
    let client = Client::new(&silent).with_deadline(Duration::from_millis(200));
    assert!(matches!(
        client.version().await,
        Err(BirdError::Timeout { .. })
    ));

    let listener = tokio::net::UnixListener::bind(&greeted).unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"0001 BIRD 3.4.0 ready.\n")
                .await
                .unwrap();
            held.push(stream);
        }
    });
    let client = Client::new(&greeted).with_deadline(Duration::from_millis(200));
    let committer = Committer::with_client(router.config(), client);
    let error = committer.set_base(base()).await.unwrap_err();
    let BaseError::Commit(error) = error else {
        panic!("{error}")
    };
    assert!(
        matches!(*error, CommitError::Bird(BirdError::Timeout { .. })),
        "{error}"
    );
    assert_eq!(done(committer.counters()), (0, 0, 0));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(
        Client::new(router.path("none"))
            .version()
            .await
            .unwrap_err()
            .is_not_running()
    );
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_before_anything_happens() {
    let committer = Committer::start(CommitterConfig {
        directory: Path::new("/nonexistent").into(),
        ..Default::default()
    });
    assert!(matches!(
        committer.set_fragment("../x", None).await,
        Err(FragmentError::Name(_))
    ));
    let files = [("/etc/passwd".to_owned(), "".into())].into();
    assert!(matches!(
        committer.set_base(files).await,
        Err(BaseError::Path(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_main_file_is_not_replaced_while_its_sessions_run() {
    for version in VERSIONS {
        let mut router = Router::new(version);
        fs::create_dir_all(router.path("etc")).unwrap();
        let theirs = "router id 10.0.0.1;\nprotocol device {}\n\
                      protocol bgp theirs { local 127.0.0.1 as 1; neighbor 127.0.0.2 as 2; ipv4 { import none; export none; }; }\n";
        let path = router.path("etc/bird.conf");
        fs::write(&path, theirs).unwrap();
        router.start().await;
        let committer = router.committer();
        let before = committer.client().protocol_rows().await.unwrap();
        // Moved away, or replaced by what a distribution ships.
        for found in [None, Some(""), Some("protocol device {}\n")] {
            match found {
                None => fs::remove_file(&path).unwrap(),
                Some(text) => fs::write(&path, text).unwrap(),
            }
            let live = committer.live().await.unwrap();
            let problem = live.blocked([].into_iter()).unwrap();
            assert_eq!(problem.reason, "ForeignMainConfig", "{version}");
            let (base, session) = tokio::join!(
                committer.set_base(base()),
                committer.set_fragment("a", Some(fragment("a", "")))
            );
            for error in [
                base.unwrap_err().to_string(),
                session.unwrap_err().to_string(),
            ] {
                assert!(error.contains("bgp theirs"), "{version}: {error}");
                assert!(error.contains("or stop BIRD"), "{version}: {error}");
            }
            assert_eq!(
                fs::read_to_string(&path).ok().as_deref(),
                found,
                "{version}"
            );
            assert!(!router.path("etc/moenet").exists(), "{version}");
        }
        let after = committer.client().protocol_rows().await.unwrap();
        let names = |rows: &[moenet_agent::observed::bird::Protocol]| {
            rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before), "{version}");
        assert_eq!(committer.counters().configures(), 0, "{version}");
        // BIRD that does not run has nothing to lose.
        fs::remove_file(&path).unwrap();
        router.kill();
        committer.set_base(base()).await.unwrap();
        assert!(path.exists(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_main_file_of_the_agent_is_written_again() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let kept = fragment("kept", "");
        committer.set_fragment("kept", Some(kept)).await.unwrap();
        for name in ["etc/bird.conf", "etc/moenet/sessions/kept.conf"] {
            fs::remove_file(router.path(name)).unwrap();
        }
        committer.set_base(base()).await.unwrap();
        assert!(router.path("etc/bird.conf").exists(), "{version}");
    }
}
