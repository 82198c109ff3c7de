//! Makes posts durable together: one flush of a journal for all that arrived during the flush before it. The files of the
//! posts themselves are written without a flush; the next start writes them again from the journal.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::fleet::posts::REPORTED;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::task::{blocking, spawn_blocking};

/// The journal, and the one before it while the files of its posts are flushed.
const NAMES: [&str; 2] = [".journal.old", ".journal"];

/// Size from which a new journal is begun.
const BEGIN_NEW: u64 = 64 * 1024 * 1024;

/// Size limit of a journal that is read: a batch goes beyond the size above.
const MAX_BYTES: u64 = 8 * BEGIN_NEW;

/// A change of a file of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Edit {
    /// Below the fleet's directory, which may be moved.
    pub(super) path: PathBuf,
    /// `None`: the file is removed.
    pub(super) text: Option<String>,
}

impl Edit {
    /// Changes the file.
    pub(super) fn apply(&self, root: &Path, writer: Writer) -> io::Result<()> {
        let path = root.join(&self.path);
        let Some(text) = &self.text else {
            return file::remove_file(&path).map(drop);
        };
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        writer.replace(&path, text.as_bytes())
    }
}

/// The journal of the only server of a directory.
pub(super) struct Journal {
    root: PathBuf,
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the request that commits what waits.
    turn: tokio::sync::Mutex<()>,
    open: Arc<Mutex<Open>>,
}

struct Waiting {
    edits: Vec<Edit>,
    done: oneshot::Sender<io::Result<()>>,
}

struct Open {
    /// Locked, so that two servers do not share a journal.
    directory: File,
    file: File,
    size: u64,
}

impl Journal {
    /// Opens the journal, and makes the posts in it durable as files. `None`: another server has it. Blocks.
    pub(super) fn open(root: &Path) -> io::Result<Option<Self>> {
        let folder = root.join(REPORTED);
        fs::create_dir_all(&folder)?;
        let directory = fs::open_dir(&folder)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let paths = NAMES.map(|name| folder.join(name));
        for path in &paths {
            replay(root, path)?;
        }
        file::flush_file_system(&directory)?;
        for path in &paths {
            file::remove(path)?;
        }
        let file = create(&paths[1])?;
        let open = Open {
            directory,
            file,
            size: 0,
        };
        Ok(Some(Self {
            root: root.to_owned(),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            open: Arc::new(Mutex::new(open)),
        }))
    }

    /// Makes changes, durably when it returns.
    pub(super) async fn write(&self, edits: Vec<Edit>) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.waiting.lock().push(Waiting { edits, done });
        let _turn = self.turn.lock().await;
        // Empty if the request before has committed them.
        let batch = std::mem::take(&mut *self.waiting.lock());
        if !batch.is_empty() {
            let (open, root) = (Arc::clone(&self.open), self.root.clone());
            blocking(move || commit(&open, &root, batch)).await;
        }
        let ended = |_| io::Error::other("the journal of posts ended early");
        answer.await.map_err(ended)?
    }

    /// Makes the files of all posts durable, which ends the need for the journal. Blocks.
    pub(super) fn close(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        file::flush_file_system(&open.directory)?;
        open.file.set_len(0)?;
        open.size = 0;
        file::remove(&self.root.join(REPORTED).join(NAMES[0])).map(drop)
    }
}

