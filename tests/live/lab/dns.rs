//! A name server inside the harness that answers what a test tells it, late, or never.

use super::router::Router;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What is known of a name; one that is not in the map does not exist.
#[derive(Clone)]
pub(crate) enum Record {
    Addresses(Vec<IpAddr>),
    /// No answer at all.
    Silence,
}

#[derive(Default)]
struct Shared {
    names: BTreeMap<String, Record>,
    asked: BTreeMap<String, usize>,
}

pub(crate) struct Dns {
    shared: Arc<Mutex<Shared>>,
}

impl Dns {
    /// Listens at the Control Plane's address, and becomes the only name server of the router's namespace.
    pub(crate) fn new(router: &Router, control_plane_url: &str) -> Self {
        let host = control_plane_url
            .trim_start_matches("http://")
            .split(':')
            .next()
            .unwrap();
        let socket = UdpSocket::bind((host, 53)).expect("port 53 of the lab's own address is free");
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || serve(&socket, &weak));
        let file = router.path("resolv.conf");
        std::fs::write(
            &file,
            format!("nameserver {host}\noptions timeout:2 attempts:1\n"),
        )
        .unwrap();
        router
            .inside
            .shell(&format!("mount --bind {} /etc/resolv.conf", file.display()));
        Self { shared }
    }

    pub(crate) fn set(&self, name: &str, record: Record) {
        self.shared
            .lock()
            .unwrap()
            .names
            .insert(name.into(), record);
    }

    pub(crate) fn addresses(&self, name: &str, addresses: &[&str]) {
        let parsed = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.set(name, Record::Addresses(parsed));
    }

    /// How many queries there were for a name, of both types.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.shared
            .lock()
            .unwrap()
            .asked
            .get(name)
            .copied()
            .unwrap_or(0)
    }
}

fn serve(socket: &UdpSocket, shared: &Weak<Mutex<Shared>>) {
    let mut buffer = [0; 512];
    while let Some(shared) = shared.upgrade() {
        // A timeout, so that the thread ends with its test.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(reply) = answer(&buffer[..length], &mut shared.lock().unwrap()) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// The reply to a query of one question (RFC 1035, section 4); none when there is to be silence.
fn answer(query: &[u8], shared: &mut Shared) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    *shared.asked.entry(name.clone()).or_default() += 1;
    let addresses = match shared.names.get(&name) {
        Some(Record::Silence) => return None,
        Some(Record::Addresses(addresses)) => Some(addresses.clone()),
        None => None,
    };
    // NXDOMAIN is code 3.
    let code = if addresses.is_some() { 0 } else { 3 };
    let records: Vec<_> = addresses
        .unwrap_or_default()
        .iter()
        .filter_map(|a| record(*a, kind))
        .collect();
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(records.len()).ok()?,
        0,
        0,
        0,
        0,
    ]);
    reply.extend(query.get(12..end + 4)?);
    reply.extend(records.concat());
    Some(reply)
}

/// The name in the question, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

/// An answer with a lifetime of nothing: A is type 1, AAAA type 28.
fn record(address: IpAddr, kind: u16) -> Option<Vec<u8>> {
    let (wanted, data) = match address {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (28, v6.octets().to_vec()),
    };
    let mut record = vec![0xc0, 12, 0, u8::try_from(wanted).ok()?, 0, 1, 0, 0, 0, 0, 0];
    record.push(u8::try_from(data.len()).ok()?);
    record.extend(data);
    (wanted == kind).then_some(record)
}
