//! `adopt --plan`: how a router that runs already would be taken over.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::offline::{Offline, Rehearsal};
use super::steps::{self, ObjectSteps, Tense};
use super::{Arguments, Outcome, block_on, output};
use crate::adopt::{Adopted, Adoption, Before, Finding, Harm, Running, TunnelFile};
use crate::document::{BgpSessionSpec, Document};
use crate::model::ObjectKey;
use crate::store::Store;
use crate::util::task::blocking;
use crate::util::{file, fs};

/// The most that is read of a file of `wg-quick` or systemd-networkd.
const LARGEST: u64 = 1 << 20;

/// Show how a router that runs already would be taken over.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Change nothing
    #[arg(long, required = true)]
    plan: bool,
    /// The directory of wg-quick
    #[arg(long, value_name = "DIR", default_value = "/etc/wireguard")]
    wg_quick: PathBuf,
    /// The directory of systemd-networkd
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/network")]
    networkd: PathBuf,
}

/// The answer. The names of its fields are part of the interface for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    findings: Vec<Finding>,
    documents: Vec<Document<BgpSessionSpec>>,
    /// What the first pass would do with the documents.
    plan: Vec<ObjectSteps>,
    /// The steps that would interrupt something.
    interruptions: Vec<Harm>,
    /// Why the documents cannot be used yet.
    conflicts: Vec<String>,
    /// Each object that cannot be planned, and why.
    failed: Vec<String>,
}

impl Adopt {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let state = config.state.directory.clone();
        let (wg_quick, networkd) = (self.wg_quick.clone(), self.networkd.clone());
        let answer = block_on(async move {
            let files = blocking(move || -> anyhow::Result<_> {
                let mut files = tunnel_files(&wg_quick, &["conf"])?;
                files.extend(tunnel_files(&networkd, &["netdev", "network"])?);
                Ok(files)
            })
            .await?;
            let rehearsal = Rehearsal::begin(config).await?;
            let mut adoption = adoption(&rehearsal, &files).await?;
            let secrets = adoption.documents.iter().filter_map(|it| it.secret(&state));
            adoption.findings.extend(secrets);
            let store = Arc::clone(&rehearsal.parts.shared.context.store);
            let documents = adoption.documents.clone();
            blocking(move || write(&store, &documents)).await?;
            Ok(Answer::of(adoption, &rehearsal.offline().await?))
        })?;
        if !output::value(arguments.output, &answer)? {
            answer.print();
        }
        Ok(match answer.is_harmless() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

impl Answer {
    fn of(adoption: Adoption, offline: &Offline) -> Self {
        let before = Before {
            kernel: &offline.kernel,
            protocols: &offline.bird.protocols,
        };
        let plans = offline.plans().into_iter();
        let plans = plans.filter_map(|(_, plan)| plan.ok());
        let interruptions = plans.flat_map(|plan| Harm::of(&plan, before));
        let documents = adoption.documents.into_iter().map(|it| it.document);
        let plan = steps::planned(offline, false);
        Self {
            findings: adoption.findings.into_iter().collect(),
            interruptions: interruptions.collect(),
            conflicts: adoption.conflicts,
            documents: documents.collect(),
            failed: failed(&plan, offline),
            plan: plan.into_values().collect(),
        }
    }

    /// Returns whether every document could be used as it is.
    fn is_harmless(&self) -> bool {
        self.interruptions.is_empty() && self.conflicts.is_empty() && self.failed.is_empty()
    }

    fn print(&self) {
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
        self.conflicts.iter().for_each(output::line);
        let failed = self.failed.iter();
        failed.for_each(|why| output::line(format_args!("failed: {why}")));
        let recreated = self.interruptions.iter().filter(|harm| harm.recreates);
        let reset = self.interruptions.iter().map(|harm| harm.sessions.len());
        output::line(format_args!(
            "Adopt: {} documents, {} link re-creations, {} other interruptions, {} BGP resets.",
            self.documents.len(),
            recreated.clone().count(),
            self.interruptions.len() - recreated.count(),
            reset.sum::<usize>(),
        ));
    }
}

/// Returns the objects without a whole plan. That the operator's main file does not load the agent's files is how adoption
/// begins, and no failure.
fn failed(plan: &BTreeMap<ObjectKey, ObjectSteps>, offline: &Offline) -> Vec<String> {
    const BEGINNING: [&str; 2] = ["ForeignMainConfig", "MainConfigNotIncluded"];
    let blocked = offline.bird.blocked();
    let blocked = blocked.filter(|problem| BEGINNING.contains(&problem.reason));
    let expected = blocked.map(|problem| problem.to_string());
    let node = expected.as_ref().and_then(|_| offline.node_failure());
    let node = node.map(|why| format!("{}: {why}", ObjectKey::Router));
    let errors = plan.values().filter_map(|object| {
        unexpected(object.error.as_ref()?, expected.as_ref())
            .map(|why| format!("{}: {why}", object.object))
    });
    errors.chain(node).collect()
}

/// Returns an error that is not the expected one.
fn unexpected<'a>(error: &'a String, expected: Option<&String>) -> Option<&'a String> {
    (Some(error) != expected).then_some(error)
}

