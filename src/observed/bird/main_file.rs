//! BIRD's main file: its owner, and the definitions in an operator's main file. Pure.
//!
//! The agent writes `bird.conf` only if it carries the agent's mark, or if it is missing or holds only text that a
//! distribution ships, and BIRD runs no protocols of another one. Any other main file is the operator's: it includes the agent's tree, or the agent's
//! sessions wait.

mod held;
mod protocols;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostic;
use super::outline::{Block, Outline, Statement, line_of};

pub use held::{Held, Unmarked};
use protocols::protocols;

/// BIRD's main file, with the files that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MainFile {
    pub path: PathBuf,
    /// Whether the configuration lets the agent write it (`bird.manageMainConfig`).
    pub managed: bool,
    /// Who writes it.
    pub owner: Owner,
    /// What is there, where the agent may write it and has not.
    pub unmarked: Option<Unmarked>,
    /// Why the agent does not write it although it may.
    pub held: Option<Held>,
    /// Whether it includes the agent's tree, directly or through another file.
    pub included: bool,
    /// The protocols of an operator's main file, in their order.
    pub protocols: Vec<OperatorProtocol>,
    /// The content of an operator's main file beyond the text that a distribution ships.
    pub beyond: Vec<Definition>,
}

/// A definition of an operator's main file, or a file that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its first words.
    pub words: String,
    pub file: PathBuf,
    /// The line where it begins, from 1.
    pub line: usize,
}

/// Who writes the main file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    #[default]
    Agent,
    Operator,
}

/// A protocol of an operator's main file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorProtocol {
    /// `bgp`, `kernel`, …
    pub class: String,
    /// Its name, or the one that BIRD assigns if the file gives none.
    pub name: String,
    pub file: PathBuf,
    /// The line where it begins, from 1.
    pub line: usize,
    /// The line where it ends.
    end: usize,
    /// Its own statements, then those of its templates.
    pub statements: Vec<OperatorStatement>,
}

/// A statement of a protocol, or of its template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorStatement {
    /// The channel that contains it.
    channel: Option<String>,
    pub words: Vec<String>,
    /// The file in which it is.
    pub file: Arc<Path>,
    /// Its line, from 1.
    pub line: usize,
}

impl OperatorStatement {
    pub fn is_in_channel(&self) -> bool {
        self.channel.is_some()
    }
}

/// The protocols that the operator's main file defines, so that the agent's files do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provided {
    pub device: bool,
    /// IPv4 routes to the kernel.
    pub kernel4: bool,
    /// IPv6 routes to the kernel.
    pub kernel6: bool,
    /// The addresses of the loopback interface.
    pub direct: bool,
}

/// A problem with BIRD as a whole that lasts until an operator acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BirdProblem {
    pub reason: &'static str,
    pub message: String,
    /// What to do.
    pub action: String,
}

/// The obstacle and the action, where there is no condition to hold both.
impl fmt::Display for BirdProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.action)
    }
}

/// The protocol types that the agent's files define as well.
const SHARED: [&str; 3] = ["device", "kernel", "direct"];

