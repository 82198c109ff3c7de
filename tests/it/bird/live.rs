//! The committer against real daemons of five versions.
//!
//! The daemons are looked for in `$MOENET_BIRDS` (default `~/.cache/birds`), one directory a
//! version, each with an executable `bird`. They need no network but the loopback.

mod files;
mod many;
mod rejected;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use moenet_agent::bird::{BirdCounters, Checker, Client, Committer, CommitterConfig};
use moenet_agent::observed::bird::mark::marked;
use moenet_agent::observed::bird::{BirdName, Phase, ProtocolState, Symbol, Texts};
use moenet_agent::ports::{BaseError, BirdError, CommitError, Committed, Fragment, FragmentError};

pub(super) const VERSIONS: [&str; 5] = ["2.0.12", "2.17", "2.20", "3.1", "3.4"];

/// The program of a version. A missing one fails the test: a live test that cannot run says so.
fn bird(version: &str) -> PathBuf {
    let home = || {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
            .join(".cache/birds")
    };
    let root = std::env::var_os("MOENET_BIRDS").map_or_else(home, PathBuf::from);
    let program = root.join(version).join("bird");
    assert!(
        program.exists(),
        "{} is missing: fetch the Debian packages bird2 2.0.12, 2.17, 2.20 and bird3 3.1, 3.4, unpack each into \
         $MOENET_BIRDS/<version>/, and put a wrapper named `bird` beside it",
        program.display()
    );
    program
}

/// A port of 127.0.0.x for one BGP session.
fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    20_000 + (std::process::id() % 20_000) as u16 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A directory with a configuration, and perhaps a daemon that is killed with it.
pub(super) struct Router {
    directory: tempfile::TempDir,
    program: PathBuf,
    daemon: Option<Child>,
}

impl Router {
    fn new(version: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            program: bird(version),
            daemon: None,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path("bird.ctl")
    }

    pub(super) fn config(&self) -> CommitterConfig {
        CommitterConfig {
            directory: self.path("etc"),
            control_socket: self.socket(),
            bird_binary: self.program.clone(),
            confirm_timeout: Duration::from_secs(10),
            gather: Duration::from_millis(50),
            ..CommitterConfig::default()
        }
    }

    fn committer(&self) -> Committer {
        Committer::start(self.config())
    }

