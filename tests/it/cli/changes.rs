//! Approvals, rollbacks and what the history has.

use super::*;

#[test]
fn approve_lists_and_approves_held_changes() {
    let router = Router::new();
    router
        .call(&["approve", "--list"])
        .says(0, "No changes are held");
    router
        .call(&["approve", "--all"])
        .says(0, "No changes are held");
    assert_eq!(router.call(&["approve"]).code, 64);
    assert_eq!(router.call(&["approve", "wg_nothing"]).code, 1);
    for number in 0..8 {
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: BgpSession\nmetadata: {{name: gone{number}, uid: u{number}}}\n\
             applied: {{interfaces: [gone{number}]}}\n"
        );
        fs::create_dir_all(router.state("applied/sessions")).unwrap();
        fs::write(
            router.state(&format!("applied/sessions/gone{number}.yaml")),
            text,
        )
        .unwrap();
    }
    let listed = router.call(&["approve", "--list", "-o", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(8));
    assert!(!router.state("approved").exists());
    assert_eq!(listed[0]["change"], "removal");
    let one = router.call(&["approve", "gone3", "-o", "json"]).json();
    assert_eq!(one[0]["object"], "sessions/gone3");
    assert_eq!(one.as_array().map(Vec::len), Some(1));
    let approved = fs::read_to_string(router.state("approved")).unwrap();
    assert!(
        approved.contains("sessions/gone3") && !approved.contains("gone4"),
        "{approved}"
    );
    fs::remove_file(router.state("approved")).unwrap();
    router.call(&["approve", "--all"]).says(0, "sessions/gone7");
    assert_eq!(
        fs::read_to_string(router.state("approved"))
            .unwrap()
            .lines()
            .count(),
        8
    );
    router
        .call(&["approve", "--list"])
        .says(0, "No changes are held");
}

