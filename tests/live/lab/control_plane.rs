//! A Control Plane inside the harness that answers what a test tells it, right or wrong, and keeps what is posted.

use super::namespace::Namespace;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

#[derive(Clone)]
pub(crate) enum Answer {
    Json(Value),
    Text {
        status: u16,
        kind: &'static str,
        body: String,
    },
    /// Promises the whole body, sends half, closes.
    HalfOf(Value),
    Slow(Duration, Value),
    /// An error of the API, perhaps with the seconds after which to come again.
    Refusal {
        status: u16,
        code: &'static str,
        retry_after: Option<u64>,
    },
}

#[derive(Default)]
struct Shared {
    answers: BTreeMap<String, Answer>,
    posts: Vec<(String, Value)>,
    asked: BTreeMap<String, usize>,
    /// Every `Authorization` that was sent, in order, without repetitions.
    tokens: Vec<String>,
    /// The answer to everything, while there is one.
    everything: Option<Answer>,
}

pub(crate) struct ControlPlane {
    shared: Arc<Mutex<Shared>>,
    pub(crate) url: String,
}

impl ControlPlane {
    /// Listens where the router reaches it, over a link of their own.
    pub(crate) fn new(router: &Namespace) -> Self {
        let address = join_to_host(router);
        let listener = TcpListener::bind((address.as_str(), 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || serve(&listener, &weak));
        let control_plane = Self { shared, url };
        control_plane.answer("config", Answer::Json(super::router::node()));
        control_plane.answer("bird-config", Answer::Json(super::router::policy()));
        control_plane.answer("mesh", Answer::Json(json!({"peers": []})));
        control_plane.answer("sessions", Answer::Json(json!({"sessions": []})));
        control_plane
    }

    pub(crate) fn answer(&self, endpoint: &str, answer: Answer) {
        self.shared
            .lock()
            .unwrap()
            .answers
            .insert(endpoint.into(), answer);
    }

    /// Answers every request, posts too, with this, or again as before.
    pub(crate) fn answer_everything(&self, answer: Option<Answer>) {
        self.shared.lock().unwrap().everything = answer;
    }

    /// How often each endpoint was asked.
    pub(crate) fn asked_each(&self) -> BTreeMap<String, usize> {
        self.shared.lock().unwrap().asked.clone()
    }

    pub(crate) fn sessions(&self, sessions: &[Value]) {
        self.answer("sessions", Answer::Json(json!({ "sessions": sessions })));
    }

    /// How often an endpoint was asked.
    pub(crate) fn asked(&self, endpoint: &str) -> usize {
        self.shared
            .lock()
            .unwrap()
            .asked
            .get(endpoint)
            .copied()
            .unwrap_or(0)
    }

    /// Every `Authorization` that was sent, in order, without repetitions.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.shared.lock().unwrap().tokens.clone()
    }

    /// What was posted to an endpoint, oldest first.
    pub(crate) fn posts(&self, endpoint: &str) -> Vec<Value> {
        let shared = self.shared.lock().unwrap();
        shared
            .posts
            .iter()
            .filter(|(to, _)| to == endpoint)
            .map(|(_, body)| body.clone())
            .collect()
    }

    /// The newest status reported for a session, with its error text.
    pub(crate) fn reported(&self, uuid: &str) -> Option<(u64, String)> {
        let post = self
            .posts("modify")
            .into_iter()
            .rev()
            .find(|post| post["uuid"] == uuid)?;
        Some((
            post["status"].as_u64()?,
            post["error"].as_str().unwrap_or_default().into(),
        ))
    }
}

/// A link between the router and the host, with an address of 100.64.0.0/10 that no other test has.
fn join_to_host(router: &Namespace) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // A /30 for each of 256 Control Planes of this process.
    let (high, first) = (64 + process % 64, (process / 64 % 64) * 1024 + n % 256 * 4);
    let address = |host: u32| {
        format!(
            "100.{high}.{}.{}",
            (first + host) / 256,
            (first + host) % 256
        )
    };
    let (host, inner) = (address(1), address(2));
    router.link_to_host(
        "cp0",
        &format!("{inner}/30"),
        &format!("mc{process}.{n}"),
        &format!("{host}/30"),
    );
    host
}

fn serve(listener: &TcpListener, shared: &Weak<Mutex<Shared>>) {
    for stream in listener.incoming() {
        let (Ok(stream), Some(shared)) = (stream, shared.upgrade()) else {
            return;
        };
        std::thread::spawn(move || handle(stream, &shared));
    }
}

fn handle(stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let endpoint = path.rsplit('/').next()?.to_owned();
    let (body, token) = read_body(&mut reader)?;
    let answer = {
        let mut shared = shared.lock().unwrap();
        *shared.asked.entry(endpoint.clone()).or_default() += 1;
        if shared.tokens.last() != Some(&token) {
            shared.tokens.push(token);
        }
        if method == "POST" {
            shared.posts.push((
                endpoint.clone(),
                serde_json::from_slice(&body).unwrap_or(Value::Null),
            ));
        }
        let everything = shared.everything.clone();
        everything
            .or_else(|| shared.answers.get(&endpoint).cloned())
            .unwrap_or(Answer::Json(json!({"status": "ok"})))
    };
    send(reader.get_mut(), answer)
}

/// The body of a request, and its `Authorization`.
fn read_body(reader: &mut BufReader<TcpStream>) -> Option<(Vec<u8>, String)> {
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if key.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        } else if key.eq_ignore_ascii_case("authorization") {
            token = value.trim().into();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((body, token))
}

fn send(stream: &mut TcpStream, answer: Answer) -> Option<()> {
    let mut more = String::new();
    let (status, kind, body, cut) = match answer {
        Answer::Refusal {
            status,
            code,
            retry_after,
        } => {
            more = retry_after
                .map(|seconds| format!("Retry-After: {seconds}\r\n"))
                .unwrap_or_default();
            (
                status,
                "application/json",
                json!({"error": "not now", "code": code}).to_string(),
                false,
            )
        }
        Answer::Json(value) => (200, "application/json", value.to_string(), false),
        Answer::Text { status, kind, body } => (status, kind, body, false),
        Answer::HalfOf(value) => (200, "application/json", value.to_string(), true),
        Answer::Slow(delay, value) => {
            std::thread::sleep(delay);
            (200, "application/json", value.to_string(), false)
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
        body.len()
    );
    let sent = if cut {
        &body[..body.len() / 2]
    } else {
        &body[..]
    };
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(sent.as_bytes()).ok()
}
