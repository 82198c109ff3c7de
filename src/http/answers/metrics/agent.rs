//! The agent itself: its health, its state, and counters of its work since its start.

use std::sync::atomic::Ordering;

use prometheus::{IntCounterVec, Opts};

use super::Registry;

use super::super::LocalApi;
use super::super::status::{self, Statuses};
use super::{counter, gauge, gauges, signed};
use crate::desired::Desired;
use crate::model::ObjectKey;
use crate::status::Health;
use crate::util::version::{COMMIT, VERSION};
use crate::util::{exec, file, fs};

/// Health of the agent, as in `/status`.
pub(super) fn health(
    api: &LocalApi,
    desired: &Desired,
    statuses: &Statuses,
    registry: &Registry,
) -> prometheus::Result<()> {
    let help = "1 for the status of the agent, as in /status";
    let by_status = gauges(registry, "moenet_agent_health", help, &["status"])?;
    let (now, _) = status::health(api, desired, statuses);
    for health in [Health::Ok, Health::Degraded, Health::Failed] {
        by_status
            .with_label_values(&[&health.to_string()])
            .set(i64::from(health == now));
    }
    Ok(())
}

/// Counters of the agent's changes since its start; all are constant while nothing changes.
pub(super) fn writes(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let bird = api.committer.counters();
    counter(
        registry,
        "moenet_agent_netlink_writes_total",
        "Changes of links, addresses, routes and WireGuard, each one message",
        api.kernel_counters.messages(),
    )?;
    counter(
        registry,
        "moenet_agent_sysctl_writes_total",
        "Sysctls written",
        api.kernel_counters.sysctl_writes.load(Ordering::Relaxed),
    )?;
    counter(
        registry,
        "moenet_agent_firewall_writes_total",
        "Changes requested from nftables",
        api.context.firewall.writes(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_reloads_total",
        "Configurations loaded into BIRD",
        bird.configures(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_file_writes_total",
        "Files written for BIRD",
        bird.writes(),
    )?;
    counter(
        registry,
        "moenet_agent_bird_checks_total",
        "Configurations checked with bird -p",
        bird.checks(),
    )?;
    counter(
        registry,
        "moenet_agent_state_writes_total",
        "Files written in the state directory",
        api.context.store.writes(),
    )
}

/// Counters of what the process asks the system for.
pub(super) fn requests(registry: &Registry) -> prometheus::Result<()> {
    counter(
        registry,
        "moenet_agent_fsyncs_total",
        "Flushes of files, directories and file systems to the disk by the agent itself",
        file::flushes(),
    )?;
    counter(
        registry,
        "moenet_agent_files_opened_total",
        "Files and directories opened",
        fs::opened(),
    )?;
    counter(
        registry,
        "moenet_agent_programs_total",
        "Programs started, such as bird -p and git",
        exec::started(),
    )
}

/// Counters of the controller's work.
pub(super) fn work(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let pulse = &api.context.pulse;
    let (passes, plans) = pulse.counts();
    if let Some(durations) = pulse.durations() {
        registry.register(Box::new(durations.clone()))?;
    }
    let help = "Failures of work on objects, by class: invalid and conflict need an operator, transient ends by itself, bug is a fault of the agent";
    let errors = IntCounterVec::new(Opts::new("moenet_agent_errors_total", help), &["class"])?;
    registry.register(Box::new(errors.clone()))?;
    for (class, count) in crate::telemetry::failures() {
        errors.with_label_values(&[class.word()]).inc_by(count);
    }
    counter(
        registry,
        "moenet_agent_desired_builds_total",
        "Builds of the desired state",
        pulse.builds(),
    )?;
    counter(
        registry,
        "moenet_agent_observations_total",
        "Observations of the whole kernel",
        api.context.observer.observations(),
    )?;
    counter(
        registry,
        "moenet_agent_passes_total",
        "Passes of the controller, each with one observation",
        passes,
    )?;
    counter(
        registry,
        "moenet_agent_plans_total",
        "Plans of one object each, made in passes",
        plans,
    )?;
    counter(
        registry,
        "moenet_agent_drift_repairs_total",
        "Reconciles that repaired what was changed from outside",
        pulse.repairs(),
    )
}

pub(super) fn state(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let info = gauges(
        registry,
        "moenet_agent_build_info",
        "Version and commit",
        &["version", "commit"],
    )?;
    info.with_label_values(&[VERSION, COMMIT]).set(1);
    held(api, registry)?;
    counter(
        registry,
        "moenet_agent_log_lines_dropped_total",
        "Log lines that could not be written",
        crate::telemetry::lost_lines(),
    )?;
    let drained = api.context.desired().maintenance.enabled;
    gauge(
        registry,
        "moenet_agent_maintenance",
        "1 while the router is drained",
        i64::from(drained),
    )?;
    let uptime = api.started.elapsed().as_secs();
    gauge(
        registry,
        "moenet_agent_uptime_seconds",
        "Since the agent started",
        signed(uptime),
    )?;
    let troubled = i64::from(api.context.store.trouble().is_some());
    let help = "1 while the state directory cannot be read or written";
    gauge(registry, "moenet_agent_state_broken", help, troubled)?;
    let broken = api.context.history_problem().is_some();
    gauge(
        registry,
        "moenet_agent_history_broken",
        "1 while the history cannot be written",
        i64::from(broken),
    )
}

/// Changes that wait for the operator's approval. All but the node's are removals.
fn held(api: &LocalApi, registry: &Registry) -> prometheus::Result<()> {
    let held = api.context.held();
    let removals = held.iter().filter(|held| held.key != ObjectKey::Router);
    gauge(
        registry,
        "moenet_agent_held_changes",
        "Changes that wait for moenet-agent approve",
        signed(held.len() as u64),
    )?;
    gauge(
        registry,
        "moenet_agent_held_removals",
        "Removals that wait for moenet-agent approve",
        signed(removals.count() as u64),
    )
}
