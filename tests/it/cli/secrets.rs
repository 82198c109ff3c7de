//! Secrets that an operator pastes into the wrong place: no verb shows them in any format.

use std::fs;

use super::{NAME, Router};

const KEY: &str = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";
const PASSWORD: &str = "hunter2hunter2";

const OVERRIDE: &str =
    "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: wg_4242421080}\n";

/// Verbs that read the state directory, or fail in words of their own.
const VERBS: [&[&str]; 19] = [
    &["get"],
    &["get", "sessions", NAME],
    &["get", "overrides"],
    &["describe", NAME],
    &["describe", "node"],
    &["describe", "policy"],
    &["diff", NAME],
    &["diff", "policy"],
    &["plan"],
    &["plan", "--diff"],
    &["validate"],
    &["render", NAME],
    &["history"],
    &["history", NAME],
    &["rollback", NAME],
    &["approve", "--list"],
    &["maintenance"],
    &["status"],
    &["sync"],
];

fn router() -> Router {
    let router = Router::new();
    // No lookup of names, which takes its time where there is no network.
    for file in [format!("sessions/{NAME}.yaml"), "mesh/hk1.yaml".into()] {
        let path = router.state(&file);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("example.com", "203.0.113.9");
        fs::write(path, text.replace("hk.moenet.work", "203.0.113.10")).unwrap();
    }
    let file = format!("secrets/{NAME}.password");
    fs::create_dir_all(router.state("secrets")).unwrap();
    fs::write(router.state(&file), PASSWORD).unwrap();
    let session = router.state(&format!("sessions/{NAME}.yaml"));
    let text = fs::read_to_string(&session).unwrap();
    let text = text.replace("  bgp:\n", &format!("  bgp:\n    passwordFile: {file}\n"));
    fs::write(&session, text).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.git(&["add", "sessions"]);
    router.git(&[
        "commit",
        "-qm",
        &format!("Note that the key is {KEY} and the password {PASSWORD}"),
    ]);
    router
}

/// Puts a text into a session's document, or replaces its override.
type Paste = (&'static str, fn(&str) -> String);

fn override_(spec: &str) -> String {
    format!("{OVERRIDE}spec: {spec}\n")
}

const OVERRIDES: [Paste; 9] = [
    ("reason", |secret| {
        override_(&format!(
            "{{reason: \"psk is {secret}\", set: {{tunnel: {{mtu: 1380}}}}}}"
        ))
    }),
    ("comment", |secret| {
        format!(
            "# {secret}\n{}",
            override_("{reason: x, set: {tunnel: {mtu: 1380}}}")
        )
    }),
    ("presharedKey", |secret| {
        override_(&format!(
            "{{reason: x, set: {{tunnel: {{presharedKey: \"{secret}\"}}}}}}"
        ))
    }),
    ("credential", |secret| {
        override_(&format!(
            "{{reason: x, set: {{credential: {{presharedKey: \"{secret}\"}}}}}}"
        ))
    }),
    ("password", |secret| {
        override_(&format!(
            "{{reason: x, set: {{bgp: {{password: \"{secret}\"}}}}}}"
        ))
    }),
    ("passwordFile", |secret| {
        override_(&format!(
            "{{reason: x, set: {{bgp: {{passwordFile: \"{secret}\"}}}}}}"
        ))
    }),
    ("description", |secret| {
        override_(&format!(
            "{{reason: x, set: {{description: \"{secret}\"}}}}"
        ))
    }),
    ("number", |secret| {
        override_(&format!(
            "{{reason: x, set: {{tunnel: {{mtu: \"{secret}\"}}}}}}"
        ))
    }),
    ("paused", |secret| {
        override_(&format!("{{reason: \"{secret}\", paused: true}}"))
    }),
];

#[track_caller]
fn assert_hidden(router: &Router, place: &str) {
    for verb in VERBS {
        for format in ["table", "json", "yaml"] {
            let arguments = [verb, &["-o", format]].concat();
            let answer = router.call(&arguments);
            let said = format!("{}{}", answer.out, answer.err);
            // A part of a key is a leak too.
            for secret in [&KEY[..20], PASSWORD] {
                assert!(
                    !said.contains(secret),
                    "{arguments:?} shows what is pasted into {place}:\n{said}"
                );
            }
        }
    }
}

#[test]
fn secret_in_an_override_is_never_shown() {
    let router = router();
    let file = router.state(&format!("overrides/sessions/{NAME}.yaml"));
    for (place, paste) in OVERRIDES {
        // Both at once, so that one round of all verbs is enough.
        fs::write(&file, paste(&format!("{KEY} {PASSWORD}"))).unwrap();
        assert_hidden(&router, place);
    }
    let policy = override_(&format!("{{reason: \"{KEY} {PASSWORD}\", set: {{}}}}"));
    fs::write(
        router.state("overrides/policy.yaml"),
        policy.replace(NAME, "policy"),
    )
    .unwrap();
    assert_hidden(&router, "an override of the policy");
}

#[test]
fn secret_in_a_document_is_never_shown() {
    let router = router();
    let file = router.state(&format!("sessions/{NAME}.yaml"));
    let good = fs::read_to_string(&file).unwrap();
    let secret = format!("\"{KEY} {PASSWORD}\"");
    for (place, from, to) in [
        ("a comment", "spec:\n", format!("spec: # {secret}\n")),
        ("description", "AS4242421080", secret.clone()),
        (
            "presharedKey",
            "tunnel:\n",
            format!("tunnel:\n    presharedKey: {secret}\n"),
        ),
        (
            "credential",
            "spec:\n",
            format!("spec:\n  credential: {{presharedKey: {secret}}}\n"),
        ),
        (
            "password",
            "bgp:\n",
            format!("bgp:\n    password: {secret}\n"),
        ),
        ("asn", "asn: 4242421080", format!("asn: {secret}")),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&file, good.replacen(from, &to, 1)).unwrap();
        assert_hidden(&router, place);
    }
}

#[test]
fn public_keys_are_shown() {
    let router = router();
    for format in ["table", "json", "yaml"] {
        router
            .call(&["describe", NAME, "-o", format])
            .says(0, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
    }
}
