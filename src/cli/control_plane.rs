//! `control-plane`: the embedded Control Plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Arguments, Outcome, block_on};
use crate::config::Log;
use crate::fleet::{self, FleetOptions};
use crate::telemetry;

/// Run the embedded Control Plane over a directory of YAML files.
#[derive(Debug, Args)]
pub struct ControlPlane {
    /// The directory: one folder a router
    #[arg(long, value_name = "DIR")]
    fleet: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl ControlPlane {
    pub(super) fn run(&self, _: &Arguments) -> Outcome {
        telemetry::start(&Log::default());
        block_on(async {
            let (mut terminate, mut interrupt) = (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            );
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            fleet::serve(FleetOptions::new(self.fleet.clone(), self.listen), stop).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
