//! Holds the rooms of the pure core to what they promise, by reading their sources: no runtime, no file
//! system, no process, no socket, no clock and no randomness.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms without any IO. Tests beside the code may do as they like.
const PURE: [&str; 9] = [
    "model",
    "document",
    "wire",
    "observed",
    "effective",
    "render",
    "plan",
    "status",
    "adopt",
];

/// Pure files in a room that does IO.
const PURE_FILES: [&str; 2] = ["bird/command.rs", "fleet/across.rs"];

/// Rooms and files that do no IO either, but name plain data of rooms that do: a listing of the store.
const NO_IO: [&str; 4] = [
    "desired",
    "fleet/network",
    "sync/plan",
    "controller/planning",
];

/// What no pure source names, and what it is.
const IMPURE: [(&str, &str); 27] = [
    ("tokio", "a runtime"),
    ("futures", "a runtime"),
    ("async fn", "asynchronous code"),
    ("async move", "asynchronous code"),
    ("async {", "asynchronous code"),
    ("std::fs", "the file system"),
    ("std::os", "the operating system"),
    ("std::io::stdin", "standard input"),
    ("tempfile", "the file system"),
    ("util::fs", "the file system"),
    ("util::file", "the file system"),
    ("util::exec", "processes"),
    ("util::task", "a runtime"),
    ("File::open", "the file system"),
    ("std::process", "processes"),
    ("std::env", "the environment"),
    ("std::thread", "threads"),
    ("ToSocketAddrs", "name resolution"),
    ("tracing", "the log"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UdpSocket", "a socket"),
    ("UnixStream", "a socket"),
    ("SystemTime", "the clock"),
    ("Instant::now", "the clock"),
    ("Timestamp::now", "the clock"),
    ("Zoned::now", "the clock"),
];

/// Randomness is looked for apart, since "rand" is part of other words.
const RANDOM: [&str; 3] = ["rand::", "thread_rng", "getrandom"];

struct Source {
    /// Below `src/`, with slashes.
    path: String,
    /// Without comments, and without tests.
    code: String,
}

impl Source {
    fn read(file: &Path) -> Self {
        let path = file
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        Self {
            path,
            code: code(&fs::read_to_string(file).unwrap()),
        }
    }

    fn in_room(&self, room: &str) -> bool {
        self.path.starts_with(&format!("{room}/")) || self.path == format!("{room}.rs")
    }

    fn is_pure(&self) -> bool {
        PURE.iter().any(|room| self.in_room(room)) || PURE_FILES.contains(&self.path.as_str())
    }

    fn does_no_io(&self) -> bool {
        self.is_pure() || NO_IO.iter().any(|room| self.in_room(room))
    }

    fn names(&self, word: &str) -> bool {
        let starts =
            |at: usize| !self.code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        self.code.match_indices(word).any(|(at, _)| starts(at))
    }
}

/// A source without its tests and comments, and with every `use a::{b, c}` written out.
pub(crate) fn code(text: &str) -> String {
    let bare = |line: &&str| !line.trim_start().starts_with("//");
    let lines: String = without_tests(text)
        .lines()
        .filter(bare)
        .map(|line| format!("{line}\n"))
        .collect();
    format!(
        "{lines}{}",
        imports(&lines)
            .map(|path| format!("use {path};\n"))
            .collect::<String>()
    )
}

/// Tests end where a brace stands at the beginning of a line: what follows them is code again.
fn without_tests(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, tests)) = rest.split_once("#[cfg(test)]\nmod tests") {
        kept.push_str(before);
        let end = if tests.starts_with(';') { ";" } else { "\n}" };
        rest = tests
            .split_once(end)
            .map_or("", |(_, after)| after.trim_start_matches('\n'));
    }
    kept + rest
}

