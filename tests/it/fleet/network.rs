//! A fleet described as a network.

use std::fs;
use std::path::Path;

use moenet_agent::fleet::validate;

const NETWORK: &str = "\
asn: 4242420998
prefixes: {ipv4: 172.23.105.176/28, ipv6: fd48:4da8:420::/48}
policy: {ebgpImportLimit: 9000}
";

const SESSION: &str = "\
uuid: abc-123
asn: 4242421080
status: 4
ipv6LinkLocal: fe80::2
credential: {publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}
";

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn network() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let routers = [
        ("network.yaml", NETWORK),
        (
            "routers/jp1.yaml",
            "{id: 1, address: jp1.example.net, token: one}\n",
        ),
        ("routers/hk1.yaml", "{id: 2, token: other}\n"),
        ("sessions/jp1/alice.yaml", SESSION),
    ];
    write(dir.path(), &routers);
    dir
}

fn found(dir: &Path) -> Vec<String> {
    let findings = validate(dir).unwrap();
    findings.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn valid_network_beside_a_folder_has_no_problem() {
    let dir = network();
    assert_eq!(found(dir.path()), Vec::<String>::new());
    let folder = [
        (
            "de1/router.yaml",
            "token: x\nnode: {id: 9, name: de1, asn: 4242420998}\n",
        ),
        ("de1/sessions.yaml", "sessions: []\n"),
        ("de1/mesh.yaml", "peers: []\n"),
        ("de1/bird-config.yaml", "policy: {}\n"),
        ("notes/README.md", "no router\n"),
    ];
    write(dir.path(), &folder);
    let findings = validate(dir.path()).unwrap();
    assert_eq!((findings.routers, findings.problems), (3, vec![]));
}

#[test]
fn each_error_of_a_network_has_its_place() {
    for (path, text, wanted) in [
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv4: x}\n",
            "network.yaml:2:18: prefixes.ipv4:",
        ),
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv6: 'fd00::/48'}\npolicy: {ebgpImportLimit: x}\n",
            "network.yaml:3:27: policy.ebgpImportLimit:",
        ),
        (
            "network.yaml",
            "asn: 1\nprefixes: {ipv6: 'fd00::/48'}\npolicy: {ebgpImportLimits: 1}\n",
            "network.yaml:3:28: policy.ebgpImportLimits: unknown field `ebgpImportLimits`, did you mean `ebgpImportLimit`?",
        ),
        (
            "routers/hk1.yaml",
            "id: 2\ntoken: x\npolicy: {asPathMaxLen: x}\n",
            "routers/hk1.yaml:3:24: policy.asPathMaxLen:",
        ),
        (
            "routers/hk1.yaml",
            "id: 1\ntoken: x\n",
            "routers/jp1.yaml:1:6: id: 1 is also that of hk1",
        ),
        ("routers/hk1.yaml", "id: [\n", "routers/hk1.yaml:"),
        (
            "sessions/jp1/bob.yaml",
            SESSION,
            "sessions/jp1/bob.yaml:1:7: uuid:",
        ),
        (
            "sessions/hk1/bob.yaml",
            SESSION,
            "sessions/jp1/alice.yaml:1:7: uuid: also the identity of sessions/hk1/bob.yaml",
        ),
        (
            "sessions/jp1/alice.yaml",
            "- x\n",
            "sessions/jp1/alice.yaml",
        ),
        (
            "sessions/jp1/alice.yaml",
            "uuid: a\nasn: 0\nstatus: 1\n",
            "sessions/jp1/alice.yaml:2:6: asn: invalid AS number 0",
        ),
        (
            "sessions/jp1/port.yaml",
            "uuid: p\nasn: 4242423457\nstatus: 1\nipv6LinkLocal: fe80::3\n\
            credential: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n",
            "listenPort: listen port 23457 is that of the tunnel to hk1",
        ),
        (
            "sessions/us1/alice.yaml",
            SESSION,
            "routers/us1.yaml does not exist",
        ),
    ] {
        let dir = network();
        write(dir.path(), &[(path, text)]);
        let found = found(dir.path());
        assert!(
            found.iter().any(|line| line.contains(wanted)),
            "{path} {text}: {found:#?}"
        );
    }
}

#[test]
fn token_in_the_wrong_place_is_not_printed() {
    let dir = network();
    let text = "id: 1\nregion: r\ntokenHashes: hunter2\n";
    write(dir.path(), &[("routers/jp1.yaml", text)]);
    let found = found(dir.path()).join("\n");
    assert!(found.contains("routers/jp1.yaml:3:"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn unreadable_part_of_a_network_is_an_error() {
    let dir = network();
    fs::remove_dir_all(dir.path().join("routers")).unwrap();
    fs::write(dir.path().join("routers"), "no folder").unwrap();
    let error = validate(dir.path()).unwrap_err().to_string();
    assert!(error.contains("read routers of the fleet"), "{error}");
    let dir = network();
    fs::create_dir(dir.path().join("routers/x.yaml")).unwrap();
    let error = validate(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("read routers/x.yaml of the fleet"),
        "{error}"
    );
}
