//! book WORLD PAGE HEADING: runs the blocks `console,WORLD` below a heading of the book, on this machine, as root.
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

use blocks::{Block, Commands, How, blocks};

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
    let chosen: Vec<Commands> = blocks(&text)
        .into_iter()
        .filter_map(|block| match block {
            Block::Commands(block) if is_chosen(&block) => Some(block),
            _ => None,
        })
        .collect();
    if chosen.is_empty() {
        return Err(format!("{page}: no block `{world}` below \"{heading}\""));
    }
    let head = std::env::var("BOOK_HEAD").unwrap_or_default();
    for block in &chosen {
        blocks::run(page, block, |script| {
            let mut command = Command::new("bash");
            command.args(["-c", &format!("{head}\n{script}")]);
            command
        })?;
    }
    Ok(())
}
