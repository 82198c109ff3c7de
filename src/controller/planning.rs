//! Builds the plan of one key from the desired state and the observation. The controller runs these steps, and
//! `moenet-agent plan` prints them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize as _;

mod confirm;
mod order;

pub use confirm::{Unavailable, not_run_yet};
use order::Turn;

use crate::desired::guard::{self, Unrecorded};
use crate::desired::{Desired, Intent, Object, Wanted, node_uid};
use crate::document::Kind;
use crate::effective::{MeshTunnel, Session};
use crate::model::{Endpoint, Host, Uid};
use crate::observed::Ownership;
use crate::observed::bird::{BirdProblem, BirdState, Version};
use crate::observed::kernel::KernelView;
use crate::plan::firewall::{FirewallView, Ruleset, plan_firewall};
use crate::plan::{
    Action, Drift, ObjectObservation, Plan, Refusal, Step, WantedTunnel, enabled_in, plan_base,
    plan_enable, plan_host, plan_loopback, plan_removal, plan_session, plan_tunnel,
    plan_tunnel_removal,
};
use crate::status::{NameFacts, RouteFacts};
use crate::store::AppliedDocument;

/// The first version whose Babel carries IPv4 over IPv6 links (`extended next hop`).
const IPV4_OVER_IPV6: Version = Version::new(2, 13, 0);

/// The plan of one key, or the refusal.
pub type KeyPlan = Result<Plan, Refusal>;

/// Everything that a key is compared with.
#[derive(Clone)]
pub struct KeyObservation {
    pub kernel: Arc<KernelView>,
    pub bird: Arc<BirdState>,
    pub applied: Option<AppliedDocument>,
    /// The peer's address, where its name has been resolved.
    pub resolved: Option<SocketAddr>,
    /// The reason why the last lookup of the peer's endpoint name failed.
    pub name_error: Option<String>,
    /// The agent's address from which the kernel sends to the peer's address.
    pub source: Option<IpAddr>,
    /// Time of the observation.
    pub now: Timestamp,
}

impl KeyObservation {
    /// Returns whether a specification of the object was applied.
    pub fn has_applied_spec(&self) -> bool {
        let body = self.applied.as_ref();
        body.is_some_and(|body| body.applied.spec.is_some())
    }

    /// Returns the known facts about the endpoint's name, if the endpoint has a name.
    pub fn name<'a>(&'a self, endpoint: Option<&'a Endpoint>) -> Option<NameFacts<'a>> {
        let Host::Name(host) = &endpoint?.host else {
            return None;
        };
        Some(NameFacts {
            host: host.as_str(),
            address: self.resolved,
            error: self.name_error.as_deref(),
        })
    }

    /// Returns whether the kernel has a route to the peer, if the peer's address is known.
    pub fn route(&self) -> Option<RouteFacts> {
        let to = self.resolved?.ip();
        let found = self.source.is_some();
        Some(RouteFacts { to, found })
    }
}

/// Returns the plan of the node itself.
pub fn router(desired: &Desired, view: &KeyObservation) -> KeyPlan {
    let creating = view
        .applied
        .as_ref()
        .and_then(|applied| applied.applied.creating.as_ref());
    let mut plan = match &desired.loopback {
        Some(loopback) => plan_loopback(loopback, creating, &view.kernel)?,
        None => Plan::default(),
    };
    plan.extend(shared(desired, view).steps);
    Ok(plan)
}

/// Returns the plan of the node without its own addresses: what all sessions share.
pub fn shared(desired: &Desired, view: &KeyObservation) -> Plan {
    let mut steps = Vec::new();
    if desired.has_tunnels() {
        steps.extend(plan_host(&view.kernel).steps);
    }
    if let Ok(base) = &desired.base
        && view.bird.files_unknown().is_none()
        && view.bird.live.left_alone().is_none()
    {
        let foreign = &view.bird.live.tree.foreign;
        let base = plan_base(base, &view.bird.live.tree.base).steps;
        steps.extend(base.into_iter().filter(|step| match &step.action {
            Action::WriteBase { path, .. } => !foreign.contains_key(path),
            Action::RemoveBase { path } => path != "bird.conf",
            _ => true,
        }));
    }
    let writes = steps.iter().any(|step| {
        matches!(
            step.action,
            Action::WriteBase { .. } | Action::RemoveBase { .. }
        )
    });
    let loads = desired.base.is_ok()
        && view.bird.files_unknown().is_none()
        && router_error(desired, &view.bird).is_none();
    if view.bird.is_running() && !view.bird.loaded && !writes && loads {
        let because = Drift::new("bird.loaded", "the files on disk", "another configuration");
        steps.push(Step {
            action: Action::LoadBird,
            because,
        });
    } else if view.bird.live.lacks_marks() && !writes && loads {
        let because = Drift::new("bird.marks", "this state directory's", "an earlier one");
        steps.push(Step {
            action: Action::LoadBird,
            because,
        });
    }
    if !writes {
        steps.extend(enable_shared(desired, view));
    }
    Plan { steps, waits: None }
}

