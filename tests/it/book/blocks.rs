//! The fenced blocks of a page: commands with their output, and files.
//!
//! A `console` block holds commands after `$ ` or `# ` (root), each followed by its output. What a command needs is the
//! second word of its block ([`How`]). In the output, `…` matches any text of a line, and a line `…` any number of lines.
//! Blanks that follow each other count as one. A line `(exit code N)` ends the output of a command that fails.

/// What a block needs. A script in `tests/` runs those that name a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Here,
    /// A running router.
    Live,
    /// A Control Plane.
    Server,
    /// A world with this name, which a script makes.
    Script(&'static str),
}

impl How {
    /// The second word of the block.
    fn named(word: Option<&str>) -> Option<Self> {
        Some(match word {
            None => Self::Here,
            Some("live") => Self::Live,
            Some("server") => Self::Server,
            Some(word) => Self::Script(WORLDS.into_iter().find(|it| *it == word)?),
        })
    }
}

/// A machine that builds packages, one with the package installed, and one for the demo.
const WORLDS: [&str; 3] = ["build", "package", "demo"];

/// A fenced block.
#[derive(Debug)]
pub(crate) enum Block {
    Commands(Commands),
    Yaml(Yaml),
    Other(String, String),
}

/// The text of a file.
#[derive(Debug)]
pub(crate) struct Yaml {
    /// The heading above, without its marks.
    #[allow(dead_code, reason = "the program chooses by it")]
    pub(crate) heading: String,
    /// The first line, if it is a comment that ends in `.yaml`.
    pub(crate) name: Option<String>,
    pub(crate) text: String,
}

impl Yaml {
    /// The path below the folder of the page; none for a file of the system.
    pub(crate) fn path(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.starts_with('/'))
    }
}

#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) line: usize,
    /// The heading above, without its marks.
    pub(crate) heading: String,
    pub(crate) how: How,
    pub(crate) calls: Vec<Call>,
}

/// A command with its expected output.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
    pub(crate) code: i32,
}

/// The blocks of a page, in their order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let lines: Vec<&str> = page.lines().collect();
    let mut found = Vec::new();
    let mut heading = "";
    let mut at = 0;
    while at < lines.len() {
        let Some(info) = lines[at].trim_start().strip_prefix("```") else {
            if lines[at].starts_with('#') {
                heading = lines[at].trim_start_matches('#').trim();
            }
            at += 1;
            continue;
        };
        let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
        let body = lines[at + 1..].iter();
        let body: Vec<&str> = body
            .take_while(|line| !line.trim_start().starts_with("```"))
            .map(|line| line.strip_prefix(indent).unwrap_or(line))
            .collect();
        found.push(block(at + 1, heading, info, &body));
        at += body.len() + 2;
    }
    found
}

fn block(line: usize, heading: &str, info: &str, body: &[&str]) -> Block {
    let (first, second) = match info.split_once(',') {
        Some((first, second)) => (first, Some(second)),
        None => (info, None),
    };
    match (first, How::named(second)) {
        ("console", Some(how)) => Block::Commands(Commands {
            line,
            heading: heading.to_owned(),
            how,
            calls: calls(body),
        }),
        ("yaml", Some(How::Here)) => {
            let first = body.first().and_then(|line| line.strip_prefix("# "));
            let name = first.filter(|name| name.ends_with(".yaml") && !name.contains(' '));
            Block::Yaml(Yaml {
                heading: heading.to_owned(),
                name: name.map(str::to_owned),
                text: body.join("\n") + "\n",
            })
        }
        _ => Block::Other(info.to_owned(), body.join("\n")),
    }
}

/// The command of a line, if it begins with a prompt.
pub(crate) fn command(line: &str) -> Option<&str> {
    line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "))
}

fn calls(body: &[&str]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut continues = false;
    for line in body {
        if let Some(text) = command(line).filter(|_| !continues) {
            calls.push(Call {
                command: text.to_owned(),
                ..Call::default()
            });
        } else if let Some(call) = calls.last_mut() {
            let code = line.strip_prefix("(exit code ");
            let code = code.and_then(|rest| rest.strip_suffix(')')?.parse().ok());
            match (continues, code) {
                (true, _) => call.command = format!("{}\n{line}", call.command),
                (false, Some(code)) => call.code = code,
                (false, None) => call.output.push((*line).to_owned()),
            }
        } else {
            panic!("a console block begins with {line:?}, which is no command");
        }
        continues = line.ends_with('\\');
    }
    calls
}

/// Whether an output is as a page shows it.
pub(crate) fn matches(expected: &[String], found: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else {
        return found.is_empty();
    };
    if first.trim() == "…" {
        return (0..=found.len()).any(|at| matches(rest, &found[at..]));
    }
    let next = found.split_first();
    next.is_some_and(|(line, more)| is_line(first, line) && matches(rest, more))
}

fn is_line(expected: &str, found: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (expected, found) = (words(expected), words(found));
    let Some((head, tail)) = expected.split_once('…') else {
        return expected == found;
    };
    let Some(mut rest) = found.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = tail.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Runs the commands of a block in a shell that `shell` makes, and returns the first difference.
pub(crate) fn run(
    page: &str,
    block: &Commands,
    mut shell: impl FnMut(&str) -> std::process::Command,
) -> Result<(), String> {
    for call in &block.calls {
        let script = format!("exec 2>&1\n{}", call.command);
        let output = shell(&script).env("NO_COLOR", "1").output();
        let output = output.map_err(|error| format!("{page}: {}: {error}", call.command))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code().unwrap_or(-1);
        compare(page, block.line, call, &text, code)?;
    }
    Ok(())
}

/// Compares what a command of the block at this line printed, and its exit code, with the page.
pub(crate) fn compare(
    page: &str,
    line: usize,
    call: &Call,
    text: &str,
    code: i32,
) -> Result<(), String> {
    let lines = |all: &mut dyn Iterator<Item = String>| {
        let mut lines: Vec<String> = all.collect();
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
        lines
    };
    let found = lines(&mut text.lines().map(str::to_owned));
    let expected = lines(&mut call.output.iter().cloned());
    if code == call.code && matches(&expected, &found) {
        return Ok(());
    }
    Err(format!(
        "{page}:{line}: `{}` prints\n{text}(exit code {code})\nthe page has\n{}\n(exit code {})",
        call.command,
        expected.join("\n"),
        call.code
    ))
}
