//! `control-plane`: the embedded Control Plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "postgres")]
use clap::error::ErrorKind;
use clap::{ArgGroup, Args};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[cfg(feature = "postgres")]
use super::fleet::store_of_environment;
#[cfg(feature = "postgres")]
use super::usage;
use super::{Arguments, Outcome, block_on};
use crate::config::Log;
use crate::fleet::{self, Access, AccessError, FleetOptions, Serving};
use crate::http::TlsFiles;
use crate::model::AddressRange;
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::telemetry;

/// Run the embedded Control Plane over a directory of YAML files or PostgreSQL.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(cfg!(not(feature = "postgres")))))]
pub struct ControlPlane {
    /// The fleet directory: the description of a network, or one folder for each router
    #[arg(long, value_name = "DIR", group = "source")]
    fleet: Option<PathBuf>,
    /// Serve the newest valid commit of this branch of the directory's Git repository, in place of the files
    #[cfg_attr(feature = "postgres", arg(conflicts_with = "store"))]
    #[arg(long, value_name = "REF", requires = "fleet")]
    git_ref: Option<String>,
    /// The fleet in PostgreSQL, which instances share: postgres://USER:PASSWORD@HOST/DATABASE. Without --fleet, also that of
    /// MOENET_FLEET_STORE
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL", group = "source")]
    store: Option<String>,
    /// Listen address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The certificate for TLS in PEM, with those between it and the root; a renewed one needs no restart
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS where other machines can connect
    #[arg(long)]
    insecure_listen: bool,
    /// A file with the token that shows the whole fleet: page, metrics, /v1
    #[arg(long, value_name = "FILE")]
    read_token_file: Option<PathBuf>,
    /// A file with the token that also changes sessions
    #[arg(long, value_name = "FILE")]
    write_token_file: Option<PathBuf>,
    /// A unix socket whose owner and group need no token
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The prefix of a reverse proxy, as 127.0.0.1/32: the last address of its X-Forwarded-For or Forwarded is the client
    /// that limits count. May be repeated
    #[arg(long = "trusted-proxy", value_name = "PREFIX")]
    trusted_proxies: Vec<AddressRange>,
}

impl ControlPlane {
    pub(super) fn run(&self, _: &Arguments) -> Outcome {
        #[cfg(feature = "postgres")]
        if self.fleet.is_none() && self.database().is_none() {
            let missing =
                "no fleet is named; give --fleet DIR, or --store URL, or set MOENET_FLEET_STORE\n";
            let error = clap::Error::raw(ErrorKind::MissingRequiredArgument, missing);
            return Ok(usage(&error));
        }
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
            if let Some(url) = self.database() {
                let url = Secret::new(url);
                fleet::serve_store(&url, self.serving()?, stop).await?;
                return Ok(ExitCode::SUCCESS);
            }
            let dir = self.fleet.clone().unwrap_or_default();
            let options = FleetOptions {
                serving: self.serving()?,
                git_ref: self.git_ref.clone(),
                ..FleetOptions::new(dir, self.listen)
            };
            fleet::serve(options, stop).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl ControlPlane {
    #[cfg(feature = "postgres")]
    fn database(&self) -> Option<String> {
        let of_environment = || store_of_environment().filter(|_| self.fleet.is_none());
        self.store.clone().or_else(of_environment)
    }

    fn serving(&self) -> Result<Serving, AccessError> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(Serving {
            listen: self.listen,
            tls: files.map(|(certificate, key)| TlsFiles { certificate, key }),
            insecure: self.insecure_listen,
            access: Access::from_files(
                self.read_token_file.as_deref(),
                self.write_token_file.as_deref(),
                self.admin_socket.clone(),
            )?,
            trusted_proxies: self.trusted_proxies.clone(),
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
