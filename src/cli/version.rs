//! `version`: this build, and the BIRD versions that it supports.

use std::process::ExitCode;

use serde_json::json;

use super::{Arguments, Outcome, output};
use crate::observed::bird::TESTED_VERSIONS;
use crate::util::version::{COMMIT, TARGET, VERSION};

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let value =
        json!({"version": VERSION, "commit": COMMIT, "target": TARGET, "bird": TESTED_VERSIONS});
    if !output::value(arguments.output, &value)? {
        output::line(format_args!("moenet-agent {VERSION}"));
        output::line(format_args!("commit  {COMMIT}"));
        output::line(format_args!("target  {TARGET}"));
        output::line(format_args!("BIRD    {TESTED_VERSIONS}"));
    }
    Ok(ExitCode::SUCCESS)
}