/// Returns whether BIRD's shared files are as wanted.
pub fn is_base_loaded(desired: &Desired, view: &KeyObservation) -> bool {
    let of_base =
        |action: &Action| matches!(action, Action::WriteBase { .. } | Action::RemoveBase { .. });
    !shared(desired, view)
        .steps
        .iter()
        .any(|step| of_base(&step.action))
}

/// Returns the obstacle that keeps the files that all sessions share from BIRD until an operator acts.
pub fn router_error(desired: &Desired, bird: &BirdState) -> Option<BirdProblem> {
    let foreign = || {
        let base = desired.base.as_ref().ok()?;
        let path = *bird.live.in_the_way(base).first()?;
        let file = bird.live.main.path.with_file_name("").join(path);
        let file = file.display();
        Some(BirdProblem {
            reason: "ForeignFile",
            message: format!("{file} was not written by the agent and is left unchanged"),
            action: "move it away".to_owned(),
        })
    };
    bird.blocked().or_else(foreign)
}

/// Returns the feature that does not work, or cannot be checked, with the versions of BIRD on this router.
pub fn bird_problem(desired: &Desired, bird: &BirdState) -> Option<BirdProblem> {
    if let (Some(running), Some(installed)) = (bird.running, bird.installed)
        && running != installed
    {
        return Some(BirdProblem {
            reason: "VersionMismatch",
            message: format!(
                "the installed program is BIRD {installed} and the running daemon is BIRD {running}, so a check may \
                 reject a text that the daemon accepts"
            ),
            action: "restart BIRD, or set bird.binary to the daemon's program".to_owned(),
        });
    }
    let version = desired.bird?;
    let router = desired.router.as_ref().ok()?;
    let address = router.loopback_ipv4.filter(|_| version < IPV4_OVER_IPV6)?;
    desired.mesh().next()?;
    let Version { major, minor, .. } = IPV4_OVER_IPV6;
    Some(BirdProblem {
        reason: "NoIpv4OnMesh",
        message: format!(
            "BIRD {version} carries no IPv4 over the backbone's tunnels, which have IPv6 addresses only (RFC 9229): \
             other routers do not reach {address}, and internal sessions between IPv4 loopbacks stay down"
        ),
        action: format!(
            "upgrade BIRD to {major}.{minor} or later, or give every node an IPv6 loopback"
        ),
    })
}

/// Enables the protocols of the shared files that a command disabled; objects' protocols belong to their own keys.
fn enable_shared(desired: &Desired, view: &KeyObservation) -> Vec<Step> {
    let Ok(base) = &desired.base else {
        return Vec::new();
    };
    if !may_enable(desired, view) {
        return Vec::new();
    }
    // An operator's file in the path of an agent's file is foreign, especially the main file.
    let ours = base
        .iter()
        .filter(|(path, _)| view.bird.live.tree.base.contains_key(*path));
    let mut wanted = enabled_in(ours.map(|(_, text)| &**text));
    for protocol in desired.protocols() {
        wanted.remove(&protocol);
    }
    let pause = "; only sessions can be paused, so take it out with a template to keep it down";
    plan_enable(&wanted, &view.bird.protocols, pause)
}

/// Returns the plan of an object.
///
/// # Errors
/// When a foreign object is in the way, or another object keeps what this one wants.
pub fn object(desired: &Desired, object: &Object, view: &KeyObservation) -> KeyPlan {
    match &object.intent {
        Intent::Stay => Ok(Plan::default()),
        Intent::Absent => removal(object, view),
        Intent::Present(Wanted::Session(wanted, text)) => {
            session(desired, object, wanted, text.as_deref(), view)
        }
        Intent::Present(Wanted::Mesh(tunnel)) => mesh(desired, object, tunnel, view),
        Intent::Present(wanted) => enable_protocols(desired, object, wanted, view),
    }
}

