//! What several tests need: a router, its keys, and a session made from a specification.

pub(crate) mod namespace;
pub(crate) mod openapi;
pub(crate) mod small_disk;
pub(crate) mod unreadable;

use std::collections::BTreeMap;
use std::process::Command;

use moenet_agent::document::{BgpSessionSpec, NodeSpec, parse};
use moenet_agent::effective::{Defaults, FieldError, Router, Secrets, Session};
use moenet_agent::model::{ObjectName, PrivateKey, PublicKey, RouterKey, Secret, Uid};

/// The name of the one secret that sessions in tests use.
pub(crate) const PSK_FILE: &str = "secrets/peer.psk";

/// In the tests a private key and its public key are the same bytes, so that what a kernel would
/// derive can be told without any cryptography.
pub(crate) fn public_of(private: &PrivateKey) -> PublicKey {
    PublicKey::new(*private.expose())
}

pub(crate) fn key(byte: u8) -> PublicKey {
    PublicKey::new([byte; 32])
}

pub(crate) fn private_key() -> PrivateKey {
    PrivateKey::new([200; 32])
}

/// The router's key, both halves.
pub(crate) fn router_key() -> RouterKey {
    RouterKey::Available {
        private: private_key(),
        public: our_key(),
    }
}

pub(crate) fn our_key() -> PublicKey {
    public_of(&private_key())
}

/// Router jp1, as in the sample `state/`.
pub(crate) fn router() -> Router {
    let node = parse::<NodeSpec>(
        "{apiVersion: moenet.work/v1, kind: Node, metadata: {name: jp1}, spec: {id: 1, asn: 4242420998, \
         loopbackIpv4: 172.23.105.177, loopbackIpv6: 'fd48:4242:420::1'}}",
    )
    .unwrap();
    Router::new("jp1", &node.spec, our_key())
}

/// A preshared key file that holds this byte 32 times.
pub(crate) fn secrets(byte: u8) -> Secrets {
    BTreeMap::from([(PSK_FILE.to_owned(), base64_of(byte))])
}

fn base64_of(byte: u8) -> Secret<String> {
    PrivateKey::new([byte; 32]).to_base64()
}

pub(crate) fn resolve(
    name: &str,
    uid: &Uid,
    spec: &BgpSessionSpec,
    secrets: &Secrets,
) -> Result<Session, FieldError> {
    let name: ObjectName = name.parse().unwrap();
    let router = router();
    Session::resolve(
        &name,
        uid,
        &spec.filled(&router, &Defaults::default()),
        &router,
        secrets,
    )
}

/// Runs one test of this binary again behind `wrapper` (`unshare …`) and returns its exit status. A run that
/// ends well without having executed that test panics.
pub(crate) fn run_again(wrapper: &mut Command, test: &str) -> Option<i32> {
    let output = wrapper
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
            "--include-ignored",
        ])
        .output();
    let Ok(output) = output else { return None };
    let stdout = String::from_utf8_lossy(&output.stdout);
    eprintln!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        !output.status.success() || stdout.contains("1 passed"),
        "{test} did not run"
    );
    output.status.code()
}
