//! What `fleet plan` says of a change.

use std::process::Command;

use serde_json::Value;

use super::verbs::{Fleet, KEY, folder, network};

/// Returns the fleet as the last commit of a Git repository.
fn committed(fleet: &Fleet) {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b.c"]);
        let done = command
            .args(arguments)
            .current_dir(fleet.path("."))
            .output();
        assert!(done.unwrap().status.success(), "git {arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "fleet"]);
}

fn plan(fleet: &Fleet) -> (i32, String) {
    fleet.call("plan")
}

#[test]
fn same_files_change_nothing() {
    for fleet in [network(), folder()] {
        committed(&fleet);
        assert_eq!(plan(&fleet), (0, "No changes.\n".to_owned()));
    }
}

#[test]
fn new_router_adds_a_tunnel_on_each_other() {
    let fleet = network();
    committed(&fleet);
    fleet.done("add router de1 --address de1.example.net");
    let (code, text) = plan(&fleet);
    assert_eq!(code, 2);
    for line in [
        "+ de1  add the router",
        "+ de1/mesh/jp1  add",
        "+ jp1/mesh/de1  add",
        "+ hk1/mesh/de1  add",
        "+ jp1/ibgp/de1  add",
    ] {
        assert!(text.contains(line), "no {line}: {text}");
    }
    assert!(!text.contains("jp1/mesh/hk1"), "{text}");
    assert!(
        text.lines()
            .last()
            .unwrap()
            .contains(" 0 to remove, 0 BGP resets"),
        "{text}"
    );
}

#[test]
fn changed_neighbour_resets_its_session_and_mtu_does_not() {
    let fleet = network();
    fleet.done("accept jp1/alice");
    committed(&fleet);
    let file = "sessions/jp1/alice.yaml";
    let before = fleet.text(file);
    fleet.write(
        file,
        &before
            .replace("#mtu: 1420", "mtu: 1400")
            .replace("\n#mtu: null", "\nmtu: 1400"),
    );
    let (code, text) = plan(&fleet);
    assert!(code == 2 && text.contains("want 1400"), "{text}");
    assert!(
        text.ends_with("0 to add, 1 to change, 0 to remove, 0 BGP resets\n"),
        "{text}"
    );
    fleet.write(file, &before.replace("fe80::1080", "fe80::1081"));
    let (_, text) = plan(&fleet);
    assert!(
        text.ends_with("0 to add, 1 to change, 0 to remove, 1 BGP reset\n"),
        "{text}"
    );
}

#[test]
fn plan_without_the_sessions_of_a_router_is_refused() {
    let fleet = network();
    fleet.done("accept jp1/alice");
    committed(&fleet);
    let alice = fleet.path("sessions/jp1/alice.yaml");
    std::fs::remove_file(&alice).unwrap();
    let (code, text) = plan(&fleet);
    assert!(code == 1 && text.contains("allowNoSessions"), "{text}");
    let router = fleet.text("routers/jp1.yaml");
    fleet.write(
        "routers/jp1.yaml",
        &format!("{router}\nallowNoSessions: true\n"),
    );
    let (code, text) = plan(&fleet);
    let removed = "- jp1/sessions/wg_4242421080  remove";
    assert!(code == 2 && text.contains(removed), "{text}");
}

#[test]
fn disabled_session_and_missing_router_are_removals() {
    let fleet = network();
    fleet.done("accept jp1/alice");
    committed(&fleet);
    fleet.done("disable jp1/alice");
    let (_, text) = plan(&fleet);
    assert!(
        text.starts_with("- jp1/sessions/wg_4242421080  remove\n"),
        "{text}"
    );
    std::fs::remove_file(fleet.path("routers/hk1.yaml")).unwrap();
    let (_, text) = plan(&fleet);
    for line in [
        "- hk1  remove the router",
        "- jp1/mesh/hk1  remove",
        "- jp1/ibgp/hk1  remove",
    ] {
        assert!(text.contains(line), "no {line}: {text}");
    }
}

#[test]
fn policy_of_the_network_changes_each_router() {
    let fleet = network();
    committed(&fleet);
    let text = fleet.text("network.yaml");
    fleet.write(
        "network.yaml",
        &format!("{text}\npolicy: {{ebgpImportLimit: 777}}\n"),
    );
    let (code, text) = fleet.call("-o json plan");
    let objects: Vec<Value> = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = objects
        .iter()
        .map(|it| it["object"].as_str().unwrap())
        .collect();
    assert_eq!((code, names), (2, vec!["hk1/policy", "jp1/policy"]));
    assert_eq!(objects[0]["steps"][0]["want"], "777");
}

#[test]
fn secrets_are_compared_and_not_shown() {
    let fleet = folder();
    committed(&fleet);
    let text = fleet.text("de1/sessions.yaml");
    let with_key = format!("credential: {{publicKey: {KEY}, presharedKey: {KEY}}}");
    fleet.write(
        "de1/sessions.yaml",
        &text.replace(
            &format!("'fe80::2', credential: {KEY}"),
            &format!("'fe80::2', {with_key}"),
        ),
    );
    let (code, text) = plan(&fleet);
    assert!(code == 2 && !text.contains(KEY), "{text}");
}

#[test]
fn invalid_files_and_unknown_commits_have_no_plan() {
    let fleet = network();
    let (code, text) = plan(&fleet);
    assert!(code == 1 && text.contains("not a git repository"), "{text}");
    committed(&fleet);
    let (code, text) = fleet.call("plan --against --upload-pack=x");
    assert!(code != 0 && code != 2, "{text}");
    let (code, text) = fleet.call("plan --against gone");
    assert!(code == 1 && text.contains("no commit gone"), "{text}");
    fleet.write("routers/hk1.yaml", "{id: 2, tokn: x}\n");
    let (code, text) = plan(&fleet);
    assert!(code == 1 && text.contains("routers/hk1.yaml:1:"), "{text}");
}

#[test]
fn repository_of_another_user_is_not_read() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fleet = network();
    committed(&fleet);
    for path in [".", ".git"] {
        std::os::unix::fs::chown(fleet.path(path), Some(12345), None).unwrap();
    }
    let (code, text) = plan(&fleet);
    assert!(code == 1 && text.contains("--add safe.directory"), "{text}");
}

