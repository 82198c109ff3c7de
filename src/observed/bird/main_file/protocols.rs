//! The protocols that an operator's files define, with the place of each statement.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::outline::{Block, Outline, Statement, line_of};
use super::{OperatorProtocol, OperatorStatement};
use crate::util::sorted::Sorted as _;

/// Depth limit of templates that inherit from templates.
const DEEPEST: usize = 8;

/// Returns the protocols of an operator's files.
pub(super) fn protocols<'a>(
    files: impl Iterator<Item = (&'a Path, &'a str)> + Clone,
) -> Vec<OperatorProtocol> {
    let placed = files.flat_map(|(path, text)| {
        let path: Arc<Path> = path.into();
        let blocks = Outline::of(text).blocks.into_iter();
        blocks.map(move |block| Placed {
            file: Arc::clone(&path),
            line: line_of(text, block.class),
            text,
            block,
        })
    });
    let placed: Vec<Placed<'_>> = placed.collect();
    let templates: BTreeMap<&str, &Placed<'_>> = placed
        .iter()
        .filter(|it| it.block.is_template)
        .filter_map(|it| Some((it.block.name?, it)))
        .sorted_map();
    let (mut found, mut nameless) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for at in placed.iter().filter(|it| !it.block.is_template) {
        let block = &at.block;
        let name = block.name.map_or_else(
            || {
                let number = nameless.entry(block.class).or_default();
                *number += 1;
                format!("{}{number}", block.class)
            },
            str::to_owned,
        );
        found.push(OperatorProtocol {
            class: block.class.to_owned(),
            name,
            file: at.file.to_path_buf(),
            line: at.line,
            end: line_of(at.text, block.end),
            statements: at.statements(&templates, DEEPEST),
        });
    }
    found
}

/// A block at its place.
struct Placed<'a> {
    file: Arc<Path>,
    line: usize,
    text: &'a str,
    block: Block<'a>,
}

impl Placed<'_> {
    /// Returns its statements, its own first, then those of its templates.
    fn statements(
        &self,
        templates: &BTreeMap<&str, &Placed<'_>>,
        depth: usize,
    ) -> Vec<OperatorStatement> {
        // From the block on: the whole text is long.
        let start = (self.block.class.as_ptr() as usize) - (self.text.as_ptr() as usize);
        let text = self.text.get(start..).unwrap_or_default();
        let owned = |statement: &Statement<'_>| OperatorStatement {
            channel: statement.channel.map(str::to_owned),
            words: statement.words.iter().map(|it| (*it).to_owned()).collect(),
            file: Arc::clone(&self.file),
            line: self.line - 1 + statement.words.first().map_or(1, |it| line_of(text, it)),
        };
        let own = self.block.statements.iter();
        let mut all: Vec<_> = own.clone().map(owned).collect();
        let parent = own.into_iter().find_map(|it| match it.words[..] {
            ["from", name] => templates.get(name.trim_matches('\'')),
            _ => None,
        });
        if let Some(parent) = parent.filter(|_| depth > 0) {
            all.extend(parent.statements(templates, depth - 1));
        }
        all
    }
}
