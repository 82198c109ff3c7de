//! Packets that are counted one by one: UDP datagrams with numbers, sent to an address and echoed back.

use super::namespace::Namespace;
use super::wait_until;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// Answers whatever comes to the address, until its standard input ends.
const ECHO: &str = r#"
import select, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7777))
print("ready", flush=True)
while True:
    readable, _, _ = select.select([s, sys.stdin], [], [])
    if sys.stdin in readable:
        break
    data, sender = s.recvfrom(2048)
    s.sendto(data, sender)
"#;

/// Fifty packets a second until its standard input ends; then it waits for those under way, and tells what it
/// sent and which numbers never came back. What the kernel refuses to send is lost as well.
const SEND: &str = r#"
import json, select, socket, sys, time
source, to = sys.argv[1], sys.argv[2]
family = socket.AF_INET6 if ":" in source else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((source, 0))
s.setblocking(False)
sent, back, due, open, quiet, errors = 0, set(), time.monotonic(), True, None, set()
print("ready", flush=True)
while open or (len(back) < sent and time.monotonic() < quiet):
    now = time.monotonic()
    if open and now >= due:
        try:
            s.sendto(str(sent).encode(), (to, 7777))
        except OSError as error:
            errors.add(str(error))
        sent, due = sent + 1, now + 0.02
    readable, _, _ = select.select([s] + ([sys.stdin] if open else []), [], [], max(0, min(0.02, due - now)))
    if s in readable:
        try:
            back.add(int(s.recv(2048)))
        except OSError as error:
            errors.add(str(error))
    if open and sys.stdin in readable:
        open, quiet = False, time.monotonic() + 10
print(json.dumps({"sent": sent, "lost": sorted(set(range(sent)) - back), "errors": sorted(errors)}))
"#;

/// What became of the packets.
#[derive(Debug, Deserialize)]
pub(crate) struct Count {
    pub(crate) sent: u64,
    pub(crate) lost: Vec<u64>,
    /// What the kernel said about those it did not take.
    pub(crate) errors: Vec<String>,
}

pub(crate) struct Traffic {
    what: String,
    sender: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    echo: Child,
}

impl Traffic {
    /// Sends from `source` in one namespace to `destination` in another. Both addresses answer before it begins,
    /// so that every loss is one of later.
    #[track_caller]
    pub(crate) fn start(
        from: &Namespace,
        source: IpAddr,
        to: &Namespace,
        destination: IpAddr,
    ) -> Self {
        let (source, destination) = (source.to_string(), destination.to_string());
        let what = format!("{} {source} to {} {destination}", from.name, to.name);
        let (echo, _) = program(to, ECHO, &[&destination]);
        let probe = format!(
            "import socket\nf = socket.AF_INET6 if ':' in '{source}' else socket.AF_INET\n\
             s = socket.socket(f, socket.SOCK_DGRAM)\ns.settimeout(0.5)\ns.bind(('{source}', 0))\n\
             s.sendto(b'0', ('{destination}', 7777))\ns.recv(9)"
        );
        wait_until(&what, 40, || {
            from.try_shell(&format!("python3 -c \"{probe}\""))
                .map(|_| ())
        });
        let (mut sender, output) = program(from, SEND, &[&source, &destination]);
        let input = sender.stdin.take();
        Self {
            what,
            sender,
            input,
            output,
            echo,
        }
    }

    /// Ends it and says what was lost.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Count {
        drop(self.input.take());
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{}: {error}: {line:?}", self.what))
    }

    /// As `stop`, where not one may be missing.
    #[track_caller]
    pub(crate) fn stop_without_loss(self) {
        let what = self.what.clone();
        let count = self.stop();
        assert!(
            count.sent > 0 && count.lost.is_empty() && count.errors.is_empty(),
            "{what}: {count:?}"
        );
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // Both end with their input; `nsenter` passes no signal on.
        drop((self.input.take(), self.echo.stdin.take()));
        let _ = (self.sender.wait(), self.echo.wait());
    }
}

fn program(inside: &Namespace, text: &str, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = inside
        .command("python3")
        .args(["-c", text])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot run `nsenter`: install util-linux");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}: python3 does not start", inside.name);
    (child, output)
}
