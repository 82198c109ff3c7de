//! Stages a whole tree next to the live one, and checks it with BIRD's parser.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{Seen, failed};
use super::{disk, main_file, operator};
use crate::bird::check::Checker;
use crate::observed::bird::tree::{GENERATION, MAIN, SESSIONS, generation_text};
use crate::observed::bird::{Diagnostic, LiveTree, MainFile, Tree, mark};
use crate::ports::{CheckError, CommitError};
use crate::util::file::{Stamp, remove_file};
use crate::util::fs;
use crate::util::task::blocking;

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
    kept: Arc<Mutex<Option<Kept>>>,
}

/// The files that the last check left in BIRD's directory: the next one writes only those that differ. Creating and
/// removing a thousand files for each check was the largest part of the agent's processor time.
#[derive(Debug)]
struct Kept {
    files: Files,
    /// The directories, each with its stamp: a file that another program removed changes it.
    folders: BTreeMap<PathBuf, Option<Stamp>>,
}

/// Path in the stage → content.
type Files = BTreeMap<PathBuf, Content>;

#[derive(PartialEq, Eq)]
enum Content {
    /// It is written after a mark, so that lines have the numbers of the live file.
    Marked(String),
    AsIs(String),
}

impl std::fmt::Debug for Content {
    /// Without the text, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content")
    }
}

impl Kept {
    fn new(files: Files) -> Self {
        let folders: BTreeSet<_> = files.keys().filter_map(|path| path.parent()).collect();
        let stamped = |folder: &Path| (folder.to_owned(), Stamp::at(folder));
        let folders = folders.into_iter().map(stamped).collect();
        Self { files, folders }
    }

    fn is_valid(&self) -> bool {
        let mut folders = self.folders.iter();
        folders.all(|(folder, stamp)| stamp.is_some() && Stamp::at(folder) == *stamp)
    }
}

