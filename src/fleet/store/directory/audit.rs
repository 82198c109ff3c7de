//! The changes of files that a server made, a line for each, in a log beside the posts. Blocks.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::fleet::audit::AuditEntry;
use crate::fleet::posts::REPORTED;
use crate::util::{file, fs};

/// The log before, and the log.
const FILES: [&str; 2] = [".audit.log.1", ".audit.log"];

/// Size from which a new log is begun; one older log is kept.
const LOG_MAX: u64 = 4 * 1024 * 1024;

/// Size limit of a log that is read: above `LOG_MAX` and one entry.
const READ_MAX: u64 = 2 * LOG_MAX;

/// Adds a line to a log, and begins a new one from a size on; one older log is kept.
pub(super) fn append(folder: &Path, name: &str, max: u64, line: &str) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    if fs::metadata(&path).is_ok_and(|found| found.len() > max) {
        fs::rename(&path, folder.join(format!("{name}.1")))?;
    }
    let mut options = File::options();
    let mut file = fs::open(path, options.create(true).append(true).mode(0o600))?;
    file.write_all(line.as_bytes())?;
    Ok(file)
}

/// Adds an entry durably. The caller adds one at a time. It begins a line too: the entry before may be torn.
pub(super) fn add(root: &Path, entry: &AuditEntry) -> io::Result<()> {
    let line = format!("\n{}\n", serde_json::to_string(entry)?);
    let file = append(&root.join(REPORTED), FILES[1], LOG_MAX, &line)?;
    file::flush_content(&file)
}

/// Returns all entries, the newest last. A line that cannot be read costs its own entry only.
pub(super) fn read(root: &Path) -> io::Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    for name in FILES {
        let text = match file::read(&root.join(REPORTED).join(name), READ_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let lines = text.split(|byte| *byte == b'\n');
        entries.extend(AuditEntry::read(lines.filter(|line| !line.is_empty())));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::audit::Author;
    use crate::http::Client;
    use std::fs;

    #[test]
    fn torn_line_costs_its_own_entry() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
        let entry = |object: &str| {
            let by = Author::new("write-token", Client::Local, "accept", object.to_owned());
            by.made(vec!["sessions/jp1/a.yaml".to_owned()])
        };
        let all = ["jp1/a", "jp1/b", "jp1/c"].map(entry);
        add(root.path(), &all[0]).unwrap();
        let path = root.path().join(REPORTED).join(FILES[1]);
        let torn = fs::read_to_string(&path).unwrap() + "{\"at\":\n" + &"x".repeat(5 << 20);
        fs::write(&path, torn + "\n{\"at\":").unwrap();
        for entry in &all[1..] {
            add(root.path(), entry).unwrap();
        }
        assert_eq!(read(root.path()).unwrap(), all);
    }
}
