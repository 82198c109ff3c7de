//! Undoes an adoption: kernel, nftables, BIRD's files, units, and at last the state directory with the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::files::{self, Tree};
use super::{AdoptionError, bird_roots, record, units};
use crate::adopt::{Phase, Record, Restoration, Scope, reverse, reverse_host};
use crate::agent::build;
use crate::config::Config;
use crate::controller::{known_agents, planning};
use crate::document::Kind;
use crate::firewall::{Firewall as _, FirewallError, Nft};
use crate::kernel::LinuxKernel;
use crate::observed::Ownership;
use crate::plan::Action;
use crate::plan::action::KernelAction;
use crate::plan::firewall::FirewallView;
use crate::ports::{Kernel as _, KernelError};
use crate::store::{Area, Place, SECRETS, Store};
use crate::util::task::blocking;
use crate::util::{file, fs};

/// Undoes the recorded adoption of an open state directory. May be repeated until it succeeds.
pub(super) async fn undo(config: &Config, store: &Arc<Store>) -> Result<(), AdoptionError> {
    let opened = Arc::clone(store);
    let (record, scope) = blocking(move || recorded(&opened)).await?;
    let ownership = build::ownership(store).await;
    let kernel = LinuxKernel::new(build::kernel_options(config, ownership.clone()));
    kernel_part(&kernel, &record, scope).await?;
    if scope == Scope::Everything {
        table(&Nft::default(), &ownership.get()).await?;
    }
    for unit in &record.units {
        // Nothing else waits for systemd.
        if let Err(error) = units::switch(unit, true).await {
            let error = crate::telemetry::chain(&error);
            warn!(%unit, error, "unit not enabled again; run `systemctl enable`");
        }
    }
    let (store, roots) = (Arc::clone(store), bird_roots(&config.bird.directory));
    blocking(move || match scope {
        Scope::Everything => everything(&store, &record, &roots),
        Scope::Adopted => adopted(&store, &record, &roots),
    })
    .await
}

/// Returns the record, and whether the adoption made all that the state directory has.
fn recorded(store: &Store) -> Result<(Record, Scope), AdoptionError> {
    let record = record::read(store.dir())?.ok_or_else(|| AdoptionError::NoRecord {
        path: store.dir().to_owned(),
    })?;
    if record.phase == Phase::Applying {
        return Ok((record, Scope::Everything));
    }
    let snapshot = store.load()?;
    let is_adopted =
        |place: &Place| place.kind == Kind::BgpSession && record.documents.contains(&place.name);
    let alone = snapshot.documents().all(|(place, _)| is_adopted(&place));
    let scope = match alone && snapshot.overrides.is_empty() {
        true => Scope::Everything,
        false => Scope::Adopted,
    };
    Ok((record, scope))
}

/// Restores the kernel's state. Marks go last: what carries one is restored again by the next undo.
async fn kernel_part(
    kernel: &LinuxKernel,
    record: &Record,
    scope: Scope,
) -> Result<(), AdoptionError> {
    // The second round sees what the first one caused: the kernel removes addresses that depend on another.
    for _ in 0..2 {
        let view = kernel.observe().await?;
        for link in reverse(record, &view, scope) {
            apply(kernel, &link.interface.to_string(), &link.settings).await?;
        }
    }
    let view = kernel.observe().await?;
    if scope == Scope::Everything
        && let Some(action) = reverse_host(record, &view)
    {
        apply(kernel, "all links", &[action]).await?;
    }
    for Restoration {
        interface, last, ..
    } in reverse(record, &view, scope)
    {
        apply(kernel, &interface.to_string(), last.as_slice()).await?;
    }
    Ok(())
}

async fn apply(
    kernel: &LinuxKernel,
    interface: &str,
    actions: &[KernelAction],
) -> Result<(), AdoptionError> {
    let actions: Vec<_> = actions.iter().collect();
    let results = kernel.apply(&actions).await;
    let done: Result<(), KernelError> = results.into_iter().collect();
    done.map_err(|source| AdoptionError::Restore {
        interface: interface.to_owned(),
        source,
    })
}

/// Removes the agent's table in nftables. Without `nft` it has no table.
async fn table(nft: &Nft, ownership: &Ownership) -> Result<(), AdoptionError> {
    let view = match nft.observe().await {
        Err(FirewallError::Missing { .. } | FirewallError::Refused { .. }) => {
            Ok(FirewallView::default())
        }
        view => view,
    }?;
    let step = planning::firewall(None, &view, ownership);
    let step = step.map_err(|refusal| AdoptionError::Table(refusal.to_string()))?;
    if let Some(Action::Firewall(action)) = step.map(|step| step.action) {
        nft.apply(&action).await?;
    }
    Ok(())
}

/// Restores all files: BIRD's, and those of the state directory.
fn everything(store: &Store, record: &Record, roots: &[PathBuf]) -> Result<(), AdoptionError> {
    let state = store.dir();
    let identity = store.identity().map(|known| known.identity);
    let marked = |path: &Path| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| files::is_marked(path, identity))
    };
    files::restore(state, record, marked)?;
    let mut bird = Tree::default();
    for root in roots {
        bird.list(root, &[])?;
    }
    files::remove_new(&bird, record, marked)?;
    if record.phase == Phase::Kept && !record.state_existed {
        move_away(state, record)?;
        identity.iter().for_each(known_agents::forget);
        return Ok(());
    }
    let mut own = Tree::default();
    let mut except = vec![record::folder(state)];
    if record.state_existed {
        except.push(state.join(".git"));
    }
    own.list(state, &except)?;
    own.folders.remove(state);
    files::remove_new(&own, record, |_| true)?;
    record::remove(state)?;
    if !record.state_existed {
        let empty = fs::remove_dir(state);
        empty.map_err(AdoptionError::file("remove", state))?;
    }
    identity.iter().for_each(known_agents::forget);
    Ok(())
}

/// Moves the state directory of a kept adoption aside: it may hold what an operator wrote since, and its history.
fn move_away(state: &Path, record: &Record) -> Result<(), AdoptionError> {
    let mut name = state.as_os_str().to_owned();
    name.push(format!(".undone-{}", record.begun.as_second()));
    let target = PathBuf::from(name);
    fs::rename(state, &target).map_err(AdoptionError::file("move away", state))?;
    info!(path = %target.display(), "state directory of the undone adoption kept");
    record::remove(&target)
}

/// Removes what belongs to the adopted sessions alone; documents of the Control Plane stay.
fn adopted(store: &Store, record: &Record, roots: &[PathBuf]) -> Result<(), AdoptionError> {
    let state = store.dir();
    let identity = store.identity().map(|known| known.identity);
    let own = record.documents.iter().map(|name| (name, true));
    let synced = record.overrides.iter().map(|name| (name, false));
    for (name, is_own) in own.chain(synced) {
        let mut areas = vec![Area::Overrides, Area::Applied, Area::Status];
        areas.extend(is_own.then_some(Area::Documents));
        for area in areas {
            remove(&store.path(&Place::new(area, Kind::BgpSession, name)))?;
        }
        if is_own {
            remove(&state.join(SECRETS).join(format!("{name}.psk")))?;
        }
        for root in roots {
            let fragment = root.join("sessions").join(format!("{name}.conf"));
            let identity = identity.as_ref();
            if identity.is_some_and(|identity| files::is_marked(&fragment, identity)) {
                remove(&fragment)?;
            }
        }
    }
    record::remove(state)
}

fn remove(path: &Path) -> Result<(), AdoptionError> {
    let removed = file::remove(path);
    removed
        .map(drop)
        .map_err(AdoptionError::file("remove", path))
}
