//! Makes posts durable together: one flush of a journal for all that arrived during the flush before it. The files of the
//! posts themselves are written without a flush; the next start writes them again from the journal.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::fleet::posts::REPORTED;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::task::{blocking, spawn_blocking};

/// In the order of their lines: the journal before while the files of its posts are flushed, the journal, and the next one
/// until it has its name durably.
const NAMES: [&str; 3] = [".journal.old", ".journal", ".journal.new"];

/// Size from which a new journal is begun.
const BEGIN_NEW: u64 = 64 * 1024 * 1024;

/// Size limit of a line that is read, above that of each file of the server.
const MAX_LINE: u64 = 64 * 1024 * 1024;

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
    file: File,
    size: u64,
    /// Whether the file has a part of a failed batch after its size.
    is_torn: bool,
    /// Whether each post is flushed alone.
    is_closed: bool,
    /// Whether the files of the journal before are being flushed.
    is_flushing: Arc<AtomicBool>,
}

impl Journal {
    /// Opens the journal, and makes the posts in it durable as files. The caller has the [`lock`]. Blocks.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join(REPORTED);
        let paths = NAMES.map(|name| folder.join(name));
        let mut failures = Vec::new();
        for path in &paths {
            failures.push(replay(root, path)?);
        }
        file::flush_file_system(&fs::open_dir(&folder)?)?;
        for (path, failure) in paths.iter().zip(failures) {
            match failure {
                Some(why) => file::quarantine(path, &why).map(drop)?,
                None => file::remove(path).map(drop)?,
            }
        }
        let open = Open {
            file: create(&paths[1])?,
            size: 0,
            is_torn: false,
            is_closed: false,
            is_flushing: Arc::default(),
        };
        Ok(Self {
            root: root.to_owned(),
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            open: Arc::new(Mutex::new(open)),
        })
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

    /// Makes the files of all posts durable, and empties the journal. Later posts are flushed alone. Blocks.
    pub(super) fn close(&self) -> io::Result<()> {
        let mut open = self.open.lock();
        file::flush_file_system(&open.file)?;
        // First, because its lines are older than those of the journal.
        file::remove(&self.root.join(REPORTED).join(NAMES[0]))?;
        open.file.set_len(0)?;
        open.size = 0;
        file::flush_content(&open.file)?;
        open.is_closed = true;
        Ok(())
    }
}

impl Open {
    /// Adds lines durably. After an error the journal is as before, at the latest when the next lines are added.
    fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.size)?;
            self.is_torn = false;
        }
        let written = self.file.write_all(lines);
        if let Err(error) = written.and_then(|()| file::flush_content(&self.file)) {
            self.is_torn = self.file.set_len(self.size).is_err();
            return Err(error);
        }
        self.size += u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Begins a new journal, unless the one before is still needed; flushes the files of that one.
    fn begin_new(&mut self, folder: &Path) -> io::Result<()> {
        if self.is_flushing.load(Ordering::Acquire) {
            return Ok(());
        }
        let [old, new, next] = NAMES.map(|name| folder.join(name));
        if !fs::exists(&old) {
            let file = create(&next)?;
            fs::rename(&new, &old)?;
            if let Err(error) = fs::rename(&next, &new) {
                fs::rename(&old, &new)?;
                return Err(error);
            }
            self.file = file;
            self.size = 0;
            self.is_torn = false;
        } else if !fs::exists(&new) {
            // The journal did not get its name back above.
            return fs::rename(&old, &new);
        }
        self.flush_old(old)
    }

    /// Starts the flush of the files of the journal before, and removes it after that.
    fn flush_old(&self, old: PathBuf) -> io::Result<()> {
        let file = self.file.try_clone()?;
        let is_flushing = Arc::clone(&self.is_flushing);
        is_flushing.store(true, Ordering::Release);
        spawn_blocking(move || {
            let flushed = file::flush_file_system(&file);
            if let Err(error) = flushed.and_then(|()| file::remove(&old).map(drop)) {
                tracing::warn!(%error, "posts of the routers are not flushed; their journal is kept");
            }
            is_flushing.store(false, Ordering::Release);
        });
        Ok(())
    }
}