/// The directory of one check.
struct Place {
    path: PathBuf,
    /// Removes a directory outside BIRD's directory.
    temporary: Option<tempfile::TempDir>,
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
            kept: Arc::default(),
        }
    }

    /// Returns the directory for a check, which is never in the directory of another agent.
    fn place(&self, live_is_in_use: bool) -> Result<Place, CommitError> {
        if !self.elsewhere && !live_is_in_use {
            return Ok(Place {
                path: self.directory.join(self.name),
                temporary: None,
            });
        }
        let temporary = fs::temporary_dir().map_err(failed("create", &std::env::temp_dir()))?;
        Ok(Place {
            path: temporary.path().join("stage"),
            temporary: Some(temporary),
        })
    }

    /// Parses a tree in a separate process, with the live main file, and returns the warnings.
    pub(super) async fn check(
        &self,
        tree: &Tree,
        live: &LiveTree,
        checker: &Checker,
    ) -> Result<Vec<Diagnostic>, StageError> {
        let (stage, wanted, main) = (self.clone(), tree.clone(), live.main.clone());
        let is_in_use = live.in_use().is_some();
        let write = move || {
            let place = stage.place(is_in_use)?;
            let files = stage.files(&place.path, &wanted, &main);
            match place.temporary {
                None => stage.keep(&place.path, files)?,
                Some(_) => stage.write(&Files::new(), &files)?,
            }
            Ok::<_, CommitError>(place)
        };
        let place = blocking(write).await?;
        let at = place.path.clone();
        let result = checker.check(&at.join(MAIN)).await;
        blocking(move || drop(place)).await;
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

    /// Returns the files of a stage.
    fn files(&self, stage: &Path, tree: &Tree, main: &MainFile) -> Files {
        let mut files = Files::new();
        let mut add = |path: &Path, content| drop(files.insert(stage.join(path), content));
        for (path, text) in tree.files() {
            add(path.as_ref(), Content::Marked(text.to_owned()));
        }
        for (path, text) in &tree.foreign {
            let text = operator::staged_foreign(text, path, &self.directory, stage);
            add(path.as_ref(), Content::AsIs(text));
        }
        let generation = generation_text(&tree.generation());
        add(GENERATION.as_ref(), Content::Marked(generation));
        for (path, text) in self.main(stage, tree, main) {
            add(&path, Content::AsIs(text));
        }
        files
    }

    /// Makes the directory in BIRD's directory hold exactly these files.
    fn keep(&self, stage: &Path, files: Files) -> Result<(), CommitError> {
        let mut kept = self.kept.lock();
        // What an error leaves is not known.
        let before = match kept.take().filter(Kept::is_valid) {
            Some(kept) => kept.files,
            None => {
                clear(stage)?;
                Files::new()
            }
        };
        disk::create_directories(&stage.join(SESSIONS), self.group)?;
        self.write(&before, &files)?;
        for path in before.keys().filter(|path| !files.contains_key(*path)) {
            remove_file(path).map_err(failed("remove", path))?;
        }
        *kept = Some(Kept::new(files));
        Ok(())
    }

    /// Removes the directory from BIRD's directory: its files may hold passwords.
    pub(super) fn remove(&self) -> Result<(), CommitError> {
        match self.kept.lock().take() {
            Some(_) => clear(&self.directory.join(self.name)),
            None => Ok(()),
        }
    }

    /// Writes the files that differ from those before.
    fn write(&self, before: &Files, files: &Files) -> Result<(), CommitError> {
        for (path, content) in files {
            if before.get(path) == Some(content) {
                continue;
            }
            disk::create_directories(disk::parent(path), self.group)?;
            let written = match content {
                Content::Marked(text) => write_private(path, &mark::marked(text, None)),
                Content::AsIs(text) => write_private(path, text),
            };
            written.map_err(failed("write", path))?;
        }
        Ok(())
    }

    /// Returns the main file: the agent's, or a copy of the operator's with the files that lead to the agent's tree.
    fn main(&self, stage: &Path, tree: &Tree, main: &MainFile) -> Vec<(PathBuf, String)> {
        if main.is_agents() {
            let text = tree.base.get(MAIN);
            let text = text.and_then(|text| operator::staged(text, &self.directory));
            let text = text.unwrap_or_else(|| operator::GENERATED.to_owned());
            return vec![(MAIN.into(), mark::marked(&text, None))];
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

    /// Replaces names of staged files by those of the live ones; returns the path inside the tree first.
    fn translate(&self, stage: &Path, mut what: Diagnostic) -> (Option<String>, Diagnostic) {
        let stage = format!("{}/", stage.display());
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

/// Writes a file that only the agent and its parser read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    fs::open(path, &options)?.write_all(text.as_bytes())
}

fn clear(stage: &Path) -> Result<(), CommitError> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", stage)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(fragments: &[(&str, &str)]) -> Tree {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        Tree {
            base: [
                (MAIN.into(), String::new()),
                ("moenet/a.conf".into(), "a".into()),
            ]
            .into(),
            fragments: fragments.iter().map(owned).collect(),
            ..Tree::default()
        }
    }

    #[test]
    fn next_check_writes_only_files_that_differ() {
        let directory = tempfile::tempdir().unwrap();
        let stage = Stage::new(directory.path().to_owned(), ".stage", false, None);
        let place = directory.path().join(".stage");
        let keep = |tree: &Tree| {
            let files = stage.files(&place, tree, &MainFile::default());
            stage.keep(&place, files).unwrap();
        };
        let stamp = |path: &str| Stamp::at(&place.join(path));
        let read = |path: &str| fs::read_to_string(place.join(path)).ok();
        keep(&tree(&[("x", "1"), ("y", "2"), ("z", "3")]));
        let before = [stamp("moenet/a.conf"), stamp("moenet/sessions/x.conf")];
        keep(&tree(&[("x", "1"), ("y", "changed")]));
        let after = [stamp("moenet/a.conf"), stamp("moenet/sessions/x.conf")];
        assert_eq!(before, after);
        assert!(before.iter().all(Option::is_some));
        let changed = mark::marked("changed", None);
        assert_eq!(read("moenet/sessions/y.conf"), Some(changed));
        assert_eq!(read("moenet/sessions/z.conf"), None);

        // Another program removed a file.
        fs::remove_file(place.join("moenet/sessions/x.conf")).unwrap();
        keep(&tree(&[("x", "1"), ("y", "changed")]));
        assert_eq!(
            read("moenet/sessions/x.conf"),
            Some(mark::marked("1", None))
        );
        stage.remove().unwrap();
        assert!(!place.exists());
    }

    #[test]
    fn failed_write_keeps_nothing_for_the_next_check() {
        let directory = tempfile::tempdir().unwrap();
        let stage = Stage::new(directory.path().to_owned(), ".stage", false, None);
        let place = directory.path().join(".stage");
        let files = |tree: &Tree| stage.files(&place, tree, &MainFile::default());
        stage.keep(&place, files(&tree(&[("x", "1")]))).unwrap();
        fs::create_dir(place.join("moenet/sessions/y.conf")).unwrap();
        // The directory in the way changed the stamp, so the stage begins from nothing, without it.
        stage.keep(&place, files(&tree(&[("y", "2")]))).unwrap();
        assert!(!place.join("moenet/sessions/x.conf").exists());
        assert!(place.join("moenet/sessions/y.conf").is_file());
    }
}
