//! Builds the wanted state as one immutable value, from one listing of the state directory.
//!
//! Pure: the listing, the secrets, the time and BIRD's features are inputs. A reconcile reads the current desired state and
//! never writes it; a change of any document builds a new one.
//!
//! | file | content |
//! |---|---|
//! | `inputs` | inputs of a desired state |
//! | `changed` | the objects in which two desired states differ |
//! | `error` | reasons why the identity, BIRD's features or a text are unknown |
//! | `session_cache` | sessions that need not be made again |
//! | `object` | one object: its wanted state, and whether its documents were accepted |
//! | `merge_layers` | a document and its override, or the reason why neither applies |
//! | `router` | node, policy, maintenance, the node's own addresses |
//! | `sessions` | the external peerings |
//! | `peers` | the backbone: tunnels and internal neighbours |
//! | `applied_specs` | what sessions have applied |
//! | `reach` | addresses that no peer and no loopback may claim |
//! | `texts` | the text for BIRD |

mod applied_specs;
mod changed;
mod error;
pub mod guard;
mod inputs;
mod layers;
mod object;
mod owners;
mod peers;
mod reach;
mod router;
mod session_cache;
mod sessions;
#[cfg(test)]
pub(crate) mod testing;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::document::{DocumentError, Kind, NodeSpec, OverrideSpec, PackedSpec, RoutingPolicySpec};
use crate::effective::{MeshTunnel, Router};
use crate::model::{
    AdminState, Endpoint, Host, InterfaceName, ObjectKey, ObjectName, RouterKey, Uid,
};
use crate::observed::bird::{MainFile, Texts, Version};
use crate::plan::{BaseFiles, Loopback};
use crate::render::odd_policy;
use crate::sources::TemplateError;
use crate::status::{Acceptance, Hold, Origins, RpkiName};
use crate::store::{AppliedDocument, AppliedOverride, Area, Place, Slot};
use crate::util::sorted::Sorted as _;

use applied_specs::AppliedSpecs;
pub use changed::Changed;
pub use error::{FeaturesError, RouterError, TextError};
pub use inputs::{Inputs, Material, Refused, Same};
pub(crate) use layers::{LayerInputs, MergedLayers, merge_layers};
pub use object::{Intent, Object, Objects, Wanted, WantedLink};
pub use owners::Owners;
pub use reach::{Reach, Use};
pub(crate) use router::{configured_node, single};
pub use router::{maintenance_in_effect, recorded_maintenance};
pub use session_cache::SessionCache;
use texts::Parts;

/// Everything that is wanted.
#[derive(Debug)]
pub struct Desired {
    /// The identity of this router, or the reason why it is unknown.
    pub router: Result<Router, RouterError>,
    /// Node and policy as documents: whether they are accepted, and their specification in effect.
    pub router_documents: RouterDocuments,
    /// Whether the router is drained, since when, and whether external sessions are already disabled.
    pub maintenance: Maintenance,
    /// The node's own addresses.
    pub loopback: Option<Loopback>,
    /// Whether the agent's table in nftables is wanted.
    pub firewall: bool,
    /// The files that all sessions share, or the reason why there are none.
    pub base: Result<BaseFiles, TextError>,
    /// The external peerings, the backbone tunnels and the internal neighbours.
    pub objects: Objects,
    /// Which object a name in kernel or BIRD belongs to.
    pub owners: Owners,
    /// The agent's WireGuard key.
    pub key: RouterKey,
    /// Time at which the desired state changes without an event: an override ends, or external sessions are disabled.
    pub changes_at: Option<Timestamp>,
    /// The overrides whose time is over, by their objects.
    pub expired: BTreeMap<String, Timestamp>,
    /// All errors of the state directory, for `validate` and the log.
    pub problems: Vec<String>,
    /// Facts of the host that could not be read, each with the reason.
    pub unread: Vec<String>,
    /// The endpoints with names to look up, also those of refused objects.
    pub lookups: BTreeSet<Endpoint>,
    /// The addresses of endpoints with names that were compared with all others.
    pub names: BTreeMap<Endpoint, BTreeSet<IpAddr>>,
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
    pub templates: Option<Result<(), TemplateError>>,
    /// Largest number of links without a record that may be removed at once.
    pub max_removals: crate::config::MaxRemovals,
    /// The lines of the file `approved`: changes that an operator allowed.
    pub approved: BTreeSet<String>,
    /// The guard's ledger after this desired state; written to disk before the desired state takes effect.
    pub ledger: guard::Ledger,
}

/// Node and policy as documents.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub node_held: Option<guard::HeldChange>,
}

