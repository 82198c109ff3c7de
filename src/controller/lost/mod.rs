//! A start without its state directory: the disk is not mounted, or the directory is lost. Links
//! and BIRD files with the agent's mark prove that there was one. The agent makes no new identity
//! then, and changes and writes nothing, until the directory is back or an operator confirms that
//! it is lost (`approve --state-lost`).

pub(crate) mod known_agents;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::config::Config;
use crate::document::Kind;
use crate::history::History;
use crate::kernel::{KernelOptions, LinuxKernel};
use crate::model::{Identity, InterfaceName};
use crate::observed::bird::mark;
use crate::observed::bird::mark::Mark as FileMark;
use crate::observed::kernel::KernelView;
use crate::observed::mark::Alias;
use crate::observed::{Mark, Succession};
use crate::ports::{Kernel as _, KernelError};
use crate::store::{IDENTITY, StateIdentity, Store, StoreError};
use crate::telemetry::chain;
use crate::util::file;
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// The reason in conditions and `/status`.
const REASON: &str = "StateDirectoryMissing";

/// A missing state directory, with the evidence that it existed.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    dir: PathBuf,
    links: BTreeMap<InterfaceName, Alias>,
    files: BTreeMap<PathBuf, Option<Identity>>,
    /// The directories that notes name for these marks, and that do not exist.
    noted: BTreeSet<PathBuf>,
    /// Evidence that cannot be read, and so cannot be excluded.
    unread: Option<Unread>,
}

/// Evidence that cannot be read, with the reason.
#[derive(Debug, Clone)]
enum Unread {
    Identity(PathBuf, String),
    /// The identity, which another user owns.
    Denied(PathBuf, String),
    Links(String),
    Files(PathBuf, String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(path, error) => write!(
                f,
                "the identity {} cannot be read ({error}). Nothing is changed. Repair the disk, or remove the file if \
                 the directory is to start with a new identity",
                path.display()
            ),
            Self::Denied(path, error) => write!(
                f,
                "the identity {} cannot be read ({error}). Nothing is changed. Run the agent as the user that owns the \
                 state directory, usually root",
                path.display()
            ),
            Self::Links(error) => write!(
                f,
                "the kernel's links cannot be listed ({error}), so that marks of an earlier run cannot be excluded. \
                 Nothing is changed. Mount the disk, or let the agent list links (CAP_NET_ADMIN, AF_NETLINK)"
            ),
            Self::Files(path, error) => write!(
                f,
                "{} cannot be read ({error}), so that marks of an earlier run cannot be excluded. Nothing is changed. \
                 Mount the disk, or let the agent read {}",
                path.display(),
                path.display()
            ),
        }
    }
}

impl std::error::Error for Missing {}

impl Missing {
    /// Returns whether this user may not read the evidence.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.unread, Some(Unread::Denied(..)))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let dir = self.dir.display();
        match &self.unread {
            Some(unread @ (Unread::Identity(..) | Unread::Denied(..))) => {
                return write!(f, "{REASON}: {unread}");
            }
            Some(unread) => {
                return write!(
                    f,
                    "{REASON}: the state directory {dir} is missing or empty, and {unread}"
                );
            }
            None => {}
        }
        let links = self.links.keys().map(ToString::to_string);
        let files = self.files.keys().map(|path| path.display().to_string());
        let evidence: Vec<_> = links.chain(files).collect();
        let shown = evidence[..evidence.len().min(SHOWN)].join(", ");
        let more = match evidence.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(
            f,
            "{REASON}: the state directory {dir} is missing or empty, but {shown}{more} carry the agent's mark. Nothing is \
             changed. Mount the disk, and the agent goes on by itself; or correct state.directory and restart the agent. \
             If the directory is lost for good, run `moenet-agent approve --state-lost`"
        )?;
        for noted in &self.noted {
            write!(
                f,
                ". These marks were made with the state directory {}, which does not exist; if another agent uses it, \
                 mount it first",
                noted.display()
            )?;
        }
        Ok(())
    }
}

impl Missing {
    /// Detects a start that would make a new identity although an earlier one left its marks, or
    /// may have left them. Writes nothing.
    pub(crate) async fn look(config: &Config) -> Result<(), Self> {
        let dir = &config.state.directory;
        if identity(dir).await.is_some() || in_history(dir).await.is_some() {
            return Ok(());
        }
        let found = evidence(config).await;
        let dir = dir.clone();
        let missing = blocking(move || Self::of(dir, found)).await;
        missing.map_or(Ok(()), Err)
    }

    /// Returns what a search for marks says about the directory; `None`: it is not missing. Blocks.
    fn of(dir: PathBuf, found: Result<Evidence, Unread>) -> Option<Self> {
        let (links, files) = match found {
            Ok(found) => found,
            Err(unread) => {
                return Some(Self {
                    dir,
                    unread: Some(unread),
                    ..Self::default()
                });
            }
        };
        if links.is_empty() && files.is_empty() {
            return None;
        }
        let marks = links.values().filter_map(|alias| alias.identity.as_ref());
        let marks = marks.chain(files.values().flatten());
        Some(Self {
            noted: marks
                .filter_map(|identity| known_agents::missing_directory(identity, &dir))
                .sorted_set(),
            dir,
            links,
            files,
            unread: None,
        })
    }

