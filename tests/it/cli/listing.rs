//! The ways in which `get` lists: names, more columns, by phase, sorted, and followed.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{NAME, Router};

#[test]
fn names_are_paths_that_other_verbs_take() {
    let router = Router::new();
    let names = router.call(&["get", "-o", "name"]);
    names.says(0, &format!("sessions/{NAME}"));
    for name in names.out.lines() {
        assert_eq!(router.call(&["get", name]).code, 0, "{name}");
    }
}

#[test]
fn statuses_without_an_agent_are_said_to_be_old() {
    let router = Router::new();
    let note = "no agent answers; phases and BGP states are as it last wrote them";
    for format in ["table", "wide", "json"] {
        let got = router.call(&["get", NAME, "-o", format]);
        assert!(got.err.contains(note), "{format}: {}", got.err);
        assert!(!got.out.contains(note), "{format}: {}", got.out);
    }
    for format in ["name", "yaml"] {
        assert_eq!(router.call(&["get", NAME, "-o", format]).err, "");
    }
}

#[test]
fn wide_table_has_handshake_loss_and_routes() {
    let wide = Router::new().call(&["get", NAME, "-o", "wide"]);
    for column in ["HANDSHAKE", "RTT", "LOSS", "IMPORTED", "EXPORTED"] {
        wide.says(0, column);
    }
}

#[test]
fn only_objects_in_the_phases_are_listed() {
    let router = Router::new();
    let rows = |phase: &str| {
        let rows = router.call(&["get", "--phase", phase, "-o", "json"]);
        rows.json().as_array().unwrap().clone()
    };
    let established = rows("Established");
    assert!(!established.is_empty());
    let phases = established.iter().map(|row| &row["status"]["phase"]);
    assert!(phases.into_iter().all(|phase| phase == "Established"));
    assert!(rows("Deleting").is_empty());
    router
        .call(&["get", "--phase", "established"])
        .says(64, "Established");
}

#[test]
fn rows_are_sorted_by_name_and_number() {
    let router = Router::new();
    let sorted = |column: &str, field: &str| -> Vec<String> {
        let rows = router.call(&["get", "--sort-by", column, "-o", "json"]);
        let rows = rows.json().as_array().unwrap().clone();
        let keys = rows.iter().filter_map(|row| row.pointer(field).cloned());
        keys.map(|key| key.as_u64().map_or(key.to_string(), |n| format!("{n:012}")))
            .collect()
    };
    for (column, field) in [("name", "/name"), ("asn", "/spec/asn")] {
        let keys = sorted(column, field);
        assert!(keys.len() > 1, "{column}: {keys:?}");
        assert!(keys.is_sorted(), "{column}: {keys:?}");
    }
}

/// A running `get --watch`, ended with the test.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn new(router: &Router, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
            .args(["get", NAME, "--watch", "--config"])
            .arg(router.dir.path().join("config.yaml"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Reads a JSON value that ends in a line of its own.
    fn value(&mut self, end: &str) -> Value {
        let mut text = String::new();
        loop {
            let line = self.line();
            text.push_str(&line);
            if line == end {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn delete(router: &Router) {
    for area in ["", "applied/", "status/", "overrides/"] {
        let _ = fs::remove_file(router.state(&format!("{area}sessions/{NAME}.yaml")));
    }
}

#[test]
fn watch_prints_a_row_again_when_it_changes() {
    let router = Router::new();
    let mut watch = Watch::new(&router, &["policy"]);
    let header = watch.line();
    assert!(header.starts_with("NAME"));
    let rows = [watch.line(), watch.line()];
    assert!(
        rows.iter().any(|row| row.contains("Established")),
        "{rows:?}"
    );
    let file = router.state(&format!("status/sessions/{NAME}.yaml"));
    let status = fs::read_to_string(&file).unwrap();
    let degraded = status.replace("phase: Established", "phase: Degraded");
    fs::write(&file, degraded).unwrap();
    let changed = watch.line();
    let is_row = changed.starts_with(NAME) && changed.contains("Degraded");
    assert!(is_row, "{changed}");
    assert_eq!(header.find("PHASE"), changed.find("Degraded"), "{changed}");
}

/// Answers with a stream of events.
fn events(stream: &mut TcpStream, told: &Receiver<()>) {
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: ready\ndata: {}\n\n";
    stream.write_all(answer.as_bytes()).unwrap();
    while told.recv().is_ok() {
        stream.write_all(b"event: object\ndata: {}\n\n").unwrap();
    }
}

/// A router with an agent that tells of a change when the test does.
fn with_telling_agent() -> (Router, Receiver<String>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Router::listening(&listener.local_addr().unwrap().to_string());
    let ((asked, asks), (tell, told)) = (channel(), channel());
    std::thread::spawn(move || {
        let mut told = Some(told);
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .by_ref()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let Some(told) = told.take_if(|_| head[0].starts_with("GET /events ")) else {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).unwrap();
                continue;
            };
            asked.send(head.join("\n")).unwrap();
            std::thread::spawn(move || events(&mut stream, &told));
        }
    });
    (router, asks, tell)
}

#[test]
fn watch_reads_again_when_the_agent_tells() {
    let (router, asks, tell) = with_telling_agent();
    let file = router.state(&format!("status/sessions/{NAME}.yaml"));
    let status = fs::read_to_string(&file).unwrap();
    let mut watch = Watch::new(&router, &[]);
    watch.line();
    watch.line();
    let head = asks.recv().unwrap().to_lowercase();
    assert!(head.starts_with("get /events "), "{head}");
    assert!(head.contains("authorization: bearer t0ken"), "{head}");
    // It has read the files after the first event, and once more.
    std::thread::sleep(Duration::from_secs(2));
    let written = Instant::now();
    fs::write(
        &file,
        status.replace("phase: Established", "phase: Degraded"),
    )
    .unwrap();
    tell.send(()).unwrap();
    assert!(watch.line().contains("Degraded"));
    assert!(
        written.elapsed() < Duration::from_secs(5),
        "it did not wait for the files"
    );
}

#[test]
fn watch_goes_on_after_its_object_was_deleted() {
    let router = Router::new();
    let document = router.state(&format!("sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&document).unwrap();
    let mut watch = Watch::new(&router, &["-o", "name"]);
    let path = format!("sessions/{NAME}");
    assert_eq!(watch.line(), path);
    delete(&router);
    loop {
        // Files go one after the other, and each is a change.
        let line = watch.line();
        if line == format!("{path} deleted") {
            break;
        }
        assert_eq!(line, path);
    }
    fs::write(&document, text).unwrap();
    assert_eq!(watch.line(), path);
}

#[test]
fn deletion_is_a_json_value() {
    let router = Router::new();
    let mut watch = Watch::new(&router, &["-o", "json"]);
    assert_eq!(watch.value("]")[0]["name"], NAME);
    delete(&router);
    let gone = loop {
        let value = watch.value("}");
        if value["deleted"] == true {
            break value;
        }
    };
    let wanted = json!({"kind": "BgpSession", "name": NAME, "deleted": true});
    assert_eq!(gone, wanted);
}
