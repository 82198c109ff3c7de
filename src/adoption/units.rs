//! systemd units that configure an adopted interface too.

use std::collections::BTreeSet;
use std::path::Path;

use super::AdoptionError;
use super::error::UnitError;
use crate::intervals::SYSTEMCTL_CALL;
use crate::util::exec::Run;

const PROGRAM: &str = "systemctl";
/// Limit of its output, in bytes; more is dropped.
const OUTPUT: u64 = 64 << 10;

/// The unit of the agent.
const AGENT: &str = "moenet-agent.service";

/// Returns whether a unit is enabled. Without systemd none is.
pub(crate) async fn is_enabled(unit: &str) -> bool {
    enabled(unit).await.unwrap_or(false)
}

/// Returns whether a unit is enabled.
///
/// # Errors
/// `systemctl` did not answer.
pub(super) async fn enabled(unit: &str) -> Result<bool, UnitError> {
    match call(&["is-enabled", "--quiet", unit]).await {
        Ok(()) => Ok(true),
        // Its answer for a unit that is disabled or does not exist, and no end by a signal.
        Err(UnitError::Failed { status, .. }) if status.code().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether systemd starts the agent after a boot.
pub(crate) async fn is_agent_enabled() -> bool {
    is_enabled(AGENT).await
}

/// Returns the command that disables units, or enables them again. They keep running: to stop one would delete its interface.
pub(crate) fn command(units: &BTreeSet<String>, enable: bool) -> String {
    let units: Vec<_> = units.iter().map(String::as_str).collect();
    format!("{PROGRAM} {} {}", verb(enable), units.join(" "))
}

/// Disables units with one command, or enables them again.
pub(super) async fn switch(
    units: &BTreeSet<String>,
    enable: bool,
) -> Result<String, AdoptionError> {
    let command = command(units, enable);
    let mut arguments = vec![verb(enable), "--quiet"];
    arguments.extend(units.iter().map(String::as_str));
    match call(&arguments).await {
        Ok(()) => Ok(command),
        Err(source) => Err(AdoptionError::Unit { command, source }),
    }
}

fn verb(enable: bool) -> &'static str {
    if enable { "enable" } else { "disable" }
}

async fn call(arguments: &[&str]) -> Result<(), UnitError> {
    let run = Run::new(Path::new(PROGRAM), SYSTEMCTL_CALL, OUTPUT).cut();
    let output = run.args(arguments).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(UnitError::Failed {
        status: output.status,
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
