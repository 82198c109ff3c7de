//! Builds the wanted state as one immutable value, from one listing of the state directory.
//!
//! Pure: the listing, the secrets, the time and BIRD's features are inputs. A reconcile reads the current world and
//! never writes it; a change of any document builds a new one.
//!
//! | file | content |
//! |---|---|
//! | `inputs` | inputs of a world |
//! | `entry` | one object: its wanted state, and whether its documents were accepted |
//! | `layered` | a document and its override, or the reason why neither applies |
//! | `router` | node, policy, maintenance, the node's own addresses |
//! | `sessions` | the external peerings |
//! | `peers` | the backbone: tunnels and internal neighbours |
//! | `reach` | addresses that no peer and no loopback may claim |
//! | `texts` | the text for BIRD |

mod entry;
mod inputs;
mod layered;
mod peers;
mod reach;
mod router;
mod sessions;
#[cfg(test)]
pub(crate) mod testing;
mod texts;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::guard;
use crate::bird::{MainFile, Version};
use crate::document::{Kind, NodeSpec, OverrideSpec, RoutingPolicySpec};
use crate::effective::{InternalNeighbour, MeshTunnel, Router, Session};
use crate::model::{ObjectKey as Key, ObjectName, RouterKey, Uid};
use crate::plan::{BaseFiles, Loopback};
use crate::render::odd_policy;
use crate::status::{Acceptance, Hold, Origins, RpkiName};
use crate::store::{AppliedDocument, AppliedOverride, Area, Place, Slot};

pub(crate) use entry::present;
pub use entry::{Entry, Intent};
pub use inputs::{Inputs, Measured, Refused};
pub(crate) use layered::{Beside, Layered, layered};
pub use reach::{Reach, Use};
pub(crate) use router::{configured_node, single};
pub use router::{maintenance_in_force, recorded_maintenance};
pub use sessions::claims_of;
use texts::Parts;

/// Everything that is wanted.
#[derive(Debug)]
pub struct World {
    /// The identity of this router, or the reason why it is unknown.
    pub router: Result<Router, String>,
    /// Node and policy as documents: whether they are accepted, and their specification in effect.
    pub router_documents: RouterDocuments,
    /// Whether the router is drained, since when, and whether external sessions are already disabled.
    pub maintenance: Maintenance,
    /// The node's own addresses.
    pub loopback: Option<Loopback>,
    /// Whether the agent's table in nftables is wanted.
    pub firewall: bool,
    /// The files that all sessions share, or the reason why there are none.
    pub base: Result<BaseFiles, String>,
    /// The external peerings.
    pub sessions: BTreeMap<ObjectName, Entry<Session>>,
    /// The backbone tunnels.
    pub mesh: BTreeMap<ObjectName, Entry<MeshTunnel>>,
    /// The internal neighbours.
    pub ibgp: BTreeMap<ObjectName, Entry<InternalNeighbour>>,
    /// The agent's WireGuard key.
    pub key: RouterKey,
    /// Time at which the world changes without an event: an override ends, or external sessions are disabled.
    pub changes_at: Option<Timestamp>,
    /// All errors of the state directory, for `validate` and the log.
    pub problems: Vec<String>,
    /// Facts of the host that could not be read, each with the reason.
    pub unread: Vec<String>,
    /// Position of HEAD of the state directory's repository, while Git has moved the tree.
    pub moved: Option<String>,
    /// Overrides of objects without a document.
    pub waiting: Vec<String>,
    /// Whether absence from the state directory is conclusive.
    pub complete: bool,
    /// Values of the policy that are no error, but probably unintended.
    pub remarks: BTreeSet<String>,
    /// The data source of origin validation.
    pub origins: Origins,
    /// The RPKI servers that have names.
    pub rpki: Vec<RpkiName>,
    /// The version of BIRD, if known.
    pub bird: Option<Version>,
    /// BIRD's main file.
    pub main: MainFile,
    /// Whether using the operator's templates, or the reason why older ones are; `None` without templates.
    pub templates: Option<Result<(), String>>,
    /// Largest number of links without a record that may be removed at once.
    pub max_removals: crate::config::MaxRemovals,
    /// The lines of the file `approved`: changes that an operator allowed.
    pub approved: BTreeSet<String>,
    /// The guard's ledger after this world; written to disk before the world takes effect.
    pub ledger: guard::Ledger,
}

