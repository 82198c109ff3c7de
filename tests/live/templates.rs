//! An operator's templates, and what becomes of broken ones.

use crate::lab::cli::agent;
use crate::lab::router::Router;
use crate::lab::watch::session_ages;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use serde_json::json;

const DEFINES: &str = include_str!("../../templates/moenet/defines.conf");
const SESSION: &str = include_str!("../../templates/session.conf");

fn save(router: &Router, name: &str, text: &str) {
    std::fs::write(router.path("templates").join(name), text).unwrap();
}

/// A world whose operator has a template that defines one more number.
fn world(version: &str) -> World {
    let mut world = World::with_bird(version, 1);
    let templates = world.router.path("templates");
    std::fs::create_dir_all(templates.join("moenet")).unwrap();
    world
        .router
        .edit_configuration(|config| config["bird"]["templates"] = json!(templates));
    save(
        &world.router,
        "moenet/defines.conf",
        &format!("{DEFINES}define MOE_EXTRA = 1;\n"),
    );
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    wait_extra(&world, "1");
    world
}

#[track_caller]
fn wait_extra(world: &World, value: &str) {
    wait_until(
        &format!("MOE_EXTRA is {value} in the running BIRD"),
        40,
        || {
            let said = world
                .router
                .bird
                .try_ask(&world.router.inside, "eval MOE_EXTRA")?;
            if said.trim_end().ends_with(&format!("\n{value}")) {
                Ok(())
            } else {
                Err(said)
            }
        },
    );
}

/// BIRD's files, which a refused template must not touch.
fn files(world: &World) -> String {
    let folder = world.router.bird.folder.display().to_string();
    world.router.inside.shell(&format!(
        "find {folder}/moenet {folder}/bird.conf -type f | sort | xargs sha256sum"
    ))
}

