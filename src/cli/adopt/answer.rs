//! The report of an adoption: findings, plan, and everything that speaks against it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::adopt::record::Placed;
use crate::adopt::{
    Adopted, Adoption, Before, Finding, Harm, Record, TunnelFile, changes, irreversible,
};
use crate::adoption::Documents;
use crate::cli::offline::Offline;
use crate::cli::output;
use crate::cli::steps::{self, ObjectSteps, Tense};
use crate::document::{BgpSessionSpec, Document, OverrideSpec};
use crate::model::{InterfaceName, ObjectKey};
use crate::plan::{Plan, Refusal};
use crate::util::sorted::Sorted as _;
use crate::util::text::counted;

/// The answer. The names of its fields are part of the interface for programs.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    findings: Vec<Finding>,
    pub(super) documents: Vec<Document<BgpSessionSpec>>,
    /// The overrides of sessions that the Control Plane lists.
    overrides: Vec<Document<OverrideSpec>>,
    /// What the first pass would do with the documents.
    plan: Vec<ObjectSteps>,
    /// The steps that would interrupt something.
    interruptions: Vec<Harm>,
    /// The steps that no undo could take back.
    irreversible: Vec<String>,
    /// Why the documents cannot be used yet.
    conflicts: Vec<String>,
    /// Each object that cannot be planned, and why.
    failed: Vec<String>,
    #[serde(skip)]
    pub(super) adopted: Vec<Adopted>,
    /// All documents of the plan.
    #[serde(skip)]
    pub(super) planned: Documents,
    /// Addresses that the plan adds.
    #[serde(skip)]
    pub(super) added: BTreeSet<Placed>,
    /// The names of the sysctls of all links together that the plan sets.
    #[serde(skip)]
    pub(super) sysctls: BTreeSet<String>,
}

impl Answer {
    pub(super) fn of(
        mut adoption: Adoption,
        files: &[TunnelFile],
        offline: &Offline,
        planned: Documents,
    ) -> Self {
        let before = Before {
            kernel: &offline.kernel,
            protocols: &offline.bird.protocols,
        };
        let (mut plans, mut refused) = (Vec::new(), None);
        for (key, plan) in offline.plans() {
            match plan {
                Ok(plan) => plans.push(plan),
                Err(refusal) if key == ObjectKey::Router => refused = Some(refusal),
                Err(_) => {}
            }
        }
        let interfaces = adoption.documents.iter().filter_map(Adopted::interface);
        let interfaces: BTreeSet<_> = interfaces.cloned().sorted_set();
        adoption
            .findings
            .extend(changes(&plans, &interfaces, files));
        let interruptions = plans.iter().flat_map(|plan| Harm::of(plan, before));
        let actions = plans.iter().flat_map(|plan| &plan.steps);
        let actions = actions.filter_map(|step| step.action.kernel());
        let added = Record::added_by(actions);
        let sysctls = plans.iter().flat_map(Plan::host_sysctls);
        let sysctls = sysctls.map(|key| key.to_string()).sorted_set();
        let documents = adoption.documents.iter().filter(|it| it.over.is_none());
        let documents = documents.map(|it| it.document.clone());
        let overrides = adoption.documents.iter().filter_map(|it| it.over.clone());
        let mut plan = steps::planned(offline, false);
        let failed = failed(&plan, offline, refused.as_ref());
        if refused.is_none() {
            wait_for_include(&mut plan, offline);
        }
        Self {
            findings: adoption.findings.into_iter().collect(),
            interruptions: interruptions.collect(),
            irreversible: plans.iter().flat_map(irreversible).collect(),
            conflicts: adoption.conflicts,
            documents: documents.collect(),
            overrides: overrides.collect(),
            failed,
            plan: plan.into_values().collect(),
            adopted: adoption.documents,
            planned,
            added,
            sysctls,
        }
    }

    /// Returns whether every document could be used as it is.
    pub(super) fn is_harmless(&self) -> bool {
        self.interruptions.is_empty() && self.conflicts.is_empty() && self.failed.is_empty()
    }

    /// Returns why nothing may be adopted, whatever the operator accepts.
    pub(super) fn refusals(&self) -> Vec<String> {
        let kept = |step: &String| format!("no undo could take this back: {step}");
        let irreversible = self.irreversible.iter().map(kept);
        let others = self.conflicts.iter().chain(&self.failed).cloned();
        let nothing = self.adopted.is_empty();
        let nothing = nothing.then(|| "there is nothing to take over".to_owned());
        irreversible.chain(others).chain(nothing).collect()
    }

