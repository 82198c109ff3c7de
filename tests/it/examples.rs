//! Every file in `examples/` is what it says it is. The documents in `examples/documents` and `state/` are
//! held to their schemas in `tests/schemas.rs`; here are the demo's configuration and its fleet.

use std::path::{Path, PathBuf};

use moenet_agent::document::parse_value;
use moenet_agent::{config, wire::Dialect};
use serde_json::Value;

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn example(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(path);
    let text = std::fs::read_to_string(&file).unwrap();
    // What the demo puts in place of its placeholders.
    text.replace("FOLDER", "/tmp/demo")
        .replace("LOOPBACK", "dummy0")
        .replace("NEIGHBOUR_KEY", KEY)
}

fn body(path: &str) -> Vec<u8> {
    let value: Value = parse_value(&example(path)).unwrap();
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn the_demos_configuration_is_one() {
    let config = config::parse(&example("demo/config.yaml")).unwrap();
    assert_eq!(config.node.name, "jp1");
}

#[test]
fn the_demos_fleet_is_what_a_control_plane_serves() {
    let dialect = Dialect::Reference;
    let sessions = dialect
        .decode_sessions(&body("demo/fleet/jp1/sessions.yaml"))
        .unwrap();
    assert_eq!(
        (
            sessions.items.len(),
            sessions.rejected.len(),
            sessions.complete
        ),
        (1, 0, true)
    );
    assert!(
        dialect
            .decode_mesh(&body("demo/fleet/jp1/mesh.yaml"))
            .unwrap()
            .rejected
            .is_empty()
    );
    let policy = dialect
        .decode_policy(&body("demo/fleet/jp1/bird-config.yaml"))
        .unwrap();
    assert!(policy.spec.prefixes.ipv4.is_some() && policy.spec.prefixes.ipv6.is_some());
    let node = dialect
        .decode_config(&body("demo/fleet/jp1/router.yaml"))
        .unwrap();
    assert_eq!(node.name, "jp1");
}

/// A file that nobody looks at is a file that rots.
#[test]
fn no_example_is_left_out() {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found)
            } else {
                found.push(path)
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let known = ["demo.sh", "demo/config.yaml", "demo/neighbour.conf"];
    for path in found {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let judged = name.starts_with("documents/") || name.starts_with("demo/fleet/jp1/");
        assert!(
            judged || known.contains(&name.as_str()),
            "no test looks at examples/{name}"
        );
    }
}