/// Node and policy as documents.
#[derive(Debug, Clone)]
pub struct RouterDocuments {
    /// The identity of this router; unknown without a specification.
    pub node: SingleDocument<Option<NodeSpec>>,
    /// The routing policy; the defaults while it is missing.
    pub policy: SingleDocument<RoutingPolicySpec>,
    /// Whether a routing policy is in effect. Without one no BGP session imports or exports routes (RFC 8212).
    pub has_policy: bool,
    /// A change of the node that resets every session: held, or approved and not applied yet.
    pub node_change: Option<guard::IdentityChange>,
    /// That change, while it is held.
    pub node_held: Option<guard::Entry>,
}

impl RouterDocuments {
    /// Returns the reason why no BGP session imports or exports routes, and the remedy.
    pub fn without_policy(&self) -> Option<String> {
        (!self.has_policy).then(|| NO_POLICY.to_owned())
    }
}

/// Text of the node's condition, `/status` and the log for a router without a policy.
const NO_POLICY: &str = "this router has never had a valid routing policy: BGP sessions import and export no routes \
                         (RFC 8212); write policy.yaml, or have the Control Plane answer GET bird-config";

/// A document of a single-instance kind.
#[derive(Debug, Clone)]
pub struct SingleDocument<S> {
    /// Whether it was accepted.
    pub acceptance: Acceptance,
    /// The further errors of documents that were not accepted.
    pub further: Vec<String>,
    /// An address clash in which the applied address is older: it stays.
    pub remark: Option<String>,
    /// Whether the document on disk is the one in effect, so that it may be recorded as applied.
    pub valid: bool,
    /// The specification in effect.
    pub spec: S,
    /// The generation of the document that was read; 0 without a document.
    pub generation: u64,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
    /// The override that applies.
    pub exception: Option<AppliedOverride>,
    /// Fields that the override changes, each with the document's value.
    pub overridden: BTreeMap<String, serde_json::Value>,
}

/// A held change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldChange {
    /// The object.
    pub key: Key,
    /// The change: `removal`, or the fields with both values.
    pub change: String,
    /// The reason why it is held.
    pub reason: String,
    /// Time since which it is held, if the guard's ledger has it.
    pub since: Option<Timestamp>,
    /// The line of the file `approved` that allows exactly this change.
    pub approval: String,
}

impl HeldChange {
    /// Returns the held removal of a link with the agent's mark and without a record.
    pub fn unrecorded(uid: Uid, reason: String) -> Self {
        let key = Key::Orphan(uid);
        Self {
            approval: key.to_string(),
            key,
            change: "removal".to_owned(),
            reason,
            since: None,
        }
    }
}

/// State of maintenance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Whether the router is drained.
    pub enabled: bool,
    /// Time since which it is drained.
    pub since: Option<Timestamp>,
    /// Whether external sessions are already disabled.
    pub ebgp_disabled: bool,
}

impl World {
    /// Builds the world from these inputs.
    pub fn build(inputs: &Inputs<'_>) -> Self {
        let mut ledger = inputs.guard.ledger.clone();
        let (documents, mut reach) = router::documents(inputs, &mut ledger);
        let router = router::router(inputs, &documents);
        if let Ok(router) = &router {
            reach.add_own(router);
        }
        let (maintenance, maintenance_at) = router::maintenance(inputs);
        let ibgp = peers::ibgp(inputs, router.as_ref().ok(), &reach, &mut ledger);
        let mesh = peers::mesh(inputs, router.as_ref().ok(), &reach, &mut ledger);
        let rpki = router::rpki_names(inputs, &documents.policy.spec);
        let parts = Parts::new(inputs, &documents, maintenance, &ibgp, &mesh, &rpki, &reach);
        let base = match &router {
            Ok(router) => parts.base(router),
            Err(why) => Err(why.clone()),
        };
        let sessions = sessions::sessions(&parts, &router, &mut ledger);
        let exceptions = inputs
            .snapshot
            .overrides
            .values()
            .filter_map(|slot| slot.as_ref().ok());
        let ends = exceptions.filter_map(|stored| stored.document.spec.expires_at);
        // An applied override may outlive its file, when the file cannot be read, and still ends on time.
        let held = inputs.snapshot.applied.values();
        let held =
            held.filter_map(|stored| stored.document.applied.overridden.as_ref()?.expires_at);
        let ends = ends.chain(held).filter(|end| *end > inputs.now);
        let changes_at = ends.chain(maintenance_at).min();
        let policy = &documents.policy.spec;
        let said = inputs.refused.remarks.iter().cloned();
        let remarks: BTreeSet<String> = said.chain(odd_policy(policy)).collect();
        let servers = policy.rpki.servers.len();
        let checked = servers > 0 || inputs.roa.is_some();
        let origins = inputs.roas.under(
            servers,
            checked && policy.rpki.reject_unknown.unwrap_or(true),
        );
        let refused = inputs.templates_refused.clone();
        let templates = inputs
            .config
            .bird
            .templates
            .as_ref()
            .map(|_| refused.map_or(Ok(()), Err));
        Self {
            origins,
            rpki,
            remarks,
            bird: inputs.bird,
            main: inputs.main.clone(),
            templates,
            loopback: router
                .as_ref()
                .ok()
                .map(|router| router::loopback(inputs, router)),
            problems: problems(inputs),
            unread: inputs.reach.unread.clone(),
            moved: inputs.snapshot.moved.clone(),
            waiting: waiting(inputs),
            key: inputs.key.clone(),
            router_documents: documents,
            router,
            maintenance,
            firewall: inputs.config.firewall.enabled,
            base,
            sessions,
            mesh,
            ibgp,
            changes_at,
            complete: inputs.snapshot.complete,
            max_removals: inputs.config.guard.max_removals,
            approved: inputs.approved.clone(),
            ledger,
        }
    }