impl MainFile {
    /// Reads an operator's main file, from its own text and those of the files that it includes.
    pub fn of_operator<'a>(
        path: PathBuf,
        managed: bool,
        included: bool,
        files: impl Iterator<Item = (&'a Path, &'a str)> + Clone,
    ) -> Self {
        let beyond = files.clone().flat_map(|(file, text)| {
            let definition = move |(words, line)| Definition {
                words,
                file: file.to_owned(),
                line,
            };
            definitions(text).into_iter().map(definition)
        });
        Self {
            path,
            managed,
            owner: Owner::Operator,
            included,
            beyond: beyond.collect(),
            protocols: protocols(files),
            ..Self::default()
        }
    }

    /// Leaves the file to the operator, whose protocols BIRD may still run.
    pub fn hold(&mut self, held: Held) {
        self.owner = Owner::Operator;
        self.held = Some(held);
    }

    /// Returns why the agent writes no file of BIRD until an operator acts.
    pub fn on_hold(&self) -> Option<BirdProblem> {
        self.held.as_ref().map(|held| held.problem(&self.path))
    }

    /// Returns whether the agent writes it.
    pub fn is_agents(&self) -> bool {
        self.owner == Owner::Agent
    }

    /// Returns the protocols that the operator's main file defines in place of the agent. `loopback` is the interface
    /// of the
    /// node's own addresses.
    pub fn provided(&self, loopback: &str) -> Provided {
        if self.is_agents() {
            return Provided::default();
        }
        let any = |holds: &dyn Fn(&OperatorProtocol) -> bool| self.protocols.iter().any(holds);
        Provided {
            device: any(&|protocol| protocol.class == "device"),
            kernel4: any(&|protocol| protocol.feeds_kernel("ipv4", "master4")),
            kernel6: any(&|protocol| protocol.feeds_kernel("ipv6", "master6")),
            direct: any(&|protocol| protocol.has_addresses_of(loopback)),
        }
    }

    /// Returns the protocol of the operator's with this name.
    pub fn protocol(&self, name: &str) -> Option<&OperatorProtocol> {
        self.protocols.iter().find(|protocol| protocol.name == name)
    }

    /// Returns the protocols that end when the agent's main file replaces the operator's.
    pub fn lost(&self) -> impl Iterator<Item = &OperatorProtocol> {
        self.protocols
            .iter()
            .filter(|protocol| !SHARED.contains(&protocol.class.as_str()))
    }

    /// Returns whether the file is the operator's and does not load the agent's files.
    pub fn is_separate(&self) -> bool {
        !self.is_agents() && !self.included
    }

    /// Returns why the agent's tree cannot be loaded through this main file. `running` are further protocols that the
    /// daemon runs from it.
    pub fn blocked<'a>(&self, running: impl Iterator<Item = &'a str>) -> Option<BirdProblem> {
        if !self.is_separate() || self.held.is_some() {
            return self.on_hold();
        }
        let path = self.path.display();
        let include = "add the line `include \"moenet/main.conf\";` at its end";
        if !self.managed {
            return Some(BirdProblem {
                reason: "MainConfigNotIncluded",
                message: format!("{path} does not include the agent's files"),
                action: include.to_owned(),
            });
        }
        let mut names: Vec<String> = self.lost().map(ToString::to_string).collect();
        let others = running.filter(|name| self.protocol(name).is_none());
        names.extend(others.map(str::to_owned));
        // To move a file with protocols away would end them, also those that adopted documents want.
        let action = match names.is_empty() {
            true => format!(
                "{include}, or move it away (`mv {path} {path}.old`) and the agent writes its own"
            ),
            false => format!(
                "{include}; first remove from it each protocol that the agent is to run in its place, whose session resets once"
            ),
        };
        let lost = match (names.is_empty(), self.beyond.is_empty()) {
            (false, _) => format!("to replace it would end {}", names.join(", ")),
            (true, false) => {
                let words = self.beyond.iter().map(|it| it.words.as_str());
                format!("it holds {}", words.collect::<Vec<_>>().join(", "))
            }
            (true, true) => "it is the operator's".to_owned(),
        };
        Some(BirdProblem {
            reason: "ForeignMainConfig",
            message: format!(
                "{path} was not written by the agent and is left unchanged; {lost}; tunnels are configured meanwhile"
            ),
            action,
        })
    }

    /// Returns what an operator has to change if their files make BIRD reject the configuration.
    pub fn advice(&self, what: &Diagnostic) -> Option<String> {
        if self.is_agents() {
            return None;
        }
        let file = Path::new(what.file.as_deref()?);
        let clash = ["already defined", "already attached", "already exists"]
            .iter()
            .any(|words| what.message.contains(words));
        let line = usize::try_from(what.line?).ok()?;
        let here = self
            .protocols
            .iter()
            .find(|it| it.file == file && (it.line..=it.end).contains(&line));
        if let Some(protocol) = here {
            let what_to_do = if clash {
                "the agent's files define it too: remove it"
            } else {
                "correct it there"
            };
            return Some(format!(
                "in {protocol} at {}; {what_to_do}",
                protocol.place()
            ));
        }
        if file.starts_with(self.path.with_file_name("moenet")) {
            return clash.then(|| self.clashing(&what.message))?;
        }
        Some("correct the operator's file".to_owned())
    }

    /// Returns the definition of the operator that the agent's files repeat, as BIRD's message describes it.
    fn clashing(&self, message: &str) -> Option<String> {
        let symbol = message.split('\'').nth(1);
        let named = |name: &str| symbol.map_or_else(|| message.contains(name), |it| it == name);
        let of_class = |class: &str| symbol.is_none() && message.to_lowercase().contains(class);
        let protocol = self
            .protocols
            .iter()
            .find(|protocol| named(&protocol.name) || of_class(&protocol.class));
        if let Some(protocol) = protocol {
            let place = protocol.place();
            return Some(format!(
                "{protocol} at {place} clashes with it: remove it there"
            ));
        }
        let mut beyond = self.beyond.iter();
        let defined = beyond.find(|it| it.words.split(' ').any(|word| Some(word) == symbol))?;
        Some(format!(
            "{} at {}:{} clashes with it: rename it there",
            defined.words,
            defined.file.display(),
            defined.line
        ))
    }
}

