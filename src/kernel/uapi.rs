//! The text protocol of a userspace WireGuard's control socket
//! (<https://www.wireguard.com/xplatform/>). The texts are pure; [`get`] and [`set`] do the IO.
//!
//! `wireguard-control`, used for the kernel, does not fit here: it reads without a deadline, so one
//! hanging process would block the configuration of all others; it starts a process of its
//! own when the socket does not exist; and it prints to standard output.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::keys::LastKey;
use crate::intervals::{USERSPACE_EXCHANGE, USERSPACE_PROMPT};
use crate::model::{Port, PresharedKey, PrivateKey, PublicKey};
use crate::observed::kernel::{WireGuard, WireGuardPeer};
use crate::plan::action::{PeerPatch, WireGuardPatch};

/// Size limit of an answer: a peer with ten allowed IPs takes 600 bytes.
const LONGEST_ANSWER: u64 = 16 << 20;

/// The request for a configuration.
const GET: &str = "get=1\n\n";

/// Number of processes that [`get_prompt`] asks before it reads the first answer.
const PROMPT: usize = 32;

/// Reads the configuration behind a socket.
pub(super) async fn get(socket: &Path, last_key: &LastKey) -> io::Result<WireGuard> {
    let answer = within_deadline(exchange(socket, GET)).await?;
    parse(utf8(&answer)?, last_key)
}

/// Reads the configurations behind these sockets one after the other: a thousand sockets in the runtime's event queue cost
/// half as much again. From the first process on that does not answer at once, each is `None`: [`get`] waits for it.
/// Blocks.
pub(super) fn get_prompt(
    sockets: &[PathBuf],
    last_key: &LastKey,
) -> Vec<Option<io::Result<WireGuard>>> {
    let mut answers = Vec::with_capacity(sockets.len());
    let (mut is_prompt, mut text) = (true, Vec::new());
    for some in sockets.chunks(PROMPT) {
        // The processes work while others are asked.
        let asked: Vec<_> = some
            .iter()
            .map(|socket| is_prompt.then(|| ask(socket)))
            .collect();
        for asked in asked {
            let asked = asked.filter(|_| is_prompt);
            let answer = asked.map(|asked| {
                listen(&asked?, &mut text)?;
                parse(utf8(&text)?, last_key)
            });
            let answer = answer.filter(|answer| !is_late(answer));
            is_prompt = answer.is_some();
            answers.push(answer);
        }
    }
    answers
}

/// Sends the request for a configuration. A process without a place in its queue is late.
fn ask(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    (&socket).write_all(GET.as_bytes())?;
    Ok(socket)
}

/// Reads the answer. [`USERSPACE_PROMPT`] is the limit of the whole answer: a process may send it byte by byte.
fn listen(socket: &Socket, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let (deadline, mut part) = (Instant::now() + USERSPACE_PROMPT, [0; 4096]);
    while !answer.ends_with(b"\n\n") {
        match (&*socket).read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_readable(socket, deadline)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                let read = &part[..read?];
                answer.extend(read);
                if read.is_empty() || answer.len() as u64 > LONGEST_ANSWER {
                    return Err(cut_short());
                }
            }
        }
    }
    Ok(())
}

