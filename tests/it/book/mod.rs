//! The book in `docs/`: it has every page, its reference is current, and its commands print what it shows.

mod blocks;
mod log_events;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use blocks::{Block, Commands, How, Yaml, blocks, command};
use moenet_agent::cli::reference;
use moenet_agent::observed::bird::TESTED_VERSIONS;

/// Pages outside the book whose commands are tested too.
const OTHERS: [&str; 1] = ["README.md"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The pages below `docs/`, as `SUMMARY.md` names them.
fn pages(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|it| it == "md") && !path.ends_with("SUMMARY.md") {
            let inside = path.strip_prefix(root().join("docs")).unwrap();
            found.insert(inside.to_str().unwrap().to_owned());
        }
    }
    found
}

/// Every page with commands, as its path and its text.
fn texts() -> Vec<(String, String)> {
    let book = pages(&root().join("docs"));
    let book = book.into_iter().map(|page| format!("docs/{page}"));
    let all = book.chain(OTHERS.map(str::to_owned));
    all.map(|page| {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        (page, text)
    })
    .collect()
}

#[test]
fn the_summary_names_every_page_once() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let targets = summary.split("](").skip(1);
    let targets: Vec<_> = targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()))
        .collect();
    let named: BTreeSet<_> = targets.iter().cloned().collect();
    assert_eq!(named.len(), targets.len(), "a page is named twice");
    assert_eq!(named, pages(&root().join("docs")));
}

#[test]
fn reference_pages_are_what_the_schemas_say() {
    let log = ("log-events.md".to_owned(), log_events::page());
    for (name, text) in reference().unwrap().into_iter().chain([log]) {
        let path = root().join("docs/reference").join(&name);
        if std::env::var_os("UPDATE_BOOK").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "docs/reference/{name} is out of date; UPDATE_BOOK=1 writes it"
        );
    }
}

#[test]
fn troubleshooting_names_every_condition() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let (_, schema) = moenet_agent::cli::schemas()
        .into_iter()
        .find(|(name, _)| name == "Status")
        .unwrap();
    let conditions = schema["$defs"]["ConditionType"]["oneOf"]
        .as_array()
        .unwrap();
    assert!(conditions.len() > 20);
    let names = conditions
        .iter()
        .map(|variant| variant["const"].as_str().unwrap());
    let missing: Vec<_> = names.filter(|name| !page.contains(name)).collect();
    assert!(
        missing.is_empty(),
        "docs/troubleshooting.md does not name {missing:?}"
    );
}

/// A range must not include versions between the branches that no test runs.
#[test]
fn ranges_of_bird_versions_are_those_of_the_program() {
    let mut found = 0;
    for (page, text) in texts() {
        for (at, _) in text.match_indices("2.0.12 to ") {
            let tail = &text[at..];
            assert!(tail.starts_with(TESTED_VERSIONS), "{page}: {tail:.60}");
            found += 1;
        }
    }
    assert!(found >= 4, "only {found} ranges");
}

/// A folder with a router's configuration and the sample state directory.
struct Router(tempfile::TempDir);

impl Router {
    fn new() -> Self {
        let router = Self(tempfile::tempdir().unwrap());
        let config = "node: {name: jp1, id: 1, asn: 4242420998}\n\
            server: {listen: '127.0.0.1:1'}\n\
            state: {directory: state}\n\
            bird: {controlSocket: bird.ctl, directory: bird, binary: /usr/sbin/bird}\n\
            wireguard: {privateKeyPath: private.key}\n";
        fs::write(router.path("config.yaml"), config).unwrap();
        let key = "SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=\n";
        fs::write(router.path("private.key"), key).unwrap();
        copy(&root().join("state"), &router.path("state"));
        copy(&root().join("examples/demo/fleet"), &router.path("fleet"));
        router
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_moenet-agent"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.0.path()).env(
            "PATH",
            format!("{}:{path}", program.parent().unwrap().display()),
        );
        command
    }
}

