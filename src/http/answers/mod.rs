//! Answers the local API (docs/contract/local-api.md).

mod confirmation;
mod glass;
mod metrics;
mod objects;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use glass::Glass;
use metrics::Process;
pub(crate) use metrics::{Metric, Registry};

use super::api::{
    AgentApi, ApiRefusal, Confirmation, MaintenanceView, NodeView, OverriddenField, OverrideView,
    Overview, SessionCounts, StatusView,
};
use super::glass::LookingGlass;
use super::view::ObjectView;
use crate::bird::Committer;
use crate::config::TokenSource;
use crate::control_plane::{CallError, Failure};
use crate::controller::{Context, overrides};
use crate::desired::{Desired, HeldChange, maintenance_in_effect};
use crate::document::{
    Condition, ConditionStatus, ConditionType, Document, Kind, MaintenanceSpec, Phase, StatusBody,
};
use crate::history::{Author, Feed};
use crate::intervals::RESTART_WAIT;
use crate::kernel::KernelCounters;
use crate::model::{AdminState, InterfaceName, ObjectKey, ObjectName};
use crate::sources::Sources;
use crate::status::Acceptance;
use crate::store::{Area, Place, Store, Written};
use crate::sync::{Calls, Requests, Syncer};
use crate::telemetry::chain;
use crate::util::task::blocking;
use crate::util::text::{MANY, bounded, bounded_to, cut};
use crate::util::version::{COMMIT, VERSION};
use crate::wire::reference::ROUTER_NOT_FOUND;
use crate::wire::{Call, DrainWish};

/// Maximum length of an overridden value in `/status`, in characters.
const LONG_VALUE: usize = 400;
/// Maximum number of notices in `/status`; each kind of notice has its own lower limit.
const NOTICES: usize = 100;

/// The parts of a running agent that its tasks share, and from which the local API answers.
pub struct LocalApi {
    pub(crate) context: Arc<Context>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) committer: Committer,
    pub(crate) kernel_counters: Arc<KernelCounters>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) requests: Arc<Requests>,
    /// The exchange with the Control Plane, if one is configured.
    pub(crate) sync: Option<Arc<Syncer>>,
    /// The router's name in the configuration.
    pub(crate) name: String,
    pub(crate) started: Instant,
    /// The token for the Control Plane.
    pub(crate) token: TokenSource,
    pub(crate) api_token: TokenSource,
    /// The looking glass, unless it is off.
    pub(crate) glass: Option<Arc<Glass>>,
}

impl LocalApi {
    /// Returns every metric that `/metrics` can have. Blocks.
    pub(crate) fn all_metrics(&self) -> Vec<Metric> {
        metrics::all(self, Process::read().as_ref())
    }

    fn desired(&self) -> Arc<Desired> {
        self.context.desired()
    }
}

#[async_trait]
impl AgentApi for LocalApi {
    async fn status(&self) -> StatusView {
        let desired = self.desired();
        let statuses = self.context.statuses.all();
        let router = desired.router.as_ref().ok();
        let counts = counts(&desired, |key| Some(statuses.get(key)?.phase));
        let (health, reasons) = status::health(self, &desired, &statuses);
        let (bgp, phases) = status::counts(&statuses);
        let (held, held_total) = status::held(self.context.held());
        let all = overrides::of(&desired);
        StatusView {
            status: health.to_string(),
            reasons,
            version: VERSION.to_owned(),
            commit: COMMIT.to_owned(),
            uptime: self.started.elapsed().as_secs(),
            node: NodeView {
                id: router.map(|router| router.id),
                name: self.name.clone(),
                region: router.and_then(|router| router.region.clone()),
            },
            sessions: counts,
            circuit_breaker: self.sync.as_ref().map_or("closed".to_owned(), |sync| {
                sync.client.breaker().to_string()
            }),
            bgp,
            phases,
            maintenance: self.maintenance().await,
            bird: status::bird(self),
            last_sync: status::lists(&self.calls),
            sync: self.requests.view(),
            held,
            held_total,
            waiting: status::waits(self, &desired, &statuses),
            overridden: bounded(overridden(&all), "overridden fields"),
            overrides_total: all.len() as u64,
            overrides: all.into_iter().take(MANY).map(short).collect(),
            notices: bounded_to(NOTICES, notices(self, &desired), "notices"),
        }
    }

    async fn object_status(&self, kind: Kind, name: &ObjectName) -> Option<StatusBody> {
        let status = self.context.statuses.get(&kind.key(name));
        status.map(Arc::unwrap_or_clone)
    }

    fn looking_glass(&self) -> Option<Arc<dyn LookingGlass>> {
        let glass = self.glass.clone()?;
        Some(glass)
    }

    async fn overview(&self) -> Overview {
        objects::overview(self).await
    }

    async fn object_view(&self, kind: Kind, name: &ObjectName) -> Option<ObjectView> {
        objects::object(self, kind, name).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.context.statuses.changes()
    }

    fn phases(&self) -> BTreeMap<String, String> {
        objects::phases(self)
    }

