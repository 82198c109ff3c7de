//! `run`: the daemon.

use std::process::ExitCode;

use super::{Arguments, Outcome, block_on};
use crate::adoption;
use crate::agent::{self, BuildError, Signals};
use crate::telemetry;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    block_on(async {
        let signals = Signals::listen()?;
        let config = arguments.load()?;
        telemetry::start(&config.log);
        adoption::undo_interrupted(&config).await?;
        match agent::run(config, signals).await {
            // The log has reported it; standard error may be blocked.
            Err(BuildError::TaskEnded) => Ok(ExitCode::FAILURE),
            ended => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        }
    })
}
