//! Detects a state directory that is a copy of another host's: the WireGuard key differs from the
//! key that the directory was last used with, and the interfaces in its records do not exist here
//! or do not have that key. A reboot removes interfaces and keeps the key; a key that is replaced
//! while the agent is down leaves interfaces with the previous key.

use std::path::Path;

use tracing::error;

use super::FILE;
use crate::kernel::{KernelOptions, LinuxKernel};
use crate::model::PublicKey;
use crate::observed::kernel::Link;
use crate::ports::Kernel as _;
use crate::store::Store;

/// Returns why the directory looks like a copy. `recorded`: the key in its record.
pub(super) async fn look(
    store: &Store,
    recorded: Option<PublicKey>,
    ours: PublicKey,
) -> Option<String> {
    let before = recorded.filter(|before| *before != ours)?;
    if !lacks_all_links(store, before).await {
        return None;
    }
    let why = text(store.dir(), before, ours);
    error!(error = why, "state directory copied");
    Some(why)
}

/// Describes the copy. Redaction shows a key only after the words "public key".
fn text(directory: &Path, before: PublicKey, ours: PublicKey) -> String {
    format!(
        "the state directory {} looks like a copy of another host's: it was last used with the WireGuard public key \
         {before}, this host has the public key {ours}, and no interface in its applied records exists here with the \
         former. Two routers must not share a state directory: give each its own state.directory. If the key was \
         replaced on purpose, delete the file {} in the directory",
        directory.display(),
        FILE
    )
}

/// Returns whether the applied records name interfaces, and none of them exists here with the key of these records.
async fn lacks_all_links(store: &Store, before: PublicKey) -> bool {
    let recorded = store.load().map(|snapshot| snapshot.applied_links());
    let recorded = recorded.unwrap_or_default();
    let kernel = LinuxKernel::new(KernelOptions::default());
    let Ok(view) = kernel.observe().await else {
        return false;
    };
    let shared = |name: &str| name == "lo";
    let is_known = |link: &Link| {
        let key = link
            .wireguard
            .as_ref()
            .map(|wireguard| wireguard.public_key);
        key.is_none_or(|key| key == Some(before))
    };
    let mut tunnels = recorded
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !shared(name.as_str()))
        .peekable();
    tunnels.peek().is_some() && !tunnels.any(|name| view.links.get(name).is_some_and(is_known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::redact;

    #[test]
    fn both_public_keys_are_readable_in_the_log() {
        let [before, ours] = [1, 2].map(|byte| PublicKey::new([byte; 32]));
        let text = text(Path::new("/var/lib/moenet-agent"), before, ours);
        assert_eq!(redact(&text), text);
        assert!(text.contains(&before.to_string()) && text.contains(&ours.to_string()));
    }
}
