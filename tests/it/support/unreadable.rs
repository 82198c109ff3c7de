//! Files that cannot be read as text.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes such a file.
type Spoil = fn(&Path);

/// Each kind, with the words that name it.
pub(crate) const UNREADABLE: [(Spoil, &str); 3] = [
    (
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "is a pipe",
    ),
    (|path| fs::create_dir(path).unwrap(), "is a directory"),
    (
        |path| fs::File::create(path).unwrap().set_len(3 << 30).unwrap(),
        "bytes long",
    ),
];
