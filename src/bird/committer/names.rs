//! Names and paths that the agent may use. Pure.

use std::path::{Component, Path, PathBuf};

use crate::observed::bird::tree::{GENERATION, MAIN, SESSIONS, TREE};
use crate::ports::{BaseError, FragmentError};

/// Validates the name of a fragment. It is a file name: it has no path parts, and no dot hides it from BIRD.
pub(super) fn fragment(name: &str) -> Result<(), FragmentError> {
    is_part(name)
        .then_some(())
        .ok_or_else(|| FragmentError::Name(name.chars().take(80).collect()))
}

/// Validates the path of a base file: `bird.conf`, or below `moenet/` but not among the sessions.
pub(super) fn base(path: &str) -> Result<(), BaseError> {
    let ours = path.starts_with(&format!("{TREE}/"))
        && !path.starts_with(&format!("{SESSIONS}/"))
        && path != GENERATION
        && path.ends_with(".conf")
        && path.split('/').all(is_part)
        && path.split('/').count() <= 4;
    (path == MAIN || ours)
        .then_some(())
        .ok_or_else(|| BaseError::Path(path.chars().take(80).collect()))
}

pub(super) fn is_part(part: &str) -> bool {
    (1..=69).contains(&part.len())
        && !part.starts_with(['.', '-'])
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Removes `.` and `..` parts, so that `./moenet/x` is recognised as the agent's.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_tree() {
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "-p",
            "a/b",
            "a\n",
            "a b",
            "é",
            &"a".repeat(70),
        ] {
            assert!(fragment(name).is_err(), "{name:?}");
        }
        for path in [
            "x.conf",
            "moenet/../x.conf",
            "/etc/x.conf",
            "moenet/sessions/a.conf",
            GENERATION,
            "moenet/x",
        ] {
            assert!(base(path).is_err(), "{path:?}");
        }
        for path in ["bird.conf", "moenet/main.conf", "moenet/filters/dn42.conf"] {
            assert!(base(path).is_ok(), "{path:?}");
        }
    }
}
