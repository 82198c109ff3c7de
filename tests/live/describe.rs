//! What the tests of `describe` share: faults made for real, and the chain that is told of each.

use crate::lab::neighbour::Neighbour;
use crate::lab::router::agent_program;
use crate::lab::wait_until;
use crate::lab::world::{World, interface, session};
use serde_json::Value;

/// What `describe` says of an object as JSON; `before` stands in front of the program.
pub(crate) fn described_by(world: &World, before: &str, object: &str) -> Result<Value, String> {
    let config = world.router.path("config.yaml");
    let line = format!(
        "{before} {} --config {} describe {object} -o json",
        agent_program().display(),
        config.display()
    );
    let text = world.router.inside.try_shell(&line)?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// The object of the session with a neighbour.
pub(crate) fn object(number: u32) -> String {
    format!("sessions/{}", interface(number))
}

/// Returns the message of a cause, and its next action.
pub(crate) fn text(cause: &Value) -> String {
    let part = |name: &str| cause[name].as_str().unwrap_or_default();
    format!("{} → {}", part("message"), part("nextAction"))
}

/// Waits until the chain has these reasons in this order, each with these words in its message or next action.
#[track_caller]
pub(crate) fn expect(world: &World, object: &str, up: bool, chain: &[(&str, &str)]) {
    expect_by(world, "", object, up, chain);
}

#[track_caller]
pub(crate) fn expect_by(
    world: &World,
    before: &str,
    object: &str,
    up: bool,
    chain: &[(&str, &str)],
) {
    wait_until(
        &format!("describe tells of {object}: {chain:?}"),
        60,
        || {
            let described = described_by(world, before, object)?;
            let why = described["why"].as_array().ok_or("no why")?;
            let told = |(cause, (reason, words)): (&Value, &(&str, &str))| {
                cause["reason"] == *reason && text(cause).contains(words)
            };
            let good = described["up"] == up
                && why.len() == chain.len()
                && why.iter().zip(chain).all(told);
            if good {
                Ok(())
            } else {
                Err(format!("up: {}, {}", described["up"], described["why"]))
            }
        },
    );
}

/// Waits until the session is up and nothing needs an eye, in JSON and in words.
#[track_caller]
pub(crate) fn expect_up(world: &World, number: u32) {
    expect(world, &object(number), true, &[]);
    let config = world.router.path("config.yaml");
    let line = format!(
        "{} --config {} describe {}",
        agent_program().display(),
        config.display(),
        object(number)
    );
    let text = world.router.inside.shell(&line);
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("It is up for ") && last.contains(" routes in, "),
        "{text}"
    );
}

/// The sessions of all neighbours, with one of them changed.
pub(crate) fn with(world: &World, number: u32, edit: impl FnOnce(&mut Value)) -> Vec<Value> {
    let mut sessions = world.sessions();
    edit(&mut sessions[number as usize - 1]);
    sessions
}

/// Saves an override of the session with a neighbour, as an operator does.
pub(crate) fn save_override(world: &World, number: u32, spec: &str) {
    let text = format!(
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {}}}\nspec: {{reason: a test, {spec}}}\n",
        interface(number)
    );
    std::fs::write(override_file(world, number), text).unwrap();
}

pub(crate) fn delete_override(world: &World, number: u32) {
    std::fs::remove_file(override_file(world, number)).unwrap();
}

fn override_file(world: &World, number: u32) -> std::path::PathBuf {
    world
        .router
        .path("state")
        .join(format!("overrides/{}.yaml", object(number)))
}

/// Changes the agent's configuration file; it is read at the next start.
pub(crate) fn configure(world: &World, edit: impl FnOnce(&mut Value)) {
    let path = world.router.path("config.yaml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

/// A document of the operator's own for a neighbour that nobody is.
pub(crate) fn own_document(
    name: &str,
    interface: &str,
    port: u16,
    neighbour: &Neighbour,
) -> String {
    let key = session(1, neighbour)["credential"]["publicKey"]
        .as_str()
        .unwrap()
        .to_owned();
    format!(
        "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: {name}}}\nspec:\n  asn: 4242429999\n  \
         tunnel: {{interface: {interface}, listenPort: {port}, publicKey: {key}}}\n  address: {{peerLinkLocal: \"fe80::7\"}}\n"
    )
}
