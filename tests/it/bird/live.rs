//! The committer against real daemons of five versions.
//!
//! The daemons are looked for in `$MOENET_BIRDS` (default `~/.cache/birds`), one directory a
//! version, each with an executable `bird`. They need no network but the loopback.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use moenet_agent::bird::{BirdCounters, Checker, Client, Committer, CommitterConfig};
use moenet_agent::observed::bird::mark::marked;
use moenet_agent::observed::bird::{BirdName, Phase, Symbol};
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
fn base() -> BTreeMap<String, String> {
    let main = "include \"generation.conf\";\nrouter id 10.0.0.1;\ntimeformat protocol \"%s\";\n\
                protocol device { }\nprotocol bfd moe_bfd { }\nprotocol static moe_static { ipv4; route 10.1.0.0/24 blackhole; }\n\
                include \"sessions/*.conf\";\n";
    [
        ("bird.conf", "include \"moenet/main.conf\";\n"),
        ("moenet/main.conf", main),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into()
}

pub(super) fn fragment(name: &str, extra: &str) -> Fragment {
    let text = format!(
        "protocol bgp moe_{name} {{ {extra} disabled; local 127.0.0.1 as 65001; neighbor 127.0.0.9 as 65002; \
         multihop; ipv4 {{ import all; export none; }}; }}\n"
    );
    Fragment {
        text,
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
        text,
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

        let live = committer.live().await.unwrap();
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
        bad.get_mut("moenet/main.conf")
            .unwrap()
            .push_str("nonsense;\n");
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
                text: text.to_owned(),
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
            *text = text.replace(line, "");
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
        let mut files = committer.live().await.unwrap().tree;
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
            protocols
                .into_iter()
                .find(|protocol| protocol.name == "moe_live")
                .unwrap()
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
            ),
            protocols: vec![],
        };
        let live = session("moe_live", 1, 2, port);
        let live = Fragment {
            text: live
                .text
                .replace("moe_live {", "moe_live from moe_shared {"),
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
        let files = committer.live().await.unwrap().tree;
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
        let files = committer.live().await.unwrap().tree.fragments;
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
        let CommitError::Blocked(message) = &*error else {
            panic!("{version}: {error}")
        };
        assert!(
            message.contains("include \"moenet/main.conf\";"),
            "{version}: {message}"
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
        let shipped = include_str!("../../fixtures/bird-conf/debian-bird2-2.17.conf");
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
async fn protocols_and_tables_can_be_asked_about_and_acted_on() {
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
        assert_eq!(
            client
                .route_count(Symbol::new("master4").unwrap())
                .await
                .unwrap(),
            1,
            "{version}"
        );
        assert!(
            client
                .route_count(Symbol::new("nope").unwrap())
                .await
                .unwrap_err()
                .is_refused()
        );
        client.reload_in(name()).await.unwrap();
        client.restart(name()).await.unwrap();
        client.disable(name()).await.unwrap();
        client.enable(name()).await.unwrap();
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
            (5, 0)
        );
        assert!(client.status().await.unwrap().running);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_bird_hits_the_deadline_and_changes_no_file() {
    let router = Router::new("2.0.12");
    let (silent, greeted) = (router.path("silent"), router.socket());
    let _silent = std::os::unix::net::UnixListener::bind(&silent).unwrap();
    let start = Instant::now();
    let client = Client::new(&silent).with_deadline(Duration::from_millis(200));
    assert!(matches!(
        client.status().await,
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
            .status()
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
    let files = [("/etc/passwd".to_owned(), String::new())].into();
    assert!(matches!(
        committer.set_base(files).await,
        Err(BaseError::Path(_))
    ));
}
