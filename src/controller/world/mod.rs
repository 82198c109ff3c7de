//! Everything that is wanted, in one immutable value, made from one listing of the state directory.
//!
//! Pure: the listing, the secrets, the time and BIRD's features are inputs. A reconcile reads the world of
//! the moment and never writes it; a change of any document makes a new one.
//!
//! | file | holds |
//! |---|---|
//! | `inputs` | what a world is made from |
//! | `entry` | one object: what is wanted of it, and how far its documents were accepted |
//! | `layered` | a document and its override, or why neither counts |
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
use super::planning::Key;
use crate::bird::{MainFile, Version};
use crate::document::{Kind, NodeSpec, OverrideSpec, RoutingPolicySpec};
use crate::effective::{InternalNeighbour, MeshTunnel, Router, Session};
use crate::model::{ObjectName, RouterKey, Uid};
use crate::plan::{BaseFiles, Loopback};
use crate::render::odd_policy;
use crate::status::{Acceptance, Origins, RpkiName};
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
    /// Who this router is, or why that is not known.
    pub router: Result<Router, String>,
    /// Node and policy as documents: accepted or not, and what is in force of them.
    pub router_documents: RouterDocuments,
    /// Drained, since when, and whether external sessions are down by now.
    pub maintenance: Maintenance,
    /// The node's own addresses.
    pub loopback: Option<Loopback>,
    /// Whether there is to be our table in nftables.
    pub firewall: bool,
    /// The files that all sessions share, or why there are none.
    pub base: Result<BaseFiles, String>,
    /// The external peerings.
    pub sessions: BTreeMap<ObjectName, Entry<Session>>,
    /// The backbone tunnels.
    pub mesh: BTreeMap<ObjectName, Entry<MeshTunnel>>,
    /// The internal neighbours.
    pub ibgp: BTreeMap<ObjectName, Entry<InternalNeighbour>>,
    /// Our WireGuard key.
    pub key: RouterKey,
    /// When the world changes by itself: an override ends, external sessions go down.
    pub changes_at: Option<Timestamp>,
    /// All that is wrong with the state directory, for `validate` and the log.
    pub problems: Vec<String>,
    /// Facts of the host that could not be read, each with the reason.
    pub unread: Vec<String>,
    /// Where HEAD of the state directory's repository is, while Git has moved the tree.
    pub moved: Option<String>,
    /// Overrides of objects that there is no document of.
    pub waiting: Vec<String>,
    /// Whether absence from the state directory proves anything.
    pub complete: bool,
    /// What is no error of the policy, and hardly meant.
    pub remarks: BTreeSet<String>,
    /// What the validation of origins stands on.
    pub origins: Origins,
    /// The RPKI servers that have names.
    pub rpki: Vec<RpkiName>,
    /// The version of BIRD, where it is known.
    pub bird: Option<Version>,
    /// BIRD's main file.
    pub main: MainFile,
    /// Whether the operator's templates are in use, or why older ones are; `None` where there are none.
    pub templates: Option<Result<(), String>>,
    /// How many links without a record may be removed at once.
    pub max_removals: crate::config::MaxRemovals,
    /// The lines of the file `approved`: changes that an operator let happen.
    pub approved: BTreeSet<String>,
    /// What the guard remembers after this world; written down before the world takes effect.
    pub ledger: guard::Ledger,
}

/// Node and policy as documents.
#[derive(Debug, Clone)]
pub struct RouterDocuments {
    /// Who this router is; without a specification that is not known.
    pub node: SingleDocument<Option<NodeSpec>>,
    /// The routing policy; the defaults while it is missing.
    pub policy: SingleDocument<RoutingPolicySpec>,
    /// Whether a routing policy is in effect. Without one no BGP session imports or exports routes (RFC 8212).
    pub has_policy: bool,
    /// A change of the node that resets every session, whether it waits or was approved and is not applied yet.
    pub node_change: Option<guard::IdentityChange>,
    /// That change, while it waits for approval.
    pub node_held: Option<guard::Entry>,
}

