//! `run`: the daemon.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Arguments, Outcome, block_on};
use crate::{agent, telemetry};

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.load()?;
    telemetry::start(&config.log);
    block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let stopper = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.cancel();
        });
        agent::run(config, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}
