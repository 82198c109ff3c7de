//! The note that says when a change takes effect.

use std::fs;

use super::{NAME, Router, serve};

const LATER: &str = "note: no agent answers; this takes effect when the agent starts\n";
const NOW: &str = "note: the agent runs, and begins to apply this at once\n";

fn router(listen: &str) -> Router {
    let router = Router::listening(listen);
    router.with_addresses();
    fs::remove_file(router.override_file()).unwrap();
    router
}

#[test]
fn change_without_an_agent_takes_effect_at_its_start() {
    let router = router("127.0.0.1:1");
    let set = ["override", NAME, "tunnel.mtu=1380", "--reason", "x"];
    let dry = router.call(&[&set[..], &["--dry-run"]].concat());
    assert!(!dry.err.contains("takes effect"), "{}", dry.err);
    assert!(router.call(&set).err.ends_with(LATER));
    let again = router.call(&set);
    assert!(!again.err.contains("takes effect"), "{}", again.err);
    let removed = router.call(&["override", NAME, "--remove", "-o", "json"]);
    assert!(removed.err.contains(r#"{"note":"no agent answers"#));
}

#[test]
fn running_agent_applies_at_once_what_is_not_paused() {
    let router = router(&serve(|_| ("200 OK", "{}")));
    let pause = router.call(&["pause", NAME, "--reason", "x"]);
    assert!(pause.err.ends_with(NOW), "{}", pause.err);
    let set = router.call(&["override", NAME, "tunnel.mtu=1380"]);
    let paused = format!(
        "at once, except sessions/{NAME}, which is paused (`moenet-agent resume sessions/{NAME}`)\n"
    );
    assert!(set.err.ends_with(&paused), "{}", set.err);
    let resume = router.call(&["resume", NAME]);
    assert!(resume.err.ends_with(NOW), "{}", resume.err);
}