/// `bgp old_peer`.
impl fmt::Display for OperatorProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.class, self.name)
    }
}

impl OperatorProtocol {
    /// `/etc/bird/bird.conf:7`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    fn says(&self, channel: Option<&str>, first: &str) -> Option<&[String]> {
        let found = self.statements.iter().find(|it| {
            it.channel.as_deref() == channel && it.words.first().is_some_and(|word| word == first)
        });
        found.map(|it| it.words.as_slice())
    }

    fn table<'a>(&'a self, channel: &str, default: &'a str) -> &'a str {
        let named = self
            .says(Some(channel), "table")
            .and_then(|words| words.get(1));
        named.map_or(default, String::as_str)
    }

    /// Returns whether it excludes a second kernel protocol of this family: BIRD allows one per table, and one
    /// per kernel table.
    fn feeds_kernel(&self, channel: &str, master: &str) -> bool {
        if self.class != "kernel" || self.says(None, channel).is_none() {
            return false;
        }
        let kernel_table = self.says(None, "kernel").and_then(|words| words.get(2));
        let is_main = kernel_table.is_none_or(|table| ["254", "0xfe"].contains(&table.as_str()));
        is_main || self.table(channel, master) == master
    }

    /// Returns whether it imports the addresses of an interface into the main tables, for both families.
    fn has_addresses_of(&self, interface: &str) -> bool {
        let family = |channel, master| {
            let all = self
                .says(Some(channel), "import")
                .is_none_or(|words| words.get(1).is_some_and(|word| word == "all"));
            self.says(None, channel).is_some() && self.table(channel, master) == master && all
        };
        let covers = self.says(None, "interface").is_none_or(|words| {
            let names = words.iter().map(|word| word.trim_matches('"'));
            names.skip(1).any(|name| name == "*" || name == interface)
        });
        self.class == "direct"
            && self.says(None, "disabled").is_none()
            && covers
            && family("ipv4", "master4")
            && family("ipv6", "master6")
    }
}

/// Returns the content of a text beyond the text that a distribution ships: device, kernel and direct protocols, a
/// static
/// protocol without routes, `log`, `router id` and comments. Empty: the text may be replaced, and a copy is kept.
pub fn beyond_distribution(text: &str) -> Vec<String> {
    let definitions = definitions(text).into_iter();
    definitions.map(|(words, _)| words).collect()
}

/// Returns the first words and the line of each such definition.
fn definitions(text: &str) -> Vec<(String, usize)> {
    let outline = Outline::of(text);
    let plain = |statement: &&Statement<'_>| {
        matches!(statement.words[..], ["log", ..] | ["router", "id", ..])
    };
    let globals = outline
        .globals
        .iter()
        .filter(|statement| !plain(statement))
        .map(|statement| {
            let first = statement.words.first().copied().unwrap_or(text);
            (shown(&statement.words), line_of(text, first))
        });
    let blocks = outline
        .blocks
        .iter()
        .filter(|block| !is_shipped(block))
        .map(|block| (shown(&head(block)), line_of(text, block.class)));
    globals.chain(blocks).collect()
}

fn head<'a>(block: &Block<'a>) -> Vec<&'a str> {
    let kind = if block.is_template {
        "template"
    } else {
        "protocol"
    };
    [kind, block.class].into_iter().chain(block.name).collect()
}

/// Returns the first words for display. Quoted words are hidden, as they may be secrets.
fn shown(words: &[&str]) -> String {
    let plain = words
        .iter()
        .take_while(|word| !word.starts_with(['"', '{', '=']));
    plain.take(3).copied().collect::<Vec<_>>().join(" ")
}

