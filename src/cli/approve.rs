//! `approve`: let held removals pass.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, objects, output};
use crate::model::ObjectName;
use crate::store::Store;

/// Let held removals pass.
#[derive(Debug, Args)]
pub struct Approve {
    /// List what is held and let nothing pass
    #[arg(long)]
    list: bool,
}

/// One removal that is held.
#[derive(Serialize)]
struct HeldRemoval {
    object: String,
    why: String,
    approved: bool,
}

impl Approve {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let directory = config.state.directory.clone();
        let wanted = block_on(Wanted::read(config))?;
        let held: Vec<_> =
            objects::all(&wanted.world).into_iter().filter(|object| object.held.is_some()).collect();
        if !self.list && !held.is_empty() {
            let names: BTreeSet<ObjectName> = held.iter().map(|object| object.name.clone()).collect();
            let before = wanted.parts.context.store.approved();
            Store::approve(&directory, &names.union(&before).cloned().collect())?;
        }
        let removals = held.iter().map(|object| HeldRemoval {
            object: object.path(),
            why: object.held.unwrap_or_default().to_owned(),
            approved: !self.list,
        });
        let removals: Vec<_> = removals.collect();
        if !output::value(arguments.output, &removals)? {
            print(&removals);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(removals: &[HeldRemoval]) {
    for removal in removals {
        let word = if removal.approved { "may be removed now; it was held" } else { "held" };
        output::line(format_args!("{}  {word}: {}", removal.object, removal.why));
    }
    if removals.is_empty() {
        output::line("No removal is held.");
    }
}
