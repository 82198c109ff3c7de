//! The store in PostgreSQL: a real server on a unix socket, and instances of the program over it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

/// The newest Debian package of the server.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("install the package postgresql");
    let newest = versions.map(|it| it.unwrap().path()).max().unwrap();
    newest.join("bin")
}

/// A database of its own; it must not run as root.
pub(super) struct Database {
    dir: tempfile::TempDir,
    disk: Option<Disk>,
    server: Child,
}

/// A small disk in a mount namespace that ends with its process.
struct Disk(Child);

impl Disk {
    fn new(dir: &Path) -> Self {
        let script = "mkdir data && mount -t tmpfs -o size=80m,uid=$(id -u postgres),mode=700 disk data && exec cat";
        let mut holder = Command::new("unshare");
        holder
            .args(["--mount", "sh", "-c", script])
            .current_dir(dir);
        let pipes = holder.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = pipes.spawn().unwrap();
        holder.stdin.as_mut().unwrap().write_all(b"ready").unwrap();
        let mut ready = [0; 5];
        let answer = holder.stdout.as_mut().unwrap().read_exact(&mut ready);
        answer.expect("a mount namespace with a tmpfs");
        Self(holder)
    }

    /// The path that fills it, as seen from here.
    fn filler(&self, dir: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.0.id()));
        root.join(dir.strip_prefix("/").unwrap())
            .join("data/filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Database {
    fn command(dir: &Path, disk: Option<&Disk>, name: &str) -> Command {
        let user = [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ];
        let mut command = Command::new(if disk.is_some() { "nsenter" } else { "env" });
        command.args(disk.map(|disk| format!("--mount=/proc/{}/ns/mnt", disk.0.id())));
        command.args(user);
        command.arg(programs().join(name)).arg("-D");
        command.arg(dir.join("data")).current_dir(dir);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub(super) fn start() -> Self {
        Self::start_on(false)
    }

    fn start_on(small_disk: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = |flag: &str| -> u32 {
            let out = Command::new("id").args([flag, "postgres"]).output();
            let text = String::from_utf8(out.unwrap().stdout).unwrap();
            text.trim().parse().expect("the user postgres exists")
        };
        chown(dir.path(), Some(id("-u")), Some(id("-g"))).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let disk = small_disk.then(|| Disk::new(dir.path()));
        let mut init = Self::command(dir.path(), disk.as_ref(), "initdb");
        let init = init.args(["-A", "trust", "-N", "--locale=C", "-E", "UTF8"]);
        assert!(init.status().unwrap().success());
        let server = Self::server(dir.path(), disk.as_ref());
        fs::write(dir.path().join("write-token"), "change").unwrap();
        Self { dir, disk, server }
    }

    fn server(dir: &Path, disk: Option<&Disk>) -> Child {
        let mut server = Self::command(dir, disk, "postgres");
        server.arg("-k").arg(dir).args(["-h", ""]).spawn().unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.dir.path().display()
        )
    }

    /// Runs a statement, and returns its rows.
    pub(super) fn sql(&self, statement: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        let psql = psql
            .args(["-X", "-A", "-t", "-c", statement])
            .arg(self.url());
        let done = psql.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Ends the server at once, as a crash: it has no time for a checkpoint.
    fn kill(&mut self) {
        let pid = self.server.id().to_string();
        let killed = Command::new("kill").args(["-QUIT", &pid]).status();
        assert!(killed.unwrap().success());
        self.server.wait().unwrap();
    }

    fn restart(&mut self) {
        self.server = Self::server(self.dir.path(), self.disk.as_ref());
    }

    pub(super) fn fleet(&self, verb: &str, dir: &Path, more: &[&str]) -> (bool, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_moenet-agent"));
        program.args(["fleet", verb]).arg(dir).args(more);
        let done = program
            .env("MOENET_FLEET_STORE", self.url())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        (done.status.success(), text)
    }

    /// Imports when the server is up.
    pub(super) fn import(&self, dir: &Path) {
        soon("the database accepts the fleet", || {
            let (done, text) = self.fleet("import", dir, &["--overwrite"]);
            done.then_some(()).ok_or(text)
        });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server.try_wait().ok().flatten().is_none() {
            self.kill();
        }
    }
}

/// Tries until it works; counts on no speed.
fn soon<T, E: std::fmt::Debug>(what: &str, mut work: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match work() {
            Ok(done) => return done,
            Err(error) if Instant::now() > deadline => panic!("{what}: {error:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A process of the Control Plane over the database.
struct Instance {
    process: Child,
    port: u16,
}

impl Instance {
    fn start(database: &Database) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new(env!("CARGO_BIN_EXE_moenet-agent"))
            .args(["control-plane", "--listen", &format!("127.0.0.1:{port}")])
            .arg("--write-token-file")
            .arg(database.dir.path().join("write-token"))
            .env("MOENET_FLEET_STORE", database.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let instance = Self { process, port };
        soon("the instance serves", || instance.sessions());
        instance
    }

    fn call(&self, method: &str, endpoint: &str, body: &str) -> (u16, Value) {
        self.call_as("jp1", method, endpoint, body)
    }

    /// As another router with the same token.
    fn call_as(&self, router: &str, method: &str, endpoint: &str, body: &str) -> (u16, Value) {
        let path = format!("/agent/{router}/{endpoint}");
        self.ask("s3cret", method, &path, body)
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let Ok(text) = answer() else {
            return (0, Value::Null);
        };
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_default();
        (status.unwrap_or(0), body)
    }

    /// The uuid and status of each session.
    fn sessions(&self) -> Result<Vec<(String, u64)>, (u16, Value)> {
        let (status, body) = self.call("GET", "sessions", "");
        if status != 200 {
            return Err((status, body));
        }
        let items = body["sessions"].as_array().unwrap().iter();
        let item = |it: &Value| {
            (
                it["uuid"].as_str().unwrap().to_owned(),
                it["status"].as_u64().unwrap(),
            )
        };
        Ok(items.map(item).collect())
    }

    fn modify(&self, uuid: &str, status: u64) -> u16 {
        let body = json!({"uuid": uuid, "status": status}).to_string();
        self.call("POST", "modify", &body).0
    }

    fn heartbeat(&self, uptime: u64) -> u16 {
        let body = json!({"version": "1", "uptime": uptime}).to_string();
        self.call("POST", "heartbeat", &body).0
    }

    fn uptime(&self) -> Option<u64> {
        let (_, body) = self.call("GET", "reported", "");
        body["heartbeat"]["body"]["uptime"].as_u64()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Result<(), T> {
    if got == wanted { Ok(()) } else { Err(got) }
}

fn status(uuid: &str, status: u64) -> (String, u64) {
    (uuid.to_owned(), status)
}

#[test]
fn instances_share_a_fleet_and_outlive_each_other() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    let (one, other) = (Instance::start(&database), Instance::start(&database));
    assert_eq!(one.modify("abc-123", 1), 200);
    assert_eq!(one.heartbeat(7), 200);
    drop(one);
    let wanted = vec![status("abc-123", 1), status("old", 5)];
    soon("the other serves the post", || {
        same(other.sessions().unwrap(), wanted.clone())
    });
    assert_eq!(other.uptime(), Some(7), "no acknowledged post is lost");
    let one = Instance::start(&database);
    assert_eq!(one.sessions().unwrap(), wanted);
    fleet.edit("sessions.yaml", "status: 4", "status: 3");
    database.import(fleet.dir.path());
    for instance in [&one, &other] {
        soon("an edit is served", || {
            same(
                instance.sessions().unwrap()[0].clone(),
                status("abc-123", 3),
            )
        });
    }
    // An invalid edit is not served, by an instance that starts after it either.
    fleet.edit("sessions.yaml", "asn: 4242421080", "asn: 0");
    fleet.edit("sessions.yaml", "status: 3", "status: 4");
    database.import(fleet.dir.path());
    let new = Instance::start(&database);
    assert_eq!(new.sessions().unwrap()[0], status("abc-123", 3));
    share_a_network(&database, &fleet, [&new, &one]);
}

/// A described network beside the folder: a key that one instance gets is served by the other.
fn share_a_network(database: &Database, fleet: &Fleet, [one, other]: [&Instance; 2]) {
    let write = |path: &str, text: &str| {
        let path = fleet.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "network.yaml",
        "{asn: 4242420998, prefixes: {ipv6: 'fd48:4da8:420::/48'}}",
    );
    write("secrets/token", "s3cret\n");
    write("routers/hk1.yaml", "{id: 2, tokenFile: ../secrets/token}");
    write(
        "routers/de1.yaml",
        "{id: 3, address: de1.example.net, token: s3cret}",
    );
    write(
        "sessions/hk1/alice.yaml",
        "{uuid: alice, asn: 4242421080, status: 5}",
    );
    write(
        "sessions/hk1/bob.yaml",
        "{uuid: bob, asn: 4242421081, status: 3, ipv6LinkLocal: 'fe80::3', credential: \
         xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=} # waits",
    );
    database.import(fleet.dir.path());
    soon("the sessions of the network are served", || {
        let (_, body) = other.call_as("hk1", "GET", "sessions", "");
        same(body["sessions"][0]["uuid"].clone(), json!("alice"))
    });
    review(database, one, other);
    let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    let body = json!({"version": "1", "uptime": 1, "meshPublicKey": key}).to_string();
    let (_, mesh) = other.call_as("hk1", "GET", "mesh", "");
    assert_eq!(mesh["peers"][0].get("publicKey"), None, "{mesh}");
    assert_eq!(one.call_as("de1", "POST", "heartbeat", &body).0, 200);
    // PostgreSQL reads no value of a text with U+0000: that of one router must not hide the keys of the others.
    let nul = r#"{"version": "\u0000", "uptime": 1}"#;
    assert_eq!(one.call_as("hk1", "POST", "heartbeat", nul).0, 200);
    let versions = "SELECT count(body->>'version') FROM newest WHERE kind = 'heartbeat'";
    assert_eq!(database.sql(versions).trim(), "3");
    let nul = format!("INSERT INTO newest VALUES ('gone', 'heartbeat', now(), '{nul}')");
    database.sql(&nul);
    soon("the key is served by the other", || {
        let (_, body) = other.call_as("hk1", "GET", "mesh", "");
        same(body["peers"][0]["publicKey"].clone(), json!(key))
    });
    show_and_delete(database, fleet, one);
    only_select(database);
    serve_side_by_side(database, fleet, [one, other]);
    // A broken description changes nothing.
    write("routers/de1.yaml", "{id: 2, token: s3cret}");
    let invalid = ["--overwrite", "--allow-invalid"];
    let (done, text) = database.fleet("import", fleet.dir.path(), &invalid);
    assert!(done, "{text}");
    soon("the edit has arrived", || {
        same(one.call_as("de1", "GET", "config", "").0, 200)
    });
    assert_eq!(other.call_as("hk1", "GET", "mesh", "").0, 200);
}

/// An operator accepts a session at one instance: the other serves it, and the file keeps its comment.
fn review(database: &Database, one: &Instance, other: &Instance) {
    let accept = |instance: &Instance| {
        let body = json!({"session": "bob", "change": "accept"}).to_string();
        instance.ask("change", "POST", "/v1/routers/hk1/sessions", &body)
    };
    let files = json!({"files": ["sessions/hk1/bob.yaml"]});
    assert_eq!(accept(one), (200, files));
    soon("the accepted session is served", || {
        let (_, body) = other.call_as("hk1", "GET", "sessions", "");
        same(body["sessions"][1]["status"].clone(), json!(4))
    });
    assert_eq!(accept(other), (200, json!({"files": []})));
    audit(database);
    let copy = tempfile::tempdir().unwrap();
    let (done, text) = database.fleet("export", copy.path(), &[]);
    assert!(done, "{text}");
    let bob = fs::read_to_string(copy.path().join("sessions/hk1/bob.yaml")).unwrap();
    assert!(
        bob.contains("status: 4") && bob.ends_with("# waits"),
        "{bob}"
    );
}

/// Both instances serve all lists at one moment: no list is lost in the history, none is there twice, and the oldest go.
fn serve_side_by_side(database: &Database, fleet: &Fleet, instances: [&Instance; 2]) {
    let routers: Vec<String> = (10..22).map(|id| format!("us{id}")).collect();
    for (router, id) in routers.iter().zip(10..) {
        let path = fleet.dir.path().join(format!("routers/{router}.yaml"));
        fs::write(path, format!("{{id: {id}, token: s3cret}}")).unwrap();
    }
    database.import(fleet.dir.path());
    let last = routers.last().unwrap();
    for instance in instances {
        soon("the new routers are served", || {
            same(instance.call_as(last, "GET", "config", "").0, 200)
        });
    }
    let mut lists = ["bird-config", "config", "mesh", "sessions"];
    std::thread::scope(|scope| {
        for instance in instances {
            let routers = &routers;
            scope.spawn(move || {
                for (router, list) in routers.iter().flat_map(|it| lists.map(|list| (it, list))) {
                    assert_eq!(instance.call_as(router, "GET", list, "").0, 200, "{list}");
                }
            });
            lists.reverse();
        }
    });
    lists.sort();
    let [one, other] = instances;
    let history = |router: &str| -> Vec<Value> {
        let path = format!("/v1/routers/{router}/history");
        let (status, answer) = one.ask("change", "GET", &path, "");
        assert_eq!(status, 200, "{answer}");
        answer["served"].as_array().unwrap().clone()
    };
    for router in &routers {
        let mut served = history(router);
        served.sort_by_key(|it| it["list"].to_string());
        let names: Vec<_> = served.iter().map(|it| it["list"].clone()).collect();
        assert_eq!(json!(names), json!(lists), "{router}");
        let lists: Value = served
            .iter()
            .map(|it| (it["list"].as_str().unwrap(), it["content"].clone()))
            .collect();
        let body = json!({"version": "1", "uptime": 1, "lists": lists}).to_string();
        assert_eq!(other.call_as(router, "POST", "heartbeat", &body).0, 200);
        assert!(history(router).iter().all(|it| it["written"].is_string()));
    }
    let mut contents = Vec::new();
    for change in ["disable", "accept"].repeat(11) {
        let body = json!({"session": "bob", "change": change}).to_string();
        let changed = one.ask("change", "POST", "/v1/routers/hk1/sessions", &body);
        assert_eq!(changed.0, 200, "{}", changed.1);
        assert_eq!(one.call_as("hk1", "GET", "sessions", "").0, 200);
        contents.push(history("hk1").pop().unwrap()["content"].clone());
    }
    let kept: Vec<_> = history("hk1")
        .iter()
        .map(|it| it["content"].clone())
        .collect();
    assert_eq!(kept, contents[2..]);
}

/// Each write has an entry, of an import too, and a call that changes nothing has none.
fn audit(database: &Database) {
    let (done, text) = database.fleet("audit", Path::new("-ojson"), &[]);
    assert!(done, "{text}");
    let audit: Value = serde_json::from_str(&text).unwrap();
    let entries = audit.as_array().unwrap();
    let changes = entries.iter().map(|it| it["what"].as_str().unwrap());
    let changes: Vec<_> = changes.filter(|what| *what != "import").collect();
    assert_eq!(changes, ["accept"]);
    let last = entries.last().unwrap();
    assert_eq!(
        (&last["who"], &last["object"], &last["files"]),
        (
            &json!("write-token"),
            &json!("hk1/bob"),
            &json!(["sessions/hk1/bob.yaml"])
        )
    );
    assert_eq!(entries[0]["object"], "fleet");
}

/// A role that may only SELECT is enough for the verbs that read; the texts say what to do where it is not.
fn only_select(database: &Database) {
    database.sql("CREATE ROLE reader LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let url = database.url().replace("//postgres@", "//reader@");
    let copy = tempfile::tempdir().unwrap();
    let call = |verb: &str, of: &Path, url: &str| database.fleet(verb, of, &["--store", url]);
    let (done, text) = call("get", Path::new("-owide"), &url);
    assert!(!done && text.contains("select from them"), "{text}");
    database.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    for (verb, of) in [
        ("get", "-owide"),
        ("describe", "hk1"),
        ("history", "hk1"),
        ("rollout", "-ojson"),
        ("audit", "-ojson"),
        ("export", copy.path().to_str().unwrap()),
    ] {
        let (done, text) = call(verb, Path::new(of), &url);
        assert!(done, "{verb}: {text}");
        assert!(!text.to_lowercase().contains("warn"), "{verb}: {text}");
    }
    database.sql("CREATE DATABASE empty");
    let empty = url.replace("/postgres?", "/empty?");
    let (done, text) = call("get", Path::new("-owide"), &empty);
    assert!(!done && text.contains("fleet import DIR"), "{text}");
}

/// The verbs show what routers posted to the database, and believe the removal that one confirmed there.
fn show_and_delete(database: &Database, fleet: &Fleet, one: &Instance) {
    let dir = fleet.dir.path();
    let path = |name: &str| Path::new(name).to_owned();
    let (done, text) = database.fleet("get", &path("-owide"), &[]);
    assert!(
        done && text.contains("de1") && text.contains("hk1"),
        "{text}"
    );
    let (done, text) = database.fleet("describe", &path("hk1"), &[]);
    assert!(done && text.contains("QUEUED_FOR_DELETE"), "{text}");
    let delete = || {
        database.fleet(
            "delete",
            &path("hk1/alice"),
            &["--fleet", dir.to_str().unwrap()],
        )
    };
    let (done, text) = delete();
    assert!(!done && text.contains("has not confirmed"), "{text}");
    let gone = json!({"uuid": "alice", "status": 0}).to_string();
    assert_eq!(one.call_as("hk1", "POST", "modify", &gone).0, 200);
    let (done, text) = delete();
    assert!(
        done && !dir.join("sessions/hk1/alice.yaml").exists(),
        "{text}"
    );
}

#[test]
fn acknowledged_posts_survive_the_death_of_the_database() {
    let (mut database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    let instance = Instance::start(&database);
    assert_eq!(instance.modify("old", 0), 200);
    assert_eq!(instance.heartbeat(1), 200);
    database.kill();
    assert_eq!(instance.heartbeat(2), 503);
    assert_eq!(instance.modify("abc-123", 1), 503);
    let served = vec![status("abc-123", 4)];
    assert_eq!(instance.sessions().unwrap(), served, "without the database");
    database.restart();
    soon("posts are stored again", || {
        same(instance.heartbeat(3), 200)
    });
    assert_eq!(instance.uptime(), Some(3));
    assert_eq!(instance.sessions().unwrap(), served);
    let new = Instance::start(&database);
    assert_eq!(new.sessions().unwrap(), served, "stored, not remembered");
    fleet.edit("sessions.yaml", "status: 4", "status: 3");
    database.import(fleet.dir.path());
    soon("notifications come again", || {
        same(instance.sessions().unwrap(), vec![status("abc-123", 3)])
    });
}

#[test]
fn full_disk_of_the_database_loses_nothing() {
    let (mut database, fleet) = (Database::start_on(true), fleet());
    database.import(fleet.dir.path());
    let instance = Instance::start(&database);
    assert_eq!(
        (instance.modify("old", 0), instance.heartbeat(0)),
        (200, 200)
    );
    let served = instance.sessions().unwrap();
    let filler = database.disk.as_ref().unwrap().filler(database.dir.path());
    crate::support::small_disk::fill(&filler);
    let mut newest = 0;
    let refused = (1..400u32).find(|uptime| {
        // Digits of a square root do not compress.
        let pad: String = (0..20_000)
            .map(|i| f64::from(uptime * 20_000 + i).sqrt().to_string())
            .collect();
        let body = json!({"version": "1", "uptime": uptime, "pad": pad}).to_string();
        let (status, _) = instance.call("POST", "heartbeat", &body);
        newest = if status == 200 { *uptime } else { newest };
        status == 503
    });
    assert!(refused.is_some(), "the disk is full");
    assert_eq!(instance.sessions().unwrap(), served, "while it is full");
    fs::remove_file(&filler).unwrap();
    let kept = soon("the newest post can be read", || {
        // A server that cannot write its log ends.
        if database.server.try_wait().unwrap().is_some() {
            database.restart();
        }
        instance.uptime().ok_or(())
    });
    assert!(kept >= u64::from(newest), "{kept} {newest}");
    soon("posts are stored again", || {
        same(instance.heartbeat(999), 200)
    });
    let new = Instance::start(&database);
    assert_eq!((new.sessions().unwrap(), new.uptime()), (served, Some(999)));
}

#[test]
fn old_posts_expire_with_their_partition() {
    let (database, fleet) = (Database::start(), fleet());
    database.import(fleet.dir.path());
    let partitions = || {
        let names = database
            .sql("SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'posts'::regclass");
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (name, from, to) in [
        ("posts_2020010100", "2020-01-01 00:00Z", "2020-01-01 01:00Z"),
        ("posts_2120010100", "2120-01-01 00:00Z", "2120-01-01 01:00Z"),
    ] {
        database.sql(&format!(
            "CREATE TABLE {name} PARTITION OF posts FOR VALUES FROM ('{from}') TO ('{to}')"
        ));
    }
    let old = "INSERT INTO posts VALUES ('jp1', 'heartbeat', '2020-01-01 00:30Z', '{}')";
    database.sql(old);
    let instance = Instance::start(&database);
    soon("a post is stored", || same(instance.heartbeat(1), 200));
    let left = partitions();
    assert!(!left.contains(&"posts_2020010100".to_owned()), "{left:?}");
    // This hour, the next one, and one that is not old.
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(database.sql("SELECT count(*) FROM posts").trim(), "1");
}