/// Locks a fleet's directory for its only server, until the file is dropped. `None`: another server has it. Blocks.
pub(super) fn lock(root: &Path) -> io::Result<Option<File>> {
    let folder = root.join(REPORTED);
    fs::create_dir_all(&folder)?;
    let directory = fs::open_dir(&folder)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Quarantines the journals of a server that goes on without: a later start would write their posts over newer ones. Blocks.
pub(super) fn quarantine(root: &Path, why: &str) {
    let paths = NAMES.map(|name| root.join(REPORTED).join(name));
    for path in paths.iter().filter(|path| fs::exists(path)) {
        if let Err(error) = file::quarantine(path, why) {
            tracing::error!(file = %path.display(), %error, "journal of posts not quarantined; remove it before the next start");
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    file::remove_file(path)?;
    let mut options = File::options();
    let file = fs::open(path, options.create_new(true).append(true).mode(0o600))?;
    file::sync_folders(path.parent())?;
    Ok(file)
}

/// Commits a batch, and answers each request in it.
fn commit(open: &Mutex<Open>, root: &Path, batch: Vec<Waiting>) {
    let mut open = open.lock();
    let edits = batch.iter().flat_map(|waiting| &waiting.edits);
    let writer = Writer::new(0o600);
    let (added, writer) = match open.is_closed {
        // The next start must not write a post over what an operator changed.
        true => (Ok(()), writer),
        false => (
            lines(edits).and_then(|lines| open.add(&lines)),
            writer.light(),
        ),
    };
    for Waiting { edits, done } in batch {
        let result = match &added {
            Ok(()) => edits.iter().try_for_each(|edit| edit.apply(root, writer)),
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
/// Returns the reason to keep the journal: lines that cannot be applied.
fn replay(root: &Path, path: &Path) -> io::Result<Option<String>> {
    let mut journal = match file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => BufReader::new(opened?.0),
    };
    let (mut line, mut number, mut failures, mut first) = (Vec::new(), 0_usize, 0_usize, None);
    loop {
        line.clear();
        number += 1;
        let mut limited = journal.by_ref().take(MAX_LINE);
        limited.read_until(b'\n', &mut line)?;
        let applied = if line.ends_with(b"\n") {
            apply(root, &line)
        } else if limited.limit() > 0 {
            break;
        } else {
            journal.skip_until(b'\n')?;
            Err(io::ErrorKind::FileTooLarge.into())
        };
        if let Err(error) = applied {
            failures += 1;
            first.get_or_insert_with(|| format!("the first is line {number}: {error}"));
        }
    }
    Ok(first.map(|first| format!("lines that cannot be applied: {failures}; {first}")))
}

fn apply(root: &Path, line: &[u8]) -> io::Result<()> {
    let edit: Edit = serde_json::from_slice(line)?;
    edit.apply(root, Writer::new(0o600).light())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn fleet() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(REPORTED)).unwrap();
        root
    }

    fn edit(path: &str, text: Option<&str>) -> Edit {
        Edit {
            path: path.into(),
            text: text.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn answered_posts_are_there_after_a_power_failure() {
        let root = fleet();
        let at = |path: &str| root.path().join(path);
        let journal = Journal::open(root.path()).unwrap();
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
        drop(Journal::open(root.path()).unwrap());
        assert_eq!(fs::read_to_string(at("a/x")).unwrap(), "2");
        assert!(!at("a/y").exists());
        assert_eq!(fs::read(at("reported/.journal")).unwrap(), b"");
    }

    #[tokio::test]
    async fn posts_that_arrive_together_share_a_flush() {
        let root = fleet();
        let journal = Arc::new(Journal::open(root.path()).unwrap());
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

    #[test]
    fn line_that_cannot_be_applied_stops_no_other() {
        let root = fleet();
        let at = |path: &str| root.path().join(path);
        let line = |edit| String::from_utf8(lines([edit].iter()).unwrap()).unwrap();
        // Too long, torn, on a directory, and valid.
        let journal = File::create(at("reported/.journal")).unwrap();
        journal.set_len(MAX_LINE + 1).unwrap();
        let mut journal = File::options()
            .append(true)
            .open(at("reported/.journal"))
            .unwrap();
        let text = [
            "\n{\"path\": \"a/x\", \"te\n",
            &line(edit("reported", Some("1"))),
            &line(edit("a/x", Some("1"))),
        ];
        journal.write_all(text.concat().as_bytes()).unwrap();
        drop(Journal::open(root.path()).unwrap());
        assert_eq!(fs::read_to_string(at("a/x")).unwrap(), "1");
        assert_eq!(fs::read(at("reported/.journal")).unwrap(), b"");
        assert!(at("reported/.journal.broken").exists());
        let why = replay(root.path(), &at("reported/.journal.broken")).unwrap();
        let why = why.unwrap();
        assert!(
            why.starts_with("lines that cannot be applied: 3; the first is line 1:"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn torn_batch_is_cut_before_the_next_one() {
        let root = fleet();
        let path = root.path().join("reported/.journal");
        let journal = Journal::open(root.path()).unwrap();
        let read_only = File::open(&path).unwrap();
        let file = std::mem::replace(&mut journal.open.lock().file, read_only);
        let post = || journal.write(vec![edit("a/x", Some("1"))]);
        post().await.unwrap_err();
        assert!(!root.path().join("a/x").exists());
        post().await.unwrap_err();
        fs::write(&path, "{\"path").unwrap();
        journal.open.lock().file = file;
        post().await.unwrap();
        let expected = lines([edit("a/x", Some("1"))].iter()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn post_after_the_close_is_not_in_the_journal() {
        let root = fleet();
        let journal = Journal::open(root.path()).unwrap();
        journal.close().unwrap();
        journal.write(vec![edit("a/x", Some("1"))]).await.unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a/x")).unwrap(), "1");
        let text = fs::read(root.path().join("reported/.journal")).unwrap();
        assert_eq!(text, b"");
    }

    #[tokio::test]
    async fn failed_begin_or_flush_is_tried_again() {
        let root = fleet();
        let at = |name: &str| root.path().join(REPORTED).join(name);
        let journal = Journal::open(root.path()).unwrap();
        let begin = || {
            let mut open = journal.open.lock();
            open.size = BEGIN_NEW;
            let begun = open.begin_new(&root.path().join(REPORTED));
            begun.map(|()| open.size == 0)
        };
        fs::create_dir(at(".journal.new")).unwrap();
        begin().unwrap_err();
        assert!(at(".journal").exists() && !at(".journal.old").exists());
        fs::remove_dir(at(".journal.new")).unwrap();
        fs::write(at(".journal.old"), "").unwrap();
        assert!(!begin().unwrap());
        while journal.open.lock().is_flushing.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert!(!at(".journal.old").exists());
        assert!(begin().unwrap());
    }

    #[tokio::test]
    async fn new_journal_begins_and_the_old_one_goes() {
        let root = fleet();
        let journal = Journal::open(root.path()).unwrap();
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
