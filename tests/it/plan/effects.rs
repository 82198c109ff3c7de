//! What a plan says of BGP sessions against what a neighbour sees: each change is loaded by a real BIRD, and the
//! session with a second one restarts exactly when the plan said that it would.

use std::thread::sleep;
use std::time::Duration;

use crate::render::support::BIRDS;
use crate::render::support::lab::{Node, eventually};
use moenet_agent::plan::{BaseFiles, plan_base};

const ROUTER: &str = r#"
timeformat protocol "%s";
define HOLD = 90;
define LIMIT = 10;
protocol device { }
template bgp t {
  local as 65001;
  connect delay time 1;
  error wait time 1, 2;
  keepalive time 20;
  graceful restart on;
}
protocol bgp a from t {
  description "one";
  neighbor fe80::2 as 65002;
  source address fe80::1;
  interface "w0";
  hold time HOLD;
  ipv6 {
    import table on;
    import limit LIMIT action block;
    import filter { if net.len > 64 then reject; accept; };
    export none;
  };
}
"#;

const NEIGHBOUR: &str = r#"
timeformat protocol "%s";
protocol device { }
protocol bgp b {
  local as 65002;
  neighbor fe80::1 as 65001;
  source address fe80::2;
  interface "w0";
  connect delay time 1;
  error wait time 1, 2;
  graceful restart off;
  ipv6 { import all; export none; };
}
"#;

/// Changes of the text, one after the other, and what the plan has to say of each.
const CHANGES: [(&str, &str, &str); 16] = [
    ("\"one\"", "\"two\"", ""),
    ("net.len > 64", "net.len > 48", ""),
    ("define LIMIT = 10", "define LIMIT = 20", ""),
    ("export none", "export limit 5 action warn; export all", ""),
    ("import limit LIMIT action block;", "", ""),
    ("import table on;", "import table on; preference 120;", ""),
    ("import filter {", "# a remark\nimport filter {", ""),
    (
        "define HOLD = 90",
        "define HOLD = 60",
        "restarts every BGP session (HOLD)",
    ),
    ("hold time HOLD", "hold time 80", "restarts a (hold time)"),
    (
        "keepalive time 20",
        "keepalive time 15",
        "restarts every session of t (keepalive time)",
    ),
    ("import table on;", "", "restarts a (ipv6 import table)"),
    (
        "graceful restart on",
        "graceful restart off",
        "restarts every session of t (graceful restart)",
    ),
    (
        "hold time 80;",
        "hold time 80; ipv4 { extended next hop on; import all; export none; };",
        "restarts a (ipv4, ",
    ),
    (
        "router id 10.0.0.1",
        "router id 10.0.0.3",
        "restarts every BGP session (router id)",
    ),
    ("hold time 80;", "hold time 80; disabled;", "takes a down"),
    ("disabled;", "", ""),
];

struct Pair {
    router: Node,
    neighbour: Node,
    text: String,
}

impl Pair {
    fn established(version: &'static str) -> Self {
        let (router, neighbour) = (Node::new("e1", version, &[]), Node::new("e2", version, &[]));
        router.wire(("w0", "fe80::1"), &neighbour, ("w0", "fe80::2"));
        let text = router.preamble("10.0.0.1") + ROUTER;
        std::fs::write(
            neighbour.directory().join("bird.conf"),
            neighbour.preamble("10.0.0.2") + NEIGHBOUR,
        )
        .unwrap();
        let mut pair = Self {
            router,
            neighbour,
            text,
        };
        pair.write();
        pair.router.start();
        pair.neighbour.start();
        pair.neighbour.wait_for("b");
        pair
    }

    fn write(&self) {
        std::fs::write(self.router.directory().join("bird.conf"), &self.text).unwrap();
    }

    /// Loads a change. Returns what the plan said of it.
    fn change(&mut self, from: &str, to: &str) -> String {
        assert!(self.text.contains(from), "no {from:?} in {}", self.text);
        let new = self.text.replacen(from, to, 1);
        let file =
            |text: &String| BaseFiles::from([("bird.conf".to_owned(), text.as_str().into())]);
        let step = plan_base(&file(&new), &file(&self.text)).steps.remove(0);
        self.text = new;
        self.write();
        self.router.configure();
        let action = step.action.to_string();
        action
            .split_once("bird.conf")
            .unwrap()
            .1
            .trim_start_matches(", which ")
            .to_owned()
    }

    fn neighbour_sees(&self, said: &str, before: u64, change: &str) {
        let shown = || self.neighbour.ask("show protocols b");
        if said.starts_with("restarts") {
            eventually(change, || {
                let again = shown().contains("Established") && self.neighbour.since("b") > before;
                again
                    .then_some(())
                    .ok_or_else(|| format!("{said}, but: {}", shown()))
            });
        } else if said.starts_with("takes") {
            eventually(change, || {
                (!shown().contains("Established"))
                    .then_some(())
                    .ok_or_else(|| format!("{said}, but: {}", shown()))
            });
        } else {
            sleep(Duration::from_millis(1200));
            eventually(change, || {
                shown()
                    .contains("Established")
                    .then_some(())
                    .ok_or_else(shown)
            });
        }
    }
}

/// Each restart is seen as a later beginning of the neighbour's session, so each change waits for the next second.
fn the_plan_tells_what_the_neighbour_sees(version: &'static str) {
    let mut pair = Pair::established(version);
    for (from, to, expected) in CHANGES {
        sleep(Duration::from_millis(1100));
        let before = pair.neighbour.since("b");
        let was_up = pair
            .neighbour
            .ask("show protocols b")
            .contains("Established");
        let said = pair.change(from, to);
        assert!(
            said.starts_with(expected) && said.is_empty() == expected.is_empty(),
            "{from} → {to}: {said}"
        );
        pair.neighbour_sees(&said, before, &format!("{from} → {to}"));
        if said.is_empty() && was_up {
            assert_eq!(
                pair.neighbour.since("b"),
                before,
                "{from} → {to} restarted the session of BIRD {version}"
            );
        }
    }
}

/// All versions at once, since a test like this mostly waits.
#[test]
fn the_plan_tells_what_the_neighbour_sees_of_every_bird() {
    std::thread::scope(|scope| {
        for (version, ..) in BIRDS {
            scope.spawn(move || the_plan_tells_what_the_neighbour_sees(version));
        }
    });
}