impl RouterDocuments {
    /// Returns node and policy as objects. Without a policy its specification is unknown.
    pub fn objects(&self) -> [Object; 2] {
        let held = self.node_held.as_ref();
        let node = Object {
            held: held.map(|held| Hold::Approval(format!("{}: {}", held.change, held.reason))),
            ..self.node.object(Kind::Node)
        };
        let policy = self.policy.object(Kind::RoutingPolicy);
        let spec = policy.spec.clone().filter(|_| self.has_policy);
        [node, Object { spec, ..policy }]
    }

    /// Returns the reason why no BGP session imports or exports routes.
    pub fn without_policy(&self) -> Option<String> {
        (!self.has_policy).then(|| NO_POLICY.to_owned())
    }
}

/// Text of the node's condition, `/status` and the log for a router without a policy.
const NO_POLICY: &str = "this router has never had a valid routing policy: BGP sessions import and export no routes \
                         (RFC 8212)";

/// A document of a single-instance kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SingleDocument<S> {
    /// Whether it was accepted.
    pub acceptance: Acceptance,
    /// Every error of documents that were not accepted.
    pub faults: Vec<DocumentError>,
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
    pub override_: Option<AppliedOverride>,
    /// Fields that the override changes, each with the document's value.
    pub overridden: BTreeMap<String, serde_json::Value>,
}

impl<S: serde::Serialize> SingleDocument<S> {
    /// Returns the document as an object; its resources are those of the whole router.
    fn object(&self, kind: Kind) -> Object {
        let name = Place::single(Area::Documents, kind).name;
        let override_ = self.override_.as_ref();
        let spec = serde_json::to_value(&self.spec).ok();
        Object {
            kind,
            uid: Uid::local(kind.folder(), &name),
            name,
            formerly: None,
            generation: self.generation,
            intent: Intent::Stay,
            admin_state: AdminState::Enabled,
            acceptance: self.acceptance.clone(),
            faults: self.faults.clone(),
            remark: self.remark.clone(),
            spec: spec
                .filter(|spec| !spec.is_null())
                .as_ref()
                .map(PackedSpec::from),
            overridden: self.overridden.clone(),
            reason: override_.map(|override_| override_.reason.clone()),
            expires_at: override_.and_then(|override_| override_.expires_at),
            paused: None,
            held: None,
            override_unreadable: false,
            documented: self.generation > 0,
            operator_owned: self.operator_owned,
        }
    }
}

/// A held change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldChange {
    pub key: ObjectKey,
    /// The change: `removal`, or the fields with both values.
    pub change: String,
    pub reason: String,
    /// Time since which it is held, if the guard's ledger has it.
    pub since: Option<Timestamp>,
    /// The line of the file `approved` that allows exactly this change.
    pub approval: String,
}

impl HeldChange {
    /// Returns the held removal of a link with the agent's mark and without a record.
    pub fn unrecorded(uid: Uid, reason: String) -> Self {
        let key = ObjectKey::Orphan(uid);
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

impl Desired {
    pub fn build(inputs: &Inputs<'_>) -> Self {
        let mut ledger = inputs.guard.ledger.clone();
        let applied = AppliedSpecs::of(inputs.snapshot, &inputs.sessions.parsed);
        let (documents, mut reach) = router::documents(inputs, &applied, &mut ledger);
        let router = router::router(inputs, &documents);
        if let Ok(router) = &router {
            reach.add_own(router);
        }
        let (maintenance, maintenance_at) = router::maintenance(inputs);
        let reach = Arc::new(reach);
        let known = (&*reach, &applied);
        let mut objects = peers::backbone(inputs, router.as_ref().ok(), known, &mut ledger);
        let rpki = router::rpki_names(inputs, &documents.policy.spec);
        let known = (&reach, &applied);
        let parts = Parts::new(inputs, &documents, maintenance, &objects, &rpki, known);
        let base = match &router {
            Ok(router) => parts.base(router),
            Err(error) => Err(error.clone().into()),
        };
        let sessions = sessions::sessions(&parts, &router, &mut ledger);
        objects.extend(sessions);
        let said = inputs.material.refused.remarks.iter().cloned();
        Self {
            origins: origins(inputs, &documents.policy.spec),
            rpki,
            remarks: said.chain(odd_policy(&documents.policy.spec)).sorted_set(),
            bird: inputs.material.bird,
            main: inputs.material.main.clone(),
            templates: templates(inputs),
            loopback: router
                .as_ref()
                .ok()
                .map(|router| router::loopback(inputs, router)),
            problems: problems(inputs),
            unread: inputs.material.reach.unread.clone(),
            lookups: reach.lookups().clone(),
            names: inputs.material.reach.names().clone(),
            moved: inputs.snapshot.moved.clone(),
            waiting: waiting(inputs),
            key: inputs.material.key.clone(),
            router_documents: documents,
            router,
            maintenance,
            firewall: inputs.material.config.firewall.enabled,
            base,
            owners: Owners::of(&objects),
            objects,
            changes_at: ends(inputs).chain(maintenance_at).min(),
            expired: expired(inputs),
            complete: inputs.snapshot.complete,
            max_removals: inputs.material.config.guard.max_removals,
            approved: inputs.material.approved.clone(),
            ledger,
        }
    }

    /// Returns the keys of everything that is reconciled.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        let objects = self.objects.keys().cloned();
        objects
            .chain([ObjectKey::Router, ObjectKey::Firewall])
            .sorted_set()
    }

    /// Returns the object that has or wants this interface.
    pub fn key_of(&self, interface: &InterfaceName) -> Option<ObjectKey> {
        let loopback = self.loopback.as_ref();
        if loopback.is_some_and(|loopback| loopback.interface == *interface) {
            return Some(ObjectKey::Router);
        }
        self.owners.interfaces.get(interface).cloned()
    }

    pub fn object(&self, kind: Kind, name: &ObjectName) -> Option<&Object> {
        self.objects.get(&kind.key(name))
    }

    /// Returns the objects of this kind, wanted or not.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .values()
            .filter(move |object| object.kind == kind)
    }

