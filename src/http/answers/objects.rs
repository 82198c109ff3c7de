//! The objects for the web page, from what the agent already knows: nothing is observed for a page.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::api::Overview;
use super::super::view::{ObjectEvent, ObjectRow, ObjectView};
use super::status::counted;
use super::{AgentApi as _, LocalApi};
use crate::controller::planning;
use crate::controller::provenance::{self, Field};
use crate::desired::{Object, Wanted};
use crate::document::{Condition, Kind, Phase, StatusBody};
use crate::history::{HistoryError, LoggedCommit};
use crate::model::{ObjectKey, ObjectName};
use crate::plan::Plan;
use crate::status::{causes, is_up};
use crate::store::{Area, Place};
use crate::telemetry::chain;
use crate::util::sorted::Sorted as _;

/// Number of commits of the history on the page of an object.
const COMMITS: usize = 20;

pub(super) async fn overview(api: &LocalApi) -> Overview {
    let (desired, statuses) = (api.desired(), api.context.statuses.all());
    let row = |(key, status)| row(key, desired.objects.get(key), status);
    let mut objects: Vec<_> = counted(&statuses).map(row).collect();
    // What needs an operator comes first; otherwise the order of the keys stays.
    objects.sort_by_key(|row| !row.is_bad);
    Overview {
        status: api.status().await,
        objects,
    }
}

pub(super) async fn object(api: &LocalApi, kind: Kind, name: &ObjectName) -> Option<ObjectView> {
    let key = kind.key(name);
    let status = Arc::unwrap_or_clone(api.context.statuses.get(&key)?);
    let desired = api.desired();
    let object = desired.objects.get(&key);
    let fields = match object {
        Some(object) => fields(api, object).await,
        None => Vec::new(),
    };
    let (plan, plan_note) = plan(api, &key).await;
    let mut events: Vec<_> = status.conditions.iter().map(transition).collect();
    let history_error = match commits(api, kind, name).await {
        Ok(commits) => {
            events.extend(commits);
            None
        }
        Err(error) => Some(chain(&error)),
    };
    events.sort_by_key(|event| std::cmp::Reverse(event.time));
    Some(ObjectView {
        row: row(&key, object, &status),
        fields,
        override_reason: object.and_then(|object| object.reason.clone()),
        override_expires: object.and_then(|object| object.expires_at),
        plan,
        plan_note,
        last_steps: status.last_steps,
        conditions: status.conditions,
        events,
        history_error,
    })
}

/// Returns the phase of every object.
pub(super) fn phases(api: &LocalApi) -> BTreeMap<String, String> {
    let phases = api.context.statuses.phases().into_iter();
    phases
        .map(|(key, phase)| (key.to_string(), phase.to_string()))
        .sorted_map()
}

fn row(key: &ObjectKey, object: Option<&Object>, status: &StatusBody) -> ObjectRow {
    let session = match object.and_then(Object::wanted) {
        Some(Wanted::Session(session, _)) => Some(session),
        _ => None,
    };
    let (bgp, tunnel) = (status.bgp.as_ref(), status.tunnel.as_ref());
    let named = Kind::of(key);
    let is_down = matches!(status.phase, Phase::Configured) && bgp.is_some() && !is_up(status);
    ObjectRow {
        object: named.map_or_else(|| key.to_string(), |(kind, name)| kind.path(name)),
        asn: session.map(|session| session.asn.get().to_string()),
        description: session.map_or_else(String::new, |session| session.description.clone()),
        phase: status.phase.to_string(),
        is_bad: is_down || matches!(status.phase, Phase::Error | Phase::Degraded),
        bgp: bgp.map(|bgp| bgp.state.clone()),
        since: bgp.and_then(|bgp| bgp.since),
        rtt_ms: status.rtt_ms,
        loss: status.loss,
        routes_imported: bgp.map(|bgp| bgp.routes_imported),
        routes_exported: bgp.map(|bgp| bgp.routes_exported),
        received_bytes: tunnel.map(|tunnel| tunnel.rx_bytes),
        sent_bytes: tunnel.map(|tunnel| tunnel.tx_bytes),
        causes: causes(status, Vec::new()),
    }
}

async fn fields(api: &LocalApi, object: &Object) -> Vec<Field> {
    let (kind, name) = (object.kind, object.name.clone());
    let said = api.context.disk(move |store| store.read_spec(kind, &name));
    let said = said.await;
    let document = said.as_ref().ok().and_then(Option::as_ref);
    provenance::of_object(object, document, said.is_err())
}

/// Returns the steps of the plan from the last observation, and what it waits for, or why there is no plan.
async fn plan(api: &LocalApi, key: &ObjectKey) -> (Vec<String>, Option<String>) {
    let (context, desired) = (&api.context, api.desired());
    let without = |why: String| (Vec::new(), Some(why));
    let Some(seen) = context.last_observation(key).await else {
        let error = context.observer.kernel_error();
        return without(error.unwrap_or_else(|| "the kernel has not been observed yet".to_owned()));
    };
    let object = desired.objects.get(key);
    let endpoint = object.and_then(Object::endpoint);
    let view = match context.look(&desired, &seen, key, endpoint) {
        Ok(view) => view,
        Err(error) => return without(chain(&error)),
    };
    let plan = match (key, object) {
        (ObjectKey::Router | ObjectKey::Policy, _) => planning::router(&desired, &view),
        (_, Some(object)) => planning::object(&desired, object, &view),
        (_, None) => Ok(Plan::default()),
    };
    match plan {
        Ok(plan) => (
            plan.steps.iter().map(ToString::to_string).collect(),
            plan.waits,
        ),
        Err(refusal) => without(chain(&refusal)),
    }
}

fn transition(condition: &Condition) -> ObjectEvent {
    ObjectEvent {
        time: condition.last_transition_time,
        of: format!("{:?}", condition.condition_type),
        what: format!("{:?} ({})", condition.status, condition.reason),
        message: condition.message.clone(),
    }
}

async fn commits(
    api: &LocalApi,
    kind: Kind,
    name: &ObjectName,
) -> Result<Vec<ObjectEvent>, HistoryError> {
    let areas = [Area::Documents, Area::Overrides, Area::Applied];
    let paths = areas.map(|area| Place::new(area, kind, name).relative());
    let paths: Vec<PathBuf> = paths.into();
    let commits = api.feed.log(&paths, COMMITS).await?.into_iter();
    let event = |commit: LoggedCommit| ObjectEvent {
        time: commit.time,
        of: commit.author,
        what: commit.id.short().to_owned(),
        message: commit.subject,
    };
    Ok(commits.map(event).collect())
}
