//! What the router is before the first change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Tree;
use super::{AdoptionError, Takeover, record};
use crate::adopt::record::{Placed, named};
use crate::adopt::{Adopted, LinkSettings, Written};
use crate::agent::build;
use crate::config::Config;
use crate::document::Kind;
use crate::kernel::LinuxKernel;
use crate::model::{Address, InterfaceName, ObjectName};
use crate::observed::kernel::{KernelView, Link};
use crate::store::{Area, Place, Store};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// Returns the sessions that get a document, or an override.
pub(super) fn names(takeover: &Takeover, overridden: bool) -> BTreeSet<ObjectName> {
    let documents = takeover.documents.iter();
    let meant = documents.filter(|it| it.over.is_some() == overridden);
    meant.map(Adopted::name).sorted_set()
}

/// Opens the state directory, after everything that exists was listed.
pub(super) fn open(
    config: &Config,
    bird: &Path,
) -> Result<(Arc<Store>, Tree, bool), AdoptionError> {
    let state = &config.state.directory;
    let existed = fs::exists(state);
    let mut tree = Tree::default();
    let real = match existed {
        true => fs::canonicalize(state).map_err(AdoptionError::file("read", state))?,
        false => state.clone(),
    };
    if record::read(&real)?.is_some() {
        return Err(AdoptionError::Recorded { path: real });
    }
    tree.list(&real, &[real.join(".git"), record::folder(&real)])?;
    for root in bird_roots(bird)? {
        tree.list(&root, &[])?;
    }
    let store = build::open(state, config.state.schemas.clone())?;
    Ok((Arc::new(store), tree, existed))
}

/// Returns the files and folders of BIRD that the agent may change, without symbolic links on the way.
pub(super) fn bird_roots(directory: &Path) -> Result<[PathBuf; 2], AdoptionError> {
    let real = match fs::exists(directory) {
        true => fs::canonicalize(directory).map_err(AdoptionError::file("read", directory))?,
        false => directory.to_owned(),
    };
    Ok(["bird.conf", "moenet"].map(|name| real.join(name)))
}

/// Reads the links that are taken over.
pub(super) async fn links(
    kernel: &LinuxKernel,
    view: &KernelView,
    takeover: &Takeover,
) -> Result<BTreeMap<InterfaceName, LinkSettings>, AdoptionError> {
    // An undo removes the links with the mark that were not there: none may be there before.
    if let Some((interface, _)) = view.links.iter().find(|(_, link)| link.mark.is_ours()) {
        return Err(AdoptionError::Marked {
            interface: interface.clone(),
        });
    }
    let mut links = BTreeMap::new();
    for interface in takeover.documents.iter().filter_map(Adopted::interface) {
        let link = view.links.get(interface);
        let link = link.ok_or_else(|| AdoptionError::Gone {
            interface: interface.clone(),
        })?;
        let settings = settings(kernel, interface, link).await?;
        links.insert(interface.clone(), settings);
    }
    Ok(links)
}

/// Returns the settings of a link with its sysctls and the routes through it.
pub(super) async fn settings(
    kernel: &LinuxKernel,
    interface: &InterfaceName,
    link: &Link,
) -> Result<LinkSettings, AdoptionError> {
    let sysctls = kernel.sysctls(interface).await;
    let routes = kernel.operators_routes(interface).await?;
    Ok(LinkSettings::of(link, &sysctls, routes))
}

/// Returns the addresses that the plan adds and that are not there by now.
pub(super) fn missing(added: &BTreeSet<Placed>, view: &KernelView) -> BTreeSet<Placed> {
    let is_there = |placed: &Placed| {
        let link = view.links.get(&placed.interface);
        link.is_some_and(|link| link.addresses.contains(&Address::from(&placed.address)))
    };
    let missing = added.iter().filter(|placed| !is_there(placed));
    missing.cloned().sorted_set()
}

/// Returns the content of the documents and overrides that the adoption writes.
pub(super) fn written(takeover: &Takeover) -> Written {
    let mut written = Written::default();
    for adopted in &takeover.documents {
        match &adopted.over {
            Some(over) => {
                let set = over.spec.set.clone();
                written.overrides.insert(adopted.name(), set);
            }
            None => {
                let place = Place::new(Area::Documents, Kind::BgpSession, &adopted.name());
                let spec = takeover.planned.get(&place.to_string());
                let spec = spec.cloned().unwrap_or_default();
                written.documents.insert(adopted.name(), spec);
            }
        }
    }
    written
}

/// Returns the sysctls of all links together that the plan sets, as they are now.
pub(super) fn all(takeover: &Takeover, view: &KernelView) -> BTreeMap<String, i64> {
    let mut all = named(&view.all);
    all.retain(|name, _| takeover.sysctls.contains(name));
    all
}
