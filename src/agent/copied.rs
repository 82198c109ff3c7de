//! Whether the state directory is a copy of another host's: its records name interfaces that are not here, and the
//! WireGuard key that it was last used with is another. A reboot takes interfaces away and keeps the key; a new key
//! alone leaves the interfaces.

use tracing::{debug, error};

use crate::kernel::{KernelOptions, LinuxKernel};
use crate::model::PublicKey;
use crate::ports::Kernel as _;
use crate::store::Store;

/// The file that says which public key the directory was last used with.
const USED_WITH: &str = ".public-key";

/// Why the directory looks like a copy; else notes the key that it is used with from now on.
pub(super) async fn look(store: &Store, ours: PublicKey) -> Option<String> {
    let before = store.kept(USED_WITH).ok().flatten();
    let before: Option<PublicKey> = before.and_then(|text| text.trim().parse().ok());
    if let Some(before) = before.filter(|before| *before != ours)
        && lacks_all_links(store).await
    {
        let why = format!(
            "the state directory {} looks like a copy of another host's: it was last used with the WireGuard key \
             {before}, the key here is {ours}, and none of the interfaces in its applied records exists. Two \
             routers must not share it: give each its own state.directory, or delete {USED_WITH} in it if the key \
             was replaced on purpose",
            store.dir().display()
        );
        error!(error = why, "state directory copied");
        return Some(why);
    }
    if let Err(error) = store.keep(USED_WITH, &format!("{ours}\n")) {
        debug!(%error, "the public key is not noted in the state directory");
    }
    None
}

/// Whether the applied records name interfaces, and none of them is here.
async fn lacks_all_links(store: &Store) -> bool {
    let recorded = store.load().map(|snapshot| snapshot.applied_links());
    let recorded = recorded.unwrap_or_default();
    let kernel = LinuxKernel::new(KernelOptions::default());
    let Ok(view) = kernel.observe().await else {
        return false;
    };
    let shared = |name: &str| name == "lo";
    let mut tunnels = recorded
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !shared(name.as_str()))
        .peekable();
    tunnels.peek().is_some() && tunnels.all(|name| !view.links.contains_key(name))
}
