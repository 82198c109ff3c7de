//! The metrics of the Control Plane and their reference.

use std::collections::BTreeSet;

use serde_json::json;

use super::git::Repository;
use super::network::ask;

/// Over Git, where each of them has a series.
#[tokio::test]
async fn scrape_and_reference_have_the_same_metrics() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, page) = page.split_once("\n## Control Plane\n").unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let reference: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).collect();

    let repository = Repository::new();
    let app = repository.follow().await.app;
    for (path, body) in [
        ("heartbeat", json!({"version": "9.9", "uptime": 1})),
        (
            "report",
            json!({"sessions": [{"uuid": "mesh-1-2", "state": "established"}]}),
        ),
    ] {
        let posted = ask(&app, "jp1", &format!("/agent/jp1/{path}"), Some(body)).await;
        assert_eq!(posted.0, 200, "{}", posted.1);
    }
    let look = [("authorization", "Bearer look")];
    let (_, _, scrape) = super::admin::ask(&app, "GET /metrics", "", &look).await;
    let heads = scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let found: BTreeSet<_> = heads.filter_map(|head| head.split(' ').next()).collect();
    assert_eq!(found, reference, "{scrape}");
}
