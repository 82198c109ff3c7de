//! The configuration, every file of the state directory, and the desired state that they form together.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use tokio::time::Instant;

use super::{Findings, file};
use crate::agent::start_problems;
use crate::cli::offline::{Wanted, unresolved};
use crate::cli::{Arguments, block_on, is_root, objects};
use crate::config::{self, Config, ControlPlane, Environment, TokenError};
use crate::controller::Missing;
use crate::desired::Desired;
use crate::document::DocumentError;
use crate::status::Acceptance;
use crate::store::{self, Place, Snapshot};
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// Returns every problem that a start of the agent would report.
pub(super) fn findings(arguments: &Arguments) -> anyhow::Result<Findings> {
    let config = match arguments.load() {
        Ok(config) => config,
        Err(error) => return Ok(without_configuration(arguments, &error)),
    };
    let mut findings = Findings {
        problems: start_problems(&config),
        ..Findings::default()
    };
    files(&config, &mut findings);
    let found = fs::metadata(&config.state.directory);
    let is_absent = found.is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let checked = block_on(async {
        match is_absent {
            true => before_start(&config, &mut findings).await,
            false => documents(config, &mut findings).await,
        }
    });
    if let Err(error) = checked {
        let text = error.to_string();
        findings
            .unchecked
            .push("the state directory: not readable".to_owned());
        if !findings.problems.iter().any(|it| it.to_string() == text) {
            let all = DocumentError::whole(chain(error.as_ref()));
            findings.problems.push(all);
        }
    }
    // A rejected template is a problem of both the configuration and the node.
    let mut named = BTreeSet::new();
    findings
        .problems
        .retain(|problem| named.insert(problem.to_string()));
    Ok(findings)
}

/// Returns all problems of an unusable configuration.
fn without_configuration(arguments: &Arguments, error: &anyhow::Error) -> Findings {
    let path = arguments.config.clone().or_else(config::found);
    let listed = path.map(|path| config::problems(&path, Environment::read()));
    let listed = listed.filter(|problems| !problems.is_empty());
    Findings {
        problems: listed.unwrap_or_else(|| vec![DocumentError::whole(error.to_string())]),
        unchecked: vec!["the state directory: the configuration names it".to_owned()],
        ..Findings::default()
    }
}

/// Checks the token files.
fn files(config: &Config, findings: &mut Findings) {
    for problem in token_problems(config) {
        findings.report(problem.is_denied(), problem.to_string());
    }
}

/// Returns why token files cannot be used.
pub(crate) fn token_problems(config: &Config) -> impl Iterator<Item = TokenError> {
    let control_plane = config
        .control_plane
        .as_ref()
        .map(ControlPlane::token_source);
    let sources = control_plane
        .into_iter()
        .chain([config.server.token_source()]);
    sources.filter_map(|source| source.problem())
}

impl Findings {
    /// Adds the error of an agent that cannot read a file. The current user may lack permissions that the agent has.
    fn report(&mut self, is_denied: bool, problem: String) {
        match is_denied && !is_root() {
            true => self.unchecked.push(problem),
            false => self.problems.push(DocumentError::whole(problem)),
        }
    }
}

/// Checks that no earlier run of an agent is known: then the state directory is not missing, but not created yet.
async fn before_start(config: &Config, findings: &mut Findings) -> anyhow::Result<()> {
    Missing::look(config).await?;
    findings.unchecked.push(format!(
        "the documents: the state directory {} does not exist yet; the first start (`moenet-agent run`) creates it",
        config.state.directory.display()
    ));
    Ok(())
}

async fn documents(config: Config, findings: &mut Findings) -> anyhow::Result<()> {
    let wanted = Wanted::read(config).await?.resolved().await?;
    let (desired, snapshot) = (&wanted.desired, &wanted.snapshot);
    if let Some(why) = desired.key.missing() {
        findings.report(desired.key.is_denied(), why.to_owned());
    }
    findings.problems.extend(problems(snapshot, desired));
    let refused = match wanted.refused(desired).await {
        Ok(refused) => refused,
        Err(error) => {
            let error = chain(error.as_ref());
            findings
                .unchecked
                .push(format!("BIRD's configuration: {error}"));
            None
        }
    };
    let main = wanted.blocked().or(refused);
    let main = main.map(|why| DocumentError::whole(format!("bird: {why}")));
    findings.problems.extend(main);
    findings.unchecked.extend(unchecked(&wanted).await);
    findings.clashes = desired.clashes();
    let waiting = objects::waiting(snapshot).into_iter();
    let waiting = waiting.map(|(kind, name)| objects::waits(kind, &name));
    findings.waiting.extend(waiting);
    Ok(())
}

