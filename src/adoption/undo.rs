//! Undoes an adoption: kernel, nftables, BIRD's files, units, and at last the state directory with the record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tracing::warn;

use super::files::{self, Tree};
use super::{AdoptionError, Undone, bird_roots, record, units};
use crate::adopt::{
    Before, Now, Phase, Record, Restoration, Scope, of_undo, reverse, reverse_host, without,
};
use crate::agent::build;
use crate::bird::Client as BirdClient;
use crate::config::Config;
use crate::controller::{known_agents, planning};
use crate::document::Kind;
use crate::firewall::{Firewall as _, FirewallError, Nft};
use crate::kernel::LinuxKernel;
use crate::model::{Address, InterfaceName, ObjectName};
use crate::observed::Ownership;
use crate::observed::kernel::{KernelView, SavedRoute};
use crate::plan::Action;
use crate::plan::action::KernelAction;
use crate::plan::firewall::FirewallView;
use crate::ports::{Kernel as _, KernelError};
use crate::store::{Area, Place, SECRETS, Snapshot, Store};
use crate::telemetry::chain;
use crate::util::task::blocking;
use crate::util::{file, fs};

/// Undoes the recorded adoption of an open state directory. May be repeated until it succeeds.
pub(super) async fn undo(config: &Config, store: &Arc<Store>) -> Result<Undone, AdoptionError> {
    let opened = Arc::clone(store);
    let (record, scope) = blocking(move || recorded(&opened)).await?;
    let ownership = build::ownership(store).await;
    let kernel = LinuxKernel::new(build::kernel_options(config, ownership.clone()));
    let mut undone = Undone::default();
    kernel_part(&kernel, &record, scope, &mut undone).await?;
    if scope == Scope::Everything && table(&Nft::default(), &ownership.get()).await? {
        undone
            .done
            .push("removed the agent's table in nftables".to_owned());
    }
    for unit in &record.units {
        // Nothing else waits for systemd.
        match units::switch(unit, true).await {
            Ok(command) => undone.done.push(format!("ran `{command}`")),
            Err(error) => {
                let error = crate::telemetry::chain(&error);
                warn!(%unit, error, "unit not enabled again; run `systemctl enable`");
                undone.kept.push(format!("{unit} is disabled: {error}"));
            }
        }
    }
    let (store, roots) = (Arc::clone(store), bird_roots(&config.bird.directory));
    blocking(move || {
        match scope {
            Scope::Everything => everything(&store, &record, &roots, &mut undone)?,
            Scope::Adopted => adopted(&store, &record, &roots, &mut undone)?,
        }
        Ok(undone)
    })
    .await
}

/// Returns the changes of the undo of a kept adoption that interrupt a tunnel or reset a session.
///
/// # Errors
/// The record or the kernel cannot be read.
pub(super) async fn interruptions(
    config: &Config,
    store: &Arc<Store>,
) -> Result<Vec<String>, AdoptionError> {
    let opened = Arc::clone(store);
    let (record, scope) = blocking(move || recorded(&opened)).await?;
    let ownership = build::ownership(store).await;
    let kernel = LinuxKernel::new(build::kernel_options(config, ownership));
    let (view, routes) = now(&kernel, &record).await?;
    // Without BIRD no session can be reset.
    let client = BirdClient::new(&config.bird.control_socket);
    let (protocols, unknown) = match client.protocols().await {
        Ok(protocols) => (protocols, None),
        Err(error) if error.is_not_running() => (Arc::default(), None),
        Err(error) => {
            let why = chain(&error);
            let unknown = format!("it is unknown which BGP sessions reset: {why}");
            (Arc::default(), Some(unknown))
        }
    };
    let seen = Now {
        kernel: &view,
        routes: &routes,
    };
    let before = Before {
        kernel: &view,
        protocols: &protocols,
    };
    let harm = of_undo(&reverse(&record, seen, scope), before);
    Ok(harm.into_iter().chain(unknown).collect())
}