    async fn start(&mut self) {
        let mut daemon = Command::new(&self.program);
        daemon
            .arg("-f")
            .arg("-c")
            .arg(self.path("etc/bird.conf"))
            .arg("-s")
            .arg(self.socket())
            .arg("-P")
            .arg(self.path("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.daemon = Some(daemon.spawn().unwrap());
        let client = Client::new(self.socket());
        eventually("the daemon answers", async || {
            client.version().await.is_ok()
        })
        .await;
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// A router whose daemon runs the base.
    pub(super) async fn running(version: &str) -> (Self, Committer) {
        let mut router = Self::new(version);
        let committer = router.committer();
        assert!(!committer.set_base(base()).await.unwrap().loaded);
        router.start().await;
        (router, committer)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not within 20 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With BFD, for with it every `configure` of BIRD 3 is asynchronous, even an unchanged one.
fn base() -> Texts {
    let main = "include \"generation.conf\";\nrouter id 10.0.0.1;\ntimeformat protocol \"%s\";\n\
                protocol device { }\nprotocol bfd moe_bfd { }\nprotocol static moe_static { ipv4; route 10.1.0.0/24 blackhole; }\n\
                include \"sessions/*.conf\";\n";
    [
        ("bird.conf", "include \"moenet/main.conf\";\n"),
        ("moenet/main.conf", main),
    ]
    .map(|(path, text)| (path.to_owned(), text.into()))
    .into()
}

pub(super) fn fragment(name: &str, extra: &str) -> Fragment {
    let text = format!(
        "protocol bgp moe_{name} {{ {extra} disabled; local 127.0.0.1 as 65001; neighbor 127.0.0.9 as 65002; \
         multihop; ipv4 {{ import all; export none; }}; }}\n"
    );
    Fragment {
        text: text.into(),
        protocols: vec![format!("moe_{name}")],
    }
}

/// One end of a session over the loopback.
fn session(name: &str, ours: u8, theirs: u8, port: u16) -> Fragment {
    let text = format!(
        "protocol bgp {name} {{ connect delay time 1; connect retry time 1; error wait time 1, 2; \
         local 127.0.0.{ours} port {port} as 6500{ours}; neighbor 127.0.0.{theirs} port {port} as 6500{theirs}; \
         strict bind on; multihop; ipv4 {{ import all; export all; }}; }}\n"
    );
    Fragment {
        text: text.into(),
        protocols: vec![name.to_owned()],
    }
}

pub(super) fn done(counters: &BirdCounters) -> (u64, u64, u64) {
    (counters.configures(), counters.writes(), counters.checks())
}

pub(super) async fn names(committer: &Committer) -> Vec<String> {
    committer
        .client()
        .protocol_rows()
        .await
        .unwrap()
        .into_iter()
        .map(|protocol| protocol.name)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_loaded_and_the_same_again_does_nothing() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        assert!(
            committer.converge().await.unwrap().loaded,
            "{version}: the daemon read the files at its start"
        );
        assert_eq!(committer.counters().configures(), 0, "{version}");
        let first = committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap();
        assert!(first.loaded && first.changed, "{version}");
        let before = done(committer.counters());
        assert_eq!(before.0, 1, "{version}");

        let again = committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap();
        assert_eq!(
            again,
            Committed {
                changed: false,
                warnings: vec![],
                ..first
            },
            "{version}"
        );
        committer.set_base(base()).await.unwrap();
        committer.converge().await.unwrap();
        assert_eq!(done(committer.counters()), before, "{version}");
        let status = committer.client().configure_status().await.unwrap();
        assert_eq!(
            (status.phase, status.undo_in),
            (Phase::Settled, None),
            "{version}: confirmed"
        );
        assert!(!router.path("etc/.moenet-stage").exists());

        std::fs::create_dir(router.path("etc/.moenet-trial")).unwrap();
        let live = committer.live().await.unwrap();
        assert!(
            !router.path("etc/.moenet-trial").exists(),
            "{version}: left by an agent that was killed"
        );
        assert_eq!(live.tree.base, base());
        assert_eq!(live.tree.fragments["a"], fragment("a", "").text);
        committer.set_fragment("a", None).await.unwrap();
        assert!(
            !names(&committer).await.contains(&"moe_a".to_owned()),
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_fragment_is_rejected_and_the_rest_loaded() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let tasks = (0..10).map(|i| {
            let committer = committer.clone();
            let extra = if i == 3 { "\n  nonsense;" } else { "" };
            let fragment = fragment(&format!("s{i}"), extra);
            async move {
                committer
                    .set_fragment(&format!("s{i}"), Some(fragment))
                    .await
            }
        });
        let results = futures::future::join_all(tasks).await;
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), i != 3, "{version}: {result:?}");
        }
        let Err(FragmentError::Refused { what, .. }) = &results[3] else {
            panic!("{version}: {:?}", results[3])
        };
        let file = router.path("etc/moenet/sessions/s3.conf");
        assert_eq!(
            (what.file.as_deref(), what.line),
            (file.to_str(), Some(3)),
            "{version}"
        );
        assert!(
            what.message.contains("syntax error") && what.column.is_some(),
            "{version}: {what}"
        );
        assert_eq!(committer.counters().configures(), 1, "{version}");
        assert_eq!(
            names(&committer)
                .await
                .iter()
                .filter(|name| name.starts_with("moe_s"))
                .count(),
            10,
            "{version}"
        );
        assert!(!file.exists());

        let before = done(committer.counters());
        let again = committer
            .set_fragment("s3", Some(fragment("s3", "\n  nonsense;")))
            .await;
        assert!(
            matches!(again, Err(FragmentError::Refused { .. })),
            "{version}"
        );
        assert_eq!(
            done(committer.counters()),
            before,
            "{version}: a refusal is remembered"
        );
        let worse = committer
            .set_fragment("s4", Some(fragment("s4", "nonsense;")))
            .await;
        assert!(worse.is_err());
        assert_eq!(
            committer.live().await.unwrap().tree.fragments["s4"],
            fragment("s4", "").text,
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_established_session_survives_the_commits_of_others() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        let (_neighbour, other) = Router::running(version).await;
        let port = port();
        committer
            .set_fragment("live", Some(session("moe_live", 1, 2, port)))
            .await
            .unwrap();
        other
            .set_fragment("live", Some(session("moe_live", 2, 1, port)))
            .await
            .unwrap();
        let live = async || {
            let protocols = committer.client().protocols().await.unwrap();
            let mut named = protocols.iter().filter(|it| it.name == "moe_live");
            named.next().cloned().unwrap()
        };
        eventually(&format!("{version}: established"), async || {
            live().await.is_established()
        })
        .await;
        let since = live().await.since.expect("epoch seconds");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        for i in 0..3 {
            let name = format!("s{i}");
            assert!(
                committer
                    .set_fragment(&name, Some(fragment(&name, "")))
                    .await
                    .unwrap()
                    .loaded,
                "{version}"
            );
        }
        // The generation changed with each commit, and the session did not so much as blink.
        assert!(live().await.is_established(), "{version}");
        assert_eq!(live().await.since, Some(since), "{version}");
        let routes = live().await.channels[0].routes.unwrap();
        assert_eq!(routes.exported, 1, "{version}");
        // Removing it is no session that went down by surprise.
        committer.set_fragment("live", None).await.unwrap();
        assert_eq!(committer.counters().configures(), 5, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_takes_an_unchanged_session_down_is_undone() {
    for version in VERSIONS {
        let (_router, committer) = Router::running(version).await;
        let (_neighbour, other) = Router::running(version).await;
        let port = port();
        let shared = |hold: u16| Fragment {
            text: format!(
                "template bgp moe_shared {{ hold time {hold}; connect delay time 1; }}\n"
            )
            .into(),
            protocols: vec![],
        };
        let live = session("moe_live", 1, 2, port);
        let live = Fragment {
            text: live
                .text
                .replace("moe_live {", "moe_live from moe_shared {")
                .into(),
            ..live
        };
        // "a_shared" is read before "live", which uses it.
        let (first, second) = tokio::join!(
            committer.set_fragment("a_shared", Some(shared(240))),
            committer.set_fragment("live", Some(live))
        );
        assert!(
            first.is_ok() && second.is_ok(),
            "{version}: {first:?} {second:?}"
        );
        other
            .set_fragment("live", Some(session("moe_live", 2, 1, port)))
            .await
            .unwrap();
        let established = async || {
            committer
                .client()
                .protocol_rows()
                .await
                .unwrap()
                .iter()
                .any(|protocol| protocol.is_established())
        };
        eventually(&format!("{version}: established"), &established).await;
        // The shared files go with every session; unchanged, they do not excuse it.
        let (_, error) = tokio::join!(
            committer.set_base(base()),
            committer.set_fragment("a_shared", Some(shared(90)))
        );
        let error = error.unwrap_err();
        let FragmentError::Commit(error) = error else {
            panic!("{version}: {error}")
        };
        let CommitError::WentDown(names) = &*error else {
            panic!("{version}: {error}")
        };
        assert_eq!(names, &["moe_live"], "{version}");
        let files = committer.live().await.unwrap().tree.clone();
        assert_eq!(files.fragments["a_shared"], shared(240).text, "{version}");
        let generation = committer
            .client()
            .eval(Symbol::new("MOE_GENERATION").unwrap())
            .await
            .unwrap();
        assert_eq!(
            generation,
            Some(files.generation()),
            "{version}: BIRD runs the files on disk"
        );
        eventually(&format!("{version}: established again"), &established).await;
        // The same again would take it down again.
        let loads = committer.counters().configures();
        let again = committer
            .set_fragment("a_shared", Some(shared(90)))
            .await
            .unwrap_err();
        assert!(again.to_string().contains("moe_live"), "{version}: {again}");
        assert_eq!(committer.counters().configures(), loads, "{version}");
        assert!(established().await, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_of_one_session_loads_no_edit_of_another() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        let kept = fragment("kept", "");
        committer
            .set_fragment("kept", Some(kept.clone()))
            .await
            .unwrap();
        let file = router.path("etc/moenet/sessions/kept.conf");
        let mark = fs::read_to_string(&file).unwrap();
        let mark = mark.lines().next().unwrap().to_owned();
        for (number, edit) in [None, Some(String::new()), Some(mark + "\n")]
            .into_iter()
            .enumerate()
        {
            match &edit {
                None => fs::remove_file(&file).unwrap(),
                Some(text) => fs::write(&file, text).unwrap(),
            }
            let name = format!("b{number}");
            let (base, other) = tokio::join!(
                committer.set_base(base()),
                committer.set_fragment(&name, Some(fragment(&name, "")))
            );
            assert!(base.is_ok() && other.unwrap().loaded, "{version} {edit:?}");
            assert!(
                names(&committer).await.contains(&"moe_kept".into()),
                "{version}: the session went down with {edit:?} in its file"
            );
            let files = committer.live().await.unwrap();
            assert_eq!(files.tree.fragments["kept"], kept.text, "{version}");
            assert!(files.edited.is_empty(), "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_fragment_is_dropped_only_when_bird_cannot_start() {
    for version in VERSIONS {
        let (mut router, committer) = Router::running(version).await;
        committer
            .set_fragment("old", Some(fragment("old", "")))
            .await
            .unwrap();
        fs::write(router.path("etc/moenet/sessions/old.conf"), "nonsense;\n").unwrap();
        // One that does not know what was in the file.
        let committer = Committer::start(router.config());
        let blocked = committer
            .set_fragment("a", Some(fragment("a", "")))
            .await
            .unwrap_err();
        let FragmentError::Commit(error) = blocked else {
            panic!("{version}: {blocked}")
        };
        assert!(matches!(*error, CommitError::Tree(_)), "{version}: {error}");
        assert!(
            names(&committer).await.contains(&"moe_old".into()),
            "{version}"
        );

        router.kill();
        assert!(
            committer
                .set_fragment("a", Some(fragment("a", "")))
                .await
                .unwrap()
                .changed,
            "{version}"
        );
        let files = committer.live().await.unwrap().tree.fragments.clone();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a"], "{version}");
        router.start().await;
        assert!(committer.converge().await.unwrap().loaded, "{version}");
        // Its session comes back as soon as somebody wants it.
        assert!(
            committer
                .set_fragment("old", Some(fragment("old", "")))
                .await
                .unwrap()
                .loaded,
            "{version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_fragment_is_quarantined_and_rewritten() {
    for version in VERSIONS {
        let (router, committer) = Router::running(version).await;
        committer
            .set_fragment("old", Some(fragment("old", "")))
            .await
            .unwrap();
        let path = router.path("etc/moenet/sessions/old.conf");
        let before = fs::read_to_string(&path).unwrap();
        // It ends in the middle of a statement, so BIRD blames the file after it.
        let broken = "protocol static nonsense {";
        fs::write(&path, broken).unwrap();
        let done = committer.set_fragment("zz", Some(fragment("zz", ""))).await;
        assert!(done.unwrap().loaded, "{version}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before, "{version}");
        let kept = fs::read_to_string(router.path("etc/moenet/sessions/old.conf.broken"));
        assert_eq!(kept.unwrap(), broken, "{version}");
        let names = names(&committer).await;
        assert!(names.contains(&"moe_old".into()), "{version}: {names:?}");
    }
}
