//! Builds the external peerings: layers, resolution, clashes, removal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reach::{check_peer, peer_addresses};
use super::session_cache::{Ground, Kept, Made, Own};
use super::{
    Intent, MergedLayers, Object, Objects, Parts, RouterError, TextError, Wanted, is_operators,
    layer_inputs, merge_layers, rules,
};
use crate::desired::guard::{Fate, Ledger, Member};
use crate::document::{BgpSessionSpec, Kind, PackedSpec};
use crate::effective::{Claim, Claimant, Clash, Defaults, FieldError, Router, Session, conflicts};
use crate::model::{AdminState, ObjectName, Uid};
use crate::render::{Fingerprint, Peerings};
use crate::status::{Acceptance, Hold};
use crate::store::{AppliedDocument, Stored};
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;
use crate::wire::Rejected;

const KIND: Kind = Kind::BgpSession;

/// Items of the Control Plane's list that do not decode, by object.
type Refused<'a> = BTreeMap<ObjectName, &'a Rejected>;

/// A session before it becomes an object.
struct Candidate {
    layers: MergedLayers<BgpSessionSpec>,
    session: Option<Session>,
    spec: Option<BgpSessionSpec>,
    held: Option<Hold>,
    /// Whether BIRD runs the session over another tunnel than the document's. That one waits for its text, since a
    /// tunnel that changes alone takes the session down.
    needs_text: bool,
}

/// A session before the clashes are known: as made for the last desired state, or a new candidate.
struct Draft {
    /// What it is made of, if that is the usual.
    own: Option<Own>,
    claimant: Option<Claimant>,
    made: Option<Object>,
    new: Option<Box<Candidate>>,
}

pub(super) fn sessions(
    parts: &Parts<'_>,
    router: &Result<Router, RouterError>,
    ledger: &mut Ledger,
) -> Objects {
    let peerings = match router {
        Ok(router) => parts.peerings(router),
        Err(error) => Err(error.clone().into()),
    };
    let known = router.as_ref().ok().zip(peerings.as_ref().ok());
    let ground = known.map(|(router, texts)| ground(parts, router, texts.fingerprint()));
    let drafts = drafts(parts, router, ground.as_ref(), ledger);
    let cache = parts.inputs.sessions;
    cache.keep(|name| drafts.binary_search_by(|(of, _)| of.cmp(name)).is_ok());
    let backbone = backbone(parts);
    let claimants = drafts
        .iter()
        .filter_map(|(_, draft)| draft.claimant.as_ref());
    let clashes = conflicts(claimants.chain(&backbone));
    let mut kept = Kept::new();
    let end = |(name, draft): (ObjectName, Draft)| {
        let clash = clashes.get(&label(&name));
        let again = || Box::new(candidate(parts, router, &name, (None, None)));
        let make = |new: Box<Candidate>| object(parts, &peerings, &name, (*new, clash));
        let object = match draft.made.filter(|_| clash.is_none()) {
            Some(made) => {
                debug_assert_eq!(made, make(again()));
                made
            }
            None => make(draft.new.unwrap_or_else(again)),
        };
        let (own, claimant) = (draft.own, draft.claimant);
        if let Some(own) = own.filter(|_| object.acceptance == Acceptance::Valid) {
            let object = object.clone();
            kept.insert(
                name,
                Made {
                    own,
                    object,
                    claimant,
                },
            );
        }
        (object.key(), object)
    };
    let objects = drafts.into_iter().map(end).sorted_map();
    cache.put(ground, kept);
    objects
}

/// Returns the drafts of all sessions, in the order of their names.
fn drafts(
    parts: &Parts<'_>,
    router: &Result<Router, RouterError>,
    ground: Option<&Ground>,
    ledger: &mut Ledger,
) -> Vec<(ObjectName, Draft)> {
    let refused = refused(parts);
    let held = removals(parts, &refused, ledger);
    let mut last = parts.inputs.sessions.take(ground);
    let draft = |name: ObjectName| {
        let why = (held.get(&name).cloned(), refused.get(&name).copied());
        let is_usual = ground.is_some() && why.0.is_none() && why.1.is_none();
        let own = is_usual.then(|| own(parts, &name)).flatten();
        let last = last.remove(&name);
        let draft = match last.filter(|last| own.as_ref() == Some(&last.own)) {
            Some(last) => Draft {
                own,
                claimant: last.claimant,
                made: Some(last.object),
                new: None,
            },
            None => {
                let new = Box::new(candidate(parts, router, &name, why));
                let claimant = claimant(parts, &name, &new);
                let (made, new) = (None, Some(new));
                Draft {
                    own,
                    claimant,
                    made,
                    new,
                }
            }
        };
        (name, draft)
    };
    let names = names(parts, &refused).into_iter();
    names.map(draft).collect()
}