/// Returns the record, and whether the adoption made all that the state directory has.
fn recorded(store: &Store) -> Result<(Record, Scope), AdoptionError> {
    let record = record::read(store.dir())?.ok_or_else(|| AdoptionError::NoRecord {
        path: store.dir().to_owned(),
    })?;
    record::check_machine(store.dir(), &record)?;
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

type Routes = BTreeMap<InterfaceName, BTreeSet<SavedRoute>>;

/// Reads the kernel, with the routes through the recorded links.
async fn now(kernel: &LinuxKernel, record: &Record) -> Result<(KernelView, Routes), AdoptionError> {
    let view = kernel.observe().await?;
    let mut routes = Routes::new();
    for interface in record.links.keys() {
        let of = kernel.operators_routes(interface).await?;
        routes.insert(interface.clone(), of);
    }
    Ok((view, routes))
}

/// Restores the kernel's state. Marks go last: what carries one is restored again by the next undo.
async fn kernel_part(
    kernel: &LinuxKernel,
    record: &Record,
    scope: Scope,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let (view, routes) = now(kernel, record).await?;
    let seen = Now {
        kernel: &view,
        routes: &routes,
    };
    let links = reverse(record, seen, scope);
    links
        .iter()
        .for_each(|link| undone.kept.extend(link.kept.iter().cloned()));
    // A route may need another one to its gateway, which comes later: the second round tries it again.
    settings(kernel, &links, undone).await?;
    // The second round sees what the first one caused: the kernel removes addresses that depend on another, and routes.
    let again = forgetting(record, seen);
    let (view, routes) = now(kernel, record).await?;
    let seen = Now {
        kernel: &view,
        routes: &routes,
    };
    let lost = settings(kernel, &reverse(&again, seen, scope), undone).await?;
    undone.kept.extend(lost);
    let (view, routes) = now(kernel, record).await?;
    if scope == Scope::Everything
        && let Some(action) = reverse_host(record, &view)
    {
        apply(kernel, "all links", &[action], undone).await?;
    }
    let seen = Now {
        kernel: &view,
        routes: &routes,
    };
    for link in reverse(record, seen, scope) {
        apply(
            kernel,
            link.interface.as_str(),
            link.last.as_slice(),
            undone,
        )
        .await?;
    }
    Ok(())
}

/// Returns the routes that the kernel refuses: one that cannot be restored must not keep all others as they are.
async fn settings(
    kernel: &LinuxKernel,
    links: &[Restoration],
    undone: &mut Undone,
) -> Result<Vec<String>, AdoptionError> {
    let mut lost = Vec::new();
    for link in links {
        let interface = &link.interface;
        apply(kernel, interface.as_str(), &link.settings, undone).await?;
        for route in &link.routes {
            match kernel.restore_route(interface, route).await {
                Ok(()) => undone
                    .done
                    .push(format!("restore a route through {interface}")),
                Err(error) => lost.push(format!("not done: {}", chain(&error))),
            }
        }
    }
    Ok(lost)
}

/// Returns the record for a second round: what was there before the first one, and is missing now, went because of it.
fn forgetting(record: &Record, seen: Now<'_>) -> Record {
    let mut record = record.clone();
    for (interface, left) in &mut record.left {
        if let Some(link) = seen.kernel.links.get(interface) {
            let now = &link.addresses;
            left.addresses
                .retain(|it| !now.contains(&Address::from(it)));
        }
        if let Some(routes) = seen.routes.get(interface) {
            left.routes.retain(|it| !routes.contains(it));
        }
    }
    record
}

async fn apply(
    kernel: &LinuxKernel,
    interface: &str,
    actions: &[KernelAction],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let actions: Vec<_> = actions.iter().collect();
    let results = kernel.apply(&actions).await;
    let done: Result<(), KernelError> = results.into_iter().collect();
    undone.done.extend(actions.iter().map(ToString::to_string));
    done.map_err(|source| AdoptionError::Restore {
        interface: interface.to_owned(),
        source,
    })
}

/// Removes the agent's table in nftables, and returns whether there was one. Without `nft` it has no table.
async fn table(nft: &Nft, ownership: &Ownership) -> Result<bool, AdoptionError> {
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
        return Ok(true);
    }
    Ok(false)
}

/// Restores all files: BIRD's, and those of the state directory.
fn everything(
    store: &Store,
    record: &Record,
    roots: &[PathBuf],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let state = store.dir();
    let identity = store.identity().map(|known| known.identity);
    let marked = |path: &Path| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| files::is_marked(path, identity))
    };
    files::restore(state, record, marked, undone)?;
    let mut bird = Tree::default();
    for root in roots {
        bird.list(root, &[])?;
    }
    let removed = files::remove_new(&bird, record, marked)?;
    if removed > 0 {
        let done = format!("removed {removed} files of the agent from BIRD's directory");
        undone.done.push(done);
    }
    let aside = aside(state, record);
    if record.phase == Phase::Kept && !record.state_existed {
        // It may hold what an operator wrote since, and its history.
        fs::rename(state, &aside).map_err(AdoptionError::file("move away", state))?;
        undone.done.push(moved(state, &aside));
        record::remove(&aside)?;
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
    if record.phase == Phase::Kept {
        files::move_new(state, &own, record, &aside)?;
        undone.done.push(moved(&state.join("*"), &aside));
    }
    files::remove_new(&own, record, |_| true)?;
    record::remove(state)?;
    if !record.state_existed {
        let empty = fs::remove_dir(state);
        empty.map_err(AdoptionError::file("remove", state))?;
        undone.done.push(format!("removed {}", state.display()));
    }
    identity.iter().for_each(known_agents::forget);
    Ok(())
}

