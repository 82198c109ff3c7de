//! The commands of the book that need a running router (`console,live`).

#[allow(dead_code, reason = "files are for the test without a router")]
#[path = "../it/book/blocks.rs"]
mod blocks;

use std::path::{Path, PathBuf};

use crate::lab::router::agent_program;
use crate::lab::world::World;
use blocks::{Block, How, blocks};

fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(pages(&path)),
            false if path.extension().is_some_and(|end| end == "md") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

#[test]
fn live_commands_of_the_book_print_what_it_shows() {
    let world = World::converged(1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = agent_program();
    let head = format!(
        "cd {} && PATH={}:$PATH\n",
        world.router.path("").display(),
        program.parent().unwrap().display()
    );
    let mut pages = pages(&root.join("docs"));
    pages.push(root.join("README.md"));
    let (mut ran, mut errors) = (0, Vec::new());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in blocks(&text) {
            let Block::Commands(block) = block else {
                continue;
            };
            if block.how != How::Live {
                continue;
            }
            // Each page begins with a router at rest.
            world.wait_established();
            ran += 1;
            let shell = |script: &str| {
                let mut command = world.router.inside.command("sh");
                command.args(["-c", &format!("{head}{script}")]);
                command
            };
            errors.extend(blocks::run(&page.display().to_string(), &block, shell).err());
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n\n"));
    assert!(ran > 5, "only {ran} blocks ran");
}