/// Returns what all sessions of these parts are made of, with the digest of what all texts are.
fn ground(parts: &Parts<'_>, router: &Router, texts: Fingerprint) -> Ground {
    let (inputs, policy) = (parts.inputs, &parts.documents.policy.spec);
    Ground {
        router: router.clone(),
        defaults: defaults(parts),
        secrets: inputs.material.secrets.clone(),
        reach: Arc::clone(parts.reach),
        extra_ranges: policy.extra_ranges.clone(),
        bandwidth: policy.location.bandwidth,
        overrides_complete: inputs.snapshot.overrides_complete,
        texts,
    }
}

/// Returns what a session is made of; `None` if there is more to it: an override, which may end, or an invalid document.
fn own(parts: &Parts<'_>, name: &ObjectName) -> Option<Own> {
    let (snapshot, material) = (parts.inputs.snapshot, parts.inputs.material);
    let key = (KIND, name.clone());
    let applied = snapshot.applied.get(&key).cloned();
    let was_overridden =
        |it: &Arc<Stored<AppliedDocument>>| it.document.applied.overridden.is_some();
    let has_more = snapshot.overrides.contains_key(&key)
        || snapshot.broken.contains_key(&key)
        || applied.as_ref().is_some_and(was_overridden);
    let document = snapshot.sessions.get(name)?.as_ref().ok()?;
    (!has_more).then(|| Own {
        document: Arc::clone(document),
        applied,
        class: material.classes.get(name).copied().unwrap_or_default(),
        in_bird: material.fragments.contains(name.as_str()),
    })
}

/// Returns the values of fields that a document does not set.
fn defaults(parts: &Parts<'_>) -> Defaults {
    let config = &parts.inputs.material.config;
    Defaults {
        keepalive: config.wireguard.persistent_keepalive_interval,
    }
}

/// Returns the sessions that are desired, applied, or left behind in BIRD's directory: a removal can be needed for
/// all three.
fn names(parts: &Parts<'_>, refused: &Refused<'_>) -> BTreeSet<ObjectName> {
    let snapshot = parts.inputs.snapshot;
    let in_effect = snapshot
        .applied
        .keys()
        .filter(|(kind, _)| *kind == KIND)
        .map(|(_, name)| name.clone());
    let fragments = parts
        .inputs
        .material
        .fragments
        .iter()
        .filter_map(|name| name.parse().ok());
    snapshot
        .sessions
        .keys()
        .cloned()
        .chain(in_effect)
        .chain(fragments)
        .chain(refused.keys().cloned())
        .sorted_set()
}

/// Returns listed sessions that do not decode, by their object: the object with the same identity, else an object
/// that exists only to report the error. Of several items for one object the first counts.
fn refused<'a>(parts: &Parts<'a>) -> Refused<'a> {
    let snapshot = parts.inputs.snapshot;
    let applied = snapshot.applied.iter().rev();
    let applied = applied.filter(|((kind, _), _)| *kind == KIND);
    let applied = applied
        .filter_map(|((_, name), stored)| Some((stored.document.metadata.uid.as_ref()?, name)));
    let documents = snapshot.sessions.iter().rev().filter_map(|(name, slot)| {
        let stored = slot.as_ref().ok()?;
        Some((stored.document.metadata.uid.as_ref()?, name))
    });
    // A document takes precedence over a record, and the first name over the others.
    let known: BTreeMap<&Uid, &ObjectName> = applied.chain(documents).sorted_map();
    let mut refused = Refused::new();
    for rejected in &parts.inputs.material.refused.sessions {
        let Some(uid) = &rejected.uid else { continue };
        let hint = rejected.interface.as_ref();
        let hint = hint.map(|interface| ObjectName::sanitised(interface.as_str()));
        let free = hint.filter(|name| !snapshot.sessions.contains_key(name));
        let name = known.get(uid).copied().cloned().or(free);
        let name = name.unwrap_or_else(|| ObjectName::sanitised(&format!("session-{uid}")));
        refused.entry(name).or_insert(rejected);
    }
    refused
}

