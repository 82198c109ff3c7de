//! `control-plane`: the embedded Control Plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Arguments, Outcome, block_on};
use crate::config::Log;
use crate::fleet::{self, FleetOptions};
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::telemetry;

/// Run the embedded Control Plane over a directory of YAML files or PostgreSQL.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true)))]
pub struct ControlPlane {
    /// The fleet directory: the description of a network, or one folder for each router
    #[arg(long, value_name = "DIR", group = "source")]
    fleet: Option<PathBuf>,
    /// The fleet in PostgreSQL, which instances share: postgres://USER:PASSWORD@HOST/DATABASE
    #[cfg(feature = "postgres")]
    #[arg(
        long,
        value_name = "URL",
        group = "source",
        env = "MOENET_FLEET_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// Listen address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl ControlPlane {
    pub(super) fn run(&self, _: &Arguments) -> Outcome {
        telemetry::start(&Log::default());
        block_on(async {
            let signals = [
                SignalKind::terminate(),
                SignalKind::interrupt(),
                SignalKind::hangup(),
            ];
            let [terminate, interrupt, hangup] = signals.map(signal);
            let stop = stopped([terminate?, interrupt?], hangup?);
            #[cfg(feature = "postgres")]
            if let Some(url) = &self.store {
                let url = Secret::new(url.clone());
                fleet::serve_store(&url, self.listen, stop).await?;
                return Ok(ExitCode::SUCCESS);
            }
            let dir = self.fleet.clone().unwrap_or_default();
            fleet::serve(FleetOptions::new(dir, self.listen), stop).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Waits for a signal that stops the server. SIGHUP does not, as everywhere in this program.
async fn stopped([mut terminate, mut interrupt]: [Signal; 2], mut hangup: Signal) {
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: fleet files are read at each request, so there is no reload");
            }
        }
    }
}
