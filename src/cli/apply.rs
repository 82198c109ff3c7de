//! `apply --once`: one pass without the daemon. It prints its steps in the same words as `plan`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output, steps};
use crate::agent;
use crate::telemetry;

/// Converge once, without the daemon.
#[derive(Debug, Args)]
pub struct Apply {
    /// Required. Apply once and exit (the daemon applies continuously)
    #[arg(long, required = true)]
    once: bool,
}

impl Apply {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        telemetry::start(&config.log);
        block_on(async {
            let parts = Arc::new(agent::Parts::build(config).await?);
            let failed = agent::apply_once(&parts).await?;
            let taken = parts.shared.context.step_log.all();
            let parts =
                Arc::into_inner(parts).ok_or_else(|| anyhow::anyhow!("a task did not end"))?;
            let left = steps::planned(&Offline::of(parts).await?);
            let objects: Vec<_> = steps::taken(left, taken, failed).into_values().collect();
            if !output::value(arguments.output, &objects)? {
                steps::print(objects.iter(), true);
            }
            let failed = objects.iter().any(|object| object.error.is_some());
            Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        })
    }
}
