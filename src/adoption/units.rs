//! systemd units that configure an adopted interface too.

use std::path::Path;

use super::AdoptionError;
use super::error::UnitError;
use crate::intervals::SYSTEMCTL_CALL;
use crate::util::exec::Run;

const PROGRAM: &str = "systemctl";
/// Limit of its output, in bytes; more is dropped.
const OUTPUT: u64 = 64 << 10;

/// Returns whether a unit is enabled. Without systemd none is.
pub(crate) async fn is_enabled(unit: &str) -> bool {
    call(["is-enabled", "--quiet", unit]).await.is_ok()
}

/// Disables a unit, or enables it again. It keeps running: to stop it would delete the interface.
pub(super) async fn switch(unit: &str, enable: bool) -> Result<String, AdoptionError> {
    let verb = if enable { "enable" } else { "disable" };
    let command = format!("{PROGRAM} {verb} {unit}");
    match call([verb, "--quiet", unit]).await {
        Ok(()) => Ok(command),
        Err(source) => Err(AdoptionError::Unit { command, source }),
    }
}

async fn call(arguments: [&str; 3]) -> Result<(), UnitError> {
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
