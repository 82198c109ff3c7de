//! `restart`: make one tunnel and its BGP session anew.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::api::Api;
use super::{Arguments, Outcome, block_on, output};
use crate::model::InterfaceName;

/// Make one tunnel and its BGP session anew.
#[derive(Debug, Args)]
pub struct Restart {
    /// The interface
    interface: InterfaceName,
}

impl Restart {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let body = json!({"interface": self.interface});
        let answer = block_on(async { Api::new(&config)?.post("/restart", Some(&body)).await })?;
        if !output::value(arguments.output, &answer)? {
            output::line(format_args!("{} and its BGP session are configured again.", self.interface));
        }
        Ok(ExitCode::SUCCESS)
    }
}
