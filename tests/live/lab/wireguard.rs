//! WireGuard interfaces made by hand, as a neighbour's operator would.

use super::namespace::Namespace;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Clone)]
pub(crate) struct KeyPair {
    pub(crate) private: String,
    pub(crate) public: String,
}

impl KeyPair {
    pub(crate) fn new() -> Self {
        let private = wg("genkey", "");
        let public = wg("pubkey", &private);
        Self { private, public }
    }
}

fn wg(verb: &str, input: &str) -> String {
    let mut child = Command::new("wg")
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot run `wg`: tests/deps.sh tests installs wireguard-tools");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout)
        .unwrap()
        .trim()
        .into()
}

pub(crate) struct Tunnel<'a> {
    pub(crate) device: &'a str,
    pub(crate) address: &'a str,
    pub(crate) private: &'a str,
    pub(crate) port: u16,
    pub(crate) peer: &'a str,
    pub(crate) endpoint: &'a str,
}

impl Tunnel<'_> {
    /// Kernel WireGuard where there is some, else the userspace implementation.
    pub(crate) fn make(&self, inside: &Namespace, folder: &Path) {
        let device = self.device;
        inside.shell(&format!(
            "ip link add {device} type wireguard 2>/dev/null || wireguard-go {device} >/dev/null 2>&1"
        ));
        self.configure(inside, folder);
        inside.shell(&format!("ip link set {device} addrgenmode none mtu 1420"));
        inside.bring_up(device, &[&format!("{}/64", self.address)]);
    }

    /// Sets keys, port and peer, also of a running interface.
    pub(crate) fn configure(&self, inside: &Namespace, folder: &Path) {
        let file = folder.join("wg.conf");
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}\n\
             AllowedIPs = 0.0.0.0/0, ::/0\nPersistentKeepalive = 1\n",
            self.private, self.port, self.peer, self.endpoint
        );
        std::fs::write(&file, text).unwrap();
        inside.shell(&format!("wg setconf {} {}", self.device, file.display()));
    }
}
