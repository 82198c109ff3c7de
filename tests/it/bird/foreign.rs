//! Files of other programs among the agent's, and a BIRD that does not settle, with real daemons.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::live::{Router, VERSIONS, done, eventually, fragment, names};
use moenet_agent::bird::{Client, Committer, CommitterConfig};
use moenet_agent::ports::{CommitError, FragmentError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

const VALID: &str = "protocol static stranger { ipv4; route 10.99.0.0/24 blackhole; }\n";
const BROKEN: &str = "protocol static stranger { ipv4; route 10.99";

fn file(router: &Router, name: &str) -> PathBuf {
    router.path("etc/moenet").join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_of_another_program_is_judged_without_a_load() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let kept = committer.set_fragment("kept", Some(fragment("kept", "")));
        assert!(kept.await.unwrap().loaded, "{version}");
        let (configures, writes, checks) = done(committer.counters());
        let judged = async |above: u64| {
            eventually("the foreign files are judged", async || {
                committer.live().await.unwrap();
                committer.counters().checks() > above
            })
            .await;
        };
        fs::write(file(&router, "sessions/stranger.conf"), VALID).unwrap();
        // BIRD does not read this one.
        fs::write(file(&router, "extra.conf"), BROKEN).unwrap();
        judged(checks).await;
        let checks = committer.counters().checks();
        for _ in 0..3 {
            let live = committer.live().await.unwrap();
            assert_eq!(live.tree.foreign.len(), 2, "{version}");
        }
        // The judge is through with what it was asked before.
        committer.converge().await.unwrap();
        assert!(
            committer.counters().checks() <= checks + 1,
            "{version}: judged again"
        );

        fs::write(file(&router, "sessions/broken.conf"), BROKEN).unwrap();
        eventually("the broken file is quarantined", async || {
            committer.live().await.unwrap();
            file(&router, "sessions/broken.conf.broken").exists()
        })
        .await;
        assert_eq!(
            fs::read_to_string(file(&router, "extra.conf")).unwrap(),
            BROKEN
        );
        let valid = fs::read_to_string(file(&router, "sessions/stranger.conf"));
        assert_eq!(valid.unwrap(), VALID, "{version}");
        assert_eq!(committer.counters().configures(), configures, "{version}");
        assert_eq!(committer.counters().writes(), writes, "{version}");
        assert!(
            !names(&committer).await.contains(&"stranger".into()),
            "{version}"
        );

        let next = committer.set_fragment("next", Some(fragment("next", "")));
        assert!(next.await.unwrap().loaded, "{version}");
        assert!(
            names(&committer).await.contains(&"stranger".into()),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_written_file_of_another_program_may_be_completed() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let path = file(&router, "sessions/stranger.conf");
        fs::write(&path, BROKEN).unwrap();
        let checks = committer.counters().checks();
        committer.live().await.unwrap();
        eventually("the half file is checked", async || {
            committer.counters().checks() > checks
        })
        .await;
        fs::write(&path, VALID).unwrap();
        let done = committer.set_fragment("zz", Some(fragment("zz", ""))).await;
        assert!(done.unwrap().loaded, "{version}");
        assert_eq!(fs::read_to_string(&path).unwrap(), VALID, "{version}");
        assert!(
            !file(&router, "sessions/stranger.conf.broken").exists(),
            "{version}"
        );
        assert!(
            names(&committer).await.contains(&"stranger".into()),
            "{version}"
        );
    }
}

/// Relays BIRD's control socket. Once BIRD has been told to load, and while `busy`, it says that it is not done.
fn relay(router: &Router, busy: &Arc<AtomicBool>) -> PathBuf {
    let (path, real) = (router.path("relay"), router.socket());
    let listener = UnixListener::bind(&path).unwrap();
    let (busy, loading) = (Arc::clone(busy), Arc::new(AtomicBool::new(false)));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (busy, loading) = (Arc::clone(&busy), Arc::clone(&loading));
            let bird = UnixStream::connect(&real).await.unwrap();
            tokio::spawn(relay_one(client, bird, busy, loading));
        }
    });
    path
}

async fn relay_one(
    client: UnixStream,
    bird: UnixStream,
    busy: Arc<AtomicBool>,
    loading: Arc<AtomicBool>,
) -> std::io::Result<()> {
    let (commands, mut replies) = client.into_split();
    let (mut from_bird, mut to_bird) = bird.into_split();
    let mut commands = BufReader::new(commands).lines();
    let mut buffer = vec![0; 65536];
    loop {
        tokio::select! {
            read = from_bird.read(&mut buffer) => match read? {
                0 => return Ok(()),
                length => replies.write_all(&buffer[..length]).await?,
            },
            line = commands.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                if line.starts_with("configure timeout") || line.starts_with("configure \"") {
                    loading.store(true, Ordering::SeqCst);
                }
                let pretends = busy.load(Ordering::SeqCst) && loading.load(Ordering::SeqCst);
                if line == "configure status" && pretends {
                    replies.write_all(b"0004 Reconfiguration in progress\n").await?;
                } else {
                    to_bird.write_all(format!("{line}\n").as_bytes()).await?;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsettled_commit_is_known_to_the_next_one() {
    for version in VERSIONS {
        let (router, first) = Router::running(version).await;
        for name in ["changed", "removed"] {
            let set = first.set_fragment(name, Some(fragment(name, "")));
            assert!(set.await.unwrap().loaded, "{version}");
        }
        let busy = Arc::new(AtomicBool::new(true));
        let config = CommitterConfig {
            confirm_timeout: Duration::from_secs(2),
            ..router.config()
        };
        let client = Client::new(relay(&router, &busy));
        let committer = Committer::with_client(config, client);
        let changed = fragment("changed", "hold time 77;");
        let (set, removed) = tokio::join!(
            committer.set_fragment("changed", Some(changed.clone())),
            committer.set_fragment("removed", None)
        );
        for outcome in [set, removed] {
            let Err(FragmentError::Commit(error)) = outcome else {
                panic!("{version}: {outcome:?}")
            };
            assert!(
                matches!(*error, CommitError::NotSettled(_)),
                "{version}: {error}"
            );
        }

        busy.store(false, Ordering::SeqCst);
        let next = committer.set_fragment("next", Some(fragment("next", "")));
        assert!(next.await.unwrap().loaded, "{version}");
        let live = committer.live().await.unwrap();
        assert_eq!(live.tree.fragments["changed"], changed.text, "{version}");
        let kept: BTreeSet<_> = live.tree.fragments.keys().map(String::as_str).collect();
        assert_eq!(
            kept,
            ["changed", "next"].into(),
            "{version}: a removed file came back"
        );
        assert!(
            live.edited.is_empty() && live.quarantined.is_empty(),
            "{version}"
        );
        let files = fs::read_dir(file(&router, "sessions")).unwrap().count();
        assert_eq!(
            files, 2,
            "{version}: the agent's own file was copied as an edit"
        );
        let names = names(&committer).await;
        assert!(
            !names.contains(&"moe_removed".into()),
            "{version}: {names:?}"
        );
    }
}
