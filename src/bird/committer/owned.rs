//! The one rule for every file: which may be replaced, and which are copied first.
//!
//! | file | treatment |
//! |---|---|
//! | has the agent's mark, and is as the agent wrote it | replaced |
//! | has the agent's mark, and was edited | replaced, with a copy `<file>.edited-<hash>` |
//! | has the mark of another state directory | never replaced, renamed or truncated |
//! | has no mark, and holds only text that a distribution ships | replaced, with a copy `<file>.before-moenet-agent` |
//! | has no mark otherwise | never replaced, renamed or truncated |
//!
//! A main file may hold the protocols of a distribution; any other file may hold comments only. A mark of an
//! earlier build names no state directory: it is the agent's if an applied record proves that the
//! agent's state directory has configured BIRD, or an operator said so (`approve --earlier-build`).

use std::io;
use std::path::{Path, PathBuf};

use super::files::{failed, read_file};
use crate::model::Identity;
use crate::observed::Ownership;
use crate::observed::bird::main_file::beyond_distribution;
use crate::observed::bird::mark::Mark;
use crate::observed::bird::outline::Outline;
use crate::observed::bird::tree::{GENERATION, MAIN};
use crate::observed::bird::{LiveTree, mark};
use crate::ports::CommitError;
use crate::util::fs;

/// Number of copies of edits that are kept per file.
const MOST_COPIES: usize = 20;
const BEFORE: &str = "before-moenet-agent";
const EDITED: &str = "edited-";

/// A copy to make of a file before it is replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    file: PathBuf,
    copy: PathBuf,
    content: String,
}

/// Returns whether a file without a mark is foreign. `live` shows whether its tree was written by a build that marked
/// only some files.
pub(super) fn is_foreign(path: &str, content: &str, live: &LiveTree) -> bool {
    let harmless = if path == MAIN {
        beyond_distribution(content).is_empty()
    } else {
        let outline = Outline::of(content);
        outline.blocks.is_empty() && outline.globals.is_empty()
    };
    !harmless && (path == MAIN || !live.is_of_old_build())
}

/// Returns the state directory that a mark names, if it is not the agent's.
pub(super) fn other_agent(mark: &Mark<'_>, ownership: &Ownership) -> Option<Option<Identity>> {
    let named = match mark {
        Mark::Missing => return None,
        Mark::Old => None,
        Mark::Complete { identity, .. } => identity.clone(),
    };
    (!ownership.owns_file(named.as_ref())).then_some(named)
}

/// Returns the copies to make before these files are replaced or removed.
///
/// # Errors
/// [`CommitError::Foreign`] and [`CommitError::OtherAgent`] for the first file that is not the agent's.
pub(super) fn copies<'a>(
    root: &Path,
    live: &LiveTree,
    ownership: &Ownership,
    paths: impl Iterator<Item = &'a String>,
) -> Result<Vec<Copy>, CommitError> {
    let mut copies = Vec::new();
    for path in paths {
        let file = root.join(path);
        let Some(content) = read_regular(&file)? else {
            continue;
        };
        let mark = mark::read(&content);
        if let Some(whose) = other_agent(&mark, ownership) {
            return Err(CommitError::OtherAgent(file, whose));
        }
        let copy = match mark {
            Mark::Complete { intact: true, .. } => continue,
            Mark::Missing | Mark::Old if live.vouches_for(path, &content) => continue,
            Mark::Missing if path != GENERATION && is_foreign(path, &content, live) => {
                return Err(CommitError::Foreign(file));
            }
            Mark::Missing if path == MAIN || !live.is_of_old_build() => BEFORE.to_owned(),
            Mark::Missing | Mark::Old | Mark::Complete { .. } => {
                format!("{EDITED}{}", &mark::hash(&content)[..8])
            }
        };
        copies.push(Copy {
            copy: beside(&file, &copy),
            file,
            content,
        });
    }
    Ok(copies)
}

/// Reads a regular file. A link, a device or a directory of this name is foreign.
fn read_regular(file: &Path) -> Result<Option<String>, CommitError> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", file)(error)),
        Ok(facts) if !facts.is_file() => Err(CommitError::Foreign(file.to_owned())),
        Ok(_) => read_file(file),
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{name}.{ending}"))
}

