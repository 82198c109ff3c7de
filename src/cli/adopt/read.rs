//! What runs on this router: kernel, BIRD, and the files of wg-quick and systemd-networkd.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::adopt::{Adoption, Running, TunnelFile};
use crate::cli::offline::Rehearsal;
use crate::util::{file, fs};

/// The most that is read of a file of `wg-quick` or systemd-networkd.
const LARGEST: u64 = 1 << 20;

/// Maps the running router.
pub(super) async fn adoption(
    rehearsal: &Rehearsal,
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
    Ok(Adoption::of(Running {
        kernel: &kernel,
        protocols: &bird.protocols,
        main: &bird.live.main,
        files,
        asn: rehearsal.parts.config.node.asn,
    }))
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