    async fn trigger_sync(&self) -> Result<(), ApiRefusal> {
        let requests = &self.requests;
        requests.request();
        let Some(sync) = &self.sync else {
            requests.refuse();
            return Ok(());
        };
        sync.client.hurry(Call::Sessions);
        self.calls.wake(Call::Sessions);
        Ok(())
    }

    async fn restart(&self, interface: InterfaceName) -> Result<(), ApiRefusal> {
        let desired = self.desired();
        let key = desired
            .key_of(&interface)
            .filter(|key| Kind::of(key).is_some_and(|(kind, _)| kind.has_tunnel()));
        let key = key.ok_or_else(|| ApiRefusal::UnknownInterface(interface.clone()))?;
        if let Some(why) = desired.key.missing() {
            // The kernel's copy of the key would be lost with the link, and no new link can be
            // configured without the key.
            return Err(ApiRefusal::Failed(why.to_owned()));
        }
        let done = self.context.restarts.ask(key.clone());
        self.context.hint(key);
        match tokio::time::timeout(RESTART_WAIT, done).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(ApiRefusal::Failed(chain(&error))),
            Ok(Err(_)) => Err(ApiRefusal::Failed("the agent is stopping".to_owned())),
            Err(_) => Err(ApiRefusal::Failed(format!(
                "{interface} is not configured again after a minute"
            ))),
        }
    }

    async fn maintenance(&self) -> MaintenanceView {
        let state = self.desired().maintenance;
        MaintenanceView {
            enabled: state.enabled,
            since: state.since,
        }
    }

    async fn may_drain(&self, force: bool) -> Result<Option<String>, ApiRefusal> {
        let Some(sync) = &self.sync else {
            return Ok(None);
        };
        match sync.client.may_drain(DrainWish { force }).await {
            Ok(()) => Ok(None),
            Err(CallError { failure, .. }) => match failure {
                Failure::Refused {
                    status: 409,
                    detail,
                } => Err(ApiRefusal::DrainRefused(detail)),
                failure @ Failure::RateLimited { .. } if !force => {
                    let why = format!("{}; or drain with --force", chain(&failure));
                    Err(ApiRefusal::DrainRefused(why))
                }
                // A Control Plane without budgets.
                Failure::NotFound { code, .. } if code.as_deref() != Some(ROUTER_NOT_FOUND) => {
                    Ok(None)
                }
                failure => {
                    let why = chain(&failure);
                    tracing::warn!(error = why, "Control Plane did not decide before the drain");
                    Ok(Some(why))
                }
            },
        }
    }

    async fn set_maintenance(&self, enabled: bool) -> Result<Confirmation, ApiRefusal> {
        // Held until the history has recorded the author, so that the file is not recorded as a manual edit.
        self.context.git_at_rest().await;
        let writing = self.feed.writing().await;
        let written = self
            .context
            .write(move |store| write_maintenance(store, enabled))
            .await;
        let written = written.map_err(|error| ApiRefusal::Failed(chain(&error)))?;
        if written == Written::Changed {
            let subject = if enabled {
                "Start maintenance"
            } else {
                "Stop maintenance"
            };
            let author = Author::Operator {
                name: "local API".to_owned(),
            };
            let place = Place::single(Area::Documents, Kind::Maintenance);
            let feed = &self.feed;
            feed.documents(author, subject, Vec::new(), vec![place])
                .await;
        }
        drop(writing);
        self.context.reports.reload();
        confirmation::of_maintenance(&self.context, enabled).await
    }

    async fn metrics(&self) -> String {
        let process = blocking(Process::read).await;
        metrics::text(self, process.as_ref())
    }

    async fn ready(&self) -> bool {
        let router = self.context.statuses.get(&ObjectKey::Router);
        let configured = router.is_some_and(|status| status.phase == Phase::Configured);
        configured && self.context.store.trouble().is_none()
    }
}

/// Writes the maintenance document. Idempotent: keeps `since` if the state already is the requested one.
fn write_maintenance(store: &Store, enabled: bool) -> Result<Written, crate::store::StoreError> {
    let snapshot = store.load()?;
    let before = maintenance_in_effect(&snapshot);
    if before.enabled == enabled {
        return Ok(Written::Unchanged);
    }
    // People read it: whole seconds.
    let now = Timestamp::from_second(Timestamp::now().as_second());
    let since = now.ok().filter(|_| enabled);
    let name = ObjectName::sanitised(Kind::Maintenance.folder());
    store.write_document(&Document::new(
        name,
        None,
        0,
        MaintenanceSpec { enabled, since },
    ))
}