/// Returns the place for the files of a kept adoption.
fn aside(state: &Path, record: &Record) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(format!(".undone-{}", record.begun.as_second()));
    PathBuf::from(name)
}

fn moved(from: &Path, to: &Path) -> String {
    format!("moved {} to {}", from.display(), to.display())
}

/// Removes what belongs to the adopted sessions alone; documents of the Control Plane stay.
fn adopted(
    store: &Store,
    record: &Record,
    roots: &[PathBuf],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let snapshot = store.load()?;
    for name in &record.documents {
        document(store, &snapshot, record, name, undone)?;
    }
    for name in &record.overrides {
        fields(store, &snapshot, record, name, undone)?;
    }
    let identity = store.identity().map(|known| known.identity);
    for name in record.documents.iter().chain(&record.overrides) {
        for area in [Area::Applied, Area::Status] {
            remove(&store.path(&Place::new(area, Kind::BgpSession, name)))?;
        }
        for root in roots {
            let fragment = root.join("sessions").join(format!("{name}.conf"));
            let identity = identity.as_ref();
            if identity.is_some_and(|identity| files::is_marked(&fragment, identity)) {
                remove(&fragment)?;
                undone.done.push(format!("removed {}", fragment.display()));
            }
        }
    }
    record::remove(store.dir())
}

/// Removes a document that the adoption wrote, with its secret. One that was changed since is moved aside.
fn document(
    store: &Store,
    snapshot: &Snapshot,
    record: &Record,
    name: &ObjectName,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    if snapshot
        .overrides
        .contains_key(&(Kind::BgpSession, name.clone()))
    {
        let kept = format!("the override of sessions/{name}, which nothing uses any more");
        undone.kept.push(kept);
    }
    let path = store.path(&Place::new(Area::Documents, Kind::BgpSession, name));
    let Some(slot) = snapshot.sessions.get(name) else {
        return Ok(());
    };
    let now = slot.as_ref().ok();
    let now = now.and_then(|stored| serde_json::to_value(&stored.document.spec).ok());
    let written = record.written.documents.get(name);
    if written.is_some() && now.as_ref() != written {
        let aside = aside(&path, record);
        fs::rename(&path, &aside).map_err(AdoptionError::file("move away", &path))?;
        undone.kept.push(format!(
            "sessions/{name} was changed since: {}",
            moved(&path, &aside)
        ));
        return Ok(());
    }
    remove(&path)?;
    remove(&store.dir().join(SECRETS).join(format!("{name}.psk")))?;
    undone
        .done
        .push(format!("removed the document sessions/{name}"));
    Ok(())
}

/// Removes the fields that the adoption wrote from the override of a synced session.
fn fields(
    store: &Store,
    snapshot: &Snapshot,
    record: &Record,
    name: &ObjectName,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let key = (Kind::BgpSession, name.clone());
    let stored = match snapshot.overrides.get(&key) {
        None => return Ok(()),
        Some(Ok(stored)) => stored,
        Some(Err(error)) => {
            let kept = format!("the override of sessions/{name}, which is invalid: {error}");
            undone.kept.push(kept);
            return Ok(());
        }
    };
    let mut document = stored.document.clone();
    let least = json!({"tunnel": {"adopt": true}});
    let written = record.written.overrides.get(name).or(least.as_object());
    let changed = written.map(|written| without(&mut document.spec.set, written));
    let changed = changed.unwrap_or_default();
    let of = format!("the override of sessions/{name}");
    let kept = changed
        .kept
        .iter()
        .map(|it| format!("{it} of {of} was changed since"));
    undone.kept.extend(kept);
    if document.spec.set.is_empty() && !document.spec.paused {
        store.remove_override(Kind::BgpSession, name)?;
        undone.done.push(format!("removed {of}"));
    } else if !changed.removed.is_empty() {
        store.write_override(Kind::BgpSession, &document)?;
        let fields = changed.removed.join(", ");
        undone.done.push(format!("removed {fields} from {of}"));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), AdoptionError> {
    let removed = file::remove(path);
    removed
        .map(drop)
        .map_err(AdoptionError::file("remove", path))
}
