//! Computes the conditions and the status of the node itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{ReconcileResult, record};
use crate::controller::{Convenience, FirewallState, planning};
use crate::desired::Desired;
use crate::document::{ConditionType as About, Phase, StatusBody};
use crate::observed::bird::Support;
use crate::plan::forwarding_blocked;
use crate::status::{Acceptance, Conditions, RpkiName, Verdict};
use crate::store::AppliedOverride;
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;

/// Returns the fields that an override sets.
pub(super) fn fields(override_: Option<&AppliedOverride>) -> Vec<String> {
    override_
        .map(|override_| override_.fields.clone())
        .unwrap_or_default()
}

fn join(remarks: &BTreeSet<String>) -> String {
    remarks
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Sets the condition for the acceptance of a document, with its remarks. Returns the reason if a refusal is an
/// error.
pub(super) fn accepted(
    acceptance: &Acceptance,
    remarks: &BTreeSet<String>,
    conditions: &mut Conditions<'_>,
) -> Option<String> {
    match acceptance {
        Acceptance::Valid => conditions.set(About::Accepted, true, "Valid", join(remarks)),
        Acceptance::Invalid(why) | Acceptance::Clash(why) => {
            conditions.set(About::Accepted, false, "Invalid", why);
            return Some(why.clone());
        }
        Acceptance::Waiting(why) => conditions.unknown(About::Accepted, "Waiting", why),
    }
    None
}

/// Sets the condition for the source of route origin validation.
pub(super) fn origins(desired: &Desired, conditions: &mut Conditions<'_>) {
    let (verdict, message) = (desired.origins.verdict(), desired.origins.message());
    match verdict {
        Verdict::NotRead => conditions.unknown(About::OriginsValidated, verdict.reason(), message),
        Verdict::Live | Verdict::FromCache => {
            conditions.set(About::OriginsValidated, true, verdict.reason(), message);
        }
        Verdict::NoServer | Verdict::Collapsed | Verdict::NoRoas => {
            conditions.set(About::OriginsValidated, false, verdict.reason(), message);
        }
    }
}

/// Sets the condition for the resolution of RPKI server names; sets none if all servers are addresses.
pub(super) fn rpki_names(desired: &Desired, conditions: &mut Conditions<'_>) {
    let about = About::EndpointResolved;
    if desired.rpki.is_empty() {
        return;
    }
    let problems: Vec<String> = desired.rpki.iter().filter_map(RpkiName::problem).collect();
    let missing = desired.rpki.iter().any(|name| name.address.is_none());
    match (problems.is_empty(), missing) {
        (true, false) => conditions.set(about, true, "Resolved", ""),
        (true, true) => conditions.unknown(
            about,
            "Resolving",
            "not every RPKI server was looked up yet",
        ),
        (false, false) => conditions.set(about, false, "LookupFailed", problems.join("; ")),
        (false, true) => conditions.set(about, false, "NotResolved", problems.join("; ")),
    }
}

/// Sets the condition for the operator's templates; sets none if there are no templates.
fn templates(desired: &Desired, conditions: &mut Conditions<'_>) {
    match &desired.templates {
        None => {}
        Some(Ok(())) => conditions.set(About::TemplatesAccepted, true, "InUse", ""),
        Some(Err(error)) => {
            conditions.set(
                About::TemplatesAccepted,
                false,
                "Refused",
                error.to_string(),
            );
        }
    }
}

/// Sets the condition for the version of BIRD: whether the agent was tested with it, whether the same version
/// checks the files, and whether it has the features that the node needs.
fn bird_supported(desired: &Desired, result: &ReconcileResult, conditions: &mut Conditions<'_>) {
    let Some(version) = desired.bird else { return };
    if version.support() == Support::Tested
        && let Some(problem) = planning::bird_problem(desired, &result.observation.bird)
    {
        return conditions.problem(About::BirdSupported, problem);
    }
    let message = version.warning().unwrap_or_default();
    let reason = match version.support() {
        Support::Tested => "Tested",
        Support::Untested => "NeverTested",
        Support::TooOld => "TooOld",
    };
    conditions.set(
        About::BirdSupported,
        version.support() == Support::Tested,
        reason,
        message,
    );
}

/// Sets the condition for whether BGP sessions exchange routes at all.
fn policy_in_effect(desired: &Desired, conditions: &mut Conditions<'_>) {
    let about = About::PolicyInEffect;
    match desired.router_documents.without_policy() {
        Some(why) => conditions.set(about, false, "NoPolicy", why),
        None => conditions.set(about, true, "Known", ""),
    }
}

/// Sets the condition for whether the router's private key can be read.
fn key_available(desired: &Desired, conditions: &mut Conditions<'_>) {
    match desired.key.missing() {
        Some(why) => conditions.set(About::KeyAvailable, false, "Missing", why),
        None => conditions.set(About::KeyAvailable, true, "Read", ""),
    }
}

/// Sets the condition for the agent's table in nftables; sets none for a table that is neither wanted nor an
/// obstacle.
fn packet_filter(desired: &Desired, filter: &FirewallState, conditions: &mut Conditions<'_>) {
    let about = About::FirewallConfigured;
    match (&filter.error, &filter.in_effect) {
        (Some(error), _) => conditions.set(about, false, "Failed", error),
        (None, Some(_)) if filter.dropping.is_empty() => {
            conditions.set(about, true, "InEffect", "")
        }
        (None, Some(ruleset)) => {
            let ports: Vec<_> = ruleset.ports().iter().map(ToString::to_string).collect();
            let message = format!(
                "{} drops packets that it does not accept, and the agent's table cannot override \
                 that; accept them there: udp dport {{ {} }}",
                filter.dropping.join(", "),
                ports.join(", ")
            );
            conditions.set(about, true, "OthersDrop", message);
        }
        (None, None) if desired.firewall => conditions.unknown(about, "NotLookedAt", ""),
        (None, None) => {}
    }
}

/// Sets the condition for foreign files that BIRD reads and for quarantined files; sets none if there are no such
/// files.
fn foreign_files(result: &ReconcileResult, conditions: &mut Conditions<'_>) {
    const SHOWN: usize = 5;
    let (about, live) = (About::BirdFilesAccepted, &result.observation.bird.live);
    let list = |paths: Vec<&str>| {
        let more = paths.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!(" and {more} more"));
        let shown = paths[..paths.len().min(SHOWN)].join(", ");
        shown + &more.unwrap_or_default()
    };
    let quarantined: Vec<_> = live.quarantined.iter().map(String::as_str).collect();
    let foreign: Vec<_> = live.tree.foreign.keys().map(String::as_str).collect();
    if !quarantined.is_empty() {
        let message = format!(
            "{} were not written by the agent and BIRD refuses them",
            list(quarantined)
        );
        conditions.set(about, false, "Quarantined", message);
    } else if !foreign.is_empty() {
        let message = format!(
            "BIRD reads {}, which the agent did not write and leaves as they are",
            list(foreign)
        );
        conditions.set(about, true, "Foreign", message);
    } else if conditions.had(about) {
        conditions.set(about, true, "Own", "");
    }
}