    /// Returns what `adopt` would do, as one line.
    pub(super) fn verdict(&self) -> String {
        let refusals = self.refusals();
        match (refusals.first(), self.interruptions.is_empty()) {
            (Some(first), _) => {
                let more = match refusals.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {})", counted(more, "further reason")),
                };
                format!("`moenet-agent adopt` refuses, and changes nothing: {first}{more}")
            }
            (None, false) => {
                "`moenet-agent adopt` changes nothing without --yes, which accepts the named interruptions".to_owned()
            }
            (None, true) => "`moenet-agent adopt` takes this over, and interrupts nothing.".to_owned(),
        }
    }

    /// Returns the names of the adopted interfaces.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        self.adopted.iter().filter_map(Adopted::interface)
    }

    pub(super) fn print(&self) {
        for finding in &self.findings {
            let place = finding.place.as_ref();
            let place = place.map_or(String::new(), |place| format!("{place}: "));
            output::line(format_args!(
                "{:<11}  {place}{}: {}",
                finding.outcome.word(),
                finding.subject,
                finding.reason
            ));
        }
        output::line("");
        steps::print(self.plan.iter(), Tense::Planned);
        for harm in &self.interruptions {
            let what = match (harm.recreates, harm.sessions.is_empty()) {
                (true, _) => "recreates the link".to_owned(),
                (false, true) => "interrupts the tunnel".to_owned(),
                (false, false) => format!("resets {}", harm.sessions.join(", ")),
            };
            output::line(format_args!(
                "{}: {what}: {}, because {}",
                harm.interface.as_deref().unwrap_or("BIRD"),
                harm.step,
                harm.because
            ));
        }
        let kept = self.irreversible.iter();
        kept.for_each(|step| output::line(format_args!("cannot be undone: {step}")));
        let conflicts = self.conflicts.iter();
        conflicts.for_each(|why| output::line(format_args!("refused: {why}")));
        let failed = self.failed.iter();
        failed.for_each(|why| output::line(format_args!("failed: {why}")));
        let recreated = self.interruptions.iter().filter(|harm| harm.recreates);
        let reset = self.interruptions.iter().map(|harm| harm.sessions.len());
        let over = match self.overrides.len() {
            0 => String::new(),
            count => format!(", {}", counted(count, "override")),
        };
        output::line(format_args!(
            "Adopt: {}{over}, {}, {}, {}.",
            counted(self.documents.len(), "document"),
            counted(recreated.clone().count(), "link re-creation"),
            counted(
                self.interruptions.len() - recreated.count(),
                "other interruption"
            ),
            counted(reset.sum(), "BGP reset"),
        ));
    }
}

/// Replaces the node's error by what happens, if the operator's main file alone keeps BIRD from loading the agent's files.
fn wait_for_include(plan: &mut BTreeMap<ObjectKey, ObjectSteps>, offline: &Offline) {
    let Some(node) = plan.get_mut(&ObjectKey::Router) else {
        return;
    };
    let is_failed = offline.node_failure().is_some();
    if node.error.is_none() || is_failed || !offline.bird.waits_for_include() {
        return;
    }
    node.error = None;
    node.waits = Some(format!(
        "BIRD runs on from {}, which stays as it is: the agent's files are written below moenet/, and wait until it includes \
         them",
        offline.bird.live.main.path.display()
    ));
}

/// Returns the objects without a whole plan. That the operator's main file does not load the agent's files is how adoption
/// begins, and no failure: then the node fails only if its addresses are `refused`, or if its files could not be used anyway.
fn failed(
    plan: &BTreeMap<ObjectKey, ObjectSteps>,
    offline: &Offline,
    refused: Option<&Refusal>,
) -> Vec<String> {
    let begins = offline.bird.waits_for_include();
    let node = || {
        let refused = refused.map(ToString::to_string);
        refused.or_else(|| offline.node_failure())
    };
    let errors = plan.iter().filter_map(|(key, object)| {
        let error = match key {
            ObjectKey::Router if begins => node(),
            _ => object.error.clone(),
        };
        error.map(|why| format!("{}: {why}", object.object))
    });
    errors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_object_is_not_harmless() {
        assert!(Answer::default().is_harmless());
        let failed = Answer {
            failed: vec!["node: broken".into()],
            ..Answer::default()
        };
        assert!(!failed.is_harmless());
        assert!(failed.refusals().contains(&"node: broken".to_owned()));
    }

    #[test]
    fn irreversible_step_is_refused_first() {
        let answer = Answer {
            irreversible: vec!["set WireGuard".into()],
            ..Answer::default()
        };
        let why = "no undo could take this back: set WireGuard";
        assert_eq!(answer.refusals()[0], why);
        let verdict = answer.verdict();
        let refuses = format!("refuses, and changes nothing: {why} (and 1 further reason)");
        assert!(verdict.contains(&refuses), "{verdict}");
    }
}
