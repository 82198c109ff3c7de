//! book WORLD PAGE HEADING: runs the blocks `console,WORLD` below a heading of the book, on this machine, as root. The `yaml`
//! blocks there become files first.
//!
//! `BOOK_HEAD` is shell text before each command.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a program for scripts of tests"
)]

#[allow(dead_code, reason = "files are for the test without a router")]
#[path = "blocks.rs"]
mod blocks;

use std::process::{Command, ExitCode};

use blocks::{Block, Commands, How, Yaml, blocks};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [world, page, heading] = &arguments[..] else {
        eprintln!("usage: book WORLD PAGE HEADING");
        return ExitCode::from(64);
    };
    match run(world, page, heading) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(world: &str, page: &str, heading: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(page).map_err(|error| format!("{page}: {error}"))?;
    let is_chosen = |block: &Commands| {
        block.heading == heading && matches!(block.how, How::Script(name) if name == world)
    };
    let head = std::env::var("BOOK_HEAD").unwrap_or_default();
    let mut ran = false;
    for block in blocks(&text) {
        match block {
            Block::Yaml(yaml) if yaml.heading == heading => write(&yaml)?,
            Block::Commands(block) if is_chosen(&block) => {
                ran = true;
                blocks::run(page, &block, |script| {
                    let mut command = Command::new("bash");
                    command.args(["-c", &format!("{head}\n{script}")]);
                    command
                })?;
            }
            Block::Yaml(_) | Block::Commands(_) | Block::Other(..) => {}
        }
    }
    match ran {
        true => Ok(()),
        false => Err(format!("{page}: no block `{world}` below \"{heading}\"")),
    }
}

/// Writes a file that the commands below it name.
fn write(yaml: &Yaml) -> Result<(), String> {
    let Some(path) = yaml.path() else {
        return Ok(());
    };
    std::fs::write(path, &yaml.text).map_err(|error| format!("{path}: {error}"))
}
