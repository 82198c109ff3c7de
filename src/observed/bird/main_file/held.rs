//! A main file that the agent may write, and does not while BIRD runs protocols that would end with it. Pure.

use std::collections::BTreeSet;
use std::path::Path;

use super::BirdProblem;
use crate::observed::bird::Protocol;
use crate::util::sorted::Sorted as _;

/// Protocols that a distribution's main file has, and the agent's files define again.
const SHIPPED: [&str; 4] = ["Device", "Kernel", "Direct", "Static"];

/// Returns whether a distribution's main file may have defined this protocol. A static one with a name holds routes of the
/// operator: BIRD numbers those without one.
fn is_shipped(protocol: &Protocol) -> bool {
    let number = protocol.name.strip_prefix("static").unwrap_or_default();
    let is_numbered = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    SHIPPED.contains(&protocol.proto.as_str()) && (protocol.proto != "Static" || is_numbered)
}

/// A main file without any mark that the agent may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmarked {
    /// There is no file.
    Missing,
    /// It holds only text that a distribution ships.
    Shipped,
}

/// Why such a file is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    file: Unmarked,
    runs: Runs,
}

/// What the daemon runs beside the agent's protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runs {
    Protocols(Vec<String>),
    /// It does not answer, with the reason.
    Unknown(String),
}

impl Held {
    /// Returns why the file is held, if the daemon runs protocols that are not in the agent's files, whose protocols are
    /// `ours`.
    pub fn of(file: Unmarked, running: &[Protocol], ours: &BTreeSet<String>) -> Option<Self> {
        let is_lost =
            |protocol: &&Protocol| !is_shipped(protocol) && !ours.contains(&protocol.name);
        let lost = running.iter().filter(is_lost);
        let lost = lost.map(|it| format!("{} {}", it.proto.to_lowercase(), it.name));
        let lost: Vec<_> = lost.sorted_set().into_iter().collect();
        let runs = Runs::Protocols(lost);
        (runs != Runs::Protocols(Vec::new())).then_some(Self { file, runs })
    }

    /// Returns that the file is held, because a daemon that may run does not answer.
    pub fn unknown(file: Unmarked, why: String) -> Self {
        let runs = Runs::Unknown(why);
        Self { file, runs }
    }

    pub(super) fn problem(&self, path: &Path) -> BirdProblem {
        let path = path.display();
        let (is, put_back) = match self.file {
            Unmarked::Missing => ("is missing", "put it back"),
            Unmarked::Shipped => (
                "is as a distribution ships it",
                "put the file back that BIRD runs",
            ),
        };
        let runs = match &self.runs {
            Runs::Protocols(lost) => format!(
                "BIRD still runs protocols of the operator, which would end with the agent's main file: {}",
                lost.join(", ")
            ),
            Runs::Unknown(why) => {
                format!("it is unknown whether BIRD runs protocols of the operator: {why}")
            }
        };
        BirdProblem {
            reason: "ForeignMainConfig",
            message: format!(
                "{path} {is}, and {runs}; the agent writes no file of BIRD; tunnels are configured meanwhile"
            ),
            action: format!("{put_back}, or stop BIRD and the agent writes its own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::framing::Decoder;
    use crate::observed::bird::protocols::parse;

    fn running(rows: &str) -> Vec<Protocol> {
        let reply = Decoder::new().push(format!("{rows}0000 \n").as_bytes());
        parse(&reply.unwrap().unwrap())
    }

    const SYSTEM: &str = "1002-device1 Device --- up 1\n1002-kernel1 Kernel master4 up 1\n1002-static1 Static master4 up 1\n";

    #[test]
    fn file_is_held_while_bird_runs_others_protocols() {
        let ours = BTreeSet::from(["ebgp_wg_1".to_owned()]);
        let of = |rows: &str| {
            let rows = running(&format!("{SYSTEM}{rows}"));
            Held::of(Unmarked::Missing, &rows, &ours)
        };
        assert_eq!(of(""), None, "as a distribution ships it");
        assert_eq!(of("1002-ebgp_wg_1 BGP --- up 1 Established\n"), None);
        for name in ["my_nets", "statics", "static"] {
            let rows = format!("1002-{name} Static master4 up 1\n");
            assert!(of(&rows).is_some(), "routes of the operator: {name}");
        }
        let rows = "1002-peer BGP --- start 1 Active\n1002-area OSPF master4 up 1 Running\n";
        let problem = of(rows).unwrap().problem(Path::new("/etc/bird/bird.conf"));
        assert_eq!(problem.reason, "ForeignMainConfig");
        assert!(problem.message.contains("bgp peer, ospf area"), "{problem}");
        assert!(problem.action.starts_with("put it back, or stop BIRD"));
    }

    #[test]
    fn silent_bird_holds_the_file() {
        let held = Held::unknown(Unmarked::Shipped, "no answer".to_owned());
        let problem = held.problem(Path::new("/etc/bird/bird.conf"));
        assert!(problem.message.contains("no answer"), "{problem}");
        assert!(problem.action.contains("that BIRD runs"), "{problem}");
    }
}
