//! The outbox: nothing is lost, nothing is sent twice without need, nobody blocks another.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use moenet_agent::control_plane::{Client, ClientOptions, Outbox};
use moenet_agent::model::{Secret, Uid};
use moenet_agent::wire::{Dialect, WireStatus};
use serde_json::{Value, json};

use crate::support::small_disk::{on_a_small_disk, remount};

/// What the Control Plane answers for a uuid, and what it got.
#[derive(Default)]
struct Fake {
    answers: HashMap<String, (u16, &'static str)>,
    bodies: HashMap<&'static str, &'static str>,
    got: Vec<Value>,
}

type Shared = Arc<Mutex<Fake>>;

async fn modify(State(fake): State<Shared>, body: Bytes) -> (StatusCode, String) {
    let mut fake = fake.lock().unwrap();
    let value: Value = serde_json::from_slice(&body).unwrap();
    let uuid = value["uuid"].as_str().unwrap().to_owned();
    fake.got.push(value);
    let (status, code) = fake.answers.get(&uuid).copied().unwrap_or((200, ""));
    if let Some(body) = fake.bodies.get(uuid.as_str()) {
        return (StatusCode::OK, (*body).to_owned());
    }
    let body = if code.is_empty() {
        json!({"status": "ok"})
    } else {
        json!({"error": "no", "code": code})
    };
    (StatusCode::from_u16(status).unwrap(), body.to_string())
}

async fn bench() -> (Client, Shared, tempfile::TempDir) {
    let fake = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(modify).with_state(fake.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = Client::new(ClientOptions {
        url,
        router: "jp1".into(),
        token: Secret::new("t".into()).into(),
        dialect: Dialect::Reference,
        request_timeout: Duration::from_secs(2),
        max_retries: 0,
        retry_initial_delay: Duration::from_millis(1),
    });
    (client.unwrap(), fake, tempfile::tempdir().unwrap())
}

fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn report_survives_restart_until_acknowledged() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    fake.lock().unwrap().answers.insert("a".into(), (500, ""));
    assert!(
        outbox
            .put(&uid("a"), WireStatus::Error, Some("why".into()))
            .unwrap()
    );
    assert_eq!(outbox.deliver_once(&client).await.unwrap().kept, 1);

    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    assert_eq!(outbox.pending().unwrap().len(), 1);
    fake.lock().unwrap().answers.clear();
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.delivered, delivery.kept), (1, 0));
    assert!(files(directory.path()).is_empty());
    assert_eq!(
        fake.lock().unwrap().got[1],
        json!({"uuid": "a", "status": 2, "error": "why"})
    );
}

#[tokio::test]
async fn newest_state_wins_and_same_state_is_not_rewritten() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    assert!(
        outbox
            .put(&uid("a"), WireStatus::Error, Some("x".into()))
            .unwrap()
    );
    assert!(
        !outbox
            .put(&uid("a"), WireStatus::Error, Some("x".into()))
            .unwrap()
    );
    assert!(
        outbox
            .put(&uid("a"), WireStatus::Error, Some("y".into()))
            .unwrap()
    );
    assert!(outbox.put(&uid("a"), WireStatus::Active, None).unwrap());
    assert_eq!(files(directory.path()).len(), 1);
    outbox.deliver_once(&client).await.unwrap();
    assert_eq!(
        fake.lock().unwrap().got,
        [json!({"uuid": "a", "status": 1, "error": null})]
    );
    assert!(
        !outbox.put(&uid("a"), WireStatus::Active, None).unwrap(),
        "acknowledged already"
    );
    assert!(outbox.put(&uid("a"), WireStatus::Error, None).unwrap());
}