/// The paths of a source's `use`, each in full.
fn imports(code: &str) -> impl Iterator<Item = String> {
    let starts = code.match_indices("use ").filter(|(at, _)| {
        let before = &code[..*at];
        before.is_empty() || before.ends_with(['\n', ' ', ')'])
    });
    starts.flat_map(|(at, word)| {
        let path = code[at + word.len()..]
            .split(';')
            .next()
            .unwrap_or_default();
        let path: String = path.split_whitespace().collect::<Vec<_>>().join(" ");
        flattened("", &path)
    })
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d` and `a::c::e`.
pub(crate) fn flattened(before: &str, tree: &str) -> Vec<String> {
    let Some((head, group)) = tree.split_once('{') else {
        return vec![format!("{before}{}", tree.trim())];
    };
    let prefix = format!("{before}{}", head.trim());
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| flattened(&prefix, part))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns whether a file holds the tests of another file.
fn is_test(path: &Path) -> bool {
    let parts = path.iter().filter_map(|part| part.to_str());
    parts
        .skip_while(|part| *part != "src")
        .any(|part| matches!(part, "tests" | "tests.rs"))
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path)
            {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files.sort();
    files.iter().map(|file| Source::read(file)).collect()
}

/// Every source that breaks a rule, as `src/plan/link.rs names tokio (a runtime)`.
fn offenders(rule: impl Fn(&Source) -> Option<String>) -> Vec<String> {
    let told = |source: &Source| Some(format!("src/{} {}", source.path, rule(source)?));
    sources().iter().filter_map(told).collect()
}

fn assert_none(offenders: &[String]) {
    assert!(offenders.is_empty(), "{}", offenders.join("\n"));
}

#[test]
fn pure_rooms_do_no_io_and_know_no_clock() {
    assert_none(&offenders(|source| {
        let impure = IMPURE
            .iter()
            .find(|(word, _)| source.does_no_io() && source.names(word));
        impure.map(|(word, what)| format!("names {word} ({what})"))
    }));
}

#[test]
fn pure_rooms_are_not_random() {
    assert_none(&offenders(|source| {
        let random = RANDOM
            .iter()
            .find(|word| source.does_no_io() && source.names(word));
        random.map(|word| format!("names {word}"))
    }));
}

#[test]
fn every_room_and_file_that_is_held_pure_exists() {
    let map = fs::read_to_string(root().join("lib.rs")).unwrap();
    let sources = sources();
    for room in PURE
        .iter()
        .filter(|room| map.contains(&format!("mod {room};")))
    {
        assert!(
            sources.iter().any(|source| source.in_room(room)),
            "lib.rs names {room}, which is not there"
        );
    }
    for room in NO_IO {
        assert!(
            sources.iter().any(|source| source.in_room(room)),
            "{room} is not there"
        );
    }
    for file in PURE_FILES {
        assert!(
            sources.iter().any(|source| source.path == file),
            "{file} is not there"
        );
    }
}

#[test]
fn pure_modules_import_no_io_module() {
    const IO: [&str; 15] = [
        "agent",
        "bird",
        "cli",
        "config",
        "control_plane",
        "controller",
        "firewall",
        "fleet",
        "history",
        "http",
        "kernel",
        "ports",
        "sources",
        "store",
        "telemetry",
    ];
    assert_none(&offenders(|source| {
        let room = IO.iter().find(|room| {
            let used = |end: &str| source.names(&format!("crate::{room}{end}"));
            source.is_pure() && ["::", ";", " as "].into_iter().any(used)
        });
        room.map(|room| format!("uses crate::{room}"))
    }));
}

#[test]
fn only_the_codec_names_the_yaml_crate() {
    assert_none(&offenders(|source| {
        let named = source.names("serde_yaml") || source.names("serde_saphyr");
        (named && source.path != "document/codec.rs").then(|| "names the YAML crate".to_owned())
    }));
}

#[test]
fn only_the_kernels_room_knows_netlink() {
    const CRATES: [&str; 4] = [
        "rtnetlink",
        "netlink_packet",
        "netlink_sys",
        "wireguard_control",
    ];
    assert_none(&offenders(|source| {
        let named = CRATES
            .iter()
            .find(|name| !source.in_room("kernel") && source.names(name));
        named.map(|name| format!("names {name}"))
    }));
}

#[test]
fn only_the_command_line_prints() {
    const PRINTS: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    assert_none(&offenders(|source| {
        let may = source.in_room("cli") || matches!(source.path.as_str(), "main.rs" | "build.rs");
        let print = PRINTS.iter().find(|word| !may && source.names(word));
        print.map(|word| format!("uses {word}"))
    }));
}

#[test]
fn source_reader_ignores_comments_and_tests() {
    let text = "use a; // tokio stays\n// tokio\n/// tokio\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n";
    assert_eq!(code(text), "use a; // tokio stays\nfn f() {}\nuse a;\n");
    let after = "#[cfg(test)]\nmod tests;\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\n\nfn g() {}\n";
    assert_eq!(code(after), "fn f() {}\nfn g() {}\n");
    let grouped = code(
        "use std::{\n    collections::BTreeMap,\n    fs::{self, File},\n};\npub(crate) use crate::{store, model};\n",
    );
    for path in [
        "std::fs::File",
        "crate::store",
        "std::collections::BTreeMap",
    ] {
        assert!(
            grouped.contains(&format!("use {path};\n")),
            "{path} in {grouped}"
        );
    }
    let source = Source {
        path: "plan/x.rs".into(),
        code: "use brand::x;".into(),
    };
    assert!(!source.names("rand::"));
    assert!(source.names("brand::"));
}

/// Lines of the crate `log` can hold whole netlink messages, and so keys.
#[test]
fn no_line_of_another_log_reaches_ours() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap();
    assert!(!lock.contains("name = \"tracing-log\""));
}