/// Copies a folder, with addresses in place of names, so that nothing depends on the DNS of this machine.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let text = fs::read_to_string(entry.path()).unwrap();
            let text = text.replace("hk.moenet.work", "192.0.2.2");
            let text = text.replace("example.com:", "192.0.2.3:");
            let text = text.replace(
                "NEIGHBOUR_KEY",
                "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
            );
            fs::write(target, text).unwrap();
        }
    }
}

/// Where the pages let the Control Plane listen, and how routers reach it.
const LISTEN: &str = "127.0.0.1:8080";
const URL: &str = "https://fleet.example.net";
const ADMIN: &str = "/run/moenet-control-plane/admin.sock";
/// What a unit starts, on pages without the command.
const SERVE: &str = "moenet-agent control-plane --fleet net --listen 127.0.0.1:8080 \
    --admin-socket /run/moenet-control-plane/admin.sock";

/// A Control Plane over a folder of a page.
struct Server {
    program: Child,
    listen: String,
}

impl Server {
    fn start(router: &Router, command: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = port.local_addr().unwrap().to_string();
        drop(port);
        let serve = format!("exec {} >server.log 2>&1", here(command, &listen));
        let program = router.shell(&serve).spawn().unwrap();
        // Until the last change of the page has been quiet for a moment.
        let ready = format!(
            "curl -sf --retry 60 --retry-all-errors --retry-delay 1 http://{listen}/readyz"
        );
        let ready = router.shell(&ready).output().unwrap();
        let server = Self { program, listen };
        assert!(ready.status.success(), "the server does not get ready");
        server
    }

    /// Runs a block, whose first command may start the server.
    fn run(
        at: &mut Option<Self>,
        page: &str,
        mut block: Commands,
        router: &Router,
    ) -> Result<(), String> {
        let first = &block.calls[0];
        if at.is_none() && first.command.starts_with("moenet-agent control-plane ") {
            let call = block.calls.remove(0);
            let server = at.insert(Self::start(router, &call.command));
            let log = fs::read_to_string(router.path("server.log")).unwrap();
            let log = log.replace(&server.listen, LISTEN);
            blocks::compare(page, block.line, &call, &log, 0)?;
        }
        let server = at.get_or_insert_with(|| Self::start(router, SERVE));
        blocks::run(page, &block, |script| {
            router.shell(&here(script, &server.listen))
        })
    }
}

/// Puts the server at this address in the place of the one that the page names.
fn here(script: &str, listen: &str) -> String {
    let script = script.replace(URL, &format!("http://{listen}"));
    script.replace(LISTEN, listen).replace(ADMIN, "admin.sock")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}

/// Runs the blocks of a page in one folder, from top to bottom.
fn run(page: &str, text: &str) -> Result<(), String> {
    let router = Router::new();
    let mut server = None;
    for block in blocks(text) {
        match block {
            Block::Commands(block) if block.how == How::Here => {
                blocks::run(page, &block, |script| router.shell(script))?;
            }
            Block::Commands(block) if block.how == How::Server => {
                Server::run(&mut server, page, block, &router)?;
            }
            Block::Yaml(yaml) => {
                if let Some(path) = yaml.path().map(|name| router.path(name)) {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, yaml.text).unwrap();
                }
            }
            Block::Commands(_) | Block::Other(..) => {}
        }
    }
    Ok(())
}

#[test]
fn commands_of_the_book_print_what_it_shows() {
    let mut errors = Vec::new();
    for (page, text) in texts() {
        errors.extend(run(&page, &text).err());
    }
    assert!(errors.is_empty(), "{}", errors.join("\n\n"));
}

fn commands(text: &str) -> Vec<Commands> {
    let found = blocks(text).into_iter().filter_map(|block| match block {
        Block::Commands(block) => Some(block),
        Block::Yaml(_) | Block::Other(..) => None,
    });
    found.collect()
}