#[test]
fn rollback_brings_back_what_was_in_effect() {
    let router = Router::new();
    router.call(&["history"]).says(0, "No history");
    fs::remove_file(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.apply(1400);
    router.call(&["rollback", NAME]).says(1, "no earlier state");
    router.apply(1420);
    router.call(&["history", NAME]).says(0, "Apply MTU 1400");
    assert_eq!(
        router
            .call(&["history", "-o", "json"])
            .json()
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    router
        .call(&["rollback", NAME, "HEAD"])
        .says(0, "No changes");
    let answer = router.call(&["rollback", NAME, "-o", "json"]).json();
    assert_eq!(
        answer["override"]["set"],
        serde_json::json!({"tunnel": {"mtu": 1400}})
    );
    router.call(&["diff", NAME]).says(2, "rolled back to ");
    router.call(&["rollback", NAME]).says(1, "--force");
    // The rollback restores exactly the earlier applied state, also where that needs no override.
    router
        .call(&["rollback", NAME, "HEAD~1", "--force"])
        .says(0, "before: rolled back to ");
    router
        .call(&["rollback", NAME, "HEAD", "--force"])
        .says(0, "is back to");
    assert!(
        !router
            .state(&format!("overrides/sessions/{NAME}.yaml"))
            .exists()
    );
    router
        .call(&["diff", NAME])
        .says(0, "is as in its document");
    router
        .call(&["rollback", "nobody"])
        .says(1, "no object named nobody");
    router
        .call(&["rollback", NAME, "nonsense", "--force"])
        .says(1, "nonsense");
}

#[test]
fn mistyped_name_is_an_error_and_not_an_empty_plan() {
    let router = Router::new();
    router.with_bird();
    for verb in ["get", "describe", "diff", "render", "plan", "rollback"] {
        router.call(&[verb, "wg_4242421081"]).says(
            1,
            &format!("no object named wg_4242421081; did you mean {NAME}?"),
        );
        router
            .call(&[verb, "sesions/wg_4242421080"])
            .says(1, &format!("did you mean sessions/{NAME}?"));
        router
            .call(&[verb, "x"])
            .says(1, "no object named x; `moenet-agent get` lists all objects");
    }
    router
        .call(&["get", "sessions", "mesh"])
        .says(1, "no object named mesh");
    router
        .call(&["history", "wg_4242421081"])
        .says(1, &format!("did you mean {NAME}?"));
    // One of several.
    router
        .call(&["plan", NAME, "wg_4242421081"])
        .says(1, "did you mean");
    router
        .call(&["plan", NAME, "node", "policy"])
        .says(2, "write BIRD file");
}

#[test]
fn an_override_that_waits_for_its_document_is_seen() {
    let router = Router::new();
    router.with_key();
    let text =
        fs::read_to_string(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    fs::write(
        router.state("overrides/sessions/wg_4242421081.yaml"),
        text.replace(NAME, "wg_4242421081"),
    )
    .unwrap();
    let waits =
        "overrides/sessions/wg_4242421081.yaml waits for a document of sessions/wg_4242421081.";
    router.call(&["get"]).says(0, waits);
    router.call(&["validate"]).says(0, waits);
    router.call(&["describe", "wg_4242421081"]).says(1, waits);
    let row = router.call(&["get", "wg_4242421081", "-o", "json"]).json();
    assert_eq!(
        (&row[0]["spec"], &row[0]["override"]["set"]["tunnel"]["mtu"]),
        (&Value::Null, &1380.into())
    );
}

#[test]
fn node_and_policy_show_applied_state_and_roll_back() {
    let router = Router::new();
    fs::remove_file(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    fs::remove_dir_all(router.state("applied")).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    let policy = |limit: u32| {
        let document = fs::read_to_string(router.state("policy.yaml")).unwrap();
        let spec = document
            .split_once("spec:")
            .map(|(_, spec)| spec.to_owned())
            .unwrap();
        let spec = spec
            .replace("ebgpImport: 10000", &format!("ebgpImport: {limit}"))
            .replace('\n', "\n  ");
        fs::create_dir_all(router.state("applied")).unwrap();
        let text = format!(
            "apiVersion: moenet.work/v1\nkind: RoutingPolicy\nmetadata: {{name: policy}}\napplied:\n  spec:{spec}\n"
        );
        fs::write(router.state("applied/policy.yaml"), text.trim_end()).unwrap();
        router.git(&["add", "-A"]);
        router.git(&["commit", "-qm", &format!("Apply limit {limit}")]);
    };
    policy(20000);
    policy(10000);
    let answer = router.call(&["rollback", "policy", "-o", "json"]).json();
    assert_eq!(
        answer["override"]["set"],
        serde_json::json!({"limits": {"ebgpImport": 20000}})
    );
    router
        .call(&["diff", "policy"])
        .says(2, "spec.limits.ebgpImport");
    let described = router.call(&["describe", "policy", "-o", "json"]).json();
    let fields = described["fields"].as_array().unwrap();
    let limit = fields
        .iter()
        .find(|field| field["field"] == "spec.limits.ebgpImport")
        .unwrap();
    assert_eq!(
        *limit,
        serde_json::json!({
            "field": "spec.limits.ebgpImport", "value": 20000, "origin": "override", "document": 10000
        })
    );
    assert!(
        described["override"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("rolled back to ")
    );
    // What the configuration says of the node wins, and says so.
    fs::write(
        router.state("overrides/node.yaml"),
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: node}\nspec: {reason: x, set: {asn: 4242420001, region: eu-west}}\n",
    )
    .unwrap();
    let described = router.call(&["describe", "node", "-o", "json"]).json();
    let fields = described["fields"].as_array().unwrap();
    let origin = |name: &str| {
        let field = fields.iter().find(|field| field["field"] == name).unwrap();
        (field["value"].clone(), field["origin"].clone())
    };
    assert_eq!(origin("spec.region"), ("eu-west".into(), "override".into()));
    assert_eq!(origin("spec.asn").0, 4_242_420_998u32);
    assert_ne!(origin("spec.asn").1, "override");
    router
        .call(&["get", "node", "policy"])
        .says(0, "limits.ebgpImport=20000 (10000)");
}

#[test]
fn a_history_that_cannot_be_read_is_no_empty_one() {
    let router = Router::new();
    router.call(&["history"]).says(0, "No history yet");
    fs::write(router.state(".git"), "garbage").unwrap();
    router.call(&["history"]).says(1, "cannot read the history");
    fs::remove_file(router.state(".git")).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.call(&["history"]).says(0, "No history yet");
    fs::write(router.state(".git/refs/heads/main"), "").unwrap();
    router
        .call(&["history"])
        .says(1, "its branch points to a missing commit");
    fs::remove_dir_all(router.state("")).unwrap();
    router.call(&["history"]).says(1, "the state directory");
    for verb in [&["get"][..], &["describe", NAME], &["rollback", NAME]] {
        let answer = router.call(verb);
        answer.says(1, "state directory");
        answer.says(1, "First start: run `moenet-agent run`");
    }
    router
        .call(&["validate"])
        .says(0, "does not exist yet; the first start");
    // A plan compares with the files of BIRD, and without a BIRD there are none to compare with.
    router.call(&["plan"]).says(1, "No steps, 1 in error.");
    assert!(!router.state("").exists());
}

#[test]
fn commit_is_shown_with_its_diff() {
    let router = Router::new();
    router.git(&["init", "-q", "-b", "main"]);
    router.apply(1400);
    router.apply(1410);
    let shown = router.call(&["history", "--commit", "HEAD"]);
    shown.says(0, "Apply MTU 1410");
    shown.says(0, "diff --git a/applied/sessions/");
    let json = router.call(&["history", "--commit", "HEAD", "-o", "json"]);
    assert!(json.json()["id"].is_string(), "{}", json.out);
    router
        .call(&["history", "--commit", "nonsense"])
        .says(1, "nonsense");
    let both = router.call(&["history", NAME, "--commit", "HEAD"]);
    assert_eq!(both.code, 64);
}

#[test]
fn events_are_transitions_and_changes_in_one_order() {
    let router = Router::new();
    router.git(&["init", "-q", "-b", "main"]);
    router.apply(1400);
    let events = router.call(&["events", NAME, "-o", "json"]).json();
    let events = events.as_array().unwrap();
    let times: Vec<_> = events
        .iter()
        .map(|it| it["time"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted() && times.len() > 3, "{times:?}");
    assert_eq!(events[events.len() - 1]["message"], "Apply MTU 1400");
    let session = format!("sessions/{NAME}");
    assert!(events.iter().any(|it| it["of"] == session.as_str()));
    let newest = router.call(&["events", "-n", "1"]);
    newest.says(0, "Apply MTU 1400");
    assert_eq!(newest.out.lines().count(), 2, "{}", newest.out);
    router
        .call(&["events", "--since", "1s", "wg_424242108"])
        .says(1, "did you mean");
    assert_eq!(router.call(&["events", "--since", "soon"]).code, 64);
    for verb in ["events", "history"] {
        assert_eq!(router.call(&[verb, "-n", "0"]).code, 64, "{verb}");
    }
}

#[test]
fn dry_run_of_a_rollback_writes_nothing() {
    let router = Router::new();
    fs::remove_file(router.state(&format!("overrides/sessions/{NAME}.yaml"))).unwrap();
    router.git(&["init", "-q", "-b", "main"]);
    router.apply(1400);
    router.apply(1420);
    let answer = router.call(&["rollback", NAME, "--dry-run"]);
    answer.says(0, "mtu: 1400");
    answer.says(0, "dry run: nothing is written");
    let file = router.state(&format!("overrides/sessions/{NAME}.yaml"));
    assert!(!file.exists());
}

#[test]
fn plan_counts_objects_and_shows_differences() {
    let router = Router::new();
    router.with_bird();
    router.with_key();
    router.with_addresses();
    let plan = router.call(&["plan", NAME]);
    plan.says(2, &format!("+ sessions/{NAME}  create WireGuard link"));
    plan.says(
        2,
        "Plan: 1 to add, 0 to change, 0 to remove, 0 BGP resets\n",
    );
    let diff = router.call(&["plan", NAME, "--diff"]);
    diff.says(2, &format!("+++ b/moenet/sessions/{NAME}.conf\n"));
    let objects = router.call(&["plan", NAME, "--diff", "-o", "json"]).json();
    assert_eq!(objects[0]["change"], "add");
    assert_eq!(objects[0]["resets"], serde_json::json!([]));
    assert_eq!(objects[0]["steps"][0]["change"], "add");
    assert!(
        objects[0]["diff"]
            .as_str()
            .unwrap()
            .contains("protocol bgp")
    );
}

#[test]
fn errors_begin_with_their_place_or_are_json() {
    let router = Router::new();
    let config = router.dir.path().join("config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("id: 1", "id: 0")).unwrap();
    let place = format!("{}:1:", config.display());
    let answer = router.call(&["get"]);
    assert!(answer.err.starts_with(&place), "{}", answer.err);
    let answer = router.call(&["get", "-o", "json"]);
    let error: Value = serde_json::from_str(&answer.err).unwrap();
    assert!(
        error["error"].as_str().unwrap().starts_with(&place),
        "{error}"
    );
    let problem = &error["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["field"]),
        (&1.into(), &"node.id".into())
    );
    assert_eq!(answer.code, 1);
    fs::write(&config, text).unwrap();
    let answer = router.call(&["get", "nothing", "-o", "json"]);
    let error: Value = serde_json::from_str(&answer.err).unwrap();
    assert_eq!(error["problems"], serde_json::json!([]));
}

#[test]
fn override_that_is_not_recorded_yet_has_no_author() {
    let router = Router::new();
    router.with_addresses();
    for arguments in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &["commit", "-qm", "all"],
    ] {
        router.git(arguments);
    }
    let describe = || router.call(&["describe", NAME]);
    describe().says(0, "Overridden by t since ");
    let file = router.override_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("1380", "1370")).unwrap();
    describe().says(0, "Overridden, until 2027");
}