fn refused_and_cured(version: &str) {
    let world = world(version);
    world.wait_condition("node", "TemplatesAccepted", "True", "InUse");
    let (ages, before) = (session_ages(&world.router), files(&world));
    let broken = [
        (
            "moenet/defines.conf",
            format!("{DEFINES}{{% if %}}\n"),
            "template moenet/defines.conf, line 26: ",
        ),
        (
            "moenet/defines.conf",
            format!("{DEFINES}# {{{{ router.asnn }}}}\n"),
            "template moenet/defines.conf, line 26: ",
        ),
        // It renders, and BIRD does not take it.
        (
            "moenet/defines.conf",
            format!("{DEFINES}define MOE_EXTRA = ;\n"),
            "moenet/defines.conf:27:20",
        ),
        (
            "session.conf",
            SESSION.replace("import table on;", "import tabel on;"),
            "moenet/sessions/wg_4242421001.conf:",
        ),
        (
            "moenet/filter.conf",
            String::new(),
            "did you mean `moenet/filters.conf`?",
        ),
    ];
    for (name, text, what) in broken {
        save(&world.router, name, &text);
        wait_until(&format!("{what} is told"), 40, || {
            contains(
                &world.wait_condition("node", "TemplatesAccepted", "False", "Refused"),
                what,
            )
        });
        assert_eq!(files(&world), before, "{what}");
        let (_, status) = world.router.api("", "/status");
        assert!(status.contains(&what.replace('"', "\\\"")), "{status}");
        match name {
            "moenet/defines.conf" => save(
                &world.router,
                name,
                &format!("{DEFINES}define MOE_EXTRA = 1;\n"),
            ),
            _ => std::fs::remove_file(world.router.path("templates").join(name)).unwrap(),
        }
        world.wait_condition("node", "TemplatesAccepted", "True", "InUse");
    }
    assert_eq!(files(&world), before);
    // While one is broken, everything else goes on: here the drain.
    save(&world.router, "session.conf", "{{ nonsense }}");
    world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    world.neighbours[0].wait_route(crate::lab::router::PREFIX4, "(65535,0)", 40);
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    std::fs::remove_file(world.router.path("templates/session.conf")).unwrap();
    // A good edit is in force without a restart of anything.
    save(
        &world.router,
        "moenet/defines.conf",
        &format!("{DEFINES}define MOE_EXTRA = 2;\n"),
    );
    wait_extra(&world, "2");
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn broken_template_is_rejected_with_line_bird_2_17() {
    refused_and_cured("2.17");
}

#[test]
fn broken_template_is_rejected_with_line_bird_3_1() {
    refused_and_cured("3.1");
}

/// Waits until the templates in use are kept for the next start.
fn wait_kept(world: &World) {
    wait_until("the last good templates are kept", 30, || {
        match world.state(".templates.json").exists() {
            true => Ok(()),
            false => Err("not yet".into()),
        }
    });
}

#[test]
fn restart_with_broken_template_uses_the_last_good_one() {
    let mut world = world("2.17");
    wait_kept(&world);
    world.router.kill_agent();
    let (ages, before) = (session_ages(&world.router), files(&world));
    save(&world.router, "moenet/defines.conf", "# fine\n{% if %}\n");
    world.router.start_agent();
    wait_until("the condition names file and line", 40, || {
        let said = world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
        contains(&said, "template moenet/defines.conf, line 2: ")
    });
    repaired(&world);
    world.wait_accepted(1);
    let drained = world.router.api("-X POST", "/maintenance/start");
    assert_eq!(drained.0, 200, "{drained:?}");
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    wait_until("BIRD's files are as before", 20, || match files(&world) {
        now if now == before => Ok(()),
        now => Err(now),
    });
    assert_eq!(session_ages(&world.router), ages);
    agent(&world.router, &["validate"])
        .ended(1)
        .says("template moenet/defines.conf, line 2: ");
}

/// The kernel's side of a session is repaired.
#[track_caller]
fn repaired(world: &World) {
    let set = format!("ip link set {} mtu 1300", interface(1));
    world.router.inside.shell(&set);
    world.wait_mtu(1, 1420);
}

#[test]
fn template_that_was_never_good_stops_no_tunnel() {
    let mut world = World::new(1);
    let templates = world.router.path("templates");
    std::fs::create_dir_all(templates.join("moenet")).unwrap();
    save(&world.router, "session.conf", "{% if %}");
    world
        .router
        .edit_configuration(|config| config["bird"]["templates"] = json!(templates));
    world.router.start_agent();
    world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
    wait_until("the tunnel is there", 40, || world.has_link(1));
    repaired(&world);
    save(&world.router, "session.conf", SESSION);
    world.wait_established();
}

/// A world whose sessions come from a template of the operator's that is the built-in one.
fn with_session_template(neighbours: u32) -> World {
    with_template(neighbours, SESSION)
}

fn with_template(neighbours: u32, text: &str) -> World {
    let mut world = World::new(neighbours);
    let templates = world.router.path("templates");
    std::fs::create_dir_all(templates.join("moenet")).unwrap();
    save(&world.router, "session.conf", text);
    world
        .router
        .edit_configuration(|config| config["bird"]["templates"] = json!(templates));
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    world
}

#[test]
fn emptied_template_keeps_every_session() {
    let mut world = with_session_template(2);
    let (ages, before) = (world.ages(), files(&world));
    let system = include_str!("../../templates/moenet/system.conf");
    let endless = format!(
        "{SESSION}{{% for a in range(10000) %}}{{% for b in range(10000) %}}# no end\n{{% endfor %}}{{% endfor %}}"
    );
    let hostile = [
        ("session.conf", String::new(), "does not define protocol"),
        (
            "session.conf",
            "# nothing but a remark\n".to_owned(),
            "does not define protocol",
        ),
        ("session.conf", endless, "endless loop"),
        ("moenet/system.conf", String::new(), "does not define"),
        (
            "moenet/main.conf",
            String::new(),
            "No protocol is specified",
        ),
        ("bird.conf", String::new(), "bird.conf"),
    ];
    for (name, text, why) in hostile {
        save(&world.router, name, &text);
        wait_until(&format!("{name}: {why}"), 60, || {
            let said = world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
            contains(&said, why)
        });
        // Several backoffs.
        std::thread::sleep(std::time::Duration::from_secs(8));
        assert_eq!(world.ages(), ages, "{name}: a neighbour saw a reset");
        assert_eq!(files(&world), before, "{name}");
        match name {
            "session.conf" => save(&world.router, name, SESSION),
            "moenet/system.conf" => save(&world.router, name, system),
            _ => std::fs::remove_file(world.router.path("templates").join(name)).unwrap(),
        }
        world.wait_condition("node", "TemplatesAccepted", "True", "InUse");
    }
    // The last good templates outlive a restart.
    wait_kept(&world);
    world.router.kill_agent();
    save(&world.router, "session.conf", "");
    world.router.start_agent();
    wait_until("the condition says why", 60, || {
        let said = world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
        contains(&said, "does not define protocol")
    });
    repaired(&world);
    world.wait_accepted(1);
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(files(&world), before, "after a restart");
    assert_eq!(
        world.ages(),
        ages,
        "a neighbour saw a reset after a restart"
    );
    save(&world.router, "session.conf", SESSION);
    world.wait_condition("node", "TemplatesAccepted", "True", "InUse");
    assert_eq!(world.ages(), ages, "a neighbour saw a reset");
}

#[test]
fn tunnel_waits_for_the_text_of_its_session() {
    let unfit = "{% if session.description == \"unfit\" %}{{ nothing.at_all }}{% endif %}\n";
    let mut world = with_template(1, &format!("{SESSION}{unfit}"));
    let (ages, before) = (world.ages(), files(&world));
    let mut sessions = world.sessions();
    sessions[0]["description"] = "unfit".into();
    sessions[0]["mtu"] = 1380.into();
    world.control_plane.sessions(&sessions);
    let waits = |world: &World| {
        wait_until("the status names the template", 40, || {
            contains(&world.session_status(1).to_string(), "session.conf")
        });
        world.wait_polls("sessions", 3);
        let link = world
            .router
            .inside
            .shell(&format!("ip link show {}", interface(1)));
        contains(&link, "mtu 1420 ").unwrap();
        assert_eq!(files(world), before);
        assert_eq!(world.ages(), ages, "a session was reset");
    };
    waits(&world);
    world.router.kill_agent();
    world.router.start_agent();
    waits(&world);

    sessions[0]["description"] = "fit".into();
    world.control_plane.sessions(&sessions);
    world.wait_mtu(1, 1380);
    world.wait_accepted(1);
    let file = world.router.path("bird/moenet/sessions/wg_4242421001.conf");
    contains(&std::fs::read_to_string(file).unwrap(), "\"fit\"").unwrap();
    assert_eq!(world.ages(), ages, "a session was reset");
}