impl RouterDocuments {
    /// Why no BGP session imports or exports routes, and what to do.
    pub fn without_policy(&self) -> Option<String> {
        (!self.has_policy).then(|| NO_POLICY.to_owned())
    }
}

/// What the node's condition, `/status` and the log say of a router without a policy.
const NO_POLICY: &str = "this router has never had a valid routing policy: BGP sessions import and export no routes \
                         (RFC 8212); write policy.yaml, or have the Control Plane answer GET bird-config";

/// A document of which a router has one.
#[derive(Debug, Clone)]
pub struct SingleDocument<S> {
    /// Whether it was accepted.
    pub acceptance: Acceptance,
    /// Everything else that is wrong with documents that were not accepted.
    pub further: Vec<String>,
    /// An address clash of which the applied address is the older side: it stays.
    pub remark: Option<String>,
    /// Whether the document on disk is the one in effect, so that it may be recorded as applied.
    pub valid: bool,
    /// The specification in effect.
    pub spec: S,
    /// The generation of what was read; 0 without a document.
    pub generation: u64,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
    /// The override that is in force.
    pub exception: Option<AppliedOverride>,
    /// What the override changes, each with what the document says.
    pub overridden: BTreeMap<String, serde_json::Value>,
}

/// A change that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldChange {
    /// The object.
    pub key: Key,
    /// What would happen: `removal`, or the fields with both values.
    pub change: String,
    /// Why it waits.
    pub reason: String,
    /// Since when, where the guard's record knows it.
    pub since: Option<Timestamp>,
    /// The line of the file `approved` that lets exactly this change happen.
    pub approval: String,
}

impl HeldChange {
    /// The removal of a link with our mark that no record knows.
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

/// Drained or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Drained.
    pub enabled: bool,
    /// Since when.
    pub since: Option<Timestamp>,
    /// External sessions are disabled by now.
    pub ebgp_disabled: bool,
}

impl World {
    /// Makes the world of this moment.
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
        // What is in force may outlive its file, when that cannot be read, and ends all the same.
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

    /// Which object has or wants this interface.
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

    /// Whether any tunnel is to be there.
    pub fn has_tunnels(&self) -> bool {
        present(&self.sessions).next().is_some() || present(&self.mesh).next().is_some()
    }

    /// Whether it is certain that no tunnel is wanted any more.
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

    /// Address clashes of applied objects, each with its object: these stay as they are.
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

    /// Every change that waits for approval.
    pub fn held(&self) -> Vec<HeldChange> {
        fn of<T>(
            entries: &BTreeMap<ObjectName, Entry<T>>,
            key: fn(ObjectName) -> Key,
        ) -> impl Iterator<Item = (Key, String, String)> {
            entries.iter().filter_map(move |(name, entry)| {
                let change = "removal".to_owned();
                Some((key(name.clone()), change, entry.held.clone()?))
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

    /// Every uid that something of this world may mark a link with.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let sessions = self.sessions.values().map(|entry| entry.uid.clone());
        let mesh = self.mesh.values().map(|entry| entry.uid.clone());
        // A link is an object's until its mark is rewritten.
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

/// Overrides that wait for their objects, or whose names are not what was meant.
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

/// What marks the dummy device of the node's own addresses.
pub fn node_uid() -> Uid {
    Uid::local(Kind::Node.folder(), &ObjectName::sanitised("loopback"))
}

/// What the guard goes by.
fn rules<'a>(inputs: &Inputs<'a>) -> guard::Rules<'a> {
    guard::Rules::new(
        &inputs.config.guard,
        inputs.approved,
        inputs.snapshot,
        &inputs.guard,
    )
}

/// Whether what is applied is the operator's own, without a `uid` in its document.
fn is_operators(applied: &AppliedDocument) -> bool {
    applied.metadata.uid.as_ref().is_some_and(Uid::is_local)
}

/// What an object's document is looked at with.
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