/// Returns the plan for an object that must go; one without a tunnel has only its text in the shared files.
fn removal(object: &Object, view: &KeyObservation) -> KeyPlan {
    if !object.kind.has_tunnel() {
        return Ok(Plan::default());
    }
    if object.kind == Kind::BgpSession
        && let Some(why) = view.bird.files_unknown()
    {
        // Its text may be there, and BIRD's session with it, which goes before the tunnel.
        return Ok(Plan::waiting(format!("waits for BIRD's files: {why}")));
    }
    let observed = of_object(object, view, false);
    let mut plan = plan_removal(&object.name, &object.uid, &observed);
    let formerly = object.formerly.iter();
    plan.extend(formerly.flat_map(|uid| plan_tunnel_removal(uid, &view.kernel).steps));
    Ok(plan)
}

/// Returns the object's own file in BIRD's directory; only sessions have one.
fn live_text<'a>(object: &Object, view: &'a KeyObservation) -> Option<&'a str> {
    let fragments = &view.bird.live.tree.fragments;
    let text = fragments.get(object.name.as_str());
    text.filter(|_| object.kind == Kind::BgpSession)
        .map(|text| &**text)
}

/// Returns the plan of an object without a tunnel: its text is in the shared files, so only its protocols are enabled.
fn enable_protocols(
    desired: &Desired,
    object: &Object,
    wanted: &Wanted,
    view: &KeyObservation,
) -> KeyPlan {
    if !may_enable(desired, view) {
        return Ok(Plan::default());
    }
    let pause = pause_of(object.kind, &object.name);
    let steps = plan_enable(&wanted.protocols(), &view.bird.protocols, &pause);
    Ok(Plan { steps, waits: None })
}

/// Returns whether protocols are to be enabled: there is a disabled one, BIRD runs the files on disk, so that only a command can have disabled
/// one, and the router is not drained (during a drain an operator may want them down).
fn may_enable(desired: &Desired, view: &KeyObservation) -> bool {
    view.bird.loaded && !desired.maintenance.enabled && view.bird.has_disabled()
}

/// Returns a hint on how an operator keeps the protocols of an object down.
fn pause_of(kind: Kind, name: impl fmt::Display) -> String {
    let folder = kind.folder();
    format!(
        "; pause {folder}/{name} to keep it down (`paused: true` in overrides/{folder}/{name}.yaml)"
    )
}

/// Returns the ruleset for the existing tunnels. A link that could not be read since the agent started keeps the
/// port that its object wants.
pub fn ruleset(desired: &Desired, kernel: &KernelView) -> Ruleset {
    Ruleset::in_use(kernel).or_wanted(kernel, |name| {
        let mut links = desired.objects.values().filter_map(Object::link);
        links.find(|link| link.interface == name)?.listen_port
    })
}

/// Returns the step for the agent's table in nftables; there is no ruleset when the firewall is disabled.
///
/// # Errors
/// When a table with the agent's name belongs to another owner.
pub fn firewall(
    ruleset: Option<&Ruleset>,
    view: &FirewallView,
    ownership: &Ownership,
) -> Result<Option<Step>, Refusal> {
    plan_firewall(ruleset, &view.tables, ownership)
}

/// Returns the plan of an external peering.
fn session(
    desired: &Desired,
    object: &Object,
    session: &Session,
    text: Option<&str>,
    view: &KeyObservation,
) -> KeyPlan {
    let name = &object.name;
    let observed = of_object(
        object,
        view,
        endpoint_changed(object, view.applied.as_ref()),
    );
    let wanted = WantedTunnel::of_session(session, &desired.key, view.resolved)?
        .sent_from(view.source, &view.kernel)?;
    ordered(desired, view, wanted, |wanted, gives_way| {
        let fragment = observed.fragment;
        let mut observed = ObjectObservation {
            gives_way,
            ..observed
        };
        let Some(text) = text else {
            return plan_tunnel(wanted, &observed);
        };
        // The agent writes nothing to the directory: the text waits.
        let waits = view.bird.live.left_alone().is_some();
        if waits {
            observed.fragment = Some(text);
        }
        let mut plan = plan_session(name, wanted, text, &observed)?;
        if fragment == Some(text) && !session.drained && may_enable(desired, view) {
            let enabled = enabled_in([text]);
            let have = view.bird.protocols(&enabled);
            plan.extend(plan_enable(
                &enabled,
                &have,
                &pause_of(Kind::BgpSession, name),
            ));
        }
        Ok(plan)
    })
}

/// Returns the plan of a backbone tunnel.
fn mesh(desired: &Desired, object: &Object, tunnel: &MeshTunnel, view: &KeyObservation) -> KeyPlan {
    let Ok(router) = &desired.router else {
        return Ok(Plan::default());
    };
    let wanted = WantedTunnel::of_mesh(tunnel, router.link_local, &desired.key);
    let observed = of_object(
        object,
        view,
        endpoint_changed(object, view.applied.as_ref()),
    );
    ordered(desired, view, wanted, |wanted, gives_way| {
        let observed = ObjectObservation {
            gives_way,
            ..observed
        };
        plan_tunnel(wanted, &observed)
    })
}