    /// Returns the wanted backbone tunnels.
    pub fn mesh(&self) -> impl Iterator<Item = &MeshTunnel> {
        self.objects.values().filter_map(Object::mesh)
    }

    /// Returns the protocols of all wanted objects.
    pub fn protocols(&self) -> impl Iterator<Item = String> {
        let wanted = self.objects.values().filter_map(Object::wanted);
        wanted.flat_map(Wanted::protocols)
    }

    /// Returns the texts of all sessions for BIRD, by name.
    pub fn texts(&self) -> Texts {
        let text = |object: &Object| Some((object.name.to_string(), object.text()?.clone()));
        self.objects.values().filter_map(text).sorted_map()
    }

    /// Returns the endpoints of all wanted tunnels, each with its object.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Object, &Endpoint)> {
        let objects = self.objects.values();
        objects.filter_map(|object| Some((object, object.endpoint()?)))
    }

    /// Returns whether this desired state may use an address of an endpoint. An address that a name got later may be the
    /// peer address of another session; the next desired state compares it.
    pub fn has_compared(&self, endpoint: &Endpoint, address: IpAddr) -> bool {
        let known = self.names.get(endpoint);
        matches!(endpoint.host, Host::Address(_))
            || known.is_some_and(|known| known.contains(&address.to_canonical()))
    }

    /// Returns whether any tunnel is wanted.
    pub fn has_tunnels(&self) -> bool {
        self.objects.values().any(|object| object.link().is_some())
    }

    /// Returns whether certainly no tunnel is wanted any more.
    pub fn has_done_with_tunnels(&self) -> bool {
        self.complete
            && self.router.is_ok()
            && self
                .objects
                .values()
                .filter(|object| object.kind.has_tunnel())
                .all(|object| matches!(object.intent, Intent::Absent))
    }

    /// Returns the address clashes of applied objects, each with its object: these addresses stay.
    pub fn clashes(&self) -> Vec<String> {
        let objects = self
            .objects
            .values()
            .filter_map(|object| Some(format!("{}: {}", object.key(), object.remark.as_ref()?)));
        let node = self.router_documents.node.remark.iter();
        node.map(|remark| format!("node: {remark}"))
            .chain(objects)
            .collect()
    }

    /// Returns the objects whose removal waits until the files of the state directory are at rest.
    pub fn settling(&self) -> Vec<ObjectKey> {
        let objects = self.objects.values();
        let waiting = objects.filter(|object| object.held == Some(Hold::Settling));
        waiting.map(Object::key).collect()
    }

    /// Returns every held change.
    pub fn held(&self) -> Vec<HeldChange> {
        let objects = self.objects.values().filter_map(|object| {
            let why = object.held.as_ref()?.approval()?;
            Some((object.key(), "removal".to_owned(), why.to_owned()))
        });
        let node = self.router_documents.node_held.iter();
        let node = node.map(|held| (ObjectKey::Router, held.change.clone(), held.reason.clone()));
        node.chain(objects)
            .map(|(key, change, reason)| HeldChange {
                since: self.ledger.held.get(&key.to_string()).map(|it| it.since),
                approval: match &self.router_documents.node_change {
                    Some(change) if key == ObjectKey::Router => change.approval(),
                    _ => key.to_string(),
                },
                key,
                change,
                reason,
            })
            .collect()
    }

    /// Returns every uid with which an object of this desired state may mark a link.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let tunnels = self
            .objects
            .values()
            .filter(|object| object.kind.has_tunnel());
        // A link belongs to its object until its mark is rewritten.
        tunnels
            .flat_map(|object| [Some(object.uid.clone()), object.formerly.clone()])
            .flatten()
            .chain([node_uid()])
            .sorted_set()
    }
}

