use serde_json::Value as Json;

use super::*;
use crate::controller::provenance::Field;
use crate::document::{Condition, ConditionStatus, ConditionType};
use crate::effective::Origin;
use crate::http::view::{ObjectEvent, ObjectRow, ObjectView};
use crate::http::{MaintenanceView, NodeView, Overview, StatusView};
use crate::status::Cause;

fn now() -> Timestamp {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn row(name: &str) -> ObjectRow {
    ObjectRow {
        object: format!("sessions/{name}"),
        asn: Some("4242421080".to_owned()),
        description: "<b>\"peer\"</b>".to_owned(),
        phase: "Established".to_owned(),
        bgp: Some("established".to_owned()),
        since: Some("2026-11-27T09:00:00Z".parse().unwrap()),
        rtt_ms: Some(25.123),
        loss: Some(0.25),
        routes_imported: Some(650),
        routes_exported: Some(3),
        received_bytes: Some(1_234_567_890),
        sent_bytes: Some(999),
        causes: vec![Cause {
            about: "BgpEstablished".to_owned(),
            reason: "NotEstablished".to_owned(),
            message: "Connect <refused>".to_owned(),
            next_action: Some("ask the peer".to_owned()),
        }],
        ..ObjectRow::default()
    }
}

fn overview() -> Overview {
    let status = StatusView {
        status: "degraded".to_owned(),
        reasons: vec!["the router is drained & quiet".to_owned()],
        node: NodeView {
            name: "jp1".to_owned(),
            ..NodeView::default()
        },
        maintenance: MaintenanceView {
            enabled: true,
            since: Some("2026-11-27T11:30:00Z".parse().unwrap()),
        },
        ..StatusView::default()
    };
    Overview {
        status,
        objects: vec![row("wg_1")],
    }
}

fn view() -> ObjectView {
    let condition = Condition {
        condition_type: ConditionType::BgpEstablished,
        status: ConditionStatus::False,
        reason: "NotEstablished".to_owned(),
        message: "Connect".to_owned(),
        next_action: Some("ask the peer".to_owned()),
        last_transition_time: "2026-11-27T11:58:00Z".parse().unwrap(),
    };
    let field = Field {
        field: "spec.tunnel.mtu".to_owned(),
        value: Json::from(1380),
        origin: Origin::ControlPlane,
        document: Some(Json::from(1420)),
    };
    let event = ObjectEvent {
        time: "2026-11-27T10:00:00Z".parse().unwrap(),
        of: "control plane".to_owned(),
        what: "1a2b3c4".to_owned(),
        message: "Sync sessions".to_owned(),
    };
    ObjectView {
        row: row("wg_1"),
        conditions: vec![condition],
        fields: vec![field],
        override_reason: Some("path MTU".to_owned()),
        override_expires: None,
        plan: vec!["set MTU of wg_1 to 1380".to_owned()],
        plan_note: None,
        last_steps: Vec::new(),
        events: vec![event],
        history_error: None,
    }
}

#[track_caller]
fn has(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "no {text:?} in {page}");
    }
}

#[test]
fn overview_shows_a_session_and_the_maintenance() {
    let page = render("overview.html", &overview(), now()).unwrap();
    has(
        &page,
        &[
            "This router is drained since 30m",
            r#"<a href="/page/sessions&#x2f;wg_1">sessions&#x2f;wg_1</a>"#,
            ">3h</time>",
            "25.1 ms",
            "25%",
            "650 / 3",
            "1.2 GB / 999 B",
            "→ ask the peer",
        ],
    );
}

#[test]
fn object_shows_provenance_plan_history_and_events() {
    let page = render("object.html", &view(), now()).unwrap();
    has(
        &page,
        &[
            "<td>1380</td><td>control plane</td><td>1420</td>",
            "<li>set MTU of wg_1 to 1380</li>",
            "<td>BgpEstablished</td><td>False</td>",
            "Override: path MTU",
            "<code>1a2b3c4</code></td><td>Sync sessions</td>",
            ">2m</time>",
        ],
    );
}

#[test]
fn texts_from_outside_are_escaped() {
    for page in [
        render("overview.html", &overview(), now()).unwrap(),
        render("object.html", &view(), now()).unwrap(),
    ] {
        has(
            &page,
            &["&lt;b&gt;&quot;peer&quot;", "Connect &lt;refused&gt;"],
        );
        assert!(!page.contains("<b>"), "{page}");
    }
}

#[test]
fn pages_load_nothing_from_elsewhere() {
    let login = json!({ "error": "no" });
    for page in [
        render("overview.html", &overview(), now()).unwrap(),
        render("object.html", &view(), now()).unwrap(),
        render("login.html", &login, now()).unwrap(),
    ] {
        for mark in [
            "http:",
            "https:",
            "//",
            " style=",
            " onclick=",
            "javascript:",
        ] {
            let body = page.replace("<!doctype html>", "");
            assert!(!body.contains(mark), "{mark} in {page}");
        }
    }
}
