//! `apply --once`: one pass of convergence without the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::offline::Offline;
use super::{Arguments, Outcome, block_on, output};
use crate::agent;
use crate::telemetry;

/// Converge once, without the daemon.
#[derive(Debug, Args)]
pub struct Apply {
    /// Required: the daemon converges for ever, this verb once
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
            for (key, error) in &failed {
                output::line(format_args!("{key}  {}: {error}", output::shade("Error")));
            }
            let parts = Arc::into_inner(parts).ok_or_else(|| anyhow::anyhow!("a task did not end"))?;
            let rest = Offline::of(parts).await?.plans();
            let left: usize =
                rest.iter().filter_map(|(_, plan)| plan.as_ref().ok()).map(|plan| plan.steps.len()).sum();
            output::line(format_args!(
                "{} objects looked at, {} failed, {left} steps left",
                rest.len(),
                failed.len()
            ));
            Ok(if failed.is_empty() && left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}
