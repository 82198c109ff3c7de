//! Stages a whole tree next to the live one, and checks it with BIRD's parser.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{Seen, failed};
use super::{disk, main_file, operator};
use crate::bird::check::Checker;
use crate::observed::bird::outline::Outline;
use crate::observed::bird::tree::{
    GENERATION, MAIN, MAIN_OF_TREE, SESSIONS, fragment_at, fragment_path, generation_text,
};
use crate::observed::bird::{Diagnostic, LiveTree, MainFile, Tree, mark};
use crate::ports::{CheckError, CommitError};
use crate::util::fs;
use crate::util::task::blocking;

/// Directory of the check before a commit, inside BIRD's.
pub(super) const OF_COMMITS: &str = ".moenet-stage";
/// Directory of a check of a tree that is not to be loaded yet.
pub(super) const OF_TRIALS: &str = ".moenet-trial";
/// The pattern of the session files in the agent's main file.
const PATTERN: &str = "sessions/*.conf";
/// The file in a stage that includes the unchanged fragments. No fragment has this name.
const UNCHANGED: &str = "moenet/sessions/~unchanged.conf";

/// Reason for a failed check.
#[derive(Debug)]
pub(super) enum StageError {
    /// The parser rejects it. The path is relative to the tree if the file is part of it.
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

/// The place where trees are staged: on the file system of the live tree, with a name that no include matches.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    directory: PathBuf,
    name: &'static str,
    elsewhere: bool,
    group: Option<u32>,
    is_swept: bool,
}

/// The directory of one check.
struct Place {
    path: PathBuf,
    /// Removes a directory outside BIRD's directory.
    _temporary: Option<tempfile::TempDir>,
}

impl Stage {
    pub(super) fn new(
        directory: PathBuf,
        name: &'static str,
        elsewhere: bool,
        group: Option<u32>,
    ) -> Self {
        Self {
            directory,
            name,
            elsewhere,
            group,
            is_swept: false,
        }
    }

    /// Removes, once, the copies that an agent left which was killed during a check: they hold passwords. One that cannot
    /// be removed now is removed by the next check.
    pub(super) async fn sweep(&mut self, live: &LiveTree) {
        if self.is_swept || self.elsewhere || live.in_use().is_some() {
            return;
        }
        self.is_swept = true;
        let stages = [OF_COMMITS, OF_TRIALS].map(|name| self.directory.join(name));
        blocking(move || stages.iter().for_each(|stage| drop(clear(stage)))).await;
    }

    /// Returns the directory for a check, which is never in the directory of another agent.
    fn place(&self, live_is_in_use: bool) -> Result<Place, CommitError> {
        if !self.elsewhere && !live_is_in_use {
            return Ok(Place {
                path: self.directory.join(self.name),
                _temporary: None,
            });
        }
        let temporary = fs::temporary_dir().map_err(failed("create", &std::env::temp_dir()))?;
        Ok(Place {
            path: temporary.path().join("stage"),
            _temporary: Some(temporary),
        })
    }

    /// Parses a tree in a separate process, with the live main file, and returns the warnings. Removes the stage
    /// afterwards.
    pub(super) async fn check(
        &self,
        tree: &Tree,
        live: &LiveTree,
        checker: &Checker,
    ) -> Result<Vec<Diagnostic>, StageError> {
        let (changed, unchanged) = split(tree, live);
        let is_unchanged = |path: &String| {
            let name = fragment_at(path);
            path == UNCHANGED || name.is_some_and(|name| unchanged.iter().any(|it| it == name))
        };
        match self.check_once(&changed, &unchanged, live, checker).await {
            // Another program may have changed that file since it was read.
            Err(StageError::Refused {
                path: Some(path), ..
            }) if is_unchanged(&path) => self.check_once(tree, &[], live, checker).await,
            checked => checked,
        }
    }

    /// Parses a tree and the fragments on disk with these names.
    async fn check_once(
        &self,
        tree: &Tree,
        unchanged: &[String],
        live: &LiveTree,
        checker: &Checker,
    ) -> Result<Vec<Diagnostic>, StageError> {
        let (stage, wanted, main) = (self.clone(), tree.clone(), live.main.clone());
        let (is_in_use, list) = (live.in_use().is_some(), unchanged.to_vec());
        let write = move || {
            let place = stage.place(is_in_use)?;
            let written = stage
                .write(&place.path, &wanted, &main)
                .and_then(|()| stage.write_list(&place.path, &list));
            // A part of a copy holds passwords too.
            written.inspect_err(|_| drop(clear(&place.path)))?;
            Ok::<_, CommitError>(place)
        };
        let place = blocking(write).await?;
        let (at, files) = (place.path.clone(), tree.count() + unchanged.len());
        let result = checker.check(&at.join(MAIN), files).await;
        blocking(move || clear(&place.path)).await?;
        match result {
            Ok(warnings) => Ok(warnings
                .into_iter()
                .map(|what| self.translate(&at, what).1)
                .collect()),
            Err(CheckError::Refused(what)) => {
                let (path, mut what) = self.translate(&at, what);
                if let Some(advice) = live.main.advice(&what) {
                    what.message = format!("{}; {advice}", what.message);
                }
                Err(StageError::Refused { path, what })
            }
            Err(error) => Err(StageError::Failed(error.into())),
        }
    }

