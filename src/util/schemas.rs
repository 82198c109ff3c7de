//! The files of `schemas/`, which tests write from the types. The build script packs them into the program, which holds
//! no code that generates them.

use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::Value;

// `PACKED`: each file by its name.
include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

/// Returns whether there is a file of this name.
pub(crate) fn is_known(name: &str) -> bool {
    packed(name).is_some()
}

/// Returns the text of `schemas/<name>.json`.
pub(crate) fn text(name: &str) -> Option<String> {
    let mut text = String::new();
    let read = GzDecoder::new(packed(name)?).read_to_string(&mut text);
    read.ok().map(|_| text)
}

/// Returns the value of `schemas/<name>.json`; null without such a file.
pub(crate) fn value(name: &str) -> Value {
    let value = text(name).and_then(|text| serde_json::from_str(&text).ok());
    value.unwrap_or_default()
}

fn packed(name: &str) -> Option<&'static [u8]> {
    let found = PACKED.iter().find(|(known, _)| *known == name);
    found.map(|(_, packed)| *packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packed_file_has_its_text() {
        for (name, _) in PACKED {
            let path = format!("{}/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let file = std::fs::read_to_string(path).unwrap();
            assert_eq!(text(name).unwrap(), file, "{name}");
            assert!(value(name).is_object(), "{name}");
        }
        assert!(!is_known("Session") && value("Session").is_null());
    }
}
