//! The clock, beside the Control Plane's, or else beside the times of files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Line, Verdict};
use crate::util::fs;

/// Largest difference of the clocks, in seconds: certificates and the times of handshakes tolerate more.
const CLOCK: u64 = 30;
const SET_CLOCK: &str = "run a time service: `timedatectl set-ntp true`";

/// Judges a clock that is so many seconds ahead of the Control Plane's.
pub(super) fn beside_control_plane(ahead: i64) -> Line {
    let check = "clock";
    let far = ahead.unsigned_abs();
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    match far > CLOCK {
        true => Line::warning(
            check,
            format!("{far} s {side} the Control Plane's"),
            SET_CLOCK,
        ),
        false => Line::ok(check, "agrees with the Control Plane's"),
    }
}

/// Checks the clock where no Control Plane tells the time: it cannot be behind a file of the agent, as it is on a machine
/// without a battery that no time service has set.
pub(super) fn beside_files(directory: &Path) -> Line {
    let check = "clock";
    let program = std::env::current_exe().ok();
    let files = program.into_iter().chain(entries(directory));
    let times = files.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)));
    let Some((newest, path)) = times.max() else {
        return Line::new(check, Verdict::Unknown, "no file to compare it with");
    };
    match newest.duration_since(SystemTime::now()) {
        Ok(behind) if behind.as_secs() > CLOCK => Line::warning(
            check,
            format!(
                "{} s behind the time of {}",
                behind.as_secs(),
                path.display()
            ),
            SET_CLOCK,
        ),
        _ => Line::ok(
            check,
            "later than the agent's files; no Control Plane to compare it with",
        ),
    }
}

/// Returns the entries of a directory and of its folders.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let within = |folder: &Path| {
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        listed.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut all = within(directory);
    let below: Vec<_> = all.iter().flat_map(|folder| within(folder)).collect();
    all.extend(below);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_may_differ_by_half_a_minute() {
        for (ahead, verdict) in [
            (30, Verdict::Ok),
            (-30, Verdict::Ok),
            (31, Verdict::Warning),
            (-31, Verdict::Warning),
        ] {
            assert_eq!(beside_control_plane(ahead).status, verdict, "{ahead}");
        }
    }
}
