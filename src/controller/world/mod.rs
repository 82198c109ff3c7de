//! Everything that is wanted, in one immutable value, made from one listing of the state directory.
//!
//! Pure: the listing, the secrets, the time and BIRD's features are inputs. A reconcile reads the world of
//! the moment and never writes it; a change of any document makes a new one.

mod layered;
mod peers;
mod router;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::planning::Key;
use crate::config::Config;
use crate::document::{Kind, RoutingPolicySpec};
use crate::effective::{InternalNeighbour, MeshTunnel, Router, Secrets, Session};
use crate::model::{AdminState, ObjectName, PrivateKey, PublicKey, Uid};
use crate::plan::{BaseFiles, Loopback};
use crate::render::{BaseInput, Features, LinkClass, Renderer, RoaTable};
use crate::status::{Acceptance, Origins};
use crate::store::{AppliedOverride, Snapshot};
use crate::wire::Rejected;

pub(crate) use layered::{Beside, Layered, layered};
pub use router::maintenance_in_force;
pub(crate) use router::single;
pub use sessions::claims_of;

/// What a world is made from.
pub struct Inputs<'a> {
    /// The state directory.
    pub snapshot: &'a Snapshot,
    /// The agent's configuration.
    pub config: &'a Config,
    /// The files in `secrets/` that documents name.
    pub secrets: &'a Secrets,
    /// Our WireGuard key.
    pub private_key: &'a PrivateKey,
    /// Its public half.
    pub our_key: PublicKey,
    /// The templates, or why they cannot be used.
    pub renderer: Result<&'a Renderer, &'a str>,
    /// What BIRD understands, or why that is not known.
    pub features: Result<Features, &'a str>,
    /// Why the templates on disk are not those in use.
    pub templates_refused: Option<String>,
    /// The cached table of ROAs.
    pub roa: Option<&'a RoaTable>,
    /// What validation stands on, for so many RPKI servers, and whether unknown routes are refused.
    pub origins: &'a dyn Fn(usize, bool) -> Origins,
    /// The measured classes of links.
    pub classes: &'a BTreeMap<ObjectName, Measured>,
    /// The sessions that BIRD's directory has files for.
    pub fragments: &'a BTreeSet<String>,
    /// Removals that a human let pass.
    pub approved: &'a BTreeSet<String>,
    /// What the Control Plane said and what does not decode.
    pub refused: &'a Refused,
    /// Now.
    pub now: Timestamp,
}

/// What the Control Plane said last and what does not decode: what is in force for it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Sessions.
    pub sessions: Vec<Rejected>,
    /// Peers of the backbone.
    pub mesh: Vec<Rejected>,
    /// Internal neighbours.
    pub ibgp: Vec<Rejected>,
    /// The node.
    pub node: Option<String>,
    /// The routing policy.
    pub policy: Option<String>,
}

/// What probes found out about a link, in DN42's classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Latency, 1 to 9.
    pub latency: Option<u8>,
    /// Loss, 91 to 94.
    pub loss: Option<u8>,
}

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
    pub private_key: PrivateKey,
    /// Its public half.
    pub our_key: PublicKey,
    /// When the world changes by itself: an override ends, external sessions go down.
    pub changes_at: Option<Timestamp>,
    /// All that is wrong with the state directory, for `validate` and the log.
    pub problems: Vec<String>,
    /// Whether absence from the state directory proves anything.
    pub complete: bool,
    /// What the validation of origins stands on.
    pub origins: Origins,
    /// Whether the operator's templates are in use, or why older ones are; `None` where there are none.
    pub templates: Option<Result<(), String>>,
    /// How many links that nothing knows of may go in one go.
    pub max_removals: crate::config::MaxRemovals,
    /// Removals that a human let pass.
    pub approved: BTreeSet<String>,
}

