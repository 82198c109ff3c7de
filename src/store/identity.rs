//! The identity of a state directory, and the check that the current directory is the opened one.
//! An unmounted disk leaves an empty directory behind, and an empty directory must never be read as
//! "no sessions".

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use super::{HEAD_FOLLOWS, Store, StoreError, at_branch, atomic, moved};
use crate::intervals::STATE_LOCK_WAIT;
use crate::model::Identity;
use crate::observed::Succession;
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// The file with the identity. The history has it too.
pub const IDENTITY: &str = "identity";
/// Copy of the identity next to the history: an old commit that is checked out may have no identity.
const COPY: &str = ".git/moenet-identity";
/// File in which earlier builds kept a longer identity, and the doubt.
const OLD_MARKER: &str = ".moenet-state";
/// The file that says which documents may be missing.
pub(super) const DOUBT: &str = ".unproven";
/// The file with the advisory lock.
pub(super) const LOCK: &str = ".lock";

/// Entry in the identity file: marks of earlier builds are taken over.
const UNNAMED: &str = "unnamed";

/// The identity of a state directory, and the lost directories that it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateIdentity {
    /// The identity, part of every mark.
    pub identity: Identity,
    /// The directories whose objects this one takes over.
    pub succeeds: Succession,
}

impl StateIdentity {
    /// Creates a new identity that succeeds these.
    pub fn new(succeeds: Succession) -> Self {
        Self {
            identity: Identity::from_bits(rand::random()),
            succeeds,
        }
    }

    /// Reads the identity of a directory; `None` without a valid one.
    pub fn read(dir: &Path) -> Option<Self> {
        let read = |name: &str| file::read_text(&dir.join(name), file::TOKEN).ok();
        let current = read(IDENTITY);
        current
            .or_else(|| read(COPY).filter(|_| moved(dir).is_some()))
            .and_then(|text| Self::parse(&text))
            .or_else(|| {
                let older = read(OLD_MARKER)?;
                let identity = Identity::from_longer(value(&older, "id:")?)?;
                let succeeds = Succession::default();
                Some(Self { identity, succeeds })
            })
    }

    /// Reads the copy next to the history; `None` without a valid one.
    pub(crate) fn copied(dir: &Path) -> Option<Self> {
        let text = file::read_text(&dir.join(COPY), file::TOKEN).ok()?;
        Self::parse(&text)
    }

    /// Parses the text of an identity file.
    pub fn parse(text: &str) -> Option<Self> {
        let succeeds = values(text, "succeeds:");
        let identities = succeeds.clone().filter_map(|text| text.parse().ok());
        Some(Self {
            identity: value(text, "identity:")?.parse().ok()?,
            succeeds: Succession {
                identities: identities.sorted_set(),
                unnamed: succeeds.clone().any(|text| text == UNNAMED),
            },
        })
    }

    /// Writes the identity file of a directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        atomic::write(&dir.join(IDENTITY), self.text().as_bytes(), 0o644)
    }

    fn text(&self) -> String {
        let Self { identity, succeeds } = self;
        let mut text = format!(
            "# The identity of this state directory. Every mark of the agent carries it. Do not edit or delete it,\n\
             # and do not copy it to another host.\nidentity: {identity}\n"
        );
        let unnamed = succeeds.unnamed.then(|| UNNAMED.to_owned());
        for lost in succeeds
            .identities
            .iter()
            .map(ToString::to_string)
            .chain(unnamed)
        {
            text.push_str(&format!("succeeds: {lost}\n"));
        }
        text
    }
}

impl Store {
    /// Says that marks of earlier builds, which name no state directory, belong to this directory
    /// (`approve --earlier-build`). Operators' commands call this while the agent runs, so it does
    /// not need the agent's lock. `false`: this was known.
    ///
    /// # Errors
    /// The directory has no identity, or the identity cannot be written.
    pub fn approve_earlier_build(dir: &Path) -> Result<bool, StoreError> {
        let mut known = StateIdentity::read(dir)
            .ok_or_else(|| vanished(dir, "has no identity yet: start the agent once"))?;
        if std::mem::replace(&mut known.succeeds.unnamed, true) {
            return Ok(false);
        }
        moved::wait_for_git(dir, HEAD_FOLLOWS, Instant::now());
        at_branch(dir)?;
        known.write(dir).map(|()| true)
    }
}

fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> + Clone {
    let of_line = move |line: &'a str| line.strip_prefix(key).map(str::trim);
    text.lines().filter_map(of_line)
}

fn value<'a>(text: &'a str, key: &'a str) -> Option<&'a str> {
    values(text, key).next()
}

/// Documents whose absence from the directory does not prove their removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// A missing document is no longer desired.
    None,
    /// A document of the operator may be missing: a complete list of the Control Plane has resolved
    /// the doubt about the others, and says nothing about these.
    Operators,
    /// Any document may be missing: the directory is new, or one of its folders vanished.
    All,
}

/// Reads the doubt of the directory.
pub(super) fn doubt(dir: &Path) -> Doubt {
    let older = || file::read_text(&dir.join(OLD_MARKER), file::TOKEN).unwrap_or_default();
    let current = file::read_text(&dir.join(DOUBT), file::TOKEN);
    match current.as_ref().map(|text| value(text, "missing:")) {
        Ok(Some("operators")) => Doubt::Operators,
        Ok(_) => Doubt::All,
        Err(_) if value(&older(), "unproven:") == Some("true") => Doubt::All,
        // An existing file that cannot be read may contain any doubt.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Doubt::All,
        Err(_) => Doubt::None,
    }
}

/// Converts the files of an earlier build to the current ones.
pub(super) fn migrate(dir: &Path, known: &StateIdentity) -> Result<(), StoreError> {
    let old = dir.join(OLD_MARKER);
    if fs::symlink_metadata(&old).is_err() {
        return Ok(());
    }
    write_doubt(dir, doubt(dir))?;
    // Makes the doubt durable too.
    known.write(dir)?;
    atomic::remove(&old).map(drop)
}

fn write_doubt(dir: &Path, doubt: Doubt) -> Result<(), StoreError> {
    let path = dir.join(DOUBT);
    let missing = match doubt {
        // A removal that a power failure undoes only asks for the list again.
        Doubt::None => {
            let removed = file::remove_file(&path).map_err(StoreError::io("remove", &path));
            return removed.map(drop);
        }
        Doubt::Operators => "operators",
        Doubt::All => "all",
    };
    let text = format!(
        "# Documents may be missing here. A complete list of the Control Plane settles its own; `moenet-agent approve` \
         settles the operator's.\nmissing: {missing}\n"
    );
    // A file without its content says `all`.
    atomic::write_lightly(&path, text.as_bytes(), 0o644)
}

/// The opened directory, and the lock on it.
#[derive(Debug)]
pub(super) struct Held {
    lock: File,
    root: (u64, u64),
    pub(super) known: StateIdentity,
    pub(super) doubt: Doubt,
    /// The identity file as last read.
    read: Option<(Stamp, StateIdentity)>,
    /// The copy as it was when it was last found, with the identity in it.
    copy: Option<(Stamp, StateIdentity)>,
}

impl Drop for Held {
    /// A process that is being started holds a copy of every open file for a moment, and with it
    /// the lock, unless the lock itself is released.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Held {
    /// Takes the lock.
    pub(super) fn take(dir: &Path, known: StateIdentity) -> Result<Self, StoreError> {
        Ok(Self {
            lock: lock(dir)?,
            root: root(dir)?,
            known,
            doubt: doubt(dir),
            read: None,
            copy: None,
        })
    }

    /// Reads the identity of the directory, unless its file is as last read.
    fn read(&mut self, dir: &Path) -> Option<StateIdentity> {
        let stamp = Stamp::at(&dir.join(IDENTITY));
        if let (Some(stamp), Some((read, known))) = (stamp, &self.read)
            && stamp == *read
        {
            return Some(known.clone());
        }
        let stamp = stamp.filter(Stamp::is_settled);
        let known = StateIdentity::read(dir);
        self.read = stamp.zip(known.clone());
        known
    }

    /// Verifies that the directory is the opened one, and that the lock is still held.
    pub(super) fn verify(&mut self, dir: &Path) -> Result<(), StoreError> {
        let root = root(dir)?;
        let there = self.read(dir);
        let same = there.filter(|there| there.identity == self.known.identity);
        if root != self.root && same.is_none() {
            return Err(vanished(
                dir,
                "is another directory than the one that was opened; mount the right one, or restart the agent",
            ));
        }
        self.root = root;
        // An operator's command adds to the succession; an old identity file takes nothing from it.
        if let Some(there) = same {
            let succeeds = &mut self.known.succeeds;
            succeeds.identities.extend(there.succeeds.identities);
            succeeds.unnamed |= there.succeeds.unnamed;
        }
        if self.lock_lost(dir) {
            self.lock = lock(dir)?;
        }
        Ok(())
    }

