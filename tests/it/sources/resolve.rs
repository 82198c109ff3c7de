//! The resolver, with names answered from memory and time that passes when nobody works.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use moenet_agent::model::Endpoint;
use moenet_agent::sources::resolve::{Lookup, Resolver, ResolverSettings};
use tokio::time::{Instant, sleep, timeout};

/// Silence of a peer before its next address is tried.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Names {
    answers: Mutex<HashMap<String, Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    fn set(&self, name: &str, addresses: &[&str]) {
        let parsed = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), parsed);
    }

    fn asked(&self, name: &str) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| *asked == name)
            .count()
    }
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(name.to_owned());
        if name.starts_with("hung") {
            std::future::pending::<()>().await;
        }
        let known = self.answers.lock().unwrap().get(name).cloned();
        known.ok_or_else(|| io::Error::other("Name or service not known"))
    }
}

fn start() -> (Arc<Names>, Resolver) {
    let names = Arc::new(Names::default());
    let resolver = Resolver::start(names.clone(), ResolverSettings::default());
    (names, resolver)
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn address(resolver: &Resolver, endpoint: &Endpoint) -> Option<String> {
    resolver
        .current(endpoint)
        .address
        .map(|address| address.to_string())
}

#[tokio::test(start_paused = true)]
async fn an_address_needs_no_lookup_and_no_watching() {
    let (names, resolver) = start();
    let literal = endpoint("[2001:db8::1]:51820");
    assert_eq!(
        address(&resolver, &literal).as_deref(),
        Some("[2001:db8::1]:51820")
    );
    resolver.watch([&literal]);
    sleep(Duration::from_secs(300)).await;
    assert!(names.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_address_is_known_and_logged_within_the_interval() {
    let (names, resolver) = start();
    names.set("a.example", &["192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    assert!(resolver.changed().await.contains("a.example"));
    assert_eq!(address(&resolver, &a).as_deref(), Some("192.0.2.1:5"));
    names.set("a.example", &["192.0.2.2"]);
    let told = timeout(Duration::from_secs(67), resolver.changed())
        .await
        .unwrap();
    assert!(told.contains("a.example"));
    assert_eq!(address(&resolver, &a).as_deref(), Some("192.0.2.2:5"));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_address_stays_while_lookups_fail() {
    let (names, resolver) = start();
    names.set("a.example", &["192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    resolver.changed().await;
    names.answers.lock().unwrap().clear();
    resolver.changed().await;
    let known = resolver.current(&a);
    assert_eq!(known.address, "192.0.2.1:5".parse().ok());
    assert!(
        known
            .error
            .unwrap()
            .contains("a.example: Name or service not known")
    );
    names.set("a.example", &["192.0.2.1"]);
    resolver.changed().await;
    assert_eq!(resolver.current(&a).error, None);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_hanging_names_do_not_delay_a_good_one() {
    let (names, resolver) = start();
    names.set("z.example", &["192.0.2.1"]);
    let mut all: Vec<_> = (0..100)
        .map(|n| endpoint(&format!("hung{n}.example:5")))
        .collect();
    all.push(endpoint("z.example:5"));
    resolver.watch(&all);
    let began = Instant::now();
    while address(&resolver, &all[100]).is_none() {
        resolver.changed().await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    // From then on they are known to hang, and the good one is refreshed on time.
    sleep(Duration::from_secs(600)).await;
    assert!(
        names.asked("z.example") >= 9,
        "{}",
        names.asked("z.example")
    );
    let hung = resolver.current(&all[0]);
    assert!(hung.error.unwrap().contains("no answer within 10 s"));
}

#[tokio::test(start_paused = true)]
async fn stale_handshake_resolves_once_at_once_then_by_interval() {
    let (names, resolver) = start();
    names.set("a.example", &["192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    resolver.changed().await;
    sleep(PATIENCE).await;
    names.set("a.example", &["192.0.2.9"]);
    for _ in 0..50 {
        resolver.next(&a);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(address(&resolver, &a).as_deref(), Some("192.0.2.9:5"));
    assert_eq!(names.asked("a.example"), 2);
    for _ in 0..60 {
        sleep(Duration::from_secs(10)).await;
        resolver.next(&a);
    }
    let asked = names.asked("a.example");
    assert!(
        (10..=14).contains(&asked),
        "{asked} lookups in ten minutes of silence"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_family_gives_way_to_the_one_that_works() {
    let (names, resolver) = start();
    names.set("a.example", &["2001:db8::1", "2001:db8::2", "192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    resolver.changed().await;
    assert_eq!(resolver.next(&a).address, "[2001:db8::1]:5".parse().ok());
    sleep(PATIENCE).await;
    assert_eq!(resolver.next(&a).address, "192.0.2.1:5".parse().ok());
    assert!(resolver.changed().await.contains("a.example"));
    // And there it stays, through refreshes that still list the other family first.
    sleep(Duration::from_secs(200)).await;
    assert_eq!(address(&resolver, &a).as_deref(), Some("192.0.2.1:5"));
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_is_watched_twice_keeps_its_address() {
    let (names, resolver) = start();
    names.set("peer.example", &["2001:db8::2", "192.0.2.2"]);
    let a = endpoint("peer.example:51820");
    for _ in 0..PATIENCE.as_secs() + 5 {
        resolver.watch([&a, &a]);
        resolver.next(&a);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(address(&resolver, &a).as_deref(), Some("192.0.2.2:51820"));
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_not_resolved_twice_a_minute() {
    let (names, resolver) = start();
    names.set("a.example", &["2001:db8::1", "192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    resolver.changed().await;
    let (mut moves, mut last) = (0, address(&resolver, &a));
    for _ in 0..360 {
        sleep(Duration::from_secs(10)).await;
        resolver.next(&a);
        let now = address(&resolver, &a);
        moves += usize::from(now != last);
        last = now;
    }
    assert!((5..=16).contains(&moves), "{moves} moves in an hour");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_watched_is_no_longer_asked_for() {
    let (names, resolver) = start();
    names.set("a.example", &["192.0.2.1"]);
    let a = endpoint("a.example:5");
    resolver.watch([&a]);
    resolver.changed().await;
    resolver.watch([]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(
        (names.asked("a.example"), address(&resolver, &a)),
        (1, None)
    );
}
