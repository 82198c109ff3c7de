//! Texts that BIRD rejects, and files that it did not load.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_defined_twice_is_the_newcomers_fault() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        committer
            .set_fragment("b", Some(fragment("x", "")))
            .await
            .unwrap();
        // "a" is read before "b", so BIRD reports the one that was there first.
        let (twice, other) = tokio::join!(
            committer.set_fragment("a", Some(fragment("x", ""))),
            committer.set_fragment("c", Some(fragment("c", "")))
        );
        let Err(FragmentError::Refused { what, .. }) = twice else {
            panic!("{version}: {twice:?}")
        };
        assert!(
            what.message.contains("already defined"),
            "{version}: {what}"
        );
        assert!(other.unwrap().loaded, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_base_is_refused_and_the_old_one_stays() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let mut bad = base();
        let main = bad.get_mut("moenet/main.conf").unwrap();
        *main = format!("{main}nonsense;\n").into();
        let (bad, good) = tokio::join!(
            committer.set_base(bad),
            committer.set_fragment("a", Some(fragment("a", "")))
        );
        let Err(BaseError::Refused { what }) = bad else {
            panic!("{version}: {bad:?}")
        };
        assert_eq!(
            what.file.as_deref(),
            router.path("etc/moenet/main.conf").to_str(),
            "{version}"
        );
        assert!(good.unwrap().loaded, "{version}");
        assert_eq!(
            committer.live().await.unwrap().tree.base,
            base(),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_without_its_protocol_is_never_loaded() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let liar = Fragment {
            protocols: vec!["moe_other".into()],
            ..fragment("liar", "")
        };
        let (liar, honest) = tokio::join!(
            committer.set_fragment("liar", Some(liar)),
            committer.set_fragment("honest", Some(fragment("honest", "")))
        );
        let Err(FragmentError::Undefined { missing, .. }) = liar else {
            panic!("{version}: {liar:?}")
        };
        assert_eq!(missing, ["moe_other"]);
        assert!(honest.unwrap().loaded, "{version}");
        let names = names(&committer).await;
        assert!(
            names.contains(&"moe_honest".into()) && !names.contains(&"moe_liar".into()),
            "{version}: {names:?}"
        );
        assert!(!router.path("etc/moenet/sessions/liar.conf").exists());
        assert_eq!(committer.counters().configures(), 1, "{version}");
        for text in ["", "# nothing but a remark\n"] {
            let emptied = Fragment {
                text: text.into(),
                ..fragment("honest", "")
            };
            let refused = committer.set_fragment("honest", Some(emptied)).await;
            assert!(
                matches!(refused, Err(FragmentError::Undefined { .. })),
                "{version}: {refused:?}"
            );
        }
        let before = done(committer.counters());
        assert!(committer.converge().await.unwrap().loaded);
        assert_eq!(done(committer.counters()), before, "{version}");
        assert_eq!(committer.counters().configures(), 1, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base_that_includes_too_little_is_never_loaded() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap();
        let without = |path: &str, line: &str| {
            let mut files = base();
            let text = files.get_mut(path).unwrap();
            *text = text.replace(line, "").into();
            files
        };
        let generation = "include \"generation.conf\";\n";
        for files in [
            without("bird.conf", "include \"moenet/main.conf\";\n"),
            without("moenet/main.conf", generation),
            without("moenet/main.conf", "include \"sessions/*.conf\";\n"),
        ] {
            let refused = committer.set_base(files).await;
            assert!(
                matches!(refused, Err(BaseError::Incomplete { .. })),
                "{version}: {refused:?}"
            );
        }
        assert_eq!(committer.counters().configures(), 1, "{version}");
        assert_eq!(
            committer.live().await.unwrap().tree.base,
            base(),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_were_not_loaded_are_found_out_and_loaded() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap();
        // As after a death between the rename and `configure`.
        fs::write(
            router.path("etc/moenet/sessions/b.conf"),
            marked(&fragment("b", "").text, None),
        )
        .unwrap();
        let committer = router.committer();
        let done = committer.converge().await.unwrap();
        assert!(done.loaded && done.changed, "{version}");
        assert_eq!(committer.counters().configures(), 1, "{version}");
        assert!(
            names(&committer).await.contains(&"moe_b".to_owned()),
            "{version}"
        );
        // And with the generation written too, but not loaded.
        let mut files = committer.live().await.unwrap().tree.clone();
        files.fragments.insert("c".into(), fragment("c", "").text);
        fs::write(
            router.path("etc/moenet/sessions/c.conf"),
            marked(&fragment("c", "").text, None),
        )
        .unwrap();
        let generation = format!("define MOE_GENERATION = \"{}\";\n", files.generation());
        fs::write(
            router.path("etc/moenet/generation.conf"),
            marked(&generation, None),
        )
        .unwrap();
        committer.converge().await.unwrap();
        assert_eq!(committer.counters().configures(), 2, "{version}");
        assert!(
            names(&committer).await.contains(&"moe_c".to_owned()),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_or_restarted_bird_loads_the_files_on_disk() {
    for version in VERSIONS {
        let (mut router, committer) = Router::running(version).await;
        router.kill();
        let done = committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap();
        assert!(!done.loaded && done.changed, "{version}");
        assert!(!committer.converge().await.unwrap().loaded, "{version}");
        router.start().await;
        assert!(committer.converge().await.unwrap().loaded, "{version}");
        assert_eq!(
            committer.counters().configures(),
            0,
            "{version}: it read the files at its start"
        );
        assert!(
            names(&committer).await.contains(&"moe_a".to_owned()),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconfirmed_configuration_is_loaded_again_and_confirmed() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        // As after a death between `configure timeout` and `configure confirm`.
        let command = moenet_agent::bird::Command::Configure {
            timeout: Duration::from_secs(60),
        };
        Client::new(router.socket()).run(&command).await.unwrap();
        assert!(committer.converge().await.unwrap().loaded);
        assert_eq!(committer.counters().configures(), 1, "{version}");
        assert_eq!(
            committer.client().configure_status().await.unwrap().undo_in,
            None,
            "{version}"
        );
    }
}

/// A fragment that is faulty in one of ten ways.
fn faulty(name: &str, way: usize) -> Fragment {
    let good = fragment(name, "");
    let text = match way {
        0 => good.text.replace("disabled;", "nonsense;"),
        1 => good.text.replace(" }; }\n", " };\n"),
        2 => good.text.replace("import all", "import filter moe_missing"),
        3 => good.text.replace(&format!("moe_{name} "), "moe_static "),
        4 => format!("define X = \"{}\n", good.text),
        5 => good.text.replace("as 65001", "as 99999999999"),
        6 => good.text.replace("from", "").replace("bgp", "bgpp"),
        7 => format!("{}\n}}\n", good.text),
        8 => format!("# {}", good.text),
        _ => String::new(),
    };
    let text = text.into();
    Fragment { text, ..good }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_faulty_fragments_do_not_delay_the_others() {
    for version in ["2.17", "3.4"] {
        let (router, _) = Router::running(version).await;
        let committer = Committer::start(CommitterConfig {
            gather: Duration::from_secs(1),
            ..router.config()
        });
        let set = |i: usize| {
            let (committer, name) = (committer.clone(), format!("s{i:03}"));
            let text = match i % 10 {
                5 => faulty(&name, i / 10 % 10),
                _ => fragment(&name, ""),
            };
            async move { committer.set_fragment(&name, Some(text)).await }
        };
        let start = Instant::now();
        let results = futures::future::join_all((0..1000).map(set)).await;
        for (i, result) in results.iter().enumerate() {
            match i % 10 {
                5 => assert!(
                    matches!(
                        result,
                        Err(FragmentError::Refused { .. } | FragmentError::Undefined { .. })
                    ),
                    "{version}: {i} {result:?}"
                ),
                _ => assert!(result.is_ok(), "{version}: {i} {result:?}"),
            }
        }
        let (reloads, _, checks) = done(committer.counters());
        assert_eq!(reloads, 1, "{version}");
        println!("{version}: {checks} checks in {:?}", start.elapsed());
        // At most three for each fault, one for each group, and a few of all files.
        assert!(checks < 400, "{version}: {checks} checks");
    }
}
