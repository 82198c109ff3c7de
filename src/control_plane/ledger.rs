//! The list of pending reports beside their files, so that a start notices files that were removed while the agent was
//! stopped. It is in `.git`, which no tool that cleans the tree touches. Without it nothing is noticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::model::Uid;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::wire::{Modify, WireStatus};

/// Size limit of the list, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Appends one line to a file for each change.
#[derive(Debug)]
pub(super) struct Ledger(PathBuf);

impl Ledger {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns the sessions whose reports were pending, each with the number of its status.
    pub(super) fn read(&self) -> BTreeMap<String, String> {
        let text = file::read_text(&self.0, MAX_BYTES).unwrap_or_default();
        let mut pending = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("+"), Some(status), Some(uid)) => {
                    pending.insert(uid.to_owned(), status.to_owned());
                }
                (Some("-"), Some(_), Some(uid)) => drop(pending.remove(uid)),
                // A line that a crash cut short.
                _ => {}
            }
        }
        pending
    }

    /// Replaces the list, whatever is in its place.
    pub(super) fn set<'a>(&self, pending: impl Iterator<Item = &'a Modify>) {
        let lines = pending.map(|report| line('+', report.status, &report.uuid));
        let text: String = lines.collect();
        self.note(Writer::new(0o600).light().replace(&self.0, text.as_bytes()));
    }

    pub(super) fn add(&self, report: &Modify) {
        self.note(self.append(&line('+', report.status, &report.uuid)));
    }

    pub(super) fn remove(&self, uid: &Uid) {
        self.note(self.append(&line('-', WireStatus::Disabled, uid)));
    }

    /// A pipe without a reader is an error, and not a hang.
    fn append(&self, text: &str) -> io::Result<()> {
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let mut options = File::options();
        options
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed());
        fs::open(&self.0, &options)?.write_all(text.as_bytes())
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::debug!(file = %self.0.display(), %error, "pending reports not listed");
        }
    }
}

fn line(change: char, status: WireStatus, uid: &Uid) -> String {
    format!("{change} {} {uid}\n", status.number())
}