/// Returns whether a protocol is as a distribution ships it.
fn is_shipped(block: &Block<'_>) -> bool {
    let plain = |statement: &Statement<'_>| {
        matches!(
            statement.words[..],
            ["ipv4" | "ipv6" | "disabled" | "learn" | "persist"]
                | ["scan", "time", _]
                | ["import" | "export", "all" | "none"]
        )
    };
    let is_known = SHARED.contains(&block.class) || block.class == "static";
    !block.is_template && is_known && block.statements.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operators(text: &str) -> MainFile {
        let path = Path::new("/etc/bird/bird.conf");
        MainFile::of_operator(path.into(), true, false, [(path, text)].into_iter())
    }

    #[test]
    fn hand_made_file_holds_more_than_a_distribution_ships() {
        for (text, beyond) in [
            (
                "protocol static { ipv4; route 10.0.0.0/8 blackhole; }",
                "protocol static",
            ),
            ("protocol bgp p { local as 1; }", "protocol bgp p"),
            (
                "protocol kernel { ipv4 { export filter mine; }; }",
                "protocol kernel",
            ),
            ("define A = 1;", "define A"),
            ("include \"peers/*.conf\";", "include"),
            ("filter f { accept; }", "filter f"),
            ("template bgp t { }", "template bgp t"),
            ("password \"hunter2\";", "password"),
        ] {
            assert_eq!(beyond_distribution(text), [beyond], "{text}");
        }
        assert!(beyond_distribution("# only\n/* remarks */\n").is_empty());
    }

    #[test]
    fn protocols_of_the_operator_are_named_with_their_lines() {
        let main = operators(
            "router id 1.2.3.4;\nprotocol device { }\nprotocol static { ipv4; }\nprotocol static { ipv6; }\n\n\
             protocol bgp\n old_peer { }\n",
        );
        let lost: Vec<_> = main.lost().map(|p| format!("{p} {}", p.line)).collect();
        assert_eq!(
            lost,
            ["static static1 3", "static static2 4", "bgp old_peer 6"]
        );
        let blocked = main.blocked(["other"].into_iter()).unwrap();
        assert_eq!(blocked.reason, "ForeignMainConfig");
        for word in [
            "bgp old_peer",
            "other",
            "/etc/bird/bird.conf",
            "include \"moenet/main.conf\";",
        ] {
            assert!(blocked.to_string().contains(word), "{blocked}");
        }
        assert!(!blocked.action.contains("mv "), "{blocked}");
        let quiet = operators("define A = 1;").blocked([].into_iter()).unwrap();
        assert!(quiet.action.contains("mv "), "{quiet}");
    }

    #[test]
    fn clashing_protocols_are_found_by_table_and_family() {
        let provided = |text: &str| operators(text).provided("dummy0");
        let none = Provided::default();
        assert!(provided("protocol device mine { }").device);
        assert!(provided("protocol kernel k4 { ipv4 { export all; }; }").kernel4);
        assert!(!provided("protocol kernel k4 { ipv4 { export all; }; }").kernel6);
        let elsewhere = "protocol kernel { kernel table 100; ipv4 { table t; export all; }; }";
        assert_eq!(provided(elsewhere), none);
        assert!(provided("protocol kernel { kernel table 100; ipv4; }").kernel4);
        let inherited =
            "template kernel t { ipv6 { export all; }; } protocol kernel k from t { learn; }";
        assert!(provided(inherited).kernel6);
        assert!(provided("protocol direct { ipv4; ipv6; }").direct);
        for direct in [
            "protocol direct { disabled; ipv4; ipv6; }",
            "protocol direct { ipv4; }",
            "protocol direct { ipv4; ipv6; interface \"eth0\"; }",
            "protocol direct { ipv4 { import none; }; ipv6; }",
        ] {
            assert_eq!(provided(direct), none, "{direct}");
        }
    }

    #[test]
    fn refusals_name_the_protocol_of_the_operator() {
        let main =
            operators("protocol device { }\nprotocol kernel k4 {\n ipv4 { export al; };\n}\n");
        let what = |file: &str, line, message: &str| Diagnostic {
            file: Some(file.to_owned()),
            line: Some(line),
            column: Some(1),
            message: message.to_owned(),
        };
        let advice = main.advice(&what("/etc/bird/bird.conf", 3, "syntax error"));
        let advice = advice.unwrap();
        assert!(
            advice.contains("kernel k4 at /etc/bird/bird.conf:2"),
            "{advice}"
        );
        let clash = what(
            "/etc/bird/moenet/system.conf",
            9,
            "Kernel device protocol already defined",
        );
        let advice = main.advice(&clash).unwrap();
        assert!(
            advice.contains("device device1 at /etc/bird/bird.conf:1"),
            "{advice}"
        );
    }

    #[test]
    fn error_outside_protocols_blames_no_protocol() {
        let main = operators(
            "protocol kernel { ipv4; }\nfilter moe_kernel_export4 { accept; }\ninclude \"moenet/main.conf\";\n",
        );
        let what = |file: &str, line, message: &str| Diagnostic {
            file: Some(file.to_owned()),
            line: Some(line),
            column: Some(8),
            message: message.to_owned(),
        };
        let message = "Symbol 'moe_kernel_export4' already defined";
        let advice = main.advice(&what("/etc/bird/moenet/filters.conf", 167, message));
        let advice = advice.unwrap();
        let wanted = "filter moe_kernel_export4 at /etc/bird/bird.conf:2 clashes";
        assert!(advice.starts_with(wanted), "{advice}");
        let advice = main.advice(&what(
            "/etc/bird/bird.conf",
            3,
            "Unable to open included file x",
        ));
        assert_eq!(advice.unwrap(), "correct the operator's file");
    }
}
