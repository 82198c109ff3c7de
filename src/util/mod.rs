//! One of each mechanism: reading and writing files, running programs, waiting after failures.
//!
//! | file | holds |
//! |---|---|
//! | `file` | bounded reading of files that anyone may have written; regular files only, never waiting |
//! | `file/write` | atomic replacement and creation |
//! | `file/quarantine` | moves an invalid file out of the way under a free name |
//! | `file/stamp` | tells whether a file changed |
//! | `fs` | the functions of `std::fs`, which no other file calls |
//! | `exec` | runs a program with a closed environment, a deadline and bounded output |
//! | `group` | groups of the system |
//! | `backoff` | waits that grow after failures |
//! | `notices` | problems that are logged once while they last |
//! | `progress` | the line that says what a verb does, while it takes long |
//! | `schemas` | the files of `schemas/`, packed into the program |
//! | `shared` | texts that several hold, each in memory once |
//! | `sorted` | collects into maps and sets with little code |
//! | `task` | runs blocking work on a thread for it |
//! | `text` | lists and texts of bounded length |
//! | `version` | version and commit of this build |

pub(crate) mod backoff;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod group;
pub(crate) mod notices;
pub(crate) mod progress;
pub(crate) mod random;
pub(crate) mod schemas;
pub(crate) mod shared;
pub(crate) mod sorted;
pub(crate) mod task;
pub(crate) mod text;
pub(crate) mod version;