/// Node and policy as documents.
#[derive(Debug, Clone)]
pub struct RouterDocuments {
    /// Whether the node was accepted, and its specification in force.
    pub node: (Acceptance, Option<crate::document::NodeSpec>, u64),
    /// Whether the policy was accepted, and its specification in force.
    pub policy: (Acceptance, RoutingPolicySpec, u64),
    /// The override of the node that is in force.
    pub node_exception: Option<AppliedOverride>,
    /// The override of the policy that is in force.
    pub policy_exception: Option<AppliedOverride>,
    /// What the override of the node changes, each with what the document says.
    pub node_overridden: BTreeMap<String, serde_json::Value>,
    /// What the override of the policy changes, each with what the document says.
    pub policy_overridden: BTreeMap<String, serde_json::Value>,
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

/// One object: what is wanted of it, and how far its documents were accepted.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// What marks what it owns.
    pub uid: Uid,
    /// The generation of its document.
    pub generation: u64,
    /// What is to be done about it.
    pub intent: Intent<T>,
    /// What the administrator wants of it.
    pub admin_state: AdminState,
    /// Whether its documents were accepted.
    pub acceptance: Acceptance,
    /// The whole specification, defaults filled in; what `applied/` will hold.
    pub spec: Option<serde_json::Value>,
    /// What an override changes, each with what the document says.
    pub overridden: BTreeMap<String, serde_json::Value>,
    /// The override's reason.
    pub reason: Option<String>,
    /// When the override ends.
    pub expires_at: Option<Timestamp>,
    /// Observe and plan, and write nothing: why.
    pub paused: Option<String>,
    /// The removal waits: why.
    pub held: Option<String>,
    /// Whether there is an override that cannot be read: what was paused stays so.
    pub exception_unreadable: bool,
    /// Whether there is a document.
    pub documented: bool,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
}

/// What is to be done about an object.
#[derive(Debug, Clone)]
pub enum Intent<T> {
    /// It is to be there.
    Present(Box<T>, /** The text for BIRD; empty for an object that has none of its own. */ String),
    /// It is to be gone.
    Absent,
    /// Nothing: what is in force stays.
    Stay,
}

impl<T> Entry<T> {
    /// The override that shapes the object, for the record of what is in force.
    pub(crate) fn exception(&self) -> Option<AppliedOverride> {
        let fields = self.overridden.keys().cloned().collect();
        self.reason.clone().map(|reason| AppliedOverride { reason, expires_at: self.expires_at, fields })
    }

    /// Why nothing is written. An override that cannot be read may be the one that says so, so what was
    /// `paused` stays so until it is known to be no longer.
    pub(crate) fn hands_off(&self, paused: bool) -> Option<String> {
        let doubtful = paused && self.exception_unreadable;
        self.paused.clone().or_else(|| doubtful.then(|| "its override cannot be read".to_owned()))
    }
}

impl World {
    /// Makes the world of this moment.
    pub fn build(inputs: &Inputs<'_>) -> Self {
        let documents = router::documents(inputs);
        let router = router::router(inputs, &documents);
        let (maintenance, maintenance_at) = router::maintenance(inputs);
        let ibgp = peers::ibgp(inputs, router.as_ref().ok());
        let mesh = peers::mesh(inputs, router.as_ref().ok());
        let parts = Parts { inputs, documents: &documents, maintenance, ibgp: &ibgp, mesh: &mesh };
        let base = match &router {
            Ok(router) => parts.base(router),
            Err(why) => Err(why.clone()),
        };
        let sessions = sessions::sessions(&parts, &router);
        let exceptions = inputs.snapshot.overrides.values().filter_map(|slot| slot.as_ref().ok());
        let ends = exceptions.filter_map(|stored| stored.document.spec.expires_at);
        // What is in force may outlive its file, when that cannot be read, and ends all the same.
        let held = inputs.snapshot.applied.values();
        let held = held.filter_map(|stored| stored.document.applied.overridden.as_ref()?.expires_at);
        let ends = ends.chain(held).filter(|end| *end > inputs.now);
        let changes_at = ends.chain(maintenance_at).min();
        let policy = &documents.policy.1;
        let servers = policy.rpki.servers.len();
        let checked = servers > 0 || inputs.roa.is_some();
        let origins = (inputs.origins)(servers, checked && policy.rpki.reject_unknown.unwrap_or(true));
        let refused = inputs.templates_refused.clone();
        let templates = inputs.config.bird.templates.as_ref().map(|_| refused.map_or(Ok(()), Err));
        Self {
            origins,
            templates,
            loopback: router.as_ref().ok().map(|router| router::loopback(inputs, router)),
            problems: problems(inputs),
            private_key: inputs.private_key.clone(),
            our_key: inputs.our_key,
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
        }
    }

