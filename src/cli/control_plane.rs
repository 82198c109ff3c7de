//! `control-plane`: the embedded Control Plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

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
            let stop = async {
                // Without a handler the default, which is to end, is as good.
                let _ = tokio::signal::ctrl_c().await;
            };
            fleet::serve(FleetOptions::new(self.fleet.clone(), self.listen), stop).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
