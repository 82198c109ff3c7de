//! Users without root, in the group of the read socket and out of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::lab::router::agent_program;
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// A group that Debian always has, and its number.
const GROUP: (&str, u32) = ("games", 60);

/// A router whose read socket belongs to the group, and whose files only root can read.
fn world() -> World {
    let mut world = World::converged(1);
    let socket = world.router.path("read.sock");
    world.router.edit_configuration(|config| {
        config["server"]["readSocket"] = json!(socket);
        config["server"]["readGroup"] = json!(GROUP.0);
    });
    world.router.stop_agent();
    for (name, mode) in [("", 0o755), ("config.yaml", 0o600), ("state", 0o700)] {
        let path = world.router.path(name);
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    // Where the user can reach it.
    std::fs::hard_link(agent_program(), world.router.path("moenet-agent")).unwrap();
    world.router.start_agent();
    wait_until("the read socket listens", 15, || match socket.exists() {
        true => Ok(()),
        false => Err(world.router.log()),
    });
    world.wait_established();
    world
}

/// Runs a verb as a user with these groups. Returns its output, standard error included, and its exit code.
fn verb(world: &World, groups: &str, words: &str) -> (String, i32) {
    let line = format!(
        "cd / && MOENET_READ_SOCKET={socket} setpriv --reuid=65534 --regid=65534 {groups} \
         {program} --config {config} {words} 2>&1; echo \"code $?\"",
        socket = world.router.path("read.sock").display(),
        program = world.router.path("moenet-agent").display(),
        config = world.router.path("config.yaml").display(),
    );
    let text = world.router.inside.shell(&line);
    let (text, code) = text.trim_end().rsplit_once("code ").unwrap();
    (text.to_owned(), code.parse().unwrap())
}

#[test]
fn members_of_the_group_read_and_change_nothing() {
    let world = world();
    let name = interface(1);
    let member = format!("--groups={}", GROUP.1);
    let read = |words: &str| verb(&world, &member, words);

    let (text, code) = read("get -o json");
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert!(names.contains(&&json!(name)), "{text}");
    for (words, shown) in [
        ("status", "sessions: 1 total"),
        (&format!("describe {name}"), "Established"),
        (&format!("get {name}"), "Established"),
        (&format!("wait {name} --timeout 5s"), ""),
        ("plan", "No changes."),
        ("events", &name),
        ("history -n 3", ""),
        ("explain bgpsession.tunnel.mtu", "MTU"),
    ] {
        let (text, code) = read(words);
        assert!(code == 0 && text.contains(shown), "{words}: {code} {text}");
    }
    // The same text and code as root's.
    let own = world
        .router
        .inside
        .shell(&world.router.command(&format!("get {name} -o yaml")));
    assert_eq!(read(&format!("get {name} -o yaml")).0.trim(), own.trim());
    let (text, code) = read("describe wg_unknown");
    assert!(
        code == 1 && text.contains("no object named wg_unknown"),
        "{text}"
    );

    for words in [
        "override node region=x --reason test",
        "apply --once",
        "maintenance start",
        "approve --all",
        "rollback node",
        "render node",
    ] {
        let (text, code) = read(words);
        assert!(
            code == 1 && text.contains("try again with sudo"),
            "{words}: {code} {text}"
        );
    }
    assert_eq!(
        world.router.api("", "/maintenance").1,
        r#"{"enabled":false,"since":null}"#
    );
}

/// What the client says of itself is not what the agent goes by.
#[test]
fn read_socket_refuses_what_a_member_sends_itself() {
    let world = world();
    let send = |request: &str| {
        let line = format!(
            "printf '%s\\n' '{request}' | python3 -c 'import socket,sys; \
             s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
             s.sendall(sys.stdin.buffer.read()); print(s.makefile().read())' {}",
            world.router.path("read.sock").display()
        );
        world.router.inside.shell(&line)
    };
    for arguments in [
        r#"["maintenance", "start"]"#,
        r#"["validate", "/etc/shadow"]"#,
        r#"["run"]"#,
        r#"["answer", "--", "get"]"#,
        r#"["render", "node"]"#,
        r#"["--config", "/etc/shadow", "apply", "--once"]"#,
    ] {
        let text = send(&format!(r#"{{"arguments": {arguments}, "colour": false}}"#));
        assert!(
            text.contains("may read only") && text.contains(r#"{"code":1}"#),
            "{text}"
        );
    }
    // Its own configuration is not used.
    let text =
        send(r#"{"arguments": ["--config", "/etc/shadow", "get", "-o", "name"], "colour": false}"#);
    assert!(
        text.contains(&interface(1)) && text.contains(r#"{"code":0}"#),
        "{text}"
    );
    assert!(send("no JSON").contains("not one line of JSON"));
}

#[test]
fn other_users_are_told_of_the_group() {
    let world = world();
    let (text, code) = verb(&world, "--clear-groups", "get");
    assert!(code == 1 && text.contains("usermod -aG"), "{text}");
    let (text, code) = verb(&world, "--clear-groups", "maintenance start");
    assert!(code == 1 && text.contains("try again with sudo"), "{text}");
    let mode = std::fs::metadata(world.router.path("read.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
}