/// Returns the plan for links that carry this mark and that no object has.
pub fn orphan(uid: &Uid, view: &KeyObservation) -> KeyPlan {
    Ok(plan_tunnel_removal(uid, &view.kernel))
}

/// Returns links that carry the agent's mark and that neither a document nor `applied/` has: those to remove, and
/// those that are held, each with the reason.
pub fn orphans(desired: &Desired, kernel: &KernelView) -> Unrecorded {
    let known = desired.uids();
    let (owned, orphans): (BTreeSet<_>, BTreeSet<_>) = kernel
        .uids()
        .into_iter()
        .filter(|uid| *uid != node_uid())
        .partition(|uid| known.contains(uid));
    guard::unrecorded(
        &orphans,
        &kernel.earlier_uids(),
        owned.len(),
        desired.max_removals,
        &desired.approved,
        desired.complete,
    )
}

/// Returns the part of the observation that the plan of an object needs.
fn of_object<'a>(
    object: &'a Object,
    view: &'a KeyObservation,
    endpoint_changed: bool,
) -> ObjectObservation<'a> {
    ObjectObservation {
        kernel: &view.kernel,
        creating: view
            .applied
            .as_ref()
            .and_then(|applied| applied.applied.creating.as_ref()),
        resolved: view.resolved,
        endpoint_changed,
        gives_way: false,
        formerly: object.formerly.as_ref(),
        now: view.now,
        fragment: live_text(object, view),
    }
}

/// Orders a tunnel's plan by the names and ports that objects take over from each other.
fn ordered(
    desired: &Desired,
    view: &KeyObservation,
    wanted: WantedTunnel,
    plan: impl FnOnce(&WantedTunnel, bool) -> KeyPlan,
) -> KeyPlan {
    let (kernel, mut wanted): (&KernelView, _) = (&view.kernel, wanted);
    let wait = |what: String, uid: &Uid| {
        format!("waits until {} gives up {what}", order::named(desired, uid))
    };
    let name = format!("the interface name {}", wanted.interface);
    let gives_way = match order::name(desired, kernel, &wanted.uid, &wanted.interface) {
        Turn::Waits(holder) => return Ok(Plan::waiting(wait(name, &holder))),
        Turn::GivesWay(holder) => Some(wait(name, &holder)),
        Turn::Free | Turn::Blocked(_) => None,
    };
    let mut waits = gives_way.clone();
    if let Some(wireguard) = &mut wanted.wireguard {
        let port = wireguard.listen_port;
        let what = format!("UDP port {port}");
        let mut owned = kernel.owned_by(&wanted.uid);
        let have = owned.find_map(|(_, link)| link.listen_port());
        let turn = order::port(desired, kernel, &wanted.uid, &wanted.interface, port);
        match (turn, have) {
            (Turn::Free, _) => {}
            (Turn::Blocked(holder), _) => {
                return Err(Refusal {
                    field: "spec.tunnel.listenPort",
                    reason: format!(
                        "{what} is used by {}, which keeps it",
                        order::named(desired, &holder)
                    ),
                });
            }
            (Turn::GivesWay(holder), Some(_)) => {
                wireguard.release_port = true;
                waits.get_or_insert_with(|| wait(what, &holder));
            }
            // Meanwhile the tunnel works with its current port.
            (Turn::Waits(holder), Some(have)) => {
                wireguard.listen_port = have;
                waits.get_or_insert_with(|| wait(what, &holder));
            }
            (Turn::Waits(holder) | Turn::GivesWay(holder), None) => {
                return Ok(Plan::waiting(wait(what, &holder)));
            }
        }
    }
    let plan = plan(&wanted, gives_way.is_some())?;
    Ok(Plan {
        waits: plan.waits.or(waits),
        ..plan
    })
}

/// Returns whether the endpoint changed since it was last applied: then it is set even while the peer answers from
/// the old one.
pub(super) fn endpoint_changed(object: &Object, applied: Option<&AppliedDocument>) -> bool {
    let Some(before) = applied.and_then(|applied| applied.applied.spec.as_ref()) else {
        return false;
    };
    // Of a settled object both are the same text.
    if object.wanted().is_none() || object.spec.as_ref() == Some(before) {
        return false;
    }
    let before = before.at(object.kind.endpoint_field());
    let before = before.and_then(|endpoint| Endpoint::deserialize(endpoint).ok());
    before.as_ref() != object.endpoint()
}