/// Counts sessions by state, in the terms of docs/contract/local-api.md#status. A session that
/// cannot be configured counts as an error, even if the Control Plane's item never became a
/// document.
pub(super) fn counts(
    desired: &Desired,
    phase: impl Fn(&ObjectKey) -> Option<Phase>,
) -> SessionCounts {
    let mut counts = SessionCounts::default();
    let documented = desired
        .of_kind(Kind::BgpSession)
        .filter(|session| session.documented || session.held.is_some());
    for session in documented {
        counts.total += 1;
        match phase(&session.key()).unwrap_or_default() {
            Phase::Established | Phase::Configured | Phase::Degraded => counts.active += 1,
            Phase::Error => counts.error += 1,
            Phase::Paused => {}
            _ if session.admin_state == AdminState::Disabled => {}
            _ => counts.pending += 1,
        }
    }
    counts
}

fn overridden(all: &[OverrideView]) -> Vec<String> {
    let fields = all.iter().flat_map(|one| {
        let of_field = |field: &OverriddenField| format!("{}: {}", one.object, field.field);
        one.fields.iter().map(of_field)
    });
    fields.collect()
}

/// Returns the override with bounded text sizes.
fn short(one: OverrideView) -> OverrideView {
    let value = |value: Value| match value {
        Value::String(text) => Value::String(cut(&text)),
        value if value.to_string().len() > LONG_VALUE => Value::String(cut(&value.to_string())),
        value => value,
    };
    let field = |field: OverriddenField| OverriddenField {
        field: cut(&field.field),
        value: value(field.value),
        document: value(field.document),
    };
    OverrideView {
        reason: cut(&one.reason),
        fields: one.fields.into_iter().take(MANY).map(field).collect(),
        ..one
    }
}

/// Lists the objects that were not accepted, with the reasons.
fn refused(desired: &Desired) -> impl Iterator<Item = String> {
    let objects = desired.objects.values();
    objects.filter_map(|object| Some(format!("{}: {}", object.key(), object.refused()?)))
}

/// Maximum number of waiting overrides that are listed individually.
const FEW: usize = 5;

/// Lists held changes.
fn held(api: &LocalApi) -> impl Iterator<Item = String> {
    let shown = |held: HeldChange| format!("{}: {} held: {}", held.key, held.change, held.reason);
    api.context.held().into_iter().map(shown)
}

/// Lists BIRD's problems that concern the whole router, and the foreign files that BIRD reads besides the agent's.
fn bird(node: Option<Arc<StatusBody>>) -> Vec<String> {
    use ConditionType::{BirdConfigured, BirdFilesAccepted, BirdSupported};
    let about = [BirdConfigured, BirdSupported, BirdFilesAccepted];
    let node = node.unwrap_or_default();
    let conditions = node.conditions.iter();
    let is_said = |condition: &&Condition| {
        condition.status == ConditionStatus::False
            || condition.condition_type == BirdFilesAccepted && !condition.message.is_empty()
    };
    conditions
        .filter(is_said)
        .filter(|condition| about.contains(&condition.condition_type))
        .map(|condition| format!("BIRD: {}", condition.message))
        .collect()
}

/// Notices for the operator.
fn notices(api: &LocalApi, desired: &Desired) -> Vec<String> {
    let mut notices = bounded_to(
        MANY,
        desired.problems.iter().cloned(),
        "files with problems; `moenet-agent validate` lists them",
    );
    notices.extend(api.sources.key.copied());
    let waiting = desired.waiting.iter().cloned();
    notices.extend(bounded_to(
        FEW,
        waiting,
        "overrides wait for objects that do not exist",
    ));
    let trouble = api.context.store.trouble();
    notices.extend(trouble.map(|why| format!("state directory: {why}")));
    notices.extend(desired.router.as_ref().err().map(ToString::to_string));
    let action = status::failing(ConditionType::PolicyInEffect);
    let policy = desired.router_documents.without_policy();
    notices.extend(policy.map(|why| format!("{why}; {action}")));
    notices.extend(desired.key.missing().map(str::to_owned));
    notices.extend(of_objects(api, desired));
    notices.extend(bird(api.context.statuses.get(&ObjectKey::Router)));
    notices.extend(api.calls.notices());
    let history = api.context.history_problem();
    notices.extend(history.map(|why| format!("history: {why}")));
    let firewall = api.context.firewall.state().error;
    notices.extend(firewall.map(|why| format!("firewall: {why}")));
    notices
}

/// Notices about documents and the objects that they describe.
fn of_objects(api: &LocalApi, desired: &Desired) -> Vec<String> {
    let mut notices = bounded_to(
        MANY,
        refused(desired),
        "objects in error; `moenet-agent get` lists them",
    );
    let unread = desired.unread.iter();
    notices.extend(unread.map(|fact| format!("addresses of peers are not compared with {fact}")));
    notices.extend(bounded_to(
        MANY,
        desired.clashes(),
        "address clashes of applied objects",
    ));
    notices.extend(bounded_to(
        MANY,
        held(api),
        "changes held; `moenet-agent approve --list` shows them",
    ));
    let documents = &desired.router_documents;
    for (name, acceptance) in [
        ("node", &documents.node.acceptance),
        ("policy", &documents.policy.acceptance),
    ] {
        if let Acceptance::Invalid(why) = acceptance {
            notices.push(format!("{name}: {why}"));
        }
    }
    notices
}
