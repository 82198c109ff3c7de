//! The page of a Control Plane, as headless Chromium shows it.

use std::fs;
use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::lab::router::agent_program;
use crate::lab::{contains, wait_until};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fleet(dir: &Path) {
    let write = |name: &str, value: serde_json::Value| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.to_string()).unwrap();
    };
    let network = json!({"asn": 4242420998u32, "prefixes": {"ipv6": "fd48:4242:420::/48"}});
    write("network.yaml", network);
    for (id, name) in [(1, "jp1"), (2, "hk1"), (3, "de1")] {
        let digest = Sha256::digest(name.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let address = format!("{name}.example.net");
        let router =
            json!({"id": id, "address": address, "tokenHashes": [format!("sha256:{hash}")]});
        write(&format!("routers/{name}.yaml"), router);
    }
    let session =
        json!({"uuid": "alice-1", "name": "<i>alice</i>", "asn": 4242421080u32, "status": 3});
    write("sessions/jp1/alice.yaml", session);
    let posted = |body| json!({"receivedAt": "2026-01-02T03:04:05Z", "body": body});
    let report = json!({"sessions": [
        {"uuid": "mesh-1-2", "state": "established"}, {"uuid": "mesh-1-3", "state": "connect"}]});
    write("reported/jp1/report.json", posted(report));
    let heartbeat = json!({"version": "9.8.7", "uptime": 60, "drained": true});
    write("reported/hk1/heartbeat.json", posted(heartbeat));
}

/// Listens on a port of this machine, and passes each connection to a unix socket, as a browser cannot use one.
fn forward(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let Ok(mut server) = UnixStream::connect(&socket) else {
                continue;
            };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut server, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

fn browse(dir: &Path, port: u16, path: &str, option: &str) -> String {
    let mut chromium = Command::new("timeout");
    chromium.args([
        "60",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]);
    chromium.arg(format!(
        "--user-data-dir={}",
        dir.join("chromium").display()
    ));
    chromium.args(["--window-size=1200,1400", option]);
    let output = chromium
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output();
    let output = output.expect("chromium runs; tests/deps.sh tests installs it");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn page_shows_routers_map_and_review() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, socket) = (
        folder.path().join("fleet"),
        folder.path().join("admin.sock"),
    );
    fleet(&dir);
    let mut server = Command::new(agent_program());
    server
        .args(["control-plane", "--listen", "127.0.0.1:0", "--fleet"])
        .arg(&dir);
    server
        .arg("--admin-socket")
        .arg(&socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _server = Server(server.spawn().unwrap());
    let port = forward(socket);
    wait_until("the page has routers, map and review", 30, || {
        let page = browse(folder.path(), port, "/", "--dump-dom");
        [
            "9.8.7",
            "wait for review (1)",
            "&lt;i&gt;alice&lt;/i&gt;",
            "Approve",
            "class=\"up\"",
            "class=\"down\"",
            "class=\"unknown\"",
            "</svg>",
        ]
        .iter()
        .try_for_each(|text| contains(&page, text))
    });
    let page = browse(folder.path(), port, "/routers/jp1", "--dump-dom");
    for text in ["alice-1", "connect", "established"] {
        assert!(page.contains(text), "no {text} in {page}");
    }
    let file = folder.path().join("page.png");
    browse(
        folder.path(),
        port,
        "/",
        &format!("--screenshot={}", file.display()),
    );
    assert!(fs::read(file).unwrap().starts_with(b"\x89PNG"));
}
