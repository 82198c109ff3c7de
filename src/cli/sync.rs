//! `sync`: fetch the sessions now.

use std::process::ExitCode;

use super::api::Api;
use super::{Arguments, Outcome, block_on, output};

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.load()?;
    let answer = block_on(async { Api::new(&config)?.get("/sync").await })?;
    if !output::value(arguments.output, &answer)? {
        output::line("A sync has been started; `moenet-agent status` shows how it went.");
    }
    Ok(ExitCode::SUCCESS)
}