impl Copy {
    /// Makes the copy as a hard link, so that mode, owner and content are those of the original.
    pub(super) fn make(&self) -> Result<(), CommitError> {
        let mut copy = self.copy.clone();
        if read_file(&copy)?.is_some_and(|there| there != self.content) {
            copy = beside(&copy, &mark::hash(&self.content)[..8]);
        }
        match fs::hard_link(&self.file, &copy) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(_) => drop(fs::copy(&self.file, &copy).map_err(failed("copy", &copy))?),
            Ok(()) => {}
        }
        tracing::warn!(
            file = %self.file.display(),
            copy = %copy.display(),
            "file differs from the agent's; replacing it and keeping a copy"
        );
        self.drop_oldest()
    }

    /// Removes the oldest copies of edits, so that a program that keeps editing a file does not fill the disk.
    fn drop_oldest(&self) -> Result<(), CommitError> {
        let prefix = beside(&self.file, EDITED);
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
        let folder = self.file.parent().unwrap_or(&self.file);
        let mut copies: Vec<_> = fs::read_dir(folder)
            .map_err(failed("list", folder))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&*prefix))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        copies.sort();
        let surplus = copies.len().saturating_sub(MOST_COPIES);
        for (_, path) in copies.into_iter().take(surplus) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn live(old_build: bool) -> LiveTree {
        LiveTree {
            generation: old_build.then(String::new),
            ..LiveTree::default()
        }
    }

    fn decide(path: &str, content: &str, live: &LiveTree) -> Result<Option<String>, CommitError> {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        let copies = copies(
            root.path(),
            live,
            &Ownership::default(),
            [path.to_owned()].iter(),
        )?;
        copies.iter().for_each(|copy| {
            copy.make().unwrap();
            assert_eq!(fs::read_to_string(&copy.copy).unwrap(), content);
            copy.make().unwrap();
        });
        let name = |copy: &Copy| {
            copy.copy
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        Ok(copies.first().map(name))
    }

    #[test]
    fn only_marked_files_are_replaced_and_edits_are_kept() {
        let ours = mark::marked("protocol bgp a {}\n", None);
        assert_eq!(decide("bird.conf", &ours, &live(false)).unwrap(), None);
        let edited = decide("bird.conf", &format!("{ours}# mine\n"), &live(false)).unwrap();
        assert!(edited.unwrap().starts_with("bird.conf.edited-"));
        for path in ["bird.conf", "moenet/defines.conf", "moenet/sessions/x.conf"] {
            let foreign = decide(path, "protocol bgp a {}\n", &live(false));
            assert!(matches!(foreign, Err(CommitError::Foreign(_))), "{path}");
        }
        let device = decide("moenet/system.conf", "protocol device {}\n", &live(false));
        assert!(
            device.is_err(),
            "a distribution ships no file below moenet/"
        );
    }

    #[test]
    fn distribution_file_is_replaced_and_copied() {
        let copy = decide("bird.conf", "protocol device {}\n", &live(false)).unwrap();
        assert_eq!(copy.as_deref(), Some("bird.conf.before-moenet-agent"));
        let remark = decide("moenet/defines.conf", "# nothing\n", &live(false)).unwrap();
        assert_eq!(remark.as_deref(), Some("defines.conf.before-moenet-agent"));
    }

    #[test]
    fn files_of_an_old_build_are_the_agents() {
        let copy = decide("moenet/defines.conf", "define A = 1;\n", &live(true)).unwrap();
        assert!(copy.unwrap().starts_with("defines.conf.edited-"));
        let foreign = decide("bird.conf", "protocol bgp a {}\n", &live(true));
        assert!(
            foreign.is_err(),
            "builds marked the main file from the first on"
        );
    }

    #[test]
    fn file_of_another_agent_is_not_replaced() {
        let (ours, other) = ("4f1c8a09d2e7b365", "ffffffffffffffff");
        let ours: Identity = ours.parse().unwrap();
        let other: Identity = other.parse().unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut ownership = Ownership::of(ours.clone());
        let decide = |whose: Option<&Identity>, ownership: &Ownership| {
            let text = mark::marked("protocol device {}\n", whose);
            fs::write(root.path().join(MAIN), text).unwrap();
            copies(
                root.path(),
                &live(false),
                ownership,
                [MAIN.to_owned()].iter(),
            )
            .is_ok()
        };
        assert!(decide(Some(&ours), &ownership));
        assert!(!decide(Some(&other), &ownership));
        assert!(!decide(None, &ownership), "no record vouches for it");
        ownership.records = true;
        assert!(decide(None, &ownership));
        assert!(!decide(Some(&other), &ownership));
        ownership.succeeds.identities.insert(other.clone());
        assert!(decide(Some(&other), &ownership));
    }

    #[test]
    fn link_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("real"), "").unwrap();
        std::os::unix::fs::symlink("real", root.path().join("bird.conf")).unwrap();
        let copies = copies(
            root.path(),
            &live(false),
            &Ownership::default(),
            [MAIN.to_owned()].iter(),
        );
        assert!(matches!(copies, Err(CommitError::Foreign(_))));
    }

    #[test]
    fn copies_of_edits_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("bird.conf");
        for number in 0..MOST_COPIES + 5 {
            fs::remove_file(&file).ok();
            let edited = format!("{}# {number}\n", mark::marked("x;\n", None));
            fs::write(&file, edited).unwrap();
            let copies = copies(
                root.path(),
                &live(false),
                &Ownership::default(),
                [MAIN.to_owned()].iter(),
            )
            .unwrap();
            copies[0].make().unwrap();
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), MOST_COPIES + 1);
    }
}
