//! The web page of a running agent, as headless Chromium shows it.

use std::fs;
use std::path::Path;

use crate::lab::router::Router;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};

/// What Chromium makes of a page, with options of its own.
fn browse(router: &Router, options: &str, path: &str) -> String {
    let profile = router.path("chromium");
    let command = format!(
        "timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
         --user-data-dir={} --window-size=1400,600 {options} 'http://127.0.0.1:24368{path}' 2>/dev/null",
        profile.display()
    );
    router
        .inside
        .try_shell(&command)
        .expect("chromium fails; tests/deps.sh tests installs it")
}

/// The page as a tree, after all scripts have run.
fn dom(router: &Router, path: &str) -> String {
    browse(router, "--dump-dom", path)
}

/// Whether a page has all of these texts.
fn has(page: &str, wanted: &[&str]) -> Result<(), String> {
    wanted.iter().try_for_each(|text| contains(page, text))
}

fn screenshot(router: &Router, options: &str, name: &str) -> Vec<u8> {
    let file = router.path(name);
    let options = format!("--screenshot={} {options}", file.display());
    browse(router, &options, "/");
    fs::read(file).expect("chromium wrote no picture")
}

#[test]
fn page_shows_sessions_with_and_without_scripts() {
    let world = World::converged(2);
    let router = &world.router;
    let name = interface(1);
    // What the server sends is the whole page: scripts only load it again.
    let (status, plain) = router.api("", "/");
    assert_eq!(status, 200);
    for page in [plain, dom(router, "/")] {
        for text in [name.as_str(), "Established", "4242421001", "</table>"] {
            assert!(page.contains(text), "no {text} in {page}");
        }
    }
    let [light, dark] = ["1", "0"].map(|scheme| {
        let options = format!("--blink-settings=preferredColorScheme={scheme}");
        screenshot(router, &options, &format!("{scheme}.png"))
    });
    assert!(light.starts_with(b"\x89PNG"));
    assert!(light != dark, "light and dark look the same");
    if std::env::var_os("UPDATE_BOOK").is_some() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page.png");
        fs::write(kept, &light).unwrap();
    }
}

#[test]
fn page_of_an_object_shows_override_plan_and_history() {
    let world = World::converged(1);
    let router = &world.router;
    let name = interface(1);
    let verb = format!("override {name} tunnel.mtu=1380 --reason 'path MTU'");
    router.inside.shell(&router.command(&verb));
    wait_until("the page shows the override and its commit", 30, || {
        let page = dom(router, &format!("/page/sessions/{name}"));
        let wanted = [
            "spec.tunnel.mtu",
            "<td>1380</td><td>override</td><td>1420</td>",
            "Override: path MTU",
            "control plane",
            "Nothing to do: when last observed, kernel and BIRD were as wanted.",
            "BgpEstablished",
            "Edit overrides/sessions/",
        ];
        has(&page, &wanted)
    });
}

#[test]
fn maintenance_and_a_dead_neighbour_show_on_the_page() {
    let world = World::converged(1);
    let router = &world.router;
    router.inside.shell(&router.command("maintenance start"));
    world.neighbours[0].inside.shell("ip link set u0 down");
    router.bird.ask(&router.inside, "restart all");
    wait_until("banner, reason and next action", 60, || {
        let page = dom(router, "/");
        let wanted = ["This router is drained", "class=\"bad\"", "→ "];
        has(&page, &wanted)
    });
}

#[test]
fn events_tell_of_a_session_that_goes_down() {
    let world = World::converged(1);
    let router = &world.router;
    let log = router.path("events.log");
    let arguments = ["-sN", "http://127.0.0.1:24368/events"];
    let _curl = router.inside.spawn(&log, Path::new("curl"), &arguments);
    let told = |is: &dyn Fn(&str) -> bool| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        match is(&log) {
            true => Ok(()),
            false => Err(log),
        }
    };
    // The neighbour may know it before the agent does.
    let is_up = |log: &str| log.contains("Established");
    wait_until("an event says that the session is up", 30, || told(&is_up));
    world.neighbours[0].inside.shell("ip link set u0 down");
    router.bird.ask(&router.inside, "restart all");
    let object = format!(r#"{{"object":"sessions/{}","phase":"#, interface(1));
    let is_down = |log: &str| {
        let last = log.rsplit_once(&object);
        last.is_some_and(|(_, phase)| !phase.starts_with(r#""Established"#))
    };
    wait_until("an event says that the session is down", 60, || {
        told(&is_down)
    });
}