impl Open {
    /// Adds lines durably; after an error the journal is as before.
    fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines);
        if let Err(error) = written.and_then(|()| file::flush_content(&self.file)) {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Begins a new journal, unless the one before is still needed.
    fn begin_new(&mut self, folder: &Path) -> io::Result<()> {
        let [old, new] = NAMES.map(|name| folder.join(name));
        if fs::exists(&old) {
            return Ok(());
        }
        fs::rename(&new, &old)?;
        self.file = create(&new)?;
        self.size = 0;
        let directory = self.directory.try_clone()?;
        spawn_blocking(move || {
            let flushed = file::flush_file_system(&directory);
            if let Err(error) = flushed.and_then(|()| file::remove(&old).map(drop)) {
                tracing::warn!(%error, "posts of the routers are not flushed; their journal is kept");
            }
        });
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    let file = fs::open(path, File::options().create(true).append(true))?;
    file::sync_folders(path.parent())?;
    Ok(file)
}

/// Commits a batch, and answers each request in it.
fn commit(open: &Mutex<Open>, root: &Path, batch: Vec<Waiting>) {
    let mut open = open.lock();
    let edits = batch.iter().flat_map(|waiting| &waiting.edits);
    let added = lines(edits).and_then(|lines| open.add(&lines));
    for Waiting { edits, done } in batch {
        let result = match &added {
            Ok(()) => edits
                .iter()
                .try_for_each(|edit| edit.apply(root, Writer::new(0o600).light())),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        // The request may have given up.
        let _ = done.send(result);
    }
    if open.size > BEGIN_NEW
        && let Err(error) = open.begin_new(&root.join(REPORTED))
    {
        tracing::warn!(%error, "cannot begin a new journal of posts; continuing the large one");
    }
}

fn lines<'e>(edits: impl Iterator<Item = &'e Edit>) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for edit in edits {
        serde_json::to_writer(&mut lines, edit)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Makes the changes in a journal again. The last line is incomplete if its flush did not end: no post was answered.
fn replay(root: &Path, path: &Path) -> io::Result<()> {
    let text = match file::read(path, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        match serde_json::from_slice::<Edit>(line) {
            Ok(edit) => edit.apply(root, Writer::new(0o600).light())?,
            // What comes after a part that was never flushed was not answered either.
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "rest of the journal of posts left out");
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn edit(path: &str, text: Option<&str>) -> Edit {
        Edit {
            path: path.into(),
            text: text.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn answered_posts_are_there_after_a_power_failure() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let journal = Journal::open(root.path()).unwrap().unwrap();
        assert!(Journal::open(root.path()).unwrap().is_none(), "locked");
        let posts = [edit("a/x", Some("1")), edit("a/y", Some("1"))];
        journal.write(posts.to_vec()).await.unwrap();
        journal.write(vec![edit("a/x", Some("2"))]).await.unwrap();
        journal.write(vec![edit("a/y", None)]).await.unwrap();
        drop(journal);
        // The files were never flushed.
        fs::write(at("a/x"), "").unwrap();
        fs::write(at("a/y"), "1").unwrap();
        let mut torn = fs::read(at("reported/.journal")).unwrap();
        torn.extend(br#"{"path": "a/x", "te"#);
        fs::write(at("reported/.journal"), torn).unwrap();
        drop(Journal::open(root.path()).unwrap().unwrap());
        assert_eq!(fs::read_to_string(at("a/x")).unwrap(), "2");
        assert!(!at("a/y").exists());
        assert_eq!(fs::read(at("reported/.journal")).unwrap(), b"");
    }

    #[tokio::test]
    async fn posts_that_arrive_together_share_a_flush() {
        let root = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(root.path()).unwrap().unwrap());
        let turn = journal.turn.lock().await;
        let write = |n: usize| {
            let journal = Arc::clone(&journal);
            // A post whose file cannot be written fails alone.
            let path = if n == 7 { "reported" } else { "a/x" };
            tokio::spawn(async move { journal.write(vec![edit(path, Some("1"))]).await })
        };
        let writes: Vec<_> = (0..50).map(write).collect();
        while journal.waiting.lock().len() < 50 {
            tokio::task::yield_now().await;
        }
        drop(turn);
        let mut failed = 0;
        for write in writes {
            failed += usize::from(write.await.unwrap().is_err());
        }
        assert_eq!(failed, 1);
        assert!(journal.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn new_journal_begins_and_the_old_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let journal = Journal::open(root.path()).unwrap().unwrap();
        journal.open.lock().size = BEGIN_NEW;
        journal.write(vec![edit("a/x", Some("1"))]).await.unwrap();
        assert_eq!(journal.open.lock().size, 0);
        let folder = root.path().join(REPORTED);
        assert_eq!(fs::read(folder.join(".journal")).unwrap(), b"");
        while folder.join(".journal.old").exists() {
            tokio::task::yield_now().await;
        }
    }
}
