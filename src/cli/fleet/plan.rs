//! `fleet plan`: what a change of the files changes on the routers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::Directory;
use crate::cli::steps::{self, ObjectSteps, Tense};
use crate::cli::{Arguments, Outcome, block_on, output};
use crate::fleet;
use crate::util::fs;

#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    fleet: Directory,
    /// The files before the change: another fleet directory, or a commit of the fleet's Git repository
    #[arg(long, value_name = "DIR|COMMIT", default_value = "HEAD")]
    against: String,
}

impl Plan {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let before: PathBuf = self.against.as_str().into();
        let before = match fs::is_dir(&before) {
            true => fleet::read(&before)?,
            false => {
                let read = fleet::read_commit(&self.fleet.dir, &self.against);
                let meant = || format!("--against {}, which is not a directory", self.against);
                block_on(async { Ok(read.await?) }).with_context(meant)?
            }
        };
        let changes = fleet::plan(&before, &fleet::read(&self.fleet.dir)?)?;
        let objects: Vec<_> = changes.into_iter().map(ObjectSteps::from).collect();
        if !output::value(arguments.output, &objects)? {
            steps::print(objects.iter(), Tense::Planned);
        }
        Ok(match objects.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(2),
        })
    }
}