    /// The identities whose objects a new directory takes over.
    fn succession(&self) -> Succession {
        let links = self.links.values().map(|alias| &alias.identity);
        let marks = links.chain(self.files.values());
        Succession {
            identities: marks.clone().flatten().cloned().sorted_set(),
            unnamed: marks.clone().any(Option::is_none),
        }
    }

    /// Returns whether the objects that the directory owned are known, so that a new one can take them over.
    pub(crate) fn can_be_succeeded(&self) -> bool {
        self.unread.is_none()
    }

    /// Makes a new identity that takes over the objects of the lost directory.
    ///
    /// # Errors
    /// The identity cannot be written.
    pub(crate) fn succeed(&self) -> Result<StateIdentity, StoreError> {
        let new = StateIdentity::new(self.succession());
        fs::create_dirs(&self.dir, 0o700).map_err(StoreError::io("create", &self.dir))?;
        new.write(&self.dir)?;
        Ok(new)
    }
}

/// Restores the identity from the history, or from the copy next to it, if its file was deleted.
pub(crate) async fn put_back(dir: &Path) {
    if identity(dir).await.is_some() {
        return;
    }
    if let Some(known) = in_history(dir).await {
        info!(identity = %known.identity, "identity read from the history; the file was missing");
        let dir = dir.to_owned();
        if let Err(error) = blocking(move || known.write(&dir)).await {
            warn!(error = %chain(&error), "identity not written");
        }
    }
}

async fn identity(dir: &Path) -> Option<StateIdentity> {
    let dir = dir.to_owned();
    blocking(move || StateIdentity::read(&dir)).await
}

/// Returns the identity that the history has; before its first commit, that of the copy next to it.
async fn in_history(dir: &Path) -> Option<StateIdentity> {
    let dir = dir.to_owned();
    let found = blocking(move || {
        let history = fs::exists(dir.join(".git")).then(|| History::new(&dir));
        history.map(|history| (history, StateIdentity::copied(&dir)))
    });
    let (history, copied) = found.await?;
    let kept = history.last_committed(Path::new(IDENTITY)).await;
    let kept = kept.ok().flatten();
    kept.and_then(|text| StateIdentity::parse(&text)).or(copied)
}

type Evidence = (
    BTreeMap<InterfaceName, Alias>,
    BTreeMap<PathBuf, Option<Identity>>,
);

/// Returns the links and files with an agent's mark.
async fn evidence(config: &Config) -> Result<Evidence, Unread> {
    let (dir, bird) = (
        config.state.directory.clone(),
        config.bird.directory.clone(),
    );
    let checked = dir.clone();
    blocking(move || check_identity(&checked)).await?;
    let view = view().await.map_err(|error| Unread::Links(chain(&error)))?;
    let search = move || {
        let links = marked(&view, &dir);
        let mut files = marked_files(&bird, &dir)?;
        if links.is_empty() && is_used(&dir) {
            // A mark without an identity may be from an earlier build that served these documents.
            files.retain(|_, identity| identity.is_some());
        }
        Ok((links, files))
    };
    blocking(search).await
}

/// Checks that the directory has no identity that a disk error hides.
fn check_identity(dir: &Path) -> Result<(), Unread> {
    let path = dir.join(IDENTITY);
    match file::read_text(&path, file::TOKEN) {
        Err(error) if !is_absent(&error) => Err(unread_identity(path, &error)),
        _ => Ok(()),
    }
}

fn unread_identity(path: PathBuf, error: &io::Error) -> Unread {
    match error.kind() {
        ErrorKind::PermissionDenied => Unread::Denied(path, error.to_string()),
        _ => Unread::Identity(path, error.to_string()),
    }
}

/// Returns whether an error proves that there is no such file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The kernel as an agent without an identity sees it: every mark is foreign.
async fn view() -> Result<KernelView, KernelError> {
    let kernel = LinuxKernel::new(KernelOptions::default());
    kernel.observe().await
}

/// The links with the mark of an agent. Excludes links in the applied records of this directory (an
/// earlier build made it, and it lost only its marker), and links of another agent on this host
/// whose state directory exists.
fn marked(kernel: &KernelView, dir: &Path) -> BTreeMap<InterfaceName, Alias> {
    let records = Store::open_read_only(dir)
        .and_then(|store| store.load())
        .map(|snapshot| snapshot.applied_links())
        .unwrap_or_default();
    let of_others = |alias: &Alias| {
        let identity = alias.identity.as_ref();
        identity.is_some_and(|identity| known_agents::has_directory(identity, dir))
    };
    let marks = kernel.links.iter().filter_map(|(name, link)| {
        let Mark::Foreign(alias) = &link.mark else {
            return None;
        };
        Some((name.clone(), Alias::parse(alias)?))
    });
    marks
        .filter(|(name, alias)| {
            let recorded =
                alias.identity.is_none() && records.contains(&(name.clone(), alias.object.clone()));
            !recorded && !of_others(alias)
        })
        .sorted_map()
}