/// Returns the removals that do not happen now.
fn removals(
    parts: &Parts<'_>,
    refused: &Refused<'_>,
    ledger: &mut Ledger,
) -> BTreeMap<ObjectName, Hold> {
    let snapshot = &parts.inputs.snapshot;
    let fate = |name: &ObjectName| match snapshot.sessions.get(name) {
        Some(Ok(stored)) if stored.document.spec.admin_state != AdminState::Enabled => {
            Fate::Leaving
        }
        Some(_) => Fate::Wanted,
        None if refused.contains_key(name) => Fate::Wanted,
        None => Fate::Absent,
    };
    let member = |name: ObjectName| {
        let applied = snapshot.applied.get(&(KIND, name.clone()));
        // A file in BIRD's directory is a running session, also when its record is lost.
        let in_bird = parts.inputs.material.fragments.contains(name.as_str());
        let member = Member {
            fate: fate(&name),
            applied: applied.is_some() || in_bird,
            operators: applied.is_some_and(|stored| is_operators(&stored.document)),
            undisproved: match applied {
                Some(stored) => is_operators(&stored.document) && !snapshot.operators_complete,
                // The record is removed last, so it was lost, and the session's owner is unknown.
                None => in_bird,
            },
        };
        (name, member)
    };
    let members = names(parts, refused).into_iter().map(member).sorted_map();
    ledger.removals(KIND, &members, &rules(parts.inputs))
}

fn candidate(
    parts: &Parts<'_>,
    router: &Result<Router, RouterError>,
    name: &ObjectName,
    (held, refused): (Option<Hold>, Option<&Rejected>),
) -> Candidate {
    let snapshot = parts.inputs.snapshot;
    let key = (KIND, name.clone());
    let applied = snapshot.applied.get(&key).map(|stored| &*stored.document);
    let document = snapshot.sessions.get(name);
    let before = parts.applied.get(name);
    let mut layers = merge_layers(name, document, &layer_inputs(parts.inputs, KIND, name));
    if let Some(rejected) = refused {
        layers.documented = true;
        layers.uid = rejected.uid.clone().unwrap_or(layers.uid);
        layers.acceptance = Acceptance::Invalid(rejected.to_string());
        layers.spec = layers.spec.take().or_else(|| before.cloned());
    }
    if held.is_some() {
        // A held object stays applied, and the agent keeps reconciling the applied state.
        layers.spec = before.cloned();
    }
    let mut candidate = Candidate {
        layers,
        session: None,
        spec: None,
        held,
        needs_text: false,
    };
    match router {
        Ok(router) => candidate.resolve(parts, router, name, applied),
        Err(error) => candidate.layers.acceptance.wait(&error.to_string()),
    }
    let is_same =
        |a: &BgpSessionSpec, b: &BgpSessionSpec| (&a.tunnel, &a.address) == (&b.tunnel, &b.address);
    let runs_as_wanted = match (&candidate.spec, before) {
        (Some(wanted), Some(before)) => is_same(wanted, before),
        (wanted, before) => wanted.is_none() && before.is_none(),
    };
    candidate.needs_text =
        parts.inputs.material.fragments.contains(name.as_str()) && !runs_as_wanted;
    candidate
}

impl Candidate {
    /// Resolves the specification; a contradictory one gives way to the applied one.
    fn resolve(
        &mut self,
        parts: &Parts<'_>,
        router: &Router,
        name: &ObjectName,
        applied: Option<&AppliedDocument>,
    ) {
        match self.try_resolve(parts, router, name) {
            Ok(()) => {}
            Err(errors) if self.layers.acceptance == Acceptance::Valid => {
                self.layers.refuse(&errors, applied);
                // The applied specification was accepted before; its error adds nothing to the first one.
                let _ = self.try_resolve(parts, router, name);
            }
            Err(_) => {}
        }
    }

