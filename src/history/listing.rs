//! The files of a commit, and the index that git needs to compare them with the work tree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::CommitId;
use super::tree::Contents;

use crate::util::sorted::Sorted as _;

/// The mode of a regular file.
const REGULAR: u32 = 0o100_644;
/// The size of an entry of the index before its ID: nine numbers of a file's stamp, and the mode.
const STAMP: usize = 40;
/// The longest name whose length an entry states.
const LONGEST: usize = 0xFFF;

/// The files of one commit.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The commit; `None`: no commit yet, and so no file.
    pub(super) tip: Option<CommitId>,
    files: BTreeMap<PathBuf, Blob>,
}

/// A file of a commit: its mode, and the ID of its content.
#[derive(Debug)]
struct Blob {
    mode: u32,
    id: Box<[u8]>,
}

impl Listing {
    /// Parses the output of `git ls-tree -r -z`: `<mode> <type> <id>TAB<path>NUL`.
    pub(super) fn parse(tip: &CommitId, listed: &[u8]) -> Self {
        let entry = |line: &[u8]| {
            let tab = line.iter().position(|byte| *byte == b'\t')?;
            let (head, path) = (str::from_utf8(&line[..tab]).ok()?, &line[tab + 1..]);
            let mut words = head.split(' ');
            let mode = u32::from_str_radix(words.next()?, 8).ok()?;
            let id = from_hex(words.nth(1)?)?;
            Some((PathBuf::from(OsStr::from_bytes(path)), Blob { mode, id }))
        };
        Self {
            tip: Some(tip.clone()),
            files: listed
                .split(|byte| *byte == 0)
                .filter_map(entry)
                .sorted_map(),
        }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys()
    }

    /// Returns whether a file has another content in the commit; `None`: no file.
    pub(super) fn differs(&self, path: &Path, content: Option<&[u8]>) -> bool {
        match (self.files.get(path), content) {
            (Some(blob), Some(content)) => blob.id != self.blob_id(content),
            (None, None) => false,
            _ => true,
        }
    }

    /// Follows a commit with these changes.
    pub(super) fn follow(&mut self, changed: &Contents, tip: &CommitId) {
        self.tip = Some(tip.clone());
        for (path, content) in changed {
            match content {
                Some(content) => {
                    let id = self.blob_id(content);
                    let blob = Blob { mode: REGULAR, id };
                    self.files.insert(path.clone(), blob);
                }
                None => drop(self.files.remove(path)),
            }
        }
    }

    /// Returns the index (version 2) with the commit's files. It has no stamps of the files in the work tree, as after
    /// `git read-tree`: git reads a file to compare it.
    pub(super) fn index(&self) -> Vec<u8> {
        let mut files: Vec<_> = self.files.iter().collect();
        // Git sorts by bytes, a path by its components.
        files.sort_unstable_by_key(|(path, _)| path.as_os_str().as_bytes());
        let mut index = b"DIRC\0\0\0\x02".to_vec();
        index.extend(u32::try_from(files.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (path, blob) in files {
            entry(&mut index, path.as_os_str().as_bytes(), blob);
        }
        let end = self.hash(&[&index]);
        index.extend(end);
        index
    }

    fn blob_id(&self, content: &[u8]) -> Box<[u8]> {
        let head = format!("blob {}\0", content.len());
        self.hash(&[head.as_bytes(), content])
    }

    /// Hashes by the algorithm of the repository.
    fn hash(&self, parts: &[&[u8]]) -> Box<[u8]> {
        let is_long = self
            .tip
            .as_ref()
            .is_some_and(|tip| tip.as_str().len() == 64);
        match is_long {
            true => digest::<Sha256>(parts),
            false => digest::<Sha1>(parts),
        }
    }
}

fn digest<D: Digest>(parts: &[&[u8]]) -> Box<[u8]> {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().as_slice().into()
}

/// Appends an entry: the stamp, of which only the mode is known, the ID, the length of the path, and the path, filled
/// with one to eight NULs to a multiple of eight bytes.
fn entry(index: &mut Vec<u8>, path: &[u8], blob: &Blob) {
    let begin = index.len();
    let mode = STAMP - 16;
    index.resize(begin + STAMP, 0);
    index[begin + mode..begin + mode + 4].copy_from_slice(&blob.mode.to_be_bytes());
    index.extend(&blob.id);
    let length = u16::try_from(path.len().min(LONGEST)).unwrap_or_default();
    index.extend(length.to_be_bytes());
    index.extend(path);
    let length = index.len() - begin;
    index.resize(begin + (length + 8) / 8 * 8, 0);
}

fn from_hex(text: &str) -> Option<Box<[u8]>> {
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect()
}
