//! `edit`: one document in an editor, until it is valid.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::Value;
use similar::TextDiff;

use super::change::{self, Because, ChangedMeanwhile, Draft};
use super::{Arguments, Outcome, block_on, complete, output};
use crate::config::Config;
use crate::document::Problems;
use crate::store::Place;
use crate::telemetry::chain;
use crate::util::file;
use crate::util::fs;

/// A document in an editor.
#[derive(Debug, Args)]
pub struct Edit {
    /// The object, as sessions/wg_4242421080
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
    #[command(flatten)]
    because: Because,
}

/// Begins the lines that are not part of the document.
const NOTE: &str = "#| ";

impl Edit {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let mut shown = block_on(self.shown(config.clone()))?;
        let folder = fs::temporary_dir().context("create a temporary directory")?;
        let path = folder
            .path()
            .join(format!("{}.yaml", self.name.replace('/', "-")));
        let (mut text, mut notes) = (shown.text.clone(), vec![shown.note.clone()]);
        let mut is_again = false;
        loop {
            let edited = match open(&path, &with_notes(&notes, &text)) {
                Ok(None) if is_again => {
                    return Err(kept(folder, &path, &text, &notes.join("; ")));
                }
                Err(error) if is_again => {
                    return Err(kept(folder, &path, &text, &chain(error.as_ref())));
                }
                edited => edited?.unwrap_or_else(|| text.clone()),
            };
            if edited.trim().is_empty() || !is_again && edited == text {
                output::line("Edit cancelled: no changes.");
                return Ok(ExitCode::SUCCESS);
            }
            let is_same = is_again && edited == text;
            text = edited;
            is_again = true;
            let progress = output::progress(arguments.output, "checking the change");
            let written = block_on(self.write(&config, &text, &shown.files));
            drop(progress);
            match written {
                Ok(changed) => {
                    changed.print(arguments.output, false)?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(error) if error.is::<ChangedMeanwhile>() => {
                    let now = match block_on(self.shown(config.clone())) {
                        Ok(now) => now,
                        Err(error) => {
                            return Err(kept(folder, &path, &text, &chain(error.as_ref())));
                        }
                    };
                    notes = difference(&self.name, &shown.text, &now.text);
                    shown = now;
                }
                Err(error) => {
                    let found = problems(&error);
                    // A script that saves the same each time is not asked again and again.
                    if is_same && found == notes {
                        return Err(kept(folder, &path, &text, &found.join("; ")));
                    }
                    notes = found;
                }
            }
        }
    }

    /// Returns the text to edit, and what becomes of it.
    async fn shown(&self, config: Config) -> anyhow::Result<Shown> {
        let draft = Draft::read(config).await?;
        let (kind, name) = draft.named(&self.name)?;
        let (present, files) = (draft.document(kind, &name), draft.texts(kind, &name));
        let synced = matches!(&present, Ok(Some(present)) if present.is_synced());
        if !synced {
            let place = Place::document(kind, &name);
            let path = draft.wanted.parts.shared.context.store.path(&place);
            let text = file::read_text(&path, file::DOCUMENT);
            let text = text.with_context(|| format!("read {}", path.display()))?;
            let note =
                format!("{place} is yours: what you save replaces it. An empty file cancels.");
            return Ok(Shown { text, note, files });
        }
        let existing = draft.override_(kind, &name)?;
        // A missing reason is found out before the work.
        self.because.apply(existing.clone(), false)?;
        let present = present?.context("the document is gone")?;
        let mut spec = present.spec;
        if let Some(existing) = &existing {
            json_patch::merge(&mut spec, &Value::Object(existing.set.clone()));
        }
        let text = change::document::text(kind, &present.metadata, &spec)?;
        let path = kind.path(&name);
        let note = format!(
            "{path} is the Control Plane's: what you change becomes overrides/{path}.yaml. An empty file cancels."
        );
        Ok(Shown { text, note, files })
    }

