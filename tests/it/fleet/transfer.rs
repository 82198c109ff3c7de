//! `fleet import` and `fleet export`: a fleet between a directory and a database.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::{Command, Stdio};

use super::postgres::Database;
use super::*;

#[test]
fn change_that_was_taken_back_stays_so_in_a_copy() {
    let (database, dir) = (Database::start(), tempfile::tempdir().unwrap());
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "network.yaml",
        "{asn: 4242420998, prefixes: {ipv6: 'fd48:4da8:420::/48'}, rollout: {waves: [[a]]}}",
    );
    write("routers/a.yaml", "{id: 1, token: t}");
    let refused = "{\"to\": \"abc\", \"at\": \"2026-11-01T00:00:00Z\", \"why\": \"lost prefixes\"}";
    let record = format!("{{\"version\": 3, \"accepted\": null, \"refused\": {refused}}}");
    write("reported/.fleet.json", &record);
    database.import(dir.path());
    let out = tempfile::tempdir().unwrap();
    let (done, text) = database.fleet("export", out.path(), &[]);
    assert!(done, "{text}");
    let copied = fs::read_to_string(out.path().join("reported/.fleet.json")).unwrap();
    assert!(copied.contains("lost prefixes"), "{copied}");
}

#[test]
fn import_refuses_what_no_server_would_serve() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    let other = tempfile::tempdir().unwrap();
    let more = ["--overwrite", "--allow-invalid"];
    for _ in 0..2 {
        let (done, text) = database.fleet("import", other.path(), &more);
        assert!(!done && text.contains("neither network.yaml"), "{text}");
        fs::write(other.path().join("notes.txt"), "not a fleet").unwrap();
    }
    fs::write(fleet.dir.path().join("network.yaml"), "asn: [\n").unwrap();
    let (done, text) = database.fleet("import", fleet.dir.path(), &["--overwrite"]);
    assert!(!done && text.contains("network.yaml:"), "{text}");
    let out = tempfile::tempdir().unwrap();
    assert!(database.fleet("export", out.path(), &[]).0);
    let kept = fs::read_to_string(out.path().join("jp1/sessions.yaml")).unwrap();
    assert_eq!(kept, SESSIONS);
}

#[test]
fn database_that_cannot_be_reached_is_named() {
    let done = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
        .args([
            "fleet",
            "get",
            "--store",
            "postgres://a:secret@127.0.0.1:1/fleet",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        text.contains("127.0.0.1:1/fleet: ") && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn tables_of_another_version_lock_out_no_instance() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    database.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'newer', true, '', 1)",
    );
    let mut server = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
        .args(["control-plane", "--listen", "127.0.0.1:0"])
        .env("MOENET_FLEET_STORE", database.url())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let refused = |line: &std::io::Result<String>| line.as_ref().unwrap().contains("unavailable");
    lines.take_while(|line| !refused(line)).count();
    let (done, text) = database.fleet("import", fleet.dir.path(), &[]);
    assert!(!done && text.contains("use the version"), "{text}");
    database.sql("DELETE FROM _sqlx_migrations WHERE version = 9999");
    let (done, text) = database.fleet("import", fleet.dir.path(), &[]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(done, "{text}");
}

#[test]
fn exported_files_belong_to_the_owner_of_the_directory() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    let post = r#"{"version": "1", "uptime": 1}"#;
    let post = format!("INSERT INTO newest VALUES ('jp1', 'heartbeat', now(), '{post}')");
    database.sql(&post);
    let out = tempfile::tempdir().unwrap();
    let _ = chown(out.path(), Some(65_534), Some(65_534));
    let owner = |name: &str| {
        let found = fs::metadata(out.path().join(name)).unwrap();
        (found.uid(), found.gid())
    };
    let server = owner("");
    let (done, text) = database.fleet("export", out.path(), &[]);
    assert!(done, "{text}");
    for name in ["jp1", "jp1/router.yaml", "jp1/reported/heartbeat.json"] {
        assert_eq!(owner(name), server, "{name}");
    }
    let (done, text) = database.fleet("export", &out.path().join("jp1/router.yaml"), &[]);
    assert!(!done && text.contains("jp1/router.yaml: "), "{text}");
}