/// Returns whether an operator has put documents into the directory, so that it is not an empty mount point.
fn is_used(dir: &Path) -> bool {
    let kinds = Kind::many().map(Kind::folder);
    let mut folders = ["", "applied", "overrides"].into_iter().chain(kinds);
    folders.any(|folder| {
        let entries = fs::read_dir(dir.join(folder)).into_iter().flatten();
        entries.flatten().any(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "yaml")
        })
    })
}

/// The files of an agent in BIRD's directory, each with the identity in its mark: after a reboot
/// they are the only trace of an unmounted directory. Excludes files of another agent on this host
/// whose state directory exists.
fn marked_files(bird: &Path, dir: &Path) -> Result<BTreeMap<PathBuf, Option<Identity>>, Unread> {
    let mut files = vec![bird.join("bird.conf")];
    for folder in ["moenet", "moenet/sessions"] {
        files.extend(configurations(&bird.join(folder))?);
    }
    let mut marked = BTreeMap::new();
    for path in files {
        let Some(identity) = mark_in(&path)? else {
            continue;
        };
        let of_other = identity
            .as_ref()
            .is_some_and(|identity| known_agents::has_directory(identity, dir));
        if !of_other {
            marked.insert(path, identity);
        }
    }
    Ok(marked)
}

/// Lists BIRD's files in a folder.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>, Unread> {
    let unread = |error: io::Error| Unread::Files(folder.to_owned(), error.to_string());
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<io::Result<Vec<_>>>().map_err(unread)?;
    let is_configuration = |path: &PathBuf| path.extension().is_some_and(|it| it == "conf");
    Ok(paths.into_iter().filter(is_configuration).collect())
}

/// Reads the identity in the mark of a file; the outer `None` for a file without a mark. A
/// directory or a pipe has none.
fn mark_in(path: &Path) -> Result<Option<Option<Identity>>, Unread> {
    let text = match file::read(path, file::DOCUMENT) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if is_absent(&error) || file::is_unusable(error.kind()) => return Ok(None),
        Err(error) => return Err(Unread::Files(path.to_owned(), error.to_string())),
    };
    Ok(match mark::read(&text) {
        FileMark::Missing => None,
        FileMark::Old => Some(None),
        FileMark::Complete { identity, .. } => Some(identity),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::mark::marked as with_mark;
    use std::fs;

    fn bird() -> tempfile::TempDir {
        let bird = tempfile::tempdir().unwrap();
        fs::create_dir_all(bird.path().join("moenet/sessions")).unwrap();
        bird
    }

    fn found(bird: &tempfile::TempDir) -> Result<usize, Unread> {
        let dir = bird.path().join("state");
        marked_files(bird.path(), &dir).map(|files| files.len())
    }

    #[test]
    fn files_with_a_mark_are_evidence_and_others_are_not() {
        let bird = bird();
        assert_eq!(found(&bird).unwrap(), 0);
        fs::write(bird.path().join("bird.conf"), "protocol device {}\n").unwrap();
        fs::create_dir(bird.path().join("moenet/sessions/folder.conf")).unwrap();
        assert_eq!(found(&bird).unwrap(), 0);
        let text = with_mark("define A = 1;\n", None);
        fs::write(bird.path().join("moenet/defines.conf"), &text).unwrap();
        // Bytes that are no text do not hide the mark.
        let bytes = [text.as_bytes(), b"\xff"].concat();
        fs::write(bird.path().join("moenet/sessions/wg_1.conf"), bytes).unwrap();
        assert_eq!(found(&bird).unwrap(), 2);
    }

    #[test]
    fn unreadable_files_are_not_taken_for_missing_ones() {
        for name in ["moenet/sessions/wg_1.conf", "moenet/sessions"] {
            let bird = bird();
            let path = bird.path().join(name);
            let _ = fs::remove_dir(&path);
            // As with a disk error, the path exists and cannot be read.
            std::os::unix::fs::symlink(&path, &path).unwrap();
            let Err(unread) = found(&bird) else {
                panic!("{name} counts as missing");
            };
            let text = unread.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
    }

    #[test]
    fn unreadable_identity_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        check_identity(dir.path()).unwrap();
        check_identity(&dir.path().join("missing")).unwrap();
        let path = dir.path().join(IDENTITY);
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(matches!(
            check_identity(dir.path()),
            Err(Unread::Identity(..))
        ));
    }

    #[test]
    fn identity_of_another_user_is_not_to_be_removed() {
        let missing = Missing {
            unread: Some(unread_identity(
                "/s/identity".into(),
                &ErrorKind::PermissionDenied.into(),
            )),
            ..Missing::default()
        };
        let text = missing.to_string();
        assert!(
            text.contains("/s/identity") && text.contains("Run the agent as the user"),
            "{text}"
        );
        assert!(!text.contains("remove"), "{text}");
    }
}