/// The scripts that make the worlds of blocks.
fn scripts() -> String {
    let folder = root().join("tests/lab/package");
    let files = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let files = files.chain([root().join("tests/run.sh")]);
    files.map(|it| fs::read_to_string(it).unwrap()).collect()
}

/// Those that this test or a live test runs are found by their kind; a script names page and heading.
#[test]
fn every_block_of_commands_is_run() {
    let scripts = scripts();
    let mut counts = [0; 3];
    for (page, text) in texts() {
        for block in commands(&text) {
            match block.how {
                How::Here | How::Server => counts[0] += 1,
                How::Live => counts[1] += 1,
                How::Script(world) => {
                    counts[2] += 1;
                    let call = format!("{world} {page} '{}'", block.heading);
                    assert!(
                        scripts.contains(&call),
                        "{page}:{}: no script has `{call}`",
                        block.line
                    );
                }
            }
        }
    }
    assert!(
        counts[0] > 10 && counts[1] > 2 && counts[2] > 10,
        "few blocks run: {counts:?}"
    );
}

/// A command in another block would not be run.
#[test]
fn commands_are_in_console_blocks_only() {
    for (page, text) in texts() {
        for block in blocks(&text) {
            let Block::Other(info, body) = block else {
                continue;
            };
            assert!(
                ["text", "ini", "json"].contains(&info.as_str()),
                "{page}: a block `{info}`; commands are in `console`"
            );
            let found = body.lines().find(|line| {
                command(line).is_some_and(|text| text.contains("moenet-agent "))
                    || line.starts_with("$ ")
            });
            assert!(found.is_none(), "{page}: {found:?} is in no console block");
        }
    }
}

/// Each YAML block is a configuration or documents, and valid.
#[test]
fn every_yaml_block_of_the_book_is_valid() {
    let router = Router::new();
    let mut checked = 0;
    for (page, text) in texts() {
        for block in blocks(&text) {
            let Block::Yaml(Yaml { text, .. }) = block else {
                continue;
            };
            // `fleet validate` is for these; a page that shows one runs it.
            if !text.contains("apiVersion:") && !text.contains("node:") {
                continue;
            }
            let name = match text.contains("apiVersion:") {
                true => "document.yaml",
                false => "config-of-the-book.yaml",
            };
            fs::write(router.path(name), &text).unwrap();
            let output = router.shell(&format!("moenet-agent validate {name} 2>&1"));
            let output = { output }.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{page}: {text}\n{said}");
            checked += 1;
        }
    }
    assert!(checked > 5, "only {checked} blocks were found");
}

#[test]
fn an_ellipsis_matches_text_or_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let is = |expected: &str, found: &str| blocks::matches(&lines(expected), &lines(found));
    assert!(is("a  b", "a    b"));
    assert!(is("a … c", "a b c") && is("a…", "a b") && is("… b … d", "a b c d"));
    assert!(!is("a … c", "a b d") && !is("a", "a b") && !is("", "a"));
    assert!(is("a\n…\nd", "a\nb\nc\nd") && is("…", "") && is("a\n…", "a"));
    assert!(!is("a\n…\nd", "a\nb\nc"));
}

#[test]
fn a_failing_command_states_its_exit_code() {
    let page = "## One\n```console,demo\n$ a \\\n  b\nout\n(exit code 2)\n# c\n```\n```console,live\n$ d\n```\n";
    let found = commands(page);
    assert_eq!(found[0].how, How::Script("demo"));
    assert_eq!(found[0].heading, "One");
    assert_eq!(found[0].calls[0].command, "a \\\n  b");
    assert_eq!(
        (found[0].calls[0].code, found[0].calls[0].output.len()),
        (2, 1)
    );
    assert_eq!(found[0].calls[1].command, "c");
    assert_eq!(found[1].how, How::Live);
}
