//! `apply`: documents of files as the operator's, or one pass without the daemon, in the words of `plan`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{ArgGroup, Args};

use super::change::{self, Because, Draft};
use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output, steps};
use crate::config::Config;
use crate::telemetry;
use crate::util::{file, progress};
use crate::{adoption, agent};

/// Write documents, or converge once.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["file", "once"])))]
pub struct Apply {
    /// Apply once and exit (the daemon applies continuously)
    #[arg(long)]
    once: bool,
    /// Write the documents of this file, or of standard input (-); may be repeated
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    because: Because,
    /// Check the documents and print what would be written, write nothing
    #[arg(long, requires = "file")]
    dry_run: bool,
}

impl Apply {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        if self.once {
            return once(arguments, config);
        }
        let files = self.file.iter().map(|path| read(path));
        let files: Vec<_> = files.collect::<anyhow::Result<_>>()?;
        let add = async |draft: &mut Draft| {
            for (path, text) in &files {
                let documents = change::document::split(text);
                anyhow::ensure!(!documents.is_empty(), "{}: has no document", path.display());
                for document in documents {
                    change::document::add(draft, path, &document, &self.because)?;
                }
            }
            Ok(())
        };
        let ((), changed) = block_on(change::change(&config, self.dry_run, add))?;
        changed.print(arguments.output, self.dry_run)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a file with its text; `-` is standard input.
fn read(path: &Path) -> anyhow::Result<(PathBuf, String)> {
    if path != Path::new("-") {
        let text = file::read_text(path, change::document::STREAM);
        let text = text.with_context(|| path.display().to_string())?;
        return Ok((path.to_owned(), text));
    }
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(change::document::STREAM);
    // A person may type it.
    progress::above(|| input.read_to_string(&mut text)).context("read standard input")?;
    Ok((PathBuf::from("<stdin>"), text))
}

fn once(arguments: &Arguments, config: Config) -> Outcome {
    telemetry::start(&config.log);
    progress::say("applying", None);
    block_on(async {
        adoption::undo_interrupted(&config).await?;
        let parts = Arc::new(agent::Parts::build(config).await?);
        let failed = agent::apply_once(&parts).await?;
        let taken = parts.shared.context.step_log.all();
        let parts = Arc::into_inner(parts).ok_or_else(|| anyhow::anyhow!("a task did not end"))?;
        let left = steps::planned(&Offline::of(parts).await?, false);
        let objects: Vec<_> = steps::taken(left, taken, failed).into_values().collect();
        if !output::value(arguments.output, &objects)? {
            steps::print(objects.iter(), steps::Tense::Done);
        }
        let failed = objects.iter().any(|object| object.error.is_some());
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    })
}