#[test]
fn wrong_database_is_neither_filled_nor_exported() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    database.sql("CREATE DATABASE wrong TEMPLATE template0");
    let url = database.url().replacen("/postgres?", "/wrong?", 1);
    let more = ["--overwrite", "--store", &url];
    for _ in 0..2 {
        let (done, text) = database.fleet("export", fleet.dir.path(), &more);
        assert!(
            !done && text.contains("the database has no fleet"),
            "{text}"
        );
    }
    // The reason once, without the line in PostgreSQL's source.
    let url = database.url().replacen("/postgres?", "/gone?", 1);
    let (done, text) = database.fleet("export", fleet.dir.path(), &["--store", &url]);
    let why = "database \"gone\" does not exist";
    assert!(
        !done && text.matches(why).count() == 1 && !text.contains("at line"),
        "{text}"
    );
    // Also once a server has made its tables there.
    database.sql("UPDATE files SET content = NULL");
    let (done, text) = database.fleet("export", fleet.dir.path(), &["--overwrite"]);
    assert!(
        !done && text.contains("the database has no fleet"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(fleet.path("sessions.yaml")).unwrap(),
        SESSIONS
    );
}

#[test]
fn database_that_lacks_characters_is_refused() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    database.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let url = database.url().replacen("/postgres?", "/latin?", 1);
    let (done, text) = database.fleet("import", fleet.dir.path(), &["--store", &url]);
    assert!(
        !done && text.contains("create it with the encoding UTF8"),
        "{text}"
    );
}

#[test]
fn directory_of_the_command_line_counts_before_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("fleet").display().to_string();
    let serve = |url: &str, more: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_moenet-agent"));
        program.arg("control-plane").args(more);
        let done = program.env("MOENET_FLEET_STORE", url).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code(), text)
    };
    for url in ["postgres://a@127.0.0.1:1/fleet", ""] {
        let (code, text) = serve(url, &["--fleet", &missing]);
        assert!(code == Some(1) && text.contains(&missing), "{text}");
    }
    let (code, text) = serve("", &[]);
    assert!(code == Some(64) && text.contains("--fleet DIR"), "{text}");
    let both = [
        "--fleet",
        &missing,
        "--store",
        "postgres://a@127.0.0.1:1/fleet",
    ];
    assert_eq!(serve("", &both).0, Some(64));
}

#[test]
fn import_and_export_are_a_round_trip() {
    let (database, fleet) = (Database::start(), fleet());
    fs::write(fleet.path("maintenance"), "").unwrap();
    fs::create_dir_all(fleet.path("reported/sessions")).unwrap();
    database.import(fleet.dir.path());
    let out = tempfile::tempdir().unwrap();
    let (done, text) = database.fleet("export", out.path(), &["-o", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(done && answer["changed"] == 5, "{text}");
    for name in [
        "router.yaml",
        "sessions.yaml",
        "mesh.yaml",
        "bird-config.yaml",
        "maintenance",
    ] {
        let copy = fs::read(out.path().join("jp1").join(name)).unwrap();
        assert_eq!(copy, fs::read(fleet.path(name)).unwrap(), "{name}");
    }
    let edited = out.path().join("jp1/sessions.yaml");
    fs::write(&edited, "sessions: []\n").unwrap();
    let (done, text) = database.fleet("export", out.path(), &[]);
    assert!(!done && text.contains("jp1/sessions.yaml"), "{text}");
    assert_eq!(fs::read_to_string(&edited).unwrap(), "sessions: []\n");
    let (done, text) = database.fleet("import", out.path(), &[]);
    assert!(!done && text.contains("--overwrite"), "{text}");
    assert!(database.fleet("export", out.path(), &["--overwrite"]).0);
    assert_eq!(fs::read_to_string(&edited).unwrap(), SESSIONS);
}