    async fn write(
        &self,
        config: &Config,
        text: &str,
        files: &[Option<String>; 2],
    ) -> anyhow::Result<change::Changed> {
        let add = async |draft: &mut Draft| {
            let (kind, name) = draft.named(&self.name)?;
            if draft.texts(kind, &name) != *files {
                return Err(ChangedMeanwhile(kind.path(&name)).into());
            }
            let file = PathBuf::from(format!("{}.yaml", kind.path(&name)));
            let subject = change::document::subject(&file, text)?;
            anyhow::ensure!(
                kind.is_single() && subject.0 == kind || subject == (kind, name),
                "the document is of {} now; `edit` changes one object",
                subject.0.path(&subject.1)
            );
            change::document::add(draft, &file, text, &self.because)
        };
        let ((), changed) = change::change(config, false, add).await?;
        Ok(changed)
    }
}

/// A document as it is given to the editor.
struct Shown {
    text: String,
    /// What becomes of a change.
    note: String,
    /// The files of document and override, as they were.
    files: [Option<String>; 2],
}

/// Returns the notes about a document that changed while it was edited: the saved text would undo that change.
fn difference(name: &str, before: &str, now: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(before, now);
    let mut diff = diff.unified_diff();
    vec![
        format!(
            "{name} changed while you edited it, as below; your text follows. Take the change over, or delete these lines to \
             undo it"
        ),
        diff.context_radius(0).to_string(),
    ]
}

/// Keeps a text that was not written, and returns the error that says where it is.
fn kept(folder: tempfile::TempDir, path: &Path, text: &str, why: &str) -> anyhow::Error {
    let kept = folder.keep().join(path.file_name().unwrap_or_default());
    match fs::write(&kept, text) {
        Ok(()) => anyhow::anyhow!(
            "nothing was written; your text is in {}: {why}",
            kept.display()
        ),
        Err(error) => {
            anyhow::anyhow!("nothing was written, and your text is lost ({error}): {why}")
        }
    }
}

/// Returns every problem of the text, one line each.
fn problems(error: &anyhow::Error) -> Vec<String> {
    match error.downcast_ref::<Problems>() {
        Some(Problems(all)) => {
            // As many lines as there are problems come before the text.
            let shift = all.len() as u64;
            let shifted = all.iter().cloned().map(|mut error| {
                error.location = error.location.map(|(line, column)| (line + shift, column));
                error.to_string()
            });
            shifted.collect()
        }
        None => vec![chain(error.as_ref())],
    }
}

/// Puts notes before a text.
fn with_notes(notes: &[String], text: &str) -> String {
    let lines = notes.iter().flat_map(|note| note.lines());
    let mut head: String = lines.map(|line| format!("{NOTE}{line}\n")).collect();
    head.push_str(text);
    head
}

/// Opens a text in the editor, and returns the saved one without the notes; `None`: nothing was changed, not even a note.
#[expect(
    clippy::disallowed_methods,
    reason = "a person edits for as long as it takes, on this terminal"
)]
fn open(path: &Path, text: &str) -> anyhow::Result<Option<String>> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    // An editor may have arguments, as `code --wait`.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(path)
        .status()
        .with_context(|| format!("run the editor {editor}"))?;
    anyhow::ensure!(
        status.success(),
        "the editor {editor} failed ({status}), so nothing was written; set EDITOR"
    );
    let saved = file::read_text(path, file::DOCUMENT);
    let saved = saved.with_context(|| format!("read {}", path.display()))?;
    let lines = saved
        .lines()
        .skip_while(|line| line.starts_with(NOTE.trim_end()));
    let lines = || lines.map(|line| format!("{line}\n")).collect();
    Ok((saved != text).then(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_lines_of_their_own_and_not_saved() {
        let notes = ["a\nb".to_owned(), "c".to_owned()];
        assert_eq!(with_notes(&notes, "x: 1\n"), "#| a\n#| b\n#| c\nx: 1\n");
    }
}
