//! `fleet history`: which lists a router was served.

use std::process::ExitCode;

use clap::Args;

use super::get::Place;
use crate::cli::get::{ago, or_dash};
use crate::cli::{Arguments, Outcome, block_on, output};
use crate::fleet::{self, ServedList};
use crate::model::ObjectName;

#[derive(Debug, Args)]
pub(super) struct History {
    /// The router
    #[arg(value_name = "ROUTER")]
    router: ObjectName,
    #[command(flatten)]
    place: Place,
}

const COLUMNS: [&str; 6] = ["SERVED", "LIST", "WRITTEN", "COMMIT", "AUTHOR", "SUBJECT"];

/// Returns a commit's id as in a table.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

impl History {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let source = self.place.source();
        let history = block_on(async { Ok(fleet::history(&source, &self.router).await?) })?;
        let Some(history) = history else {
            anyhow::bail!(
                "the fleet has no router {}; `moenet-agent fleet get` lists them",
                self.router
            );
        };
        if !output::value(arguments.output, &history)? {
            match history.served.is_empty() {
                true => output::line(format_args!("{} has fetched no list yet.", self.router)),
                false => output::line(output::table(
                    &COLUMNS,
                    history.served.into_iter().map(cells),
                )),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn cells(served: ServedList) -> Vec<String> {
    let commit = served.commit;
    let id = commit.as_ref().map(|it| short(&it.id));
    let (author, subject) = commit.map(|it| (it.author, it.subject)).unzip();
    vec![
        ago(served.at),
        served.list,
        or_dash(served.written.map(ago)),
        or_dash(id),
        or_dash(author),
        or_dash(subject),
    ]
}