/// Returns the problems of all files, and of the objects that they form together.
pub(super) fn problems(snapshot: &Snapshot, desired: &Desired) -> Vec<DocumentError> {
    let files = file_problems(snapshot, desired);
    let objects = object_problems(desired, &files);
    files.into_iter().chain(objects).collect()
}

/// Returns the problems of all files: for each, first that of a listing, which `run` logs, then those of other fields.
fn file_problems(snapshot: &Snapshot, desired: &Desired) -> BTreeSet<DocumentError> {
    let listed = snapshot.problems.iter().cloned();
    let is_listed = |text: &&String| !snapshot.problems.iter().any(|it| it.to_string() == **text);
    // Those of the directory as a whole, and of the templates.
    let whole = desired.problems.iter().filter(is_listed);
    let listed = listed.chain(whole.map(DocumentError::whole));
    let further = snapshot.problems.iter().flat_map(further_problems);
    // An override is checked even while its document is invalid.
    let overrides = snapshot.overrides.values().flatten();
    let overrides = overrides.flat_map(|stored| file::problems(&stored.path));
    listed.chain(further).chain(overrides).sorted_set()
}

fn further_problems(error: &DocumentError) -> Vec<DocumentError> {
    let place = |file: &Path| {
        let directory = file.ancestors().nth(1)?;
        let above = directory.parent().unwrap_or(directory);
        let top = above.parent().unwrap_or(above);
        [top, above, directory]
            .into_iter()
            .find_map(|root| Place::parse(file.strip_prefix(root).ok()?))
    };
    let Some(file) = &error.file else {
        return Vec::new();
    };
    let problems = place(file).map(|place| store::problems(file, &place));
    problems.unwrap_or_default()
}

/// Returns the problems of the objects that documents, overrides and the node form together.
fn object_problems(desired: &Desired, files: &BTreeSet<DocumentError>) -> Vec<DocumentError> {
    let router = desired.router.as_ref().err();
    let router = router.map(|why| DocumentError::whole(format!("node: {why}")));
    let texts: Vec<_> = files.iter().map(ToString::to_string).collect();
    // An entry whose file is not a document repeats the file's problem.
    let is_new = |why: &str| !texts.iter().any(|problem| why.starts_with(problem));
    let refused = refusals(desired).into_iter();
    let refused = refused.filter(|(_, fault)| is_new(&fault.to_string()));
    let refused = refused.map(|(path, fault)| match &fault.file {
        Some(_) => fault,
        None => fault.in_file(format!("{path}.yaml").as_ref()),
    });
    router.into_iter().chain(refused).collect()
}

/// Returns every rejected object with the reasons.
pub(in crate::cli) fn refusals(desired: &Desired) -> BTreeSet<(String, DocumentError)> {
    let documents = &desired.router_documents;
    let (node, policy) = (&documents.node, &documents.policy);
    let single = [
        ("node".to_owned(), &node.acceptance, &node.faults),
        ("policy".to_owned(), &policy.acceptance, &policy.faults),
    ];
    let objects = desired.objects.values();
    let objects = objects.map(|it| (it.path(), &it.acceptance, &it.faults));
    let all = single.into_iter().chain(objects);
    all.flat_map(|(path, acceptance, faults)| {
        let refused = match acceptance {
            Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why),
            Acceptance::Valid | Acceptance::Waiting(_) => None,
        };
        // A clash, and an item that the Control Plane lists, are no faults of a document.
        let other = refused.filter(|why| !faults.iter().any(|it| it.to_string() == **why));
        let other = other.map(DocumentError::whole);
        let all: Vec<_> = other.into_iter().chain(faults.iter().cloned()).collect();
        all.into_iter().map(move |fault| (path.clone(), fault))
    })
    .sorted_set()
}

/// Returns the facts of the host that could not be read, and the names that do not resolve.
async fn unchecked(wanted: &Wanted) -> Vec<String> {
    let desired = &wanted.desired;
    let texts = match (&desired.router, &desired.base) {
        (Ok(_), Err(error)) => Some(format!(
            "the files for BIRD, since they cannot be rendered: {}",
            chain(error)
        )),
        // The identity of this router is unknown, which is a separate problem.
        _ => None,
    };
    let context = &wanted.parts.shared.context;
    let kernel = context.observer.kernel(Instant::now()).await.err();
    let kernel = kernel.map(|error| format!("the links of this host: {}", chain(&error)));
    let unread = desired.unread.iter().cloned().chain(kernel);
    texts
        .into_iter()
        .chain(unread)
        .chain(unresolved(&wanted.parts, desired))
        .collect()
}