#[tokio::test]
async fn report_repeats_when_the_list_has_another_status() {
    let (client, _, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    outbox.deliver_once(&client).await.unwrap();
    outbox.listed(BTreeMap::from([(uid("a"), WireStatus::Active)]));
    assert!(!outbox.put(&uid("a"), WireStatus::Active, None).unwrap());
    outbox.listed(BTreeMap::from([(uid("a"), WireStatus::QueuedForSetup)]));
    assert!(
        outbox.put(&uid("a"), WireStatus::Active, None).unwrap(),
        "somebody queued it again"
    );
}

#[tokio::test]
async fn report_removed_while_stopped_is_noticed_at_start() {
    let (client, fake, directory) = bench().await;
    let inside = directory.path().join("outbox");
    let open = || Outbox::open_listed(&inside, directory.path().join("list")).unwrap();
    let outbox = Arc::new(open().0);
    for name in ["a", "b", "c"] {
        outbox.put(&uid(name), WireStatus::Active, None).unwrap();
        let answer = (name, if name == "a" { 200 } else { 500 });
        fake.lock()
            .unwrap()
            .answers
            .insert(answer.0.into(), (answer.1, ""));
    }
    assert_eq!(outbox.deliver_once(&client).await.unwrap().kept, 2);
    drop(outbox);
    let none: [String; 0] = [];
    assert_eq!(open().1, none, "a was delivered, and the others are there");
    let names = files(&inside);
    let of_c = names.iter().find(|name| name.starts_with("c-")).unwrap();
    std::fs::remove_file(inside.join(of_c)).unwrap();
    assert_eq!(open().1, ["c (status 1)"]);
    assert_eq!(open().1, none, "noticed once");
}

#[test]
fn removed_state_directory_is_not_made_by_a_report() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let outbox = Outbox::open(&state.join("outbox")).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    let put = outbox.put(&uid("a"), WireStatus::Active, None);
    assert!(put.is_err());
    assert!(Outbox::open(&state.join("outbox")).is_err());
    assert!(!state.exists());
}

#[tokio::test]
async fn unchanged_list_repeats_an_acknowledged_report_later_and_later() {
    let reports = [
        (WireStatus::QueuedForDelete, WireStatus::Disabled),
        (WireStatus::QueuedForSetup, WireStatus::Active),
        (WireStatus::Active, WireStatus::Error),
    ];
    for (before, report) in reports {
        let (client, fake, directory) = bench().await;
        let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
        let list = |status| outbox.listed(BTreeMap::from([(uid("a"), status)]));
        let put = || outbox.put(&uid("a"), report, None).unwrap();
        list(before);
        assert!(put());
        outbox.deliver_once(&client).await.unwrap();
        for wait in [60, 120, 240] {
            list(before);
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(wait - 1)).await;
            list(before);
            assert!(!put());
            assert!(files(directory.path()).is_empty());
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::time::resume();
            assert!(put(), "after {wait} s");
            outbox.deliver_once(&client).await.unwrap();
        }
        assert_eq!(fake.lock().unwrap().got.len(), 4);
        list(report);
        assert!(!put());
        list(before);
        assert!(put(), "it was changed in between");
    }
}

#[tokio::test]
async fn unknown_session_drops_its_report_unknown_router_drops_none() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    fake.lock()
        .unwrap()
        .answers
        .insert("gone".into(), (404, "SESSION_NOT_FOUND"));
    outbox
        .put(&uid("gone"), WireStatus::Disabled, None)
        .unwrap();
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.dropped, delivery.kept), (1, 0));

    fake.lock()
        .unwrap()
        .answers
        .insert("a".into(), (404, "ROUTER_NOT_FOUND"));
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    outbox.put(&uid("b"), WireStatus::Active, None).unwrap();
    assert_eq!(outbox.deliver_once(&client).await.unwrap().kept, 2);
    assert_eq!(
        fake.lock().unwrap().got.len(),
        2,
        "the router is unknown for b too"
    );
}

#[tokio::test]
async fn a_refused_report_blocks_no_other_and_is_tried_slowly() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    for (name, answer) in [
        ("a", (400, "BAD_REQUEST")),
        ("b", (500, "INTERNAL")),
        ("c", (200, "INTERNAL")),
    ] {
        fake.lock().unwrap().answers.insert(name.into(), answer);
    }
    for name in ["a", "b", "c", "z"] {
        outbox.put(&uid(name), WireStatus::Active, None).unwrap();
    }
    let first = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((first.delivered, first.kept), (1, 3));
    assert!(first.failure.is_some());
    outbox.deliver_once(&client).await.unwrap();
    assert_eq!(fake.lock().unwrap().got.len(), 4, "they wait now");
    outbox
        .put(&uid("a"), WireStatus::Error, Some("new".into()))
        .unwrap();
    outbox.deliver_once(&client).await.unwrap();
    assert_eq!(
        fake.lock().unwrap().got.len(),
        5,
        "a newer state does not wait"
    );
    fake.lock().unwrap().answers.clear();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 3);
}

#[tokio::test]
async fn every_unusable_answer_concerns_its_own_report_only() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    let huge: &'static str = "x".repeat(17 << 20).leak();
    let bodies = [
        ("a", "<html>welcome"),
        ("b", "{\"error\": \"no\"}"),
        ("c", huge),
    ];
    fake.lock().unwrap().bodies.extend(bodies);
    for name in ["a", "b", "c", "z"] {
        outbox.put(&uid(name), WireStatus::Active, None).unwrap();
    }
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.delivered, delivery.kept), (1, 3));
    assert_eq!(outbox.deliver_once(&client).await.unwrap().kept, 3);
    assert_eq!(fake.lock().unwrap().got.len(), 4, "they wait");
}