/// Sets the condition for forwarding: whether the kernel's settings let packets pass through the tunnels.
fn forwarding(desired: &Desired, result: &ReconcileResult, conditions: &mut Conditions<'_>) {
    if !desired.has_tunnels() {
        return;
    }
    match forwarding_blocked(&result.observation.kernel) {
        Some(why) => conditions.set(About::Forwarding, false, "Blocked", why),
        None => conditions.set(About::Forwarding, true, "Configured", ""),
    }
}

/// Returns the protocols that the operator's main file defines instead of the agent.
fn left_out(desired: &Desired, result: &ReconcileResult) -> String {
    let main = &result.observation.bird.live.main;
    let loopback = desired.loopback.as_ref();
    let provided = main.provided(loopback.map_or("", |loopback| loopback.interface.as_str()));
    let names = [
        ("device", provided.device),
        ("kernel (IPv4)", provided.kernel4),
        ("kernel (IPv6)", provided.kernel6),
        ("direct", provided.direct),
    ];
    let names: Vec<_> = names
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "{} defines {}; the agent's are left out",
        main.path.display(),
        names.join(", ")
    )
}

/// Sets the condition for whether BIRD runs with the files that all sessions share.
fn bird_configured(
    desired: &Desired,
    result: &ReconcileResult,
    error: Option<&str>,
    conditions: &mut Conditions<'_>,
) {
    let about = About::BirdConfigured;
    if let Err(error) = &desired.router {
        return conditions.unknown(about, "Waiting", error.to_string());
    }
    if let Err(error) = &desired.base {
        return conditions.set(about, false, "NotRendered", chain(error));
    }
    if let Some(problem) = planning::router_error(desired, &result.observation.bird) {
        return conditions.problem(about, problem);
    }
    if let Some(error) = error {
        return conditions.set(about, false, "Failed", error);
    }
    if !result.observation.bird.is_running() {
        return conditions.unknown(about, "NotRunning", result.observation.bird.why_down());
    }
    match record::remaining(result, true) {
        None => conditions.set(about, true, "Loaded", left_out(desired, result)),
        Some(missing) => conditions.set(about, false, "NotLoaded", missing),
    }
}