    /// Returns the object that has or wants this interface.
    pub fn key_of(&self, interface: &crate::model::InterfaceName) -> Option<Key> {
        if self
            .loopback
            .as_ref()
            .is_some_and(|loopback| loopback.interface == *interface)
        {
            return Some(Key::Router);
        }
        let session = self.sessions.iter().find(|(_, entry)| match &entry.intent {
            Intent::Present(session, _) => session.tunnel.interface == *interface,
            _ => false,
        });
        let mesh = || {
            self.mesh.iter().find(|(_, entry)| match &entry.intent {
                Intent::Present(tunnel, _) => tunnel.interface == *interface,
                _ => false,
            })
        };
        let session = session.map(|(name, _)| Key::Session(name.clone()));
        session.or_else(|| mesh().map(|(name, _)| Key::Mesh(name.clone())))
    }

    /// Returns whether any tunnel is wanted.
    pub fn has_tunnels(&self) -> bool {
        present(&self.sessions).next().is_some() || present(&self.mesh).next().is_some()
    }

    /// Returns whether certainly no tunnel is wanted any more.
    pub fn has_done_with_tunnels(&self) -> bool {
        self.complete
            && self.router.is_ok()
            && self
                .sessions
                .values()
                .all(|entry| matches!(entry.intent, Intent::Absent))
            && self
                .mesh
                .values()
                .all(|entry| matches!(entry.intent, Intent::Absent))
    }

    /// Returns the address clashes of applied objects, each with its object: these addresses stay.
    pub fn clashes(&self) -> Vec<String> {
        fn of<T>(
            entries: &BTreeMap<ObjectName, Entry<T>>,
            key: fn(ObjectName) -> Key,
        ) -> impl Iterator<Item = String> {
            entries.iter().filter_map(move |(name, entry)| {
                let remark = entry.remark.as_ref()?;
                Some(format!("{}: {remark}", key(name.clone())))
            })
        }
        let node = self.router_documents.node.remark.iter();
        node.map(|remark| format!("node: {remark}"))
            .chain(of(&self.sessions, Key::Session))
            .chain(of(&self.mesh, Key::Mesh))
            .chain(of(&self.ibgp, Key::Ibgp))
            .collect()
    }

    /// Returns the objects whose removal waits until the files of the state directory are at rest.
    pub fn settling(&self) -> Vec<Key> {
        fn of<T>(
            entries: &BTreeMap<ObjectName, Entry<T>>,
            key: fn(ObjectName) -> Key,
        ) -> impl Iterator<Item = Key> {
            let waiting = entries
                .iter()
                .filter(|(_, entry)| entry.held == Some(Hold::Settling));
            waiting.map(move |(name, _)| key(name.clone()))
        }
        of(&self.sessions, Key::Session)
            .chain(of(&self.mesh, Key::Mesh))
            .chain(of(&self.ibgp, Key::Ibgp))
            .collect()
    }

