//! `restart`: recreates one tunnel and its BGP session.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::api::Api;
use super::{Arguments, Outcome, block_on, objects, offline, output};
use crate::config::Config;
use crate::model::{InterfaceName, Invalid, ObjectName};

/// Recreate a tunnel and its BGP session.
#[derive(Debug, Args)]
pub struct Restart {
    /// The session, or its tunnel's interface
    #[arg(value_name = "NAME|INTERFACE", value_parser = named)]
    name: String,
}

/// Parses a name, with or without its kind.
fn named(text: &str) -> Result<String, Invalid> {
    let bare: Result<ObjectName, _> = text.rsplit('/').next().unwrap_or_default().parse();
    bare.map(|_| text.to_owned())
}

impl Restart {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let interface = self.interface(&config)?;
        let body = json!({"interface": interface});
        let answer = block_on(async { Api::new(&config)?.post("/restart", Some(&body)).await })?;
        if !output::value(arguments.output, &answer)? {
            output::line(format_args!(
                "{interface} and its BGP session were recreated."
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the applied interface of an object of this name; otherwise the name is that of an interface, and
    /// the daemon knows whether it exists.
    fn interface(&self, config: &Config) -> anyhow::Result<InterfaceName> {
        let applied = offline::open(&config.state.directory)
            .and_then(|store| Ok(store.load()?.applied.clone()))
            .unwrap_or_default();
        let mut meant = applied
            .iter()
            .filter(|((kind, name), _)| objects::is_meant(*kind, name, &self.name));
        let interface =
            meant.find_map(|(_, stored)| stored.document.applied.interfaces.first().cloned());
        match interface {
            Some(interface) => Ok(interface),
            None => Ok(self.name.parse()?),
        }
    }
}
