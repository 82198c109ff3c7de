//! Reads one file of unknown origin.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::document::DocumentError;
use crate::util::file::{self, Stamp};
use crate::util::fs;

/// The SHA-256 of a file's text.
pub type TextHash = [u8; 32];

/// The content of a file.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) hash: TextHash,
    pub(super) stamp: Stamp,
    pub(super) owner: u32,
}

pub(super) fn hash(text: &str) -> TextHash {
    Sha256::digest(text.as_bytes()).into()
}

/// An error about a file as a whole.
pub(super) fn error(path: &Path, message: impl Into<String>) -> DocumentError {
    DocumentError {
        file: Some(path.to_owned()),
        location: None,
        field: String::new(),
        message: message.into(),
        is_denied: false,
    }
}

/// The error of a file that cannot be read.
fn unreadable(path: &Path, cause: &io::Error) -> DocumentError {
    DocumentError {
        is_denied: cause.kind() == io::ErrorKind::PermissionDenied,
        ..error(path, format!("cannot be read: {cause}"))
    }
}

/// Returns whether a file has this text.
pub(super) fn has(path: &Path, expected: &str) -> bool {
    let found = text(path).ok().flatten();
    found.is_some_and(|found| found.text == expected)
}

/// Returns the metadata of a regular file; `None` if the path does not exist.
fn regular(path: &Path) -> Result<Option<Metadata>, DocumentError> {
    checked(path, fs::symlink_metadata(path))
}

/// As [`regular`], for what was found at a path.
pub(super) fn checked(
    path: &Path,
    found: io::Result<Metadata>,
) -> Result<Option<Metadata>, DocumentError> {
    let metadata = match found {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(unreadable(path, &cause)),
    };
    if metadata.is_symlink() {
        // The link's target changes without an event here, and the history would record the link.
        return Err(error(
            path,
            "is a symbolic link, which is never followed; put the file itself here",
        ));
    }
    if metadata.is_dir() {
        return Err(error(
            path,
            "is a directory where a document belongs; move it away",
        ));
    }
    if !metadata.is_file() {
        return Err(error(path, "is no regular file; move it away"));
    }
    if metadata.len() > file::DOCUMENT {
        let size = metadata.len();
        return Err(error(
            path,
            format!(
                "is {size} bytes long; no document is longer than {}",
                file::DOCUMENT
            ),
        ));
    }
    Ok(Some(metadata))
}

/// Reads a regular file as text; `None` if the path does not exist.
pub(super) fn text(path: &Path) -> Result<Option<Text>, DocumentError> {
    text_of(path, regular(path)?)
}

/// As [`text`], for a file whose metadata are known.
pub(super) fn text_of(
    path: &Path,
    mut found: Option<Metadata>,
) -> Result<Option<Text>, DocumentError> {
    // A file that is replaced between the check and the read is checked again.
    for _ in 0..8 {
        let Some(metadata) = found else {
            return Ok(None);
        };
        match read(path, metadata) {
            Ok((bytes, metadata)) => return Ok(Some(decoded(path, bytes, &metadata)?)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(unreadable(path, &cause)),
        }
        found = regular(path)?;
    }
    Err(error(
        path,
        "is replaced repeatedly; it is read once that ends",
    ))
}

/// Returns the bytes, and the metadata from before the read.
fn read(path: &Path, found: Metadata) -> io::Result<(Vec<u8>, Metadata)> {
    let (file, metadata) = file::open_as(path, found)?;
    let bytes = file::bytes((file, metadata.clone()), file::DOCUMENT)?;
    Ok((bytes, metadata))
}

fn decoded(path: &Path, bytes: Vec<u8>, metadata: &Metadata) -> Result<Text, DocumentError> {
    let text = utf8(path, bytes)?;
    let hash = hash(&text);
    Ok(Text {
        text,
        hash,
        stamp: Stamp::of(metadata),
        owner: metadata.uid(),
    })
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, DocumentError> {
    if bytes.is_empty() {
        return Err(error(
            path,
            "is empty (0 bytes): half-written, or emptied by a full disk",
        ));
    }
    if bytes.contains(&0) {
        return Err(error(path, "holds NUL bytes: half-written, or not text"));
    }
    String::from_utf8(bytes).map_err(|cause| {
        let at = cause.utf8_error().valid_up_to();
        error(path, format!("is not UTF-8: byte {at} is not text"))
    })
}