    /// Writes the identity again if it is missing. Only for a tree that no git is changing: a git
    /// that restores an old tree has written its files before HEAD.
    pub(super) fn renew_identity(&mut self, dir: &Path) -> Result<(), StoreError> {
        let there = self.read(dir);
        let same = there.is_some_and(|there| there.identity == self.known.identity);
        if !same && moved(dir).is_none() {
            // A tool deleted the identity; which other files are gone is unknown.
            self.known.write(dir)?;
            self.set_doubt(dir, Doubt::All)?;
        }
        Ok(())
    }

    /// Keeps a copy of the identity in a place that tools which move or clean the tree do not touch.
    pub(super) fn keep_copy(&mut self, dir: &Path) {
        let (path, known) = (dir.join(COPY), &self.known);
        let stamp = Stamp::at(&path);
        if let (Some(stamp), Some((found, identity))) = (&stamp, &self.copy)
            && (found, identity) == (stamp, known)
        {
            return;
        }
        let text = known.text();
        let is_kept = file::read_text(&path, file::TOKEN).is_ok_and(|kept| kept == text);
        if !is_kept && fs::is_dir(dir.join(".git")) {
            // The next listing retries.
            let _ = atomic::write_lightly(&path, text.as_bytes(), 0o644);
        }
        let stamp = stamp.filter(|stamp| is_kept && stamp.is_settled());
        self.copy = stamp.map(|stamp| (stamp, known.clone()));
    }

    /// Writes the identity of a directory without one, after the doubt.
    pub(super) fn begin(&mut self, dir: &Path, wanted: Doubt) -> Result<(), StoreError> {
        self.doubt = wanted;
        if doubt(dir) != wanted {
            write_doubt(dir, wanted)?;
        }
        self.known.write(dir)
    }

    /// Records which absence proves nothing, if that changed.
    pub(super) fn set_doubt(&mut self, dir: &Path, wanted: Doubt) -> Result<(), StoreError> {
        if self.doubt == wanted && doubt(dir) == wanted {
            return Ok(());
        }
        if wanted == Doubt::All {
            // On a full disk the doubt is kept in memory.
            self.doubt = wanted;
        }
        write_doubt(dir, wanted)?;
        if wanted == Doubt::All {
            file::sync_folders([dir]).map_err(StoreError::io("flush", dir))?;
        }
        self.doubt = wanted;
        Ok(())
    }

    /// Returns whether the locked file is no longer the one in the directory.
    fn lock_lost(&self, dir: &Path) -> bool {
        let (Ok(held), Ok(there)) = (self.lock.metadata(), fs::symlink_metadata(dir.join(LOCK)))
        else {
            return true;
        };
        (held.dev(), held.ino()) != (there.dev(), there.ino())
    }
}

fn vanished(dir: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Vanished {
        dir: dir.to_owned(),
        reason: reason.into(),
    }
}

/// Device and inode of the state directory.
pub(super) fn root(dir: &Path) -> Result<(u64, u64), StoreError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok((metadata.dev(), metadata.ino())),
        Ok(_) => Err(vanished(dir, "is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(vanished(dir, "is not there")),
        Err(error) => Err(vanished(dir, format!("cannot be read ({error})"))),
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let mut file = open_lock(&path).map_err(StoreError::io("open", &path))?;
    match file::lock(&file, STATE_LOCK_WAIT) {
        Ok(true) => {
            // For the error message of a second agent; the lock works without it.
            let _ = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(file)
        }
        Ok(false) => Err(StoreError::Locked {
            dir: dir.to_owned(),
            holder: holder(&mut file),
        }),
        Err(error) => Err(StoreError::io("lock", &path)(error)),
    }
}

/// On a read-only file system the existing lock file is opened.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let writable = fs::open(path, &options);
    writable.or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            fs::open(path, File::options().read(true)).map_err(|_| error)
        }
        _ => Err(error),
    })
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "its process is not known".to_owned(),
    }
}
