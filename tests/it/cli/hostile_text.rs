//! Texts of others on a terminal, and nothing but JSON with `-o json`.

use std::fs;

use super::{Answer, NAME, Router};

/// Clears the screen, sets a title, reverses a word, hides one, and begins a line again.
const HOSTILE: &str = r"a\e[2Jb\e]0;t\ac\u202Ed\u200Be\x9B31mf\rg";

fn router() -> Router {
    let router = Router::new();
    let session = format!(
        "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: evil}}\n\
         spec: {{asn: 4242420003, description: \"{HOSTILE}\", address: {{peerLinkLocal: 'fe80::3'}}, \
         tunnel: {{publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}}}}\n"
    );
    fs::write(router.state("sessions/evil.yaml"), session).unwrap();
    let change = format!(
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: evil}}\n\
         spec: {{reason: \"{HOSTILE}\", set: {{description: \"x{HOSTILE}\"}}}}\n"
    );
    fs::write(router.state("overrides/sessions/evil.yaml"), change).unwrap();
    let broken = format!("kind: [\"{HOSTILE}\", \"");
    fs::write(router.state("sessions/broken.yaml"), broken).unwrap();
    router
}

#[track_caller]
fn expect_visible(arguments: &[&str], answer: &Answer) {
    let hidden = |c: &char| {
        (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{200b}')
    };
    for text in [&answer.out, &answer.err] {
        let found = text.chars().find(hidden);
        assert_eq!(found, None, "{arguments:?}: {text}");
    }
}

#[test]
fn control_characters_are_never_printed_raw() {
    let router = router();
    let calls: [&[&str]; 9] = [
        &["get"],
        &["get", "-o", "wide"],
        &["get", "-o", "json"],
        &["get", "-o", "yaml"],
        &["get", "overrides"],
        &["describe", "evil"],
        &["diff", "evil"],
        &["validate"],
        &["events"],
    ];
    for call in calls {
        expect_visible(call, &router.call(call));
    }
    let table = router.call(&["get"]).out;
    assert!(table.contains("a\\u{1b}[2Jb"), "{table}");
}

#[test]
fn standard_error_is_json_lines_with_json_output() {
    let router = router();
    let calls: [&[&str]; 5] = [
        &["get", "nothing"],
        &["plan"],
        &["status"],
        &["override", NAME, "tunnel.mtu=1"],
        &["override", NAME, "tunnel.mtu=1390", "--dry-run"],
    ];
    let mut lines = 0;
    for call in calls {
        let mut json = call.to_vec();
        json.extend(["-o", "json"]);
        let answer = router.call(&json);
        for line in answer.err.lines() {
            let value: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{json:?}: {error}: {line}"));
            assert!(value["error"].is_string() || value["note"].is_string());
            lines += 1;
        }
    }
    assert!(lines >= 4, "only {lines} lines");
}