/// Waits until a socket can be read.
fn wait_readable(socket: &Socket, deadline: Instant) -> io::Result<()> {
    let left = deadline.checked_duration_since(Instant::now());
    let left = left.ok_or(io::ErrorKind::WouldBlock)?;
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut events = [PollFd::new(socket, PollFlags::IN)];
    match retry_on_intr(|| poll(&mut events, Some(&left)))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

fn is_late(answer: &io::Result<WireGuard>) -> bool {
    let error = answer.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Changes the configuration behind a socket.
pub(super) async fn set(socket: &Path, patch: &WireGuardPatch) -> io::Result<()> {
    let answer = within_deadline(exchange(socket, &request(patch))).await?;
    pairs(utf8(&answer)?)
        .try_for_each(|pair| check_errno(pair?))
        .map(|_| ())
}

/// Returns whether a process answers at the socket.
pub(super) async fn answers(socket: &Path) -> bool {
    within_deadline(UnixStream::connect(socket)).await.is_ok()
}

async fn within_deadline<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(USERSPACE_EXCHANGE, work)
        .await
        .unwrap_or_else(|_| {
            let seconds = USERSPACE_EXCHANGE.as_secs();
            let text = format!(
                "the userspace WireGuard did not answer within {seconds} s; is its process stopped?"
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
}

/// Sends a request and reads the answer, which ends with an empty line; the connection stays open for another request.
async fn exchange(socket: &Path, request: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut stream = stream.take(LONGEST_ANSWER);
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(cut_short());
        }
    }
    Ok(answer)
}

fn utf8(answer: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(answer).map_err(|_| invalid("its answer is not text"))
}

fn cut_short() -> io::Error {
    invalid("its answer was cut short")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("userspace WireGuard: {what}"),
    )
}

fn pairs(answer: &str) -> impl Iterator<Item = io::Result<(&str, &str)>> {
    answer.lines().filter(|line| !line.is_empty()).map(|line| {
        line.split_once('=')
            .ok_or_else(|| invalid("a line without `=`"))
    })
}

/// Checks the error number. wireguard-go sends it negative, as the kernel would; boringtun positive.
fn check_errno((key, value): (&str, &str)) -> io::Result<()> {
    match (key, value.parse::<i32>()) {
        ("errno", Ok(0)) => Ok(()),
        ("errno", Ok(code)) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
        ("errno", Err(_)) => Err(invalid("an errno that is not a number")),
        _ => Ok(()),
    }
}

/// Parses an answer. Errors never hold a value: it may be a key.
fn parse(answer: &str, last_key: &LastKey) -> io::Result<WireGuard> {
    let mut device = WireGuard::default();
    let mut peer: Option<(PublicKey, WireGuardPeer)> = None;
    for pair in pairs(answer) {
        let (key, value) = pair?;
        check_errno((key, value))?;
        if key == "public_key" {
            let next = (PublicKey::new(bytes(value)?), WireGuardPeer::default());
            device.peers.extend(peer.replace(next).map(finished));
        } else if let Some((_, peer)) = &mut peer {
            peer_pair(peer, key, value)
                .ok_or_else(|| invalid(&format!("cannot read a peer's {key}")))?;
        } else {
            device_pair(&mut device, key, value, last_key)?;
        }
    }
    device.peers.extend(peer.map(finished));
    Ok(device)
}

fn finished((key, peer): (PublicKey, WireGuardPeer)) -> (PublicKey, Box<WireGuardPeer>) {
    (key, peer.normalised().into())
}

fn device_pair(
    device: &mut WireGuard,
    key: &str,
    value: &str,
    last_key: &LastKey,
) -> io::Result<()> {
    match key {
        "private_key" => {
            let private = PrivateKey::new(bytes(value)?);
            device.public_key = (!private.is_zero()).then(|| last_key.public_key(private));
        }
        "listen_port" => {
            let port = value
                .parse()
                .map_err(|_| invalid("cannot read the listen_port"))?;
            device.listen_port = Port::new(port);
        }
        // Unknown keys are allowed by the protocol.
        _ => {}
    }
    Ok(())
}

fn peer_pair(peer: &mut WireGuardPeer, key: &str, value: &str) -> Option<()> {
    match key {
        "preshared_key" => peer.preshared_key = Some(PresharedKey::new(bytes(value).ok()?)),
        "endpoint" => peer.endpoint = Some(endpoint(value)?),
        "persistent_keepalive_interval" => peer.keepalive = Some(value.parse().ok()?),
        "allowed_ip" => drop(
            peer.allowed_ips
                .insert(value.parse::<IpNet>().ok()?.trunc()),
        ),
        "rx_bytes" => peer.rx_bytes = value.parse().ok()?,
        "tx_bytes" => peer.tx_bytes = value.parse().ok()?,
        "last_handshake_time_sec" => {
            let seconds: i64 = value.parse().ok()?;
            peer.last_handshake = Timestamp::new(seconds, 0)
                .ok()
                .filter(|at| at.as_second() != 0);
        }
        "last_handshake_time_nsec" => {
            let nanoseconds = value.parse().ok()?;
            peer.last_handshake = peer
                .last_handshake
                .and_then(|at| Timestamp::new(at.as_second(), nanoseconds).ok());
        }
        _ => {}
    }
    Some(())
}

/// Parses an endpoint. `[fe80::1%eth0]:51820` loses its zone, which wanted endpoints never have.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let plain = match (text.split_once('%'), text.rsplit_once(']')) {
        (Some((address, _)), Some((_, port))) => format!("{address}]{port}"),
        _ => text.to_owned(),
    };
    let parsed: SocketAddr = plain.parse().ok()?;
    Some(SocketAddr::new(parsed.ip().to_canonical(), parsed.port()))
}