    /// Which object has or wants this interface.
    pub fn key_of(&self, interface: &crate::model::InterfaceName) -> Option<Key> {
        if self.loopback.as_ref().is_some_and(|loopback| loopback.interface == *interface) {
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
            && self.sessions.values().all(|entry| matches!(entry.intent, Intent::Absent))
            && self.mesh.values().all(|entry| matches!(entry.intent, Intent::Absent))
    }

    /// Every object whose removal waits, and why.
    pub fn held(&self) -> impl Iterator<Item = (Key, &str)> {
        fn of<T>(
            entries: &BTreeMap<ObjectName, Entry<T>>,
            key: fn(ObjectName) -> Key,
        ) -> impl Iterator<Item = (Key, &str)> {
            entries.iter().filter_map(move |(name, entry)| Some((key(name.clone()), entry.held.as_deref()?)))
        }
        of(&self.sessions, Key::Session).chain(of(&self.mesh, Key::Mesh)).chain(of(&self.ibgp, Key::Ibgp))
    }

    /// Every uid that something of this world may mark a link with.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let sessions = self.sessions.values().map(|entry| entry.uid.clone());
        let mesh = self.mesh.values().map(|entry| entry.uid.clone());
        sessions.chain(mesh).chain([node_uid()]).collect()
    }
}

fn problems(inputs: &Inputs<'_>) -> Vec<String> {
    let files = inputs.snapshot.problems.iter().map(ToString::to_string);
    files.chain(inputs.templates_refused.clone()).collect()
}

/// What marks the dummy device of the node's own addresses.
pub fn node_uid() -> Uid {
    Uid::local(Kind::Node.folder(), &ObjectName::sanitised("loopback"))
}

/// The pieces that sessions and shared files are rendered from.
pub(crate) struct Parts<'a> {
    inputs: &'a Inputs<'a>,
    documents: &'a RouterDocuments,
    maintenance: Maintenance,
    ibgp: &'a BTreeMap<ObjectName, Entry<InternalNeighbour>>,
    mesh: &'a BTreeMap<ObjectName, Entry<MeshTunnel>>,
}

impl Parts<'_> {
    fn with_input<R>(
        &self,
        router: &Router,
        render: impl FnOnce(&Renderer, &BaseInput<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let renderer = self.inputs.renderer.map_err(str::to_owned)?;
        let features = self.inputs.features.map_err(str::to_owned)?;
        let mesh_interfaces: Vec<_> = present(self.mesh).map(|tunnel| tunnel.interface.clone()).collect();
        let ibgp: Vec<_> = present(self.ibgp).cloned().collect();
        let interface = router::loopback_interface(self.inputs);
        let input = BaseInput {
            router,
            policy: &self.documents.policy.1,
            features,
            drained: self.maintenance.enabled,
            ebgp_disabled: self.maintenance.ebgp_disabled,
            manage_main_config: self.inputs.config.bird.manage_main_config,
            loopback_interface: interface.as_str(),
            mesh_interfaces: &mesh_interfaces,
            ibgp: &ibgp,
            roa: self.inputs.roa,
        };
        render(renderer, &input)
    }

    fn base(&self, router: &Router) -> Result<BaseFiles, String> {
        self.with_input(router, |renderer, input| renderer.base(input).map_err(|error| error.to_string()))
    }

    /// The text of a session.
    pub(crate) fn fragment(&self, router: &Router, session: &Session) -> Result<String, String> {
        let measured = self.inputs.classes.get(&session.name).copied().unwrap_or_default();
        let bandwidth = self.documents.policy.1.location.bandwidth;
        let class = LinkClass::of(session, measured.latency, measured.loss, bandwidth);
        self.with_input(router, |renderer, input| {
            renderer.session(session, input, &class).map_err(|error| error.to_string())
        })
    }
}

/// What an object's document is looked at with.
fn beside<'a>(inputs: &Inputs<'a>, kind: Kind, name: &ObjectName) -> Beside<'a> {
    let (snapshot, key) = (inputs.snapshot, (kind, name.clone()));
    Beside {
        exception: snapshot.overrides.get(&key),
        exceptions_complete: snapshot.overrides_complete,
        applied: snapshot.applied.get(&key).map(|stored| &stored.document),
        now: inputs.now,
    }
}

/// The objects that are to be there.
pub(crate) fn present<T>(entries: &BTreeMap<ObjectName, Entry<T>>) -> impl Iterator<Item = &T> {
    entries.values().filter_map(|entry| match &entry.intent {
        Intent::Present(object, _) => Some(object.as_ref()),
        _ => None,
    })
}