/// Maps the running router.
async fn adoption(rehearsal: &Rehearsal, files: &[TunnelFile]) -> anyhow::Result<Adoption> {
    let context = &rehearsal.parts.shared.context;
    let observer = &context.observer;
    observer.wait_for_bird();
    let kernel = observer.kernel(Instant::now()).await?;
    let bird = observer.bird(Instant::now()).await;
    if !bird.is_running() {
        anyhow::bail!(
            "sessions of the running BIRD cannot be read: {}. Start BIRD, and run `moenet-agent adopt --plan` again",
            bird.why_down()
        );
    }
    Ok(Adoption::of(Running {
        kernel: &kernel,
        protocols: &bird.protocols,
        main: &bird.live.main,
        files,
        asn: rehearsal.parts.config.node.asn,
    }))
}

/// Writes the documents into the temporary state directory; their secrets stay in memory.
fn write(store: &Store, adopted: &[Adopted]) -> anyhow::Result<()> {
    for adopted in adopted {
        let spec = &adopted.document.spec.tunnel;
        let secret = spec.preshared_key_file.as_ref();
        if let (Some(name), Some(key)) = (secret, &adopted.preshared_key) {
            store
                .write_secret(name, &key.to_base64())
                .with_context(|| format!("keep {name} for the plan"))?;
        }
        store.write_document(&adopted.document)?;
    }
    Ok(())
}

/// Reads the files of a directory that configure one WireGuard interface; a missing directory holds none.
fn tunnel_files(directory: &Path, extensions: &[&str]) -> anyhow::Result<Vec<TunnelFile>> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.with_context(|| format!("read {}", directory.display()))?,
    };
    let mut paths = Vec::new();
    for entry in listed {
        let path = entry
            .with_context(|| format!("read {}", directory.display()))?
            .path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text =
            file::read_text(&path, LARGEST).with_context(|| format!("read {}", path.display()))?;
        files.extend(TunnelFile::read(&path, &text));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer {
            findings: Vec::new(),
            documents: Vec::new(),
            plan: Vec::new(),
            interruptions: Vec::new(),
            conflicts: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn failed_object_is_not_harmless() {
        assert!(answer().is_harmless());
        let failed = Answer {
            failed: vec!["node: broken".into()],
            ..answer()
        };
        assert!(!failed.is_harmless());
        let blocked = "not included".to_owned();
        assert_eq!(unexpected(&blocked, Some(&blocked)), None);
        let more = "refused; not included".to_owned();
        assert_eq!(unexpected(&more, Some(&blocked)), Some(&more));
        assert_eq!(unexpected(&more, None), Some(&more));
    }
}
