use std::path::Path;

use super::*;
use crate::document::BgpSessionSpec;

const SESSION: &str = "\
apiVersion: moenet.work/v1
kind: BgpSession
metadata:
  name: wg_4242421080
  uid: abc-123
  generation: 7
spec:
  adminState: Enabled
  asn: 4242421080
  description: AS4242421080
  tunnel:
    type: wireguard
    interface: wg_4242421080
    listenPort: 21080
    mtu: 1420
    publicKey: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
    endpoint: example.com:51820
  address:
    peerLinkLocal: fe80::2
  bgp:
    extensions:
    - mp-bgp
    - extended-nexthop
    policy: full
";

fn error(text: &str) -> DocumentError {
    parse::<BgpSessionSpec>(text).unwrap_err()
}

#[test]
fn a_document_reads_back_byte_for_byte() {
    let document = parse::<BgpSessionSpec>(SESSION).unwrap();
    assert_eq!(to_yaml(&document).unwrap(), SESSION);
}

#[test]
fn out_of_range_value_names_line_column_and_field() {
    let error = error(&SESSION.replace("1420", "70000"));
    assert_eq!(error.field, "spec.tunnel.mtu");
    assert_eq!(error.location, Some((15, 10)), "{error}");
    assert_eq!(
        error.message,
        "spec.tunnel.mtu: invalid MTU 70000: use 1280..9000"
    );
    let shown = error.in_file(Path::new("a.yaml")).to_string();
    assert_eq!(
        shown,
        "a.yaml:15:10: spec.tunnel.mtu: invalid MTU 70000: use 1280..9000"
    );
}

#[test]
fn a_field_is_found_by_its_path() {
    let at = |path: &[&str]| locate(SESSION, path);
    assert_eq!(at(&["spec", "tunnel", "mtu"]), Some((15, 10)));
    assert_eq!(at(&["kind"]), Some((2, 7)));
    assert_eq!(at(&["spec", "tunnel"]), Some((12, 5)));
    // For a list in block style, its first item, behind the dash.
    assert_eq!(at(&["spec", "bgp", "extensions"]), Some((22, 7)));
    assert_eq!(
        (at(&["spec", "mtu"]), at(&["spec", "asn", "x"])),
        (None, None)
    );
    assert_eq!(
        locate("a: {b: {c: 1, d: [1, 2]}}", &["a", "b", "d"]),
        Some((1, 18))
    );
    let list = "s:\n  - {a: 1}\n  - b: 2\n    c: 3\n";
    assert_eq!(locate(list, &["s", "1", "c"]), Some((4, 8)));
    assert_eq!(locate(list, &["s", "2", "c"]), None);
    assert_eq!(
        (
            locate("a: ~", &["a"]),
            locate("", &["a"]),
            locate("- a", &["a"])
        ),
        (Some((1, 4)), None, None)
    );
}

#[test]
fn an_unknown_field_names_the_nearest_known_one() {
    let error = error(&SESSION.replace("listenPort:", "listenport:"));
    assert!(
        error.message.contains("did you mean `listenPort`?"),
        "{error}"
    );
    assert!(error.location.is_some());
}

#[test]
fn nearest_field_is_suggested_even_when_last_in_list() {
    let text = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: a}\n\
                spec:\n  reason: x\n  sett: {mtu: 1400}\n";
    let error = parse::<crate::document::OverrideSpec>(text).unwrap_err();
    assert_eq!(
        error.message,
        "spec.sett: unknown field `sett`, did you mean `set`?"
    );
    assert_eq!(error.location, Some((6, 3)));
}

#[test]
fn no_word_of_the_library_reaches_an_operator() {
    let set = |set: &str| {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: a}}\n\
             spec: {{reason: x, set: {set}}}\n"
        );
        parse::<crate::document::OverrideSpec>(&text)
            .unwrap_err()
            .to_string()
    };
    let deep = set(&("{a: ".repeat(80) + "1" + &"}".repeat(80)));
    assert!(
        deep.contains("nested too deeply") && deep.len() < 250,
        "{deep}"
    );
    let aliases = (1..12).map(|n| {
        format!(
            ", a{n}: &a{n} [{}]",
            vec![format!("*a{}", n - 1); 9].join(",")
        )
    });
    let bomb = set(&format!("{{a0: &a0 [x]{}}}", aliases.collect::<String>()));
    assert!(bomb.contains("too many values for a document"), "{bomb}");
    let twice = set("{mtu: 1400, mtu: 1380}");
    assert!(twice.ends_with("duplicate key: mtu"), "{twice}");
}

#[test]
fn errors_about_yaml_name_nothing_of_the_library() {
    for (text, words) in [
        ("a: &x {b: *x}", "inside the value of its own anchor"),
        ("a: *x", "without an anchor"),
        ("a: {<<: 1}", "<< needs a mapping"),
        ("a: !!binary '%'", "remove the tag"),
        ("? [1]\n: 2\n? [1]\n: 3", ""),
        ("a: !!set {b: 1, b: 2}", "duplicate key"),
    ] {
        let Err(error) = parse_value::<serde_json::Value>(text) else {
            continue;
        };
        assert!(error.location.is_some(), "{text}: {error}");
        assert!(error.message.contains(words), "{text}: {error}");
        for word in [
            "Options", "Policy", "policy", "Option<", "recursi", "deserial",
        ] {
            assert!(!error.message.contains(word), "{text}: {error}");
        }
    }
}

#[test]
fn aliases_multiply_neither_values_nor_texts() {
    let wide = format!(
        "a: &a {{b: {{c: {{d: {{e: 1}}}}}}}}\nl: [{}]\n",
        "*a,".repeat(5000)
    );
    let long = format!("a: &a {}\nl: [{}]\n", "x".repeat(50_000), "*a,".repeat(900));
    for text in [wide, long] {
        let error = parse_value::<serde_json::Value>(&text).unwrap_err();
        assert!(
            error.message.contains("too many values for a document"),
            "{error}"
        );
    }
    let defaults = format!(
        "d: &d {{mtu: 1400, port: 1}}\nl: [{}]\n",
        "{<<: *d, asn: 4242420000, name: example},".repeat(500)
    );
    parse_list::<serde_json::Value>(&defaults).unwrap();
}

#[test]
fn what_is_not_a_document_is_refused() {
    for text in [
        "",
        "\n\n",
        "a\0b",
        "- 1\n",
        "{",
        "kind: BgpSession\n",
        "spec: *x\n",
    ] {
        error(text);
    }
    assert!(
        error(&SESSION.replace("/v1", "/v2"))
            .message
            .contains("is not supported")
    );
    assert!(
        error(&SESSION.replace("kind: BgpSession", "kind: Node"))
            .message
            .contains("BgpSession")
    );
}

#[test]
fn truncated_document_is_rejected_or_complete() {
    for end in 0..SESSION.len() - 1 {
        let _ = parse::<BgpSessionSpec>(&SESSION[..end]);
    }
}
