//! What runs on this router: kernel, BIRD, and the files of wg-quick and systemd-networkd.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::adopt::{Adoption, OwnAs, OwnKey, Running, TunnelFile};
use crate::cli::offline::Rehearsal;
use crate::config::Config;
use crate::kernel::keys;
use crate::model::Asn;
use crate::observed::bird::BirdState;
use crate::ports::CheckError;
use crate::store::Snapshot;
use crate::util::task::blocking;
use crate::util::{file, fs};

/// The most that is read of a file of `wg-quick` or systemd-networkd.
const LARGEST: u64 = 1 << 20;

/// Maps the running router.
pub(super) async fn adoption(
    rehearsal: &Rehearsal,
    synced: &Snapshot,
    files: &[TunnelFile],
) -> anyhow::Result<Adoption> {
    let context = &rehearsal.parts.shared.context;
    let observer = &context.observer;
    observer.wait_for_bird();
    let kernel = observer.kernel(Instant::now()).await?;
    let bird = observer.bird(Instant::now()).await;
    if !bird.is_running() {
        anyhow::bail!(
            "sessions of the running BIRD cannot be read: {}. Start BIRD, and run `moenet-agent adopt --plan` again",
            bird.why_down()
        );
    }
    let config = &rehearsal.parts.config;
    let path = config.wireguard.private_key_path.clone();
    let key = blocking(move || keys::load(&path)).await;
    let own = own_as(config, synced);
    let mut adoption = Adoption::of(Running {
        kernel: &kernel,
        protocols: &bird.protocols,
        main: &bird.live.main,
        files,
        asn: own.as_ref().map(|(asn, place)| OwnAs { asn: *asn, place }),
        key: OwnKey {
            path: &config.wireguard.private_key_path,
            public: key.ok().flatten().map(|key| keys::public_key(&key)),
        },
    });
    adoption.conflicts.extend(rejected(rehearsal, &bird).await);
    Ok(adoption)
}

/// Returns this router's AS, and where it is set: the configuration wins over the Control Plane.
fn own_as(config: &Config, synced: &Snapshot) -> Option<(Asn, String)> {
    let configured = || {
        let place = format!("node.asn at {}", config.source.place("node.asn"));
        Some((config.node.asn?, place))
    };
    let node = || {
        let node = synced.node.as_ref()?.as_ref().ok()?;
        let place = "the AS of this router that the Control Plane has".to_owned();
        Some((node.document.spec.asn, place))
    };
    configured().or_else(node)
}

/// Returns that BIRD's parser rejects the operator's files on disk, which BIRD runs from memory. A parser of another version
/// proves nothing.
async fn rejected(rehearsal: &Rehearsal, bird: &BirdState) -> Option<String> {
    let main = &bird.live.main;
    if main.is_agents() || main.held.is_some() || bird.running != bird.installed {
        return None;
    }
    let checker = rehearsal.parts.shared.committer.checker();
    let checked = checker.check(&main.path, main.protocols.len()).await;
    match checked {
        Err(CheckError::Refused(what)) => Some(format!(
            "BIRD's parser rejects the files on disk, so that a start of BIRD would fail and end every session: {what}; \
             correct them, and run `birdc configure`"
        )),
        _ => None,
    }
}

/// Reads the files of a directory that configure one WireGuard interface; a missing directory holds none.
pub(super) fn tunnel_files(
    directory: &Path,
    extensions: &[&str],
) -> anyhow::Result<Vec<TunnelFile>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("read {}", directory.display()))?,
    };
    let mut paths = Vec::new();
    for entry in listed {
        let path = entry
            .with_context(|| format!("read {}", directory.display()))?
            .path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let bytes =
            file::read(&path, LARGEST).with_context(|| format!("read {}", path.display()))?;
        files.extend(TunnelFile::read(&path, &bytes));
    }
    Ok(files)
}