    fn write(&self, stage: &Path, tree: &Tree, main: &MainFile) -> Result<(), CommitError> {
        clear(stage)?;
        disk::create_directories(&stage.join(SESSIONS), self.group)?;
        for (path, text) in tree.files() {
            self.write_file(&stage.join(path), &mark::staged(text))?;
        }
        for (path, text) in &tree.foreign {
            let text = operator::staged_foreign(text, path, &self.directory, stage);
            self.write_file(&stage.join(path), &text)?;
        }
        // Any generation does: BIRD's parser loads nothing.
        let generation = mark::staged(&generation_text("staged"));
        self.write_file(&stage.join(GENERATION), &generation)?;
        for (path, text) in self.main(stage, tree, main) {
            self.write_file(&stage.join(path), &text)?;
        }
        Ok(())
    }

    /// Writes the file that includes the unchanged fragments.
    fn write_list(&self, stage: &Path, unchanged: &[String]) -> Result<(), CommitError> {
        if unchanged.is_empty() {
            return Ok(());
        }
        let include = |name: &String| {
            let file = self.directory.join(fragment_path(name));
            format!("include \"{}\";\n", file.display())
        };
        let list: String = unchanged.iter().map(include).collect();
        self.write_file(&stage.join(UNCHANGED), &list)
    }

    /// Returns the main file: the agent's, or a copy of the operator's with the files that lead to the agent's tree.
    fn main(&self, stage: &Path, tree: &Tree, main: &MainFile) -> Vec<(PathBuf, String)> {
        if main.is_agents() {
            let text = tree.base.get(MAIN);
            let text = text.and_then(|text| operator::staged(text, &self.directory));
            let text = text.unwrap_or_else(|| operator::GENERATED.to_owned());
            return vec![(MAIN.into(), mark::staged(&text))];
        }
        let seen = Seen::default();
        let sources = main_file::sources(&self.directory, &seen);
        let matches = |pattern: &Path| main_file::matches(pattern, &seen);
        let staged = operator::staged_sources(&sources, &self.directory, stage, matches);
        if staged.is_empty() {
            return vec![(MAIN.into(), operator::GENERATED.to_owned())];
        }
        staged
    }

    fn write_file(&self, path: &Path, text: &str) -> Result<(), CommitError> {
        if let Some(parent) = path.parent() {
            disk::create_directories(parent, self.group)?;
        }
        let writer = disk::writer(self.group).light();
        let written = writer.replace(path, text.as_bytes());
        written.map_err(failed("write", path))
    }

    /// Replaces names of staged files by those of the live ones; returns the path inside the tree first.
    fn translate(&self, stage: &Path, mut what: Diagnostic) -> (Option<String>, Diagnostic) {
        let stage = format!("{}/", stage.display());
        let live = format!("{}/", self.directory.display());
        // Unchanged fragments are read where they are.
        let inside = |file: &str| {
            let there = || {
                file.strip_prefix(&live)
                    .filter(|path| fragment_at(path).is_some())
            };
            file.strip_prefix(&stage).or_else(there).map(str::to_owned)
        };
        let path = what.file.as_deref().and_then(inside);
        what.file = what.file.map(|file| file.replace(&stage, &live));
        what.message = what.message.replace(&stage, &live);
        (path, what)
    }
}

/// Takes out the fragments that are on disk as they are wanted: BIRD's parser reads them there. They are in no copy, so
/// that a check writes as many files as change. The list of them is where the pattern of the session files matches
/// it; a main file with another pattern, and files of others, which come between them, need the whole tree.
fn split(tree: &Tree, live: &LiveTree) -> (Tree, Vec<String>) {
    let main = tree.base.get(MAIN_OF_TREE).map(|text| Outline::of(text));
    let has_pattern = main.is_some_and(|main| main.includes().any(|it| it == PATTERN));
    let mut wanted = tree.clone();
    if !has_pattern || !tree.foreign.is_empty() {
        return (wanted, Vec::new());
    }
    let is_unchanged =
        |name: &String, text: &mut Arc<str>| live.tree.fragments.get(name) == Some(&*text);
    let unchanged = wanted.fragments.extract_if(.., is_unchanged);
    let unchanged = unchanged.map(|(name, _)| name).collect();
    (wanted, unchanged)
}

fn clear(stage: &Path) -> Result<(), CommitError> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", stage)(error))
        }
        _ => Ok(()),
    }
}
