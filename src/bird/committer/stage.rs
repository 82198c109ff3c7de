//! A whole tree beside the live one, and what BIRD's parser thinks of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::CommitError;
use super::tree::{GENERATION, MAIN, SESSIONS, Tree, generation_text};
use super::{disk, operator};
use crate::bird::check::{CheckError, Checker};
use crate::bird::diagnostics::Diagnostic;

/// Why a tree did not pass.
#[derive(Debug)]
pub(super) enum StageError {
    /// The parser refuses it. The path is relative to the tree, where the file is part of it.
    Refused {
        path: Option<String>,
        what: Diagnostic,
    },
    /// It could not be checked.
    Failed(CommitError),
}

impl From<CommitError> for StageError {
    fn from(error: CommitError) -> Self {
        Self::Failed(error)
    }
}

/// Where trees are staged: the same file system as the live one, and a name that no include matches.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    directory: PathBuf,
    with_main: bool,
    group: Option<u32>,
}

impl Stage {
    pub(super) fn new(directory: PathBuf, with_main: bool, group: Option<u32>) -> Self {
        Self {
            directory,
            with_main,
            group,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(".moenet-stage")
    }

    /// Parses a tree in a process of its own, and returns the warnings. The stage is gone afterwards.
    pub(super) async fn check(
        &self,
        tree: &Tree,
        checker: &Checker,
    ) -> Result<Vec<Diagnostic>, StageError> {
        let (stage, wanted) = (self.clone(), tree.clone());
        super::worker::blocking(move || stage.write(&wanted)).await?;
        let result = checker.check(&self.path().join(MAIN)).await;
        let stage = self.path();
        super::worker::blocking(move || clear(&stage)).await?;
        match result {
            Ok(warnings) => Ok(warnings
                .into_iter()
                .map(|what| self.translate(what).1)
                .collect()),
            Err(CheckError::Refused(what)) => {
                let (path, what) = self.translate(what);
                Err(StageError::Refused { path, what })
            }
            Err(error) => Err(StageError::Failed(error.into())),
        }
    }

    fn write(&self, tree: &Tree) -> Result<(), CommitError> {
        let stage = self.path();
        clear(&stage)?;
        disk::create_directories(&stage.join(SESSIONS), self.group)?;
        let mut files = tree.files();
        let (main, generation) = (self.main(tree)?, generation_text(&tree.generation()));
        files.insert(MAIN.to_owned(), &main);
        files.insert(GENERATION.to_owned(), &generation);
        files
            .into_iter()
            .try_for_each(|(path, text)| write_file(&stage.join(path), text, self.group))
    }

    /// The main file: ours, or a copy of the operator's.
    fn main(&self, tree: &Tree) -> Result<String, CommitError> {
        let theirs = || disk::read_file(&self.directory.join(MAIN));
        let text = if self.with_main {
            tree.base.get(MAIN).cloned()
        } else {
            theirs()?
        };
        let staged = text.and_then(|text| operator::staged(&text, &self.directory));
        Ok(staged.unwrap_or_else(|| operator::GENERATED.to_owned()))
    }

    /// Names of staged files become those of the live ones; the path inside the tree comes first.
    fn translate(&self, mut what: Diagnostic) -> (Option<String>, Diagnostic) {
        let stage = format!("{}/", self.path().display());
        let live = format!("{}/", self.directory.display());
        let path = what
            .file
            .as_deref()
            .and_then(|file| file.strip_prefix(&stage))
            .map(str::to_owned);
        what.file = what.file.map(|file| file.replace(&stage, &live));
        what.message = what.message.replace(&stage, &live);
        (path, what)
    }
}

fn write_file(path: &Path, text: &str, group: Option<u32>) -> Result<(), CommitError> {
    if let Some(parent) = path.parent() {
        disk::create_directories(parent, group)?;
    }
    disk::write(path, text, group).map(drop)
}

fn clear(stage: &Path) -> Result<(), CommitError> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(disk::failed("remove", stage)(error))
        }
        _ => Ok(()),
    }
}