#[test]
fn read_only_outbox_delivers_each_report_once() {
    on_a_small_disk(
        "control_plane::outbox::read_only_outbox_delivers_each_report_once",
        |disk| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(deliver_read_only(disk));
        },
    );
}

async fn deliver_read_only(disk: &Path) {
    let (client, fake, _directory) = bench().await;
    let outbox = Arc::new(Outbox::open(&disk.join("outbox")).unwrap());
    for name in ["a", "b"] {
        outbox.put(&uid(name), WireStatus::Active, None).unwrap();
    }
    remount(disk, "ro");
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.delivered, delivery.kept), (2, 0));
    for _ in 0..3 {
        assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 0);
    }
    assert_eq!(fake.lock().unwrap().got.len(), 2, "none is sent twice");
    assert!(outbox.pending().unwrap().is_empty());
    assert!(!outbox.put(&uid("b"), WireStatus::Active, None).unwrap());

    // The same state becomes news before its old file can be removed.
    outbox.listed(BTreeMap::from([(uid("b"), WireStatus::QueuedForSetup)]));
    outbox.put(&uid("b"), WireStatus::Active, None).unwrap_err();
    remount(disk, "rw");
    assert!(outbox.put(&uid("b"), WireStatus::Active, None).unwrap());
    assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
    assert!(files(&disk.join("outbox")).is_empty());
    assert_eq!(fake.lock().unwrap().got.len(), 3);
}

#[test]
fn empty_report_of_a_power_failure_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    let file = directory.path().join(&files(directory.path())[0]);
    drop(outbox);
    std::fs::write(&file, "").unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(outbox.pending().unwrap().is_empty());
    assert!(files(directory.path()).is_empty(), "not quarantined");
    assert!(outbox.put(&uid("a"), WireStatus::Active, None).unwrap());
}

#[tokio::test]
async fn corrupt_report_is_quarantined_and_the_rest_delivered() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    std::fs::write(
        directory.path().join("half-000000000000.json"),
        "{\"uuid\": \"b",
    )
    .unwrap();
    std::fs::copy(
        directory.path().join(&files(directory.path())[0]),
        directory.path().join("copy.json"),
    )
    .unwrap();
    assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
    assert_eq!(fake.lock().unwrap().got.len(), 1);
    assert_eq!(
        files(directory.path()),
        ["copy.json.broken", "half-000000000000.json.broken"]
    );
}

#[test]
fn hostile_identities_stay_in_the_directory_and_apart() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("outbox");
    let outbox = Arc::new(Outbox::open(&inside).unwrap());
    let long = "x".repeat(128);
    let names = [
        "../../etc/passwd",
        "..",
        "a/b",
        "a-b",
        "a.b",
        "A-B",
        long.as_str(),
    ];
    for name in names {
        outbox.put(&uid(name), WireStatus::Active, None).unwrap();
    }
    assert_eq!(outbox.pending().unwrap().len(), names.len());
    assert_eq!(files(directory.path()), ["outbox"]);
    assert!(
        files(&inside)
            .iter()
            .all(|name| !name.starts_with('.') && name.len() < 80)
    );
}

#[tokio::test]
async fn pipe_directory_or_huge_file_delays_no_report() {
    let (client, _fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    let at = |name: &str| directory.path().join(name);
    let made = std::process::Command::new("mkfifo")
        .arg(at("pipe.json"))
        .status();
    assert!(made.unwrap().success());
    std::fs::create_dir_all(at("folder.json").join("inside")).unwrap();
    let huge = std::fs::File::create(at("huge.json")).unwrap();
    huge.set_len(3 << 30).unwrap();
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.delivered, delivery.kept), (1, 0));
    for name in [
        "pipe.json.broken",
        "folder.json.broken/inside",
        "huge.json.broken",
    ] {
        assert!(at(name).exists(), "{name} is quarantined");
    }
}

#[tokio::test]
async fn directory_in_place_of_report_is_always_quarantined() {
    let (client, _fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    for status in [WireStatus::Active, WireStatus::Error] {
        outbox.put(&uid("a"), status, None).unwrap();
        let report = |end: &str| {
            let files = std::fs::read_dir(directory.path()).unwrap();
            files
                .map(|file| file.unwrap().path())
                .find(|path| path.extension().is_some_and(|found| found == end))
        };
        let path = report("json").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "").unwrap();
        outbox.put(&uid("a"), status, None).unwrap();
        assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
    }
}

