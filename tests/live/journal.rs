//! The log under systemd: entries with fields on the journal's socket.

use serde_json::Value;

use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// Receives the journal's datagrams, and writes each as a JSON object on a line.
const JOURNAL: &str = r#"
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('/run/systemd/journal/socket')
while True:
    entry, fields = s.recv(1 << 20), {}
    while entry:
        name, rest = entry.split(b'\n', 1)
        size = struct.unpack('<Q', rest[:8])[0]
        fields[name.decode()] = rest[8:8 + size].decode()
        assert rest[8 + size:9 + size] == b'\n'
        entry = rest[9 + size:]
    print(json.dumps(fields), flush=True)
"#;

#[test]
fn journal_gets_fields_and_priority_of_each_line() {
    let mut world = World::converged(1);
    world.router.stop_agent();
    let inside = &world.router.inside;
    inside.shell(
        "mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/journal",
    );
    let entries = world.router.path("entries.json");
    let script = world.router.path("journal.py");
    std::fs::write(&script, JOURNAL).unwrap();
    let mut journal = inside.spawn(&entries, "python3".as_ref(), &[script.to_str().unwrap()]);
    inside.shell("for i in $(seq 50); do test -S /run/systemd/journal/socket && exit; sleep 0.1; done; exit 1");

    // What systemd says of standard error.
    let log = world.router.path("agent.log");
    std::fs::write(&log, "").unwrap();
    let stream = inside.shell(&format!("stat -c %d:%i {}", log.display()));
    world
        .router
        .start_agent_with(&[&format!("JOURNAL_STREAM={}", stream.trim())]);
    world.wait_established();
    let name = interface(1);
    let object = format!("sessions/{name}");
    world
        .router
        .inside
        .shell(&format!("ip link set {name} mtu 1290"));
    wait_until("the repair is in the journal", 20, || {
        let text = std::fs::read_to_string(&entries).unwrap();
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all: Vec<Value> = entries.collect();
        let repair = all.iter().find(|entry| {
            entry["OBJECT"] == object.as_str()
                && entry["MESSAGE"]
                    .as_str()
                    .is_some_and(|it| it.starts_with("drift repaired"))
        });
        let Some(repair) = repair else {
            return Err(text);
        };
        assert_eq!(repair["PRIORITY"], "6", "{repair}");
        assert!(
            repair["ASN"]
                .as_str()
                .is_some_and(|asn| asn.starts_with("4242421")),
            "{repair}"
        );
        assert_eq!(repair["SYSLOG_IDENTIFIER"], "moenet-agent");
        assert!(
            repair["MESSAGE"]
                .as_str()
                .unwrap()
                .contains("cause=\"drift\""),
            "{repair}"
        );
        assert_eq!(repair["MOENET_CAUSE"], "drift", "{repair}");
        Ok(())
    });
    assert_eq!(world.router.log(), "", "nothing is written twice");
    journal.end("-KILL");
}