fn bytes(hex: &str) -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return Err(invalid("a key that is not 32 bytes"));
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        for digit in pair {
            let digit = char::from(*digit).to_digit(16);
            let digit = digit.ok_or_else(|| invalid("a key that is not hexadecimal"))?;
            *byte = *byte << 4 | digit as u8;
        }
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the text of a change. It holds keys and must only go to the socket.
fn request(patch: &WireGuardPatch) -> String {
    let mut lines = vec!["set=1".to_owned()];
    lines.extend(
        patch
            .private_key
            .as_ref()
            .map(|key| format!("private_key={}", hex(key.expose()))),
    );
    lines.extend(patch.listen_port.map(|port| format!("listen_port={port}")));
    lines.extend(patch.release_port.then(|| "listen_port=0".to_owned()));
    for key in &patch.remove_peers {
        // `update_only`, so that a missing peer is not first created and then removed.
        lines.push(format!(
            "public_key={}\nupdate_only=true\nremove=true",
            hex(key.bytes())
        ));
    }
    patch
        .peers
        .iter()
        .for_each(|peer| peer_lines(peer, &mut lines));
    lines.join("\n") + "\n\n"
}

fn peer_lines(peer: &PeerPatch, lines: &mut Vec<String>) {
    lines.push(format!("public_key={}", hex(peer.public_key.bytes())));
    if let Some(key) = &peer.preshared_key {
        let key = key.as_ref().map_or([0; 32], |key| *key.expose());
        lines.push(format!("preshared_key={}", hex(&key)));
    }
    lines.extend(peer.endpoint.map(|endpoint| format!("endpoint={endpoint}")));
    if let Some(seconds) = peer.keepalive {
        lines.push(format!(
            "persistent_keepalive_interval={}",
            seconds.unwrap_or(0)
        ));
    }
    if let Some(allowed) = &peer.allowed_ips {
        lines.push("replace_allowed_ips=true".to_owned());
        lines.extend(allowed.iter().map(|net| format!("allowed_ip={net}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    fn answer(lines: &[&str]) -> String {
        format!("{}\nerrno=0\n\n", lines.join("\n"))
    }

    fn peer() -> PeerPatch {
        PeerPatch {
            public_key: PublicKey::new([7; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: None,
        }
    }

    #[test]
    fn zeros_are_none() {
        let zeros = "0".repeat(64);
        let text = answer(&[
            &format!("private_key={zeros}"),
            "listen_port=0",
            &format!("public_key={KEY}"),
            &format!("preshared_key={zeros}"),
            "persistent_keepalive_interval=0",
            "last_handshake_time_sec=0",
            "last_handshake_time_nsec=0",
        ]);
        let device = parse(&text, &LastKey::default()).unwrap();
        assert_eq!((device.public_key, device.listen_port), (None, None));
        assert_eq!(
            *device.peers[&PublicKey::new(bytes(KEY).unwrap())],
            WireGuardPeer::default()
        );
    }

    #[test]
    fn whole_peer_is_read_and_unknown_lines_ignored() {
        let text = answer(&[
            "listen_port=21080",
            "fwmark=5",
            &format!("public_key={KEY}"),
            "protocol_version=1",
            "endpoint=[fe80::1%eth0]:51820",
            "last_handshake_time_sec=1700000000",
            "last_handshake_time_nsec=5",
            "tx_bytes=10",
            "rx_bytes=20",
            "persistent_keepalive_interval=25",
            "allowed_ip=0.0.0.0/0",
            "allowed_ip=::/0",
            "from_the_future=1",
        ]);
        let device = parse(&text, &LastKey::default()).unwrap();
        let peer = &device.peers[&PublicKey::new(bytes(KEY).unwrap())];
        assert_eq!(device.listen_port, Port::new(21080));
        assert_eq!(peer.endpoint, Some("[fe80::1]:51820".parse().unwrap()));
        assert_eq!(
            peer.last_handshake,
            Some(Timestamp::new(1_700_000_000, 5).unwrap())
        );
        assert_eq!(
            (peer.tx_bytes, peer.rx_bytes, peer.keepalive),
            (10, 20, Some(25))
        );
        assert_eq!(peer.allowed_ips.len(), 2);
    }

    #[test]
    fn an_error_shows_no_key() {
        for text in [
            format!("private_key={KEY}zz\n\n"),
            format!("public_key={KEY}\npreshared_key={KEY}0\n\n"),
        ] {
            let error = parse(&text, &LastKey::default()).unwrap_err().to_string();
            assert!(!error.contains("b85996"), "{error}");
        }
    }

    #[test]
    fn an_errno_of_either_sign_is_an_error() {
        for text in ["errno=-98\n\n", "errno=98\n\n"] {
            assert_eq!(
                parse(text, &LastKey::default()).unwrap_err().raw_os_error(),
                Some(98)
            );
        }
    }

    #[test]
    fn what_a_patch_leaves_out_is_not_in_the_request() {
        let patch = WireGuardPatch {
            peers: vec![peer()],
            ..Default::default()
        };
        assert_eq!(
            request(&patch),
            format!("set=1\npublic_key={}\n\n", "07".repeat(32))
        );
    }

    #[test]
    fn none_at_all_is_sent_as_zeros() {
        let unset = PeerPatch {
            preshared_key: Some(None),
            keepalive: Some(None),
            ..peer()
        };
        let text = request(&WireGuardPatch {
            peers: vec![unset],
            ..Default::default()
        });
        assert!(text.contains(&format!("preshared_key={}\n", "0".repeat(64))));
        assert!(text.contains("persistent_keepalive_interval=0\n"));
    }

    #[test]
    fn other_peers_are_never_replaced() {
        let allowed = PeerPatch {
            allowed_ips: Some(["::/0".parse().unwrap()].into()),
            ..peer()
        };
        let patch = WireGuardPatch {
            peers: vec![allowed],
            remove_peers: vec![PublicKey::new([8; 32])],
            ..Default::default()
        };
        let text = request(&patch);
        assert!(!text.contains("replace_peers"));
        assert!(text.contains("update_only=true\nremove=true\n"));
        assert!(text.ends_with("replace_allowed_ips=true\nallowed_ip=::/0\n\n"));
    }

    /// Serves one answer to each of so many requests.
    fn serve(path: &Path, requests: usize) {
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(requests) {
                let mut stream = stream.unwrap();
                stream.read_exact(&mut [0; GET.len()]).unwrap();
                stream.write_all(b"listen_port=7\n").unwrap();
                stream.write_all(b"errno=0\n\n").unwrap();
            }
        });
    }

    #[test]
    fn prompt_processes_are_read_and_a_late_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let [prompt, late, gone] = ["prompt", "late", "gone"].map(|name| folder.path().join(name));
        serve(&prompt, 2 * PROMPT);
        let _late = std::os::unix::net::UnixListener::bind(&late).unwrap();
        let mut sockets = vec![prompt.clone(); PROMPT + 1];
        sockets.push(gone);
        sockets.extend([late, prompt]);
        let answers = get_prompt(&sockets, &LastKey::default());
        let (read, others) = answers.split_at(PROMPT + 1);
        for answer in read {
            let device = answer.as_ref().unwrap().as_ref().unwrap();
            assert_eq!(device.listen_port, Port::new(7));
        }
        let gone = others[0].as_ref().unwrap().as_ref().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert!(
            others[1..].iter().all(Option::is_none),
            "late, and after it"
        );
    }

    #[test]
    fn answer_byte_by_byte_is_late() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the reader is gone.
            while stream.write_all(b"a").is_ok() {
                std::thread::sleep(USERSPACE_PROMPT / 10);
            }
        });
        let answers = get_prompt(&[path], &LastKey::default());
        assert!(matches!(answers[..], [None]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_never_answers_meets_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg.sock");
        let _deaf = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(
            get(&path, &LastKey::default()).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