#[tokio::test]
async fn cleaned_folder_loses_no_report() {
    let (client, fake, directory) = bench().await;
    let folder = directory.path().join("outbox");
    std::fs::write(directory.path().join("identity"), "x").unwrap();
    let outbox = Arc::new(Outbox::open(&folder).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    outbox
        .put(&uid("b"), WireStatus::Error, Some("why".into()))
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(outbox.pending().unwrap().len(), 2);
    assert_eq!(files(&folder).len(), 2, "safe across a restart again");
    std::fs::remove_dir_all(&folder).unwrap();
    let delivery = outbox.deliver_once(&client).await.unwrap();
    assert_eq!((delivery.delivered, delivery.kept), (2, 0));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(
        outbox.pending().unwrap(),
        [],
        "acknowledged reports stay away"
    );
    drop(fake);
}

/// The uuids and statuses that the Control Plane got.
fn got(fake: &Shared) -> Vec<(String, u64)> {
    let fake = fake.lock().unwrap();
    let report = |value: &Value| {
        let uuid = value["uuid"].as_str().unwrap().to_owned();
        (uuid, value["status"].as_u64().unwrap())
    };
    fake.got.iter().map(report).collect()
}

#[tokio::test]
async fn deleted_report_is_dropped_only_while_the_agent_is_stopped() {
    let (client, fake, directory) = bench().await;
    let file = |name: &str| directory.path().join(name);
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    outbox.put(&uid("b"), WireStatus::Active, None).unwrap();
    let names = files(directory.path());
    std::fs::remove_file(file(&names[0])).unwrap();
    assert_eq!(outbox.pending().unwrap().len(), 2);
    assert_eq!(files(directory.path()), names, "written again");
    drop(outbox);
    std::fs::remove_file(file(&names[0])).unwrap();
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    // A tool cleans the folder before the first delivery.
    std::fs::remove_file(file(&names[1])).unwrap();
    assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
    assert_eq!(got(&fake), [("b".to_owned(), 1)]);
}

#[tokio::test]
async fn cleaned_report_moves_to_the_new_uuid() {
    for cleaned in [true, false] {
        let (client, fake, directory) = bench().await;
        let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
        outbox
            .put(&uid("old"), WireStatus::Error, Some("why".into()))
            .unwrap();
        if cleaned {
            let name = &files(directory.path())[0];
            std::fs::remove_file(directory.path().join(name)).unwrap();
        }
        outbox.renew(&uid("old"), &uid("new")).unwrap();
        assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
        assert_eq!(got(&fake), [("new".to_owned(), 2)], "cleaned: {cleaned}");
        assert_eq!(files(directory.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn old_uuid_does_not_replace_the_new_uuids_report() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox
        .put(&uid("old"), WireStatus::Error, Some("why".into()))
        .unwrap();
    outbox.put(&uid("new"), WireStatus::Active, None).unwrap();
    for name in files(directory.path()) {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    outbox.renew(&uid("old"), &uid("new")).unwrap();
    assert_eq!(outbox.deliver_once(&client).await.unwrap().delivered, 1);
    assert_eq!(got(&fake), [("new".to_owned(), 1)]);
}

#[tokio::test]
async fn newest_state_wins_over_a_cleaned_report() {
    let (client, fake, directory) = bench().await;
    let outbox = Arc::new(Outbox::open(directory.path()).unwrap());
    outbox.put(&uid("a"), WireStatus::Active, None).unwrap();
    outbox.deliver_once(&client).await.unwrap();
    outbox
        .put(&uid("a"), WireStatus::Error, Some("why".into()))
        .unwrap();
    let name = &files(directory.path())[0];
    std::fs::remove_file(directory.path().join(name)).unwrap();
    assert!(outbox.put(&uid("a"), WireStatus::Active, None).unwrap());
    outbox.deliver_once(&client).await.unwrap();
    let statuses: Vec<u64> = got(&fake).into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses, [1, 1]);
}

/// As a power failure leaves a file whose content was not flushed.
#[tokio::test]
async fn report_without_content_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    let one = uid("abc-1");
    assert!(outbox.put(&one, WireStatus::Active, None).unwrap());
    drop(outbox);
    let file = files(directory.path()).remove(0);
    std::fs::write(directory.path().join(&file), "").unwrap();
    let outbox = Outbox::open(directory.path()).unwrap();
    assert!(outbox.pending().unwrap().is_empty());
    assert!(outbox.put(&one, WireStatus::Active, None).unwrap());
    assert_eq!(outbox.pending().unwrap().len(), 1);
}
