//! `get overrides` as documents that `validate` and `apply -f` accept.

use std::fs;

use super::{NAME, Router};

/// A router with overrides of two objects of one name, of a single object, and of one that does not exist.
fn router() -> Router {
    let router = Router::new();
    router.with_addresses();
    for (file, name, set) in [
        ("mesh/hk1", "hk1", "{mtu: 1400}"),
        ("ibgp/hk1", "hk1", "{adminState: Disabled}"),
        ("policy", "policy", "{limits: {asPathMaxLen: 12}}"),
        ("sessions/wg_later", "wg_later", "{tunnel: {mtu: 1400}}"),
    ] {
        let path = router.state(&format!("overrides/{file}.yaml"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {name}}}\nspec: {{reason: test, set: {set}}}\n"
        );
        fs::write(path, text).unwrap();
    }
    router
}

#[test]
fn printed_overrides_are_applied_as_they_were() {
    let router = router();
    let printed = router.call(&["get", "overrides", "-o", "yaml"]);
    printed.says(0, "targetKind: IbgpPeer");
    let file = router.file("overrides.yaml", &printed.out);
    let again = router.call(&["apply", "-f", &file, "-o", "json"]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    let rows = again.json();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["result"] == "unchanged"));
    fs::remove_dir_all(router.state("overrides")).unwrap();
    router
        .call(&["apply", "-f", &file])
        .says(0, "overrides/ibgp/hk1.yaml created");
    assert_eq!(
        router.call(&["get", "overrides", "-o", "yaml"]).out,
        printed.out
    );
    let written = fs::read_to_string(router.state("overrides/mesh/hk1.yaml")).unwrap();
    assert!(!written.contains("targetKind"), "the folder says it");
}

#[test]
fn each_printed_override_is_valid() {
    let router = router();
    let names = router.call(&["get", "overrides", "-o", "name"]).out;
    assert_eq!(names.lines().count(), 5, "{names}");
    for name in names.lines() {
        let printed = router.call(&["get", name, "-o", "yaml"]).out;
        assert_eq!(printed.matches("---\n").count(), 1, "{printed}");
        let file = router.file("one.yaml", &printed);
        router.call(&["validate", &file]).says(0, "valid");
    }
    router
        .call(&["get", "overrides/sessions/no", "-o", "name"])
        .says(1, "no override of sessions/no");
}

#[test]
fn kind_of_an_override_must_be_that_of_its_folder() {
    let router = router();
    let path = router.state("overrides/mesh/hk1.yaml");
    let text = fs::read_to_string(&path).unwrap();
    for (kind, words) in [
        ("IbgpPeer", "spec.targetKind: is IbgpPeer, but the folder"),
        ("Maintenance", "a Maintenance has no overrides"),
    ] {
        let wrong = text.replace("reason: test", &format!("reason: test, targetKind: {kind}"));
        fs::write(&path, wrong).unwrap();
        router.call(&["validate"]).says(1, words);
        router.call(&["get", "overrides"]).says(0, "Invalid");
    }
    let invalid = router.call(&["get", "override", "mesh/hk1", "-o", "yaml"]);
    invalid.says(0, "# overrides/mesh/hk1: ");
}

#[test]
fn wide_overrides_have_values_and_json_has_the_document() {
    let router = router();
    let wide = router.call(&["get", "overrides", "-o", "wide"]);
    wide.says(0, "VALUES");
    wide.says(0, "tunnel.mtu=1380");
    let rows = router.call(&["get", "override", NAME, "-o", "json"]).json();
    let row = &rows[0];
    assert_eq!(row["state"], "InEffect");
    assert_eq!(row["kind"], "Override");
    assert_eq!(row["spec"]["targetKind"], "BgpSession");
    assert_eq!(row["spec"]["set"]["tunnel"]["mtu"], 1380);
    router
        .call(&["get", "overrides", "--watch"])
        .says(1, "without --phase, --sort-by and --watch");
}
