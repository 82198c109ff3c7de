//! Statuses that routers reported.

use super::*;

#[tokio::test]
async fn what_is_served_follows_the_reports() {
    let fleet = fleet();
    assert_eq!(fleet.modify("abc-123", 1, None).await, 200);
    assert_eq!(fleet.served().await[0], ("abc-123".into(), 1));
    assert_eq!(
        fleet
            .modify("abc-123", 2, Some("BIRD configuration failed: x"))
            .await,
        200
    );
    let item = fleet.get("sessions").await.1["sessions"][0].clone();
    assert_eq!(
        (&item["status"], &item["error"]),
        (&json!(2), &json!("BIRD configuration failed: x"))
    );
    assert_eq!(fleet.modify("old", 0, None).await, 200);
    assert_eq!(fleet.served().await, [("abc-123".to_owned(), 2)]);
    is_error(
        &fleet.post("modify", r#"{"uuid":"old","status":0}"#).await,
        404,
        "SESSION_NOT_FOUND",
    );
    is_error(
        &fleet.post("modify", r#"{"uuid":"never","status":1}"#).await,
        404,
        "SESSION_NOT_FOUND",
    );
    let log = fs::read_to_string(fleet.path("reported/modify.log")).unwrap();
    assert_eq!(log.lines().count(), 3);
}

#[tokio::test]
async fn report_of_one_session_leaves_other_files_unchanged() {
    use std::os::unix::fs::MetadataExt as _;
    let fleet = fleet();
    fleet.edit("sessions.yaml", "status: 5", "status: 4");
    fleet.modify("old", 1, None).await;
    let old = fleet.kept().pop().unwrap();
    let before = fs::metadata(&old).unwrap();
    fleet.modify("abc-123", 1, None).await;
    fleet.modify("abc-123", 2, Some("x")).await;
    let after = fs::metadata(&old).unwrap();
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
    assert_eq!(fleet.kept().len(), 2);
    fs::write(
        fleet.path("sessions.yaml"),
        "sessions: [{uuid: old, asn: 4242421081, status: 4}]\n",
    )
    .unwrap();
    assert_eq!(fleet.served().await, [("old".to_owned(), 1)]);
    assert_eq!(
        fleet.kept(),
        [old],
        "what is in the list no more is forgotten"
    );
}

#[tokio::test]
async fn the_operator_wins_over_what_was_reported_before() {
    let fleet = fleet();
    fleet.modify("abc-123", 1, None).await;
    fleet.edit("sessions.yaml", "status: 4", "status: 0");
    assert_eq!(fleet.served().await[0], ("abc-123".into(), 0));
    assert_eq!(
        fleet.modify("abc-123", 1, None).await,
        200,
        "late, and acknowledged"
    );
    assert_eq!(
        fleet.served().await[0],
        ("abc-123".into(), 0),
        "but it changes nothing"
    );
    fleet.modify("old", 0, None).await;
    fleet.edit("sessions.yaml", "status: 5", "status: 4");
    assert_eq!(fleet.served().await[1], ("old".into(), 4), "wanted again");
    fleet.modify("old", 1, None).await;
    fleet.edit(
        "sessions.yaml",
        "uuid: old, asn: 4242421081, status: 4",
        "uuid: old, asn: 4242421081, status: 5",
    );
    fleet.modify("old", 2, Some("late")).await;
    assert_eq!(
        fleet.served().await[1],
        ("old".into(), 5),
        "a late error does not bring it back"
    );
    fleet.modify("abc-123", 0, None).await;
    assert_eq!(
        fleet.served().await.len(),
        2,
        "its removal was not requested"
    );
}

#[tokio::test]
async fn a_status_that_returns_is_not_acknowledged_by_old_posts() {
    let fleet = fleet();
    fleet.modify("abc-123", 1, None).await;
    assert_eq!(fleet.served().await[0].1, 1);
    fleet.edit("sessions.yaml", "status: 4", "status: 0");
    assert_eq!(fleet.served().await[0].1, 0);
    fleet.edit("sessions.yaml", "status: 0", "status: 4");
    assert_eq!(fleet.served().await[0].1, 4);
    fleet.modify("abc-123", 1, None).await;
    assert_eq!(fleet.served().await[0].1, 1, "acknowledged again");
}

#[tokio::test]
async fn status_that_returns_between_two_polls_is_a_new_wish() {
    let (fleet, mut watcher) = fleet().watched();
    for (uuid, status, posted) in [("abc-123", 4, 1), ("old", 5, 0)] {
        assert_eq!(fleet.modify(uuid, posted, None).await, 200);
        let status_text = format!("status: {status}");
        for (from, to) in [
            ("", ""),
            (&status_text, "status: 3"),
            ("status: 3", &status_text),
        ] {
            fleet.edit("sessions.yaml", from, to);
            watcher.look().await;
        }
        let served = fleet.served().await;
        assert!(served.contains(&(uuid.to_owned(), status)), "{served:?}");
    }
}

#[tokio::test]
async fn edit_of_another_session_supersedes_no_status() {
    let (fleet, mut watcher) = fleet().watched();
    fleet.modify("abc-123", 1, None).await;
    fleet.edit("sessions.yaml", "status: 5", "status: 0");
    watcher.look().await;
    assert_eq!(fleet.served().await[0].1, 1);
}

#[tokio::test]
async fn unreadable_status_costs_its_own_session_only() {
    let fleet = fleet();
    fleet.modify("abc-123", 1, None).await;
    let at = |name: &str| fleet.path("reported/sessions").join(name);
    let made = std::process::Command::new("mkfifo")
        .arg(at("pipe.json"))
        .status();
    assert!(made.unwrap().success());
    fs::create_dir_all(at("folder.json").join("inside")).unwrap();
    fs::create_dir_all(at("folder.json.broken").join("inside")).unwrap();
    fs::File::create(at("huge.json"))
        .unwrap()
        .set_len(3 << 30)
        .unwrap();
    for _ in 0..2 {
        assert_eq!(fleet.served().await[0], ("abc-123".into(), 1));
    }
    for name in [
        "pipe.json.broken",
        "folder.json.broken.2/inside",
        "huge.json.broken",
    ] {
        assert!(at(name).exists(), "{name} is quarantined");
    }
}
