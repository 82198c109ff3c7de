//! `approve`: let held removals pass.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output, steps};
use crate::store::{COMPLETE, Store};

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
        let offline = block_on(Offline::look(config))?;
        let planned = steps::planned(&offline).into_values();
        let held: Vec<_> = planned
            .filter_map(|object| Some((object.object, object.held?)))
            .collect();
        if !self.list && !held.is_empty() {
            let mut approved: BTreeSet<String> =
                held.iter().map(|(object, _)| object.clone()).collect();
            approved.append(&mut offline.parts.context.store.approved());
            if !offline.world.complete {
                approved.insert(COMPLETE.to_owned());
            }
            Store::approve(&directory, &approved)?;
        }
        let removals = held.into_iter().map(|(object, why)| HeldRemoval {
            object,
            why,
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
        let word = if removal.approved {
            "may be removed now; it was held"
        } else {
            "held"
        };
        output::line(format_args!("{}  {word}: {}", removal.object, removal.why));
    }
    if removals.is_empty() {
        output::line("No removal is held.");
    }
}
