//! Signals to the embedded Control Plane, as a service manager sends them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// Stops the server when a test fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }
}

#[test]
fn hangup_does_not_end_the_embedded_control_plane() {
    let fleet = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_moenet-agent"));
    server
        .args(["control-plane", "--listen", "127.0.0.1:0", "--fleet"])
        .arg(fleet.path())
        .stderr(Stdio::piped());
    let mut server = Server(server.spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines();
    let mut line = |words: &str| {
        let mut lines = log.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(words)).unwrap()
    };
    let listens = line("listens");
    let address = listens.split("listen=").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap();
    let address = address.trim_matches('"').to_owned();
    server.signal("HUP");
    line("SIGHUP");
    let mut connection = TcpStream::connect(address).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    connection.write_all(request).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    server.signal("TERM");
    assert!(server.0.wait().unwrap().success());
}
