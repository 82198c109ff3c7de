//! TLS of the Control Plane, and its socket for operators.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::verbs::{Fleet, network};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(fleet: &Fleet, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moenet-agent"));
    command
        .args(["control-plane", "--fleet"])
        .arg(fleet.path("."));
    command
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Returns status and body of a call.
fn curl(arguments: &[&str]) -> Option<(String, String)> {
    let mut command = Command::new("curl");
    command
        .args(["-s", "-m", "5", "-w", "\n%{http_code}"])
        .args(arguments);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n')?;
    output
        .status
        .success()
        .then(|| (status.to_owned(), body.to_owned()))
}

fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn tls_serves_and_the_socket_needs_no_token() {
    let (fleet, keys) = (network(), tempfile::tempdir().unwrap());
    let certificate = path(Path::new(FILES), "certificate.pem");
    let (key, socket) = (
        path(Path::new(FILES), "key.pem"),
        path(keys.path(), "admin.sock"),
    );
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let options = [
        "--listen",
        &listen,
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--admin-socket",
        &socket,
    ];
    let _server = Server(command(&fleet, &options).spawn().unwrap());
    let url = format!("https://localhost:{port}/healthz");
    let trusted = ["--cacert", certificate.as_str(), &url];
    soon("TLS answers", || curl(&trusted));
    // Clients that never greet, or speak no TLS, delay no other client.
    let _silent: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(&listen).unwrap())
        .collect();
    assert_eq!(
        curl(&[&format!("http://{listen}/healthz")]),
        None,
        "no plain text"
    );
    assert_eq!(curl(&trusted).unwrap().0, "200");
    assert_eq!(curl(&[&url]), None, "an unknown certificate");
    let over_socket = ["--unix-socket", socket.as_str(), "http://fleet/v1/routers"];
    let (status, body) = curl(&over_socket).unwrap();
    assert!(status == "200" && body.contains("jp1"), "{body}");
    let all = format!("https://localhost:{port}/v1/routers");
    assert_eq!(curl(&["--cacert", &certificate, &all]).unwrap().0, "404");
}

#[test]
fn plain_text_beyond_this_machine_is_refused() {
    let fleet = network();
    let refused = |options: &[&str]| {
        let output = command(&fleet, options).output().unwrap();
        assert!(!output.status.success(), "{options:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&["--listen", "0.0.0.0:0"]);
    assert!(
        text.contains("--tls-cert") && text.contains("--insecure-listen"),
        "{text}"
    );
    let (folder, listen) = (tempfile::tempdir().unwrap(), ["--listen", "127.0.0.1:0"]);
    let wrong = path(folder.path(), "wrong.pem");
    fs::write(&wrong, "no certificate").unwrap();
    let key = path(Path::new(FILES), "key.pem");
    let text = refused(&[&listen[..], &["--tls-cert", &wrong, "--tls-key", &key]].concat());
    assert!(text.contains("wrong.pem"), "{text}");
    let token = path(folder.path(), "token");
    fs::write(&token, "the-token").unwrap();
    let text = refused(
        &[
            &listen[..],
            &["--read-token-file", &token, "--write-token-file", &token],
        ]
        .concat(),
    );
    assert!(
        text.contains("give each role its own") && !text.contains("the-token"),
        "{text}"
    );
}
