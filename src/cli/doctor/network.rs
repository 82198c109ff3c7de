//! The programs that the agent works with: BIRD and the Control Plane, which also tells the time.

use std::sync::Arc;

use super::{Line, Verdict, clock};
use crate::agent::control_plane_client;
use crate::bird::{Checker, Client as BirdClient};
use crate::config::Config;
use crate::control_plane::CallError;
use crate::intervals::{BIRD_COMMAND, DAEMON_CHECK};
use crate::model::ErrorClass;
use crate::observed::bird::{Support, Version};
use crate::status::BIRD_DOWN;
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;

/// Checks the installed BIRD and the running one.
pub(super) async fn bird(config: &Config) -> [Line; 2] {
    let checker = Checker::new(&config.bird.binary, BIRD_COMMAND, Arc::default());
    let client = BirdClient::new(&config.bird.control_socket).with_deadline(DAEMON_CHECK);
    let (installed, running) = tokio::join!(checker.version(), client.version());
    let installed = match installed {
        Ok(version) => of_version("bird program", version),
        Err(error) => Line::failed(
            "bird program",
            chain(&error),
            "install bird2 or bird3, or correct bird.binary",
        ),
    };
    let running = match running {
        Ok(version) => of_version("bird socket", version),
        Err(error) => Line::failed("bird socket", chain(&error), BIRD_DOWN),
    };
    [installed, running]
}

fn of_version(check: &str, version: Version) -> Line {
    let action = "install a BIRD version that the agent was tested with";
    match (version.support(), version.warning()) {
        (Support::TooOld, warning) => Line::failed(check, warning.unwrap_or_default(), action),
        (_, Some(warning)) => Line::warning(check, warning, action),
        (_, None) => Line::ok(check, format!("version {version}")),
    }
}

/// Checks that the Control Plane answers, and the clock: with its time, if it answers.
pub(super) async fn control_plane(config: &Config) -> Vec<Line> {
    let (line, ahead) = answer(config).await;
    let clock = match ahead {
        Some(ahead) => clock::beside_control_plane(ahead),
        None => {
            let directory = config.state.directory.clone();
            blocking(move || clock::beside_files(&directory)).await
        }
    };
    line.into_iter().chain([clock]).collect()
}

/// Returns whether the Control Plane answers, and how far this clock is ahead of its own, in seconds.
async fn answer(config: &Config) -> (Option<Line>, Option<i64>) {
    let check = "control plane";
    let client = match control_plane_client(config) {
        Ok(Some(client)) => client,
        Ok(None) => {
            let line = Line::ok(check, "not configured: documents are written by hand");
            return (Some(line), None);
        }
        // A line of the configuration says so.
        Err(_) => return (None, None),
    };
    let line = match client.fetch_config().await {
        Ok(_) => Line::ok(check, "answers"),
        Err(error) => {
            // With documents the agent works on; the lists of a first start come from there.
            let directory = config.state.directory.clone();
            let verdict = match blocking(move || fs::is_dir(directory)).await {
                true => Verdict::Warning,
                false => Verdict::Failed,
            };
            Line::new(check, verdict, error.to_string()).act(advice(&error))
        }
    };
    (Some(line), client.clock_ahead())
}

fn advice(error: &CallError) -> &'static str {
    match error.failure.class() {
        ErrorClass::Invalid => "correct controlPlane.url, its token, or node.name",
        _ => {
            "check controlPlane.url, the uplink and the resolver; the agent keeps what is in effect"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bird_of_another_version_has_advice() {
        for (version, verdict) in [
            ("2.17.1", Verdict::Ok),
            ("2.0.8", Verdict::Warning),
            ("1.6.8", Verdict::Failed),
        ] {
            let line = of_version("bird", Version::find(version).unwrap());
            assert_eq!(line.status, verdict, "{line:?}");
            assert_eq!(line.next_action.is_some(), verdict != Verdict::Ok);
        }
    }
}
