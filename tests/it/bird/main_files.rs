//! The main files of distributions, which may be taken over, and hand-made ones, which may not.

use std::path::{Path, PathBuf};

use moenet_agent::observed::bird::main_file::beyond_distribution;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

#[test]
fn main_files_of_every_supported_package_may_be_taken_over() {
    let folder = tests().join("fixtures/bird-conf");
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 5, "2.0.12, 2.17, 2.20, 3.1 and 3.4");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let beyond = beyond_distribution(&text);
        assert!(beyond.is_empty(), "{}: {beyond:?}", file.display());
        // The operator enabled an example: the file is no longer the distribution's.
        let enabled = text.replace(
            "protocol device {",
            "protocol bgp uplink { local as 1; }\nprotocol device {",
        );
        assert_eq!(beyond_distribution(&enabled), ["protocol bgp uplink"]);
    }
}

#[test]
fn hand_made_main_files_may_not_be_taken_over() {
    for case in ["hand-made-bird-conf", "include-into-own-main"] {
        let file = tests().join("cases").join(case).join("bird.conf");
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!beyond_distribution(&text).is_empty(), "{case}");
    }
}