/// Returns the future ends of overrides. An applied override may outlive its file, when the file cannot be read, and
/// still ends on time.
fn ends(inputs: &Inputs<'_>) -> impl Iterator<Item = Timestamp> {
    let files = inputs.snapshot.overrides.values().flatten();
    let files = files.filter_map(|stored| stored.document.spec.expires_at);
    let applied = inputs.snapshot.applied.values();
    let applied =
        applied.filter_map(|stored| stored.document.applied.overridden.as_ref()?.expires_at);
    let now = inputs.now;
    files.chain(applied).filter(move |end| *end > now)
}

/// Returns the overrides whose time is over, by their objects.
fn expired(inputs: &Inputs<'_>) -> BTreeMap<String, Timestamp> {
    let over = |((kind, name), slot): (&(Kind, ObjectName), &Slot<OverrideSpec>)| {
        let spec = &slot.as_ref().ok()?.document.spec;
        let is_over = !spec.in_effect(inputs.now);
        Some((kind.path(name), spec.expires_at.filter(|_| is_over)?))
    };
    inputs
        .snapshot
        .overrides
        .iter()
        .filter_map(over)
        .sorted_map()
}

/// Returns the source of origin validation under this policy.
fn origins(inputs: &Inputs<'_>, policy: &RoutingPolicySpec) -> Origins {
    let servers = policy.rpki.servers.len();
    let is_checked = servers > 0 || inputs.material.roa.is_some();
    let rejects_unknown = policy.rpki.reject_unknown.unwrap_or(true);
    inputs
        .material
        .roas
        .under(servers, is_checked && rejects_unknown)
}

/// Returns whether the operator's templates are in use, or the reason why older ones are; `None` without templates.
fn templates(inputs: &Inputs<'_>) -> Option<Result<(), TemplateError>> {
    inputs.material.config.bird.templates.as_ref()?;
    Some(
        inputs
            .material
            .templates_refused
            .clone()
            .map_or(Ok(()), Err),
    )
}

fn problems(inputs: &Inputs<'_>) -> Vec<String> {
    let files = inputs.snapshot.problems.iter().map(ToString::to_string);
    let moved = inputs.snapshot.moved.as_ref().map(|at| {
        format!("state directory: HEAD is {at}, so the last documents stay in effect; run `git checkout main` to return")
    });
    files
        .chain(moved)
        .chain(
            inputs
                .material
                .templates_refused
                .as_ref()
                .map(ToString::to_string),
        )
        .collect()
}

/// Returns overrides that wait for their objects, or whose names are probably mistyped.
fn waiting(inputs: &Inputs<'_>) -> Vec<String> {
    let snapshot = inputs.snapshot;
    let is_there = |(kind, name): &(Kind, ObjectName)| match kind {
        Kind::Maintenance | Kind::Override => true,
        kind => snapshot.has(*kind, name),
    };
    let counts = |slot: &Slot<OverrideSpec>| {
        slot.as_ref()
            .is_ok_and(|stored| stored.document.spec.in_effect(inputs.now))
    };
    let waiting = snapshot
        .overrides
        .iter()
        .filter(|(key, slot)| counts(slot) && !is_there(key));
    let file =
        |kind: &Kind, name: &ObjectName| Place::new(Area::Overrides, *kind, name).to_string();
    waiting
        .map(|((kind, name), _)| {
            format!(
                "{} waits: no object has this name; check the spelling",
                file(kind, name)
            )
        })
        .collect()
}

/// Returns the uid that marks the dummy device of the node's own addresses.
pub fn node_uid() -> Uid {
    Uid::local(Kind::Node.folder(), &ObjectName::sanitised("loopback"))
}

/// Returns the guard's rules.
fn rules<'a>(inputs: &Inputs<'a>) -> guard::Rules<'a> {
    guard::Rules::new(
        &inputs.material.config.guard,
        &inputs.material.approved,
        inputs.snapshot,
        &inputs.guard,
    )
}

/// Returns whether the applied object is operator-owned, without a `uid` in its document.
fn is_operators(applied: &AppliedDocument) -> bool {
    applied.metadata.uid.as_ref().is_some_and(Uid::is_local)
}

/// Returns the inputs for an object's layers, besides its document.
fn layer_inputs<'a>(inputs: &Inputs<'a>, kind: Kind, name: &ObjectName) -> LayerInputs<'a> {
    let (snapshot, key) = (inputs.snapshot, (kind, name.clone()));
    LayerInputs {
        override_: snapshot.overrides.get(&key),
        overrides_complete: snapshot.overrides_complete,
        broken: snapshot.broken.contains_key(&key),
        applied: snapshot.applied.get(&key).map(|stored| &*stored.document),
        now: inputs.now,
    }
}
