//! The identity of this machine, in the record: a copy of a state directory must not undo another router's adoption.

use sha2::{Digest as _, Sha256};

use crate::util::fs;

const FILE: &str = "/etc/machine-id";
/// machine-id(5): the id itself must not leave the machine, so applications hash it with a value of their own.
const APPLICATION: &str = "moenet-agent adoption";

/// Returns the hashed id of this machine; `None` on one without an id.
pub(super) fn identity() -> Option<String> {
    hashed(&fs::read_to_string(FILE).ok()?)
}

fn hashed(text: &str) -> Option<String> {
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| {
        let hash = Sha256::new().chain_update(APPLICATION).chain_update(id);
        let hash = hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_differ_and_their_ids_do_not_show() {
        let (one, other) = ("1".repeat(32), "2".repeat(32));
        let hash = hashed(&format!("{one}\n")).unwrap();
        assert_ne!(Some(&hash), hashed(&other).as_ref());
        assert!(!hash.contains(&one));
        for none in ["", "uninitialized\n"] {
            assert_eq!(hashed(none), None);
        }
    }
}
