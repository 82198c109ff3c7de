//! `fleet audit`: who changed files through a server, and what was decided about all routers.

use std::process::ExitCode;

use clap::Args;

use super::get::Place;
use super::history::short;
use crate::cli::{Arguments, Outcome, block_on, output};
use crate::fleet::{self, AuditEntry};

#[derive(Debug, Args)]
pub(super) struct Audit {
    #[command(flatten)]
    place: Place,
}

const COLUMNS: [&str; 6] = ["AT", "WHO", "CLIENT", "WHAT", "OBJECT", "DETAIL"];

impl Audit {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let source = self.place.source();
        let entries = block_on(async { Ok(fleet::audit(&source).await?) })?;
        if !output::value(arguments.output, &entries)? {
            match entries.is_empty() {
                true => output::line("No server has changed a file or decided about a router."),
                false => output::line(output::table(&COLUMNS, entries.into_iter().map(cells))),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn cells(entry: AuditEntry) -> Vec<String> {
    let AuditEntry {
        at,
        author,
        files,
        why,
        commit,
    } = entry;
    let at = format!("{at:.0}");
    // A decision has a reason, a change has files.
    let detail = why.unwrap_or_else(|| files.join(" "));
    let commit = commit.map(|it| format!("commit {}", short(&it.id)));
    let detail = commit
        .into_iter()
        .chain([detail])
        .filter(|it| !it.is_empty());
    let detail = detail.collect::<Vec<_>>().join(": ");
    vec![
        at,
        author.who,
        author.client,
        author.what,
        author.object,
        detail,
    ]
}