/// Sets the condition for whether documents are read from the branch of the state directory's repository.
fn work_tree(desired: &Desired, conditions: &mut Conditions<'_>) {
    let about = About::WorkTreeCurrent;
    match &desired.moved {
        None => conditions.set(about, true, "OnBranch", ""),
        Some(at) => {
            let message = format!("HEAD is {at}; keeping the last documents and records");
            conditions.set(about, false, "HeadMoved", message);
        }
    }
}

/// Sets the condition for a change of the node that an operator has to approve.
fn change_held(desired: &Desired, conditions: &mut Conditions<'_>) {
    if let Some(held) = &desired.router_documents.node_held {
        let message = format!("{}: {}", held.change, held.reason);
        conditions.set(About::ChangeHeld, true, "GuardTripped", message);
    }
}

/// Returns the error of the files that all sessions share. An unknown identity is no error.
fn base_error(desired: &Desired) -> Option<String> {
    desired.router.as_ref().ok()?;
    desired.base.as_ref().err().map(|error| chain(error))
}

/// Returns the node's status, with the error of the reconcile and the error of its part for BIRD.
pub(super) fn status(
    desired: &Desired,
    before: &StatusBody,
    result: &ReconcileResult,
    filter: &FirewallState,
    (error, of_bird): (Option<&str>, Option<&str>),
    conveniences: &BTreeMap<About, Convenience>,
) -> StatusBody {
    let mut conditions = Conditions::new(&before.conditions, result.observation.now);
    let node = &desired.router_documents.node;
    let remarks = node.remark.iter().cloned().sorted_set();
    let refused = accepted(&node.acceptance, &remarks, &mut conditions);
    change_held(desired, &mut conditions);
    templates(desired, &mut conditions);
    bird_supported(desired, result, &mut conditions);
    bird_configured(desired, result, of_bird, &mut conditions);
    foreign_files(result, &mut conditions);
    policy_in_effect(desired, &mut conditions);
    key_available(desired, &mut conditions);
    packet_filter(desired, filter, &mut conditions);
    forwarding(desired, result, &mut conditions);
    for (about, is) in conveniences {
        conditions.set(*about, is.works, is.reason, &is.message);
    }
    work_tree(desired, &mut conditions);
    let last_error = error
        .map(str::to_owned)
        .or(refused)
        .or_else(|| base_error(desired));
    let phase = match (&last_error, &desired.router) {
        (Some(_), _) => Phase::Error,
        (None, Err(_)) => Phase::Pending,
        (None, Ok(_)) if conditions.holds(About::BirdConfigured) => Phase::Configured,
        (None, Ok(_)) => Phase::Configuring,
    };
    StatusBody {
        observed_generation: node.generation,
        phase,
        conditions: conditions.into_vec(),
        overridden: fields(node.override_.as_ref()),
        last_steps: match result.steps.is_empty() {
            true => before.last_steps.clone(),
            false => result.steps.clone(),
        },
        last_error,
        ..StatusBody::default()
    }
}
