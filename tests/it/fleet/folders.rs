//! What `fleet validate` finds between routers with folders of their own.

use super::verbs::{Fleet, KEY};

const OTHER: &str = "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg=";

/// Two routers with a tunnel between them, the second one with a session.
fn two() -> Fleet {
    let fleet = Fleet(tempfile::tempdir().unwrap());
    for (name, id, peer, other, key) in [("a", 1, "b", 2, KEY), ("b", 2, "a", 1, OTHER)] {
        let node =
            format!("{{id: {id}, name: {name}, asn: 4242420998, loopbackIpv4: 172.23.105.{id}}}");
        fleet.write(
            &format!("{name}/router.yaml"),
            &format!("token: of-{name}\nnode: {node}\n"),
        );
        fleet.write(&format!("{name}/bird-config.yaml"), "policy: {}\n");
        let peer = format!(
            "peers:\n  - nodeId: {other}\n    name: {peer}\n    publicKey: {key}\n    loopbackIpv4: 172.23.105.{other}\n    \
             endpoint: {peer}.example.net:2345{id}\n    listenPort: 23456\n"
        );
        fleet.write(&format!("{name}/mesh.yaml"), &peer);
        let session = format!(
            "sessions:\n  - {{uuid: of-{name}, asn: 4242421080, status: 1, interface: wg_1, listenPort: 21080, \
             ipv6LinkLocal: 'fe80::1', credential: {KEY}}}\n"
        );
        fleet.write(&format!("{name}/sessions.yaml"), &session);
    }
    fleet.assert_valid();
    fleet
}

#[test]
fn routers_with_folders_are_compared_with_each_other() {
    for (file, old, new, wanted) in [
        (
            "b/router.yaml",
            "id: 2",
            "id: 1",
            "b/router.yaml:2:12: node.id: 1 is also that of a",
        ),
        (
            "b/router.yaml",
            "105.2",
            "105.1",
            "node.loopbackIpv4: 172.23.105.1 is also that of a",
        ),
        (
            "b/router.yaml",
            "of-b",
            "of-a",
            "b/router.yaml:1:8: token: a has the same one",
        ),
        (
            "b/router.yaml",
            "105.2",
            "105.9",
            "a/mesh.yaml:5:19: peers[b].loopbackIpv4: 172.23.105.2 here and 172.23.105.9",
        ),
        (
            "b/sessions.yaml",
            "of-b",
            "of-a",
            "sessions[wg_1].uuid: also the identity of a/sessions.yaml",
        ),
        (
            "b/sessions.yaml",
            "21080",
            "23456",
            "b/mesh.yaml:7:17: peers[a].listenPort: listen port 23456 is that of session of-b",
        ),
        (
            "b/mesh.yaml",
            "nodeId: 1",
            "nodeId: 3",
            "a/mesh.yaml:2:13: peers[b].nodeId: b/mesh.yaml has no peer 1",
        ),
        (
            "b/mesh.yaml",
            "nodeId: 1",
            "nodeId: 2",
            "peers[a].nodeId: the router's own number",
        ),
        (
            "b/mesh.yaml",
            OTHER,
            KEY,
            "publicKey: a/mesh.yaml gives it to node 2",
        ),
        (
            "b/mesh.yaml",
            "listenPort",
            "mtu: 1400\n    listenPort",
            "mtu: 1420 here and 1400 in b/mesh.yaml",
        ),
    ] {
        let fleet = two();
        let text = fleet.text(file);
        assert!(text.contains(old), "{text}");
        fleet.write(file, &text.replace(old, new));
        let (code, text) = fleet.call("validate");
        assert!(code == 1 && text.contains(wanted), "{wanted}\n{text}");
    }
    let fleet = two();
    for name in ["a", "b"] {
        let file = format!("{name}/mesh.yaml");
        let text = fleet.text(&file).replace("endpoint", "#endpoint");
        fleet.write(&file, &text);
    }
    let (_, text) = fleet.call("validate");
    assert!(text.contains("neither side calls"), "{text}");
}

#[test]
fn peer_of_another_control_plane_is_no_error() {
    let fleet = two();
    std::fs::remove_dir_all(fleet.path("b")).unwrap();
    fleet.assert_valid();
}
