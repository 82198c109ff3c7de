//! `history`: the author, time and effect of each change.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::json;

use super::{Arguments, Outcome, block_on, complete, documents, objects, offline, output};
use crate::document::Kind;
use crate::history::{History, LoggedCommit};
use crate::model::ObjectName;
use crate::store::{Area, Place};

/// Show who changed what and when.
#[derive(Debug, Args)]
pub struct Log {
    /// Only this object: wg_1, sessions/wg_1, node, policy
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    name: Option<String>,
    /// Maximum number of commits
    #[arg(long, short = 'n', default_value = "30")]
    limit: NonZeroUsize,
    /// Show one commit in full: its message, and the changes of the files
    #[arg(long, value_name = "COMMIT", conflicts_with = "name")]
    commit: Option<String>,
}

impl Log {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        // Opening registers the secrets, which a commit message may quote. The history reports a missing directory.
        drop(offline::open(&config.state.directory));
        if let Some(commit) = &self.commit {
            return show(arguments, &config.state.directory, commit);
        }
        let paths = self
            .name
            .as_deref()
            .map(paths)
            .transpose()?
            .unwrap_or_default();
        let history = History::new(&config.state.directory);
        let entries = block_on(async { Ok(history.log(&paths, self.limit.get()).await?) })?;
        if let Some(name) = self.name.as_ref().filter(|_| entries.is_empty()) {
            known(&config.state.directory, name)?;
        }
        if !output::value(arguments.output, &entries)? {
            print(&entries, self.name.as_deref());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints one commit.
fn show(arguments: &Arguments, directory: &Path, commit: &str) -> Outcome {
    let history = History::new(directory);
    let text = block_on(async { Ok(history.show(commit).await?) })?;
    let id = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("commit "));
    if !output::value(arguments.output, &json!({"id": id, "text": text}))? {
        output::line(text.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the files of an object: its document, its override and its applied record.
pub(crate) fn paths(meant: &str) -> anyhow::Result<Vec<PathBuf>> {
    let places: Vec<_> = places(meant)
        .into_iter()
        .flat_map(|(kind, name)| {
            let areas = [Area::Documents, Area::Overrides, Area::Applied];
            areas.map(|area| Place::new(area, kind, &name).relative())
        })
        .collect();
    anyhow::ensure!(
        !places.is_empty(),
        "{} is not a valid object name",
        crate::model::shown(meant)
    );
    Ok(places)
}

/// Rejects an unknown name, which is probably mistyped.
fn known(directory: &Path, meant: &str) -> anyhow::Result<()> {
    let snapshot = offline::open(directory)?.load()?;
    let documents = documents::all(&snapshot);
    let is_meant = |(kind, name): &(Kind, ObjectName)| objects::is_meant(*kind, name, meant);
    if documents
        .keys()
        .chain(snapshot.overrides.keys())
        .any(is_meant)
    {
        return Ok(());
    }
    Err(objects::unknown(
        meant,
        documents.keys().map(|(kind, name)| kind.path(name)),
    ))
}

/// Returns the objects that a name may mean, whether they exist now or not.
pub(crate) fn places(meant: &str) -> Vec<(Kind, ObjectName)> {
    let single = Kind::from_word(meant).filter(|kind| kind.is_single());
    if let Some(kind) = single {
        return vec![(kind, Place::single(Area::Documents, kind).name)];
    }
    let Ok(name) = meant
        .rsplit('/')
        .next()
        .unwrap_or(meant)
        .parse::<ObjectName>()
    else {
        return Vec::new();
    };
    Kind::many()
        .filter(|kind| objects::is_meant(*kind, &name, meant))
        .map(|kind| (kind, name.clone()))
        .collect()
}

fn print(entries: &[LoggedCommit], object: Option<&str>) {
    if entries.is_empty() {
        return output::line("No history yet; the agent starts it with its first document.");
    }
    let table = output::table(
        &["COMMIT", "WHEN", "WHO", "WHAT"],
        entries.iter().map(cells),
    );
    let mut lines = table.lines();
    output::line(lines.next().unwrap_or_default());
    for (line, entry) in lines.zip(entries) {
        output::line(line);
        if let Some(object) = object {
            of_object(entry, object).for_each(|line| output::line(format_args!("    {line}")));
        }
    }
}

/// Returns the lines of a message that concern this object, or no object.
fn of_object<'a>(entry: &'a LoggedCommit, object: &'a str) -> impl Iterator<Item = &'a str> {
    let name = object.rsplit('/').next().unwrap_or(object);
    let about = move |line: &&str| {
        let subject = line.split_once(": ").map_or(*line, |(subject, _)| subject);
        !subject.contains('/') || subject.trim_end_matches(".yaml").rsplit('/').next() == Some(name)
    };
    entry.body.lines().filter(about)
}

/// Formats an entry. Times are in UTC, to the second: Git has no finer ones.
fn cells(entry: &LoggedCommit) -> Vec<String> {
    vec![
        entry.id.short().to_owned(),
        entry.time.to_string(),
        entry.author.clone(),
        entry.subject.clone(),
    ]
}