    /// Returns every held change.
    pub fn held(&self) -> Vec<HeldChange> {
        fn of<T>(
            entries: &BTreeMap<ObjectName, Entry<T>>,
            key: fn(ObjectName) -> Key,
        ) -> impl Iterator<Item = (Key, String, String)> {
            entries.iter().filter_map(move |(name, entry)| {
                let change = "removal".to_owned();
                let why = entry.held.as_ref()?.approval()?;
                Some((key(name.clone()), change, why.to_owned()))
            })
        }
        let node = self.router_documents.node_held.iter();
        let node = node.map(|held| (Key::Router, held.change.clone(), held.reason.clone()));
        node.chain(of(&self.sessions, Key::Session))
            .chain(of(&self.mesh, Key::Mesh))
            .chain(of(&self.ibgp, Key::Ibgp))
            .map(|(key, change, reason)| HeldChange {
                since: self.ledger.held.get(&key.to_string()).map(|it| it.since),
                approval: match &self.router_documents.node_change {
                    Some(change) if key == Key::Router => change.approval(),
                    _ => key.to_string(),
                },
                key,
                change,
                reason,
            })
            .collect()
    }

    /// Returns every uid with which an object of this world may mark a link.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let sessions = self.sessions.values().map(|entry| entry.uid.clone());
        let mesh = self.mesh.values().map(|entry| entry.uid.clone());
        // A link belongs to its object until its mark is rewritten.
        let formerly = self
            .sessions
            .values()
            .filter_map(|entry| entry.formerly.clone());
        sessions
            .chain(formerly)
            .chain(mesh)
            .chain([node_uid()])
            .collect()
    }
}

fn problems(inputs: &Inputs<'_>) -> Vec<String> {
    let files = inputs.snapshot.problems.iter().map(ToString::to_string);
    let moved = inputs.snapshot.moved.as_ref().map(|at| {
        format!("state directory: HEAD is {at}, so the last documents stay in effect; run `git checkout main` to return")
    });
    files
        .chain(moved)
        .chain(inputs.templates_refused.clone())
        .collect()
}

/// Returns overrides that wait for their objects, or whose names are probably mistyped.
fn waiting(inputs: &Inputs<'_>) -> Vec<String> {
    let snapshot = inputs.snapshot;
    let is_there = |(kind, name): &(Kind, ObjectName)| match kind {
        Kind::BgpSession => snapshot.sessions.contains_key(name),
        Kind::MeshPeer => snapshot.mesh.contains_key(name),
        Kind::IbgpPeer => snapshot.ibgp.contains_key(name),
        Kind::Node => snapshot.node.is_some(),
        Kind::RoutingPolicy => snapshot.policy.is_some(),
        Kind::Maintenance | Kind::Override => true,
    };
    let counts = |slot: &Slot<OverrideSpec>| {
        slot.as_ref()
            .is_ok_and(|stored| stored.document.spec.in_force(inputs.now))
    };
    let waiting = snapshot
        .overrides
        .iter()
        .filter(|(key, slot)| counts(slot) && !is_there(key));
    let file =
        |kind: &Kind, name: &ObjectName| Place::new(Area::Overrides, *kind, name).to_string();
    waiting
        .map(|((kind, name), _)| format!("{} waits: there is no such object", file(kind, name)))
        .collect()
}

/// Returns the uid that marks the dummy device of the node's own addresses.
pub fn node_uid() -> Uid {
    Uid::local(Kind::Node.folder(), &ObjectName::sanitised("loopback"))
}

/// Returns the guard's rules.
fn rules<'a>(inputs: &Inputs<'a>) -> guard::Rules<'a> {
    guard::Rules::new(
        &inputs.config.guard,
        inputs.approved,
        inputs.snapshot,
        &inputs.guard,
    )
}

/// Returns whether the applied object is operator-owned, without a `uid` in its document.
fn is_operators(applied: &AppliedDocument) -> bool {
    applied.metadata.uid.as_ref().is_some_and(Uid::is_local)
}

/// Returns the inputs for an object's layers, besides its document.
fn beside<'a>(inputs: &Inputs<'a>, kind: Kind, name: &ObjectName) -> Beside<'a> {
    let (snapshot, key) = (inputs.snapshot, (kind, name.clone()));
    Beside {
        exception: snapshot.overrides.get(&key),
        exceptions_complete: snapshot.overrides_complete,
        broken: snapshot.broken.contains_key(&key),
        applied: snapshot.applied.get(&key).map(|stored| &stored.document),
        now: inputs.now,
    }
}