    fn try_resolve(
        &mut self,
        parts: &Parts<'_>,
        router: &Router,
        name: &ObjectName,
    ) -> Result<(), Vec<FieldError>> {
        (self.session, self.spec) = (None, None);
        let Some(spec) = &self.layers.spec else {
            return Ok(());
        };
        let filled = spec.filled(router, &defaults(parts));
        if filled.admin_state == AdminState::Enabled {
            let secrets = &parts.inputs.material.secrets;
            let extra = &parts.documents.policy.spec.extra_ranges;
            let verdict = check_peer(name, &filled, parts.reach, extra, parts.applied.get(name));
            match Session::resolve(name, &self.layers.uid, &filled, router, secrets) {
                Ok(session) if verdict.refused.is_empty() => self.session = Some(session),
                Ok(_) => return Err(verdict.refused),
                Err(_) => {
                    let own = Session::problems(name, &filled, router, secrets);
                    return Err(own.into_iter().chain(verdict.refused).collect());
                }
            }
            self.layers.remark = verdict.remark();
        }
        self.spec = Some(filled);
        Ok(())
    }
}

/// Returns the claims of a session. One that stays as it is keeps its claims.
fn claimant(parts: &Parts<'_>, name: &ObjectName, candidate: &Candidate) -> Option<Claimant> {
    let record = parts.inputs.snapshot.applied.get(&(KIND, name.clone()));
    let holds = record.map(|record| claims_of(&record.document, parts.applied.get(name)));
    let holds = holds.unwrap_or_default();
    let leaving = !candidate.layers.documented && candidate.held.is_none();
    let claims = match &candidate.session {
        Some(session) => session.claims(),
        None if leaving => return None,
        None if candidate.layers.acceptance == Acceptance::Valid => return None,
        None => holds.clone(),
    };
    Some(Claimant {
        name: label(name),
        uid: candidate.layers.uid.clone(),
        claims,
        holds,
    })
}

/// Returns the claims of the backbone tunnels.
fn backbone(parts: &Parts<'_>) -> Vec<Claimant> {
    let mesh = parts.backbone.values().filter_map(Object::mesh);
    let mesh = mesh.map(|tunnel| {
        let claims = tunnel.claims();
        let name = format!("{}/{}", Kind::MeshPeer.folder(), tunnel.name);
        Claimant {
            name,
            uid: tunnel.uid.clone(),
            holds: claims.clone(),
            claims,
        }
    });
    mesh.collect()
}

/// Returns the name of a session in a clash message.
fn label(name: &ObjectName) -> String {
    format!("{}/{name}", KIND.folder())
}

/// Returns the applied claims of a session, from its finalizer and the specification in it.
pub(super) fn claims_of(
    applied: &AppliedDocument,
    spec: Option<&BgpSessionSpec>,
) -> BTreeSet<Claim> {
    let body = &applied.applied;
    let peers: Vec<Claim> = spec
        .into_iter()
        .flat_map(peer_addresses)
        .map(|(_, address)| Claim::Address(address))
        .collect();
    let port = spec
        .and_then(|spec| spec.tunnel.listen_port)
        .map(Claim::ListenPort);
    let interfaces = body.interfaces.iter().cloned().map(Claim::Interface);
    interfaces
        .chain(body.protocols.iter().cloned().map(Claim::Protocol))
        .chain(port)
        .chain(peers)
        .sorted_set()
}

fn object(
    parts: &Parts<'_>,
    peerings: &Result<Peerings<'_>, TextError>,
    name: &ObjectName,
    (candidate, clash): (Candidate, Option<&Clash>),
) -> Object {
    let Candidate {
        mut layers,
        session,
        spec,
        held,
        needs_text,
    } = candidate;
    let session = session.filter(|_| clash.is_none());
    if let Some(clash) = clash {
        layers.acceptance = Acceptance::Clash(clash.to_string());
    }
    let admin_state = match &spec {
        Some(spec) => spec.admin_state,
        None if !layers.documented => AdminState::Absent,
        None => AdminState::Enabled,
    };
    let intent = match session {
        _ if clash.is_some() => Intent::Stay,
        None if held.is_some() => Intent::Stay,
        None if !layers.documented => Intent::Absent,
        Some(session) => {
            let session = Arc::new(session);
            // An unusable template never stops the tunnel.
            let fragment = match peerings {
                Ok(peerings) => parts.fragment(peerings, &session),
                Err(error) => Err(error.clone()),
            };
            match fragment.map_err(|error| layers.acceptance.wait(&chain(&error))) {
                Err(()) if needs_text => Intent::Stay,
                text => Intent::Present(Wanted::Session(session, text.ok())),
            }
        }
        _ if spec.is_some() && admin_state != AdminState::Enabled => Intent::Absent,
        _ => Intent::Stay,
    };
    let spec = spec.and_then(|spec| PackedSpec::of(&spec).ok());
    layers.into_object(name, intent, admin_state, spec, held)
}
