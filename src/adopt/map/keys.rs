//! The private keys of running interfaces, compared with the one that the agent gives all of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Adoption, Running};
use crate::model::{InterfaceName, PublicKey};
use crate::observed::kernel::Link;

/// The agent's WireGuard key, as its file has it.
#[derive(Debug, Clone, Copy)]
pub struct OwnKey<'a> {
    /// `wireguard.privateKeyPath`
    pub path: &'a Path,
    /// `None`: the file is missing, or cannot be read.
    pub public: Option<PublicKey>,
}

/// Why the agent's key is not that of an interface.
#[derive(Debug, thiserror::Error)]
pub(super) enum OtherKey {
    #[error(
        "it has the public key {theirs}, and wireguard.privateKeyPath, {path}, the public key {ours}. All interfaces of the \
         agent have that one key, so this one stays. To take it over, set the agent's key on it and tell the peer, or use its \
         key for the agent: {command}"
    )]
    Differs {
        theirs: PublicKey,
        ours: PublicKey,
        path: String,
        command: String,
    },
    #[error("wireguard.privateKeyPath, {path}, has no key")]
    NoFile { path: String },
}

impl OwnKey<'_> {
    /// Checks that an interface has the agent's key.
    pub(super) fn check(self, interface: &InterfaceName, link: &Link) -> Result<(), OtherKey> {
        let path = self.path.display().to_string();
        match (key_of(link), self.public) {
            (_, None) => Err(OtherKey::NoFile { path }),
            (Some(theirs), Some(ours)) if theirs != ours => Err(OtherKey::Differs {
                theirs,
                ours,
                path,
                command: self.command(interface),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the command that gives the agent the key of an interface.
    fn command(self, interface: &InterfaceName) -> String {
        let path = self.path.display();
        format!("`(umask 077; wg show {interface} private-key > {path})`")
    }
}

fn key_of(link: &Link) -> Option<PublicKey> {
    link.wireguard.as_ref()?.public_key
}

impl Adoption {
    /// Refuses a router without the agent's key, and says which key the interfaces with sessions have.
    pub(super) fn missing_key(&mut self, running: Running<'_>, interfaces: &[&InterfaceName]) {
        if running.key.public.is_some() || interfaces.is_empty() {
            return;
        }
        let mut keys = BTreeMap::<PublicKey, Vec<&InterfaceName>>::new();
        for interface in interfaces {
            let link = running.kernel.links.get(interface);
            if let Some(key) = link.and_then(key_of) {
                keys.entry(key).or_default().push(interface);
            }
        }
        let most = keys.values().max_by_key(|interfaces| interfaces.len());
        let first = most.and_then(|interfaces| interfaces.first());
        let shown = keys.iter().map(|(key, interfaces)| {
            let names: Vec<_> = interfaces.iter().map(|it| it.as_str()).collect();
            format!("{} with public key {key}", names.join(", "))
        });
        let shown: Vec<_> = shown.collect();
        let action = match first {
            Some(interface) => running.key.command(interface),
            None => "put the key of the interfaces there".to_owned(),
        };
        self.conflicts.push(format!(
            "wireguard.privateKeyPath, {}, has no key, and the agent would create another than the running one ({}); \
             first {action}. All interfaces of the agent have one key: those with another stay as they are",
            running.key.path.display(),
            shown.join("; "),
        ));
    }
}