#[test]
fn other_name_of_a_mesh_link_resets_its_sessions() {
    let fleet = network();
    committed(&fleet);
    let file = "routers/jp1.yaml";
    let before = fleet.text(file);
    let named = |name: &str| format!("{before}\nmesh: {{links: {{hk1: {{interface: {name}}}}}}}\n");
    fleet.write(file, &named("other"));
    let (code, text) = plan(&fleet);
    assert!(
        code == 2 && text.ends_with("0 to remove, 1 BGP reset\n"),
        "{text}"
    );
    fleet.write(file, &named("mesh_hk1"));
    let (_, text) = plan(&fleet);
    assert_eq!(text, "No changes.\n", "the name that was derived before");
}

#[test]
fn directory_is_compared_with_a_directory() {
    let (old, new) = (network(), network());
    new.write("routers/hk1.yaml", "{id: 2, token: other, bandwidth: 1G}\n");
    let against = old.path("").display().to_string();
    let (code, text) = new.call(&format!("plan --against {against}"));
    assert!(code == 2 && text.contains("~ hk1/policy"), "{text}");
}

#[test]
fn change_of_an_invalid_fleet_has_no_plan() {
    let fleet = network();
    let good = fleet.text("routers/hk1.yaml");
    fleet.write("routers/hk1.yaml", "{id: 2, tokn: x}\n");
    committed(&fleet);
    fleet.write("routers/hk1.yaml", &good);
    let (code, text) = plan(&fleet);
    assert!(
        code == 1 && text.contains("before the change are not valid"),
        "{text}"
    );
}

#[test]
fn sessions_of_one_name_reset_on_each_router() {
    let fleet = network();
    let session = |address: &str| {
        format!(
            "uuid: s-ROUTER\nasn: 4242421080\nstatus: 4\nipv6LinkLocal: {address}\nendpoint: peer.example.net:51820\n\
             credential: {{publicKey: {KEY}}}\n"
        )
    };
    let write = |address: &str| {
        for router in ["jp1", "hk1"] {
            let text = session(address).replace("ROUTER", router);
            fleet.write(&format!("sessions/{router}/carol.yaml"), &text);
        }
    };
    write("fe80::1080");
    committed(&fleet);
    write("fe80::1081");
    let (_, text) = plan(&fleet);
    assert!(text.ends_with("0 to remove, 2 BGP resets\n"), "{text}");
}
