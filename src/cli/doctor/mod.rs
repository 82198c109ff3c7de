//! `doctor`: whether this host and the agent on it are fit to run, one line a check, each with what to do.
//!
//! What the running agent or a plan knows comes from the same conditions as `describe node`; only what must hold before
//! either can work is looked at here.

mod clock;
mod host;
mod network;

use std::process::ExitCode;

use serde::Serialize;

use super::api::Agent;
use super::offline::{Offline, unresolved};
use super::validate::token_problems;
use super::{Arguments, Outcome, block_on, describe, output};
use crate::agent::start_problems;
use crate::config::{self, Config, Environment};
use crate::document::{Condition, ConditionStatus, DocumentError};
use crate::status::{is_bad, stops_work};
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;

/// The result of a check. A check fails if the agent cannot do its work because of it: it could not start, or would
/// configure no tunnel or no session. What an operator should put right while it works is a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
    /// It could not be checked.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// One check. The names of its fields are part of the interface for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    check: String,
    status: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_action: Option<String>,
}

impl Line {
    fn new(check: &str, status: Verdict, message: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            status,
            message: message.into(),
            next_action: None,
        }
    }

    fn ok(check: &str, message: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, message)
    }

    fn warning(check: &str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warning, message).act(action)
    }

    fn failed(check: &str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(check, Verdict::Failed, message).act(action)
    }

    fn act(self, action: impl Into<String>) -> Self {
        let next_action = Some(action.into());
        Self {
            next_action,
            ..self
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let lines = match arguments.load() {
        Ok(config) => block_on(async { Ok(lines(config).await) })?,
        Err(error) => without_configuration(arguments, &error),
    };
    Ok(match shown(arguments, &lines)? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Prints the checks that can succeed before the first start: host, BIRD and Control Plane. Returns whether none failed.
pub(super) fn before_start(arguments: &Arguments) -> anyhow::Result<bool> {
    shown(arguments, &checks_before_start(arguments)?)
}

/// Returns the checks that can succeed before the first start.
pub(super) fn checks_before_start(arguments: &Arguments) -> anyhow::Result<Vec<Line>> {
    let config = arguments.load()?;
    block_on(async { Ok(of_surroundings(&config).await.0) })
}

/// Returns whether no check failed.
pub(super) fn is_fit(lines: &[Line]) -> bool {
    lines.iter().all(|line| line.status != Verdict::Failed)
}

/// Prints checks. Returns whether none failed.
fn shown(arguments: &Arguments, lines: &[Line]) -> anyhow::Result<bool> {
    if !output::value(arguments.output, &lines)? {
        print(lines);
    }
    Ok(is_fit(lines))
}

/// Returns the problems of a configuration that nothing else can be checked with.
fn without_configuration(arguments: &Arguments, error: &anyhow::Error) -> Vec<Line> {
    let path = arguments.config.clone().or_else(config::found);
    let listed = path.map(|path| config::problems(&path, Environment::read()));
    let listed = listed.filter(|problems| !problems.is_empty());
    let problems = listed.unwrap_or_else(|| vec![DocumentError::whole(format!("{error:#}"))]);
    problems.into_iter().map(of_configuration).collect()
}

fn of_configuration(problem: DocumentError) -> Line {
    let action = "correct it; `moenet-agent explain config` lists the keys, `validate` checks them";
    Line::failed("configuration", problem.to_string(), action)
}

/// Runs every check.
async fn lines(config: Config) -> Vec<Line> {
    let (mut lines, answers) = of_surroundings(&config).await;
    let agent = Agent::find(&config).await;
    lines.push(of_agent(&agent).await);
    lines.extend(of_router(config, &agent, answers).await);
    lines
}

/// Checks everything around the agent. Returns whether the Control Plane answers too.
async fn of_surroundings(config: &Config) -> (Vec<Line>, bool) {
    let mut lines: Vec<_> = start_problems(config)
        .into_iter()
        .map(of_configuration)
        .collect();
    if lines.is_empty() {
        lines.push(Line::ok("configuration", "valid"));
    }
    let (directory, backend) = (config.state.directory.clone(), config.wireguard.backend);
    let tokens = token_problems(config)
        .map(|problem| problem.to_string())
        .collect();
    let secrets = config.secret_files();
    lines.extend(blocking(move || host::lines(&directory, tokens, backend, &secrets)).await);
    lines.extend(network::bird(config).await);
    lines.push(host::git(&config.state.directory).await);
    let control_plane = network::control_plane(config).await;
    let answers = control_plane
        .iter()
        .all(|line| line.status != Verdict::Failed);
    lines.extend(control_plane);
    (lines, answers)
}

async fn of_agent(agent: &Agent) -> Line {
    let check = "agent";
    if !agent.is_running() {
        let message = "it does not answer on server.listen";
        return Line::warning(check, message, "`systemctl enable --now moenet-agent`");
    }
    match agent.failure().await {
        None => Line::ok(check, "running"),
        Some(reasons) => Line::failed(
            check,
            format!("it runs and cannot do its work: {}", reasons.join("; ")),
            "`moenet-agent status` and its log (`journalctl -u moenet-agent`) say more",
        ),
    }
}

/// Returns the names that do not resolve, and the conditions of node and policy.
async fn of_router(config: Config, agent: &Agent, control_plane_answers: bool) -> Vec<Line> {
    let check = "documents";
    let directory = config.state.directory.clone();
    let exists = blocking(move || fs::exists(directory)).await;
    if !exists && !control_plane_answers {
        let message = "there is no state directory yet, and the Control Plane does not answer";
        return vec![Line::new(check, Verdict::Unknown, message)];
    }
    let offline = match Offline::before_start(config).await {
        Ok(offline) => offline,
        Err(error) => {
            let message = chain(error.as_ref());
            let action = "`moenet-agent validate` lists every problem";
            return vec![Line::failed(check, message, action)];
        }
    };
    let mut lines = vec![names(&unresolved(&offline.parts, &offline.desired))];
    for object in offline.desired.router_documents.objects() {
        let status = describe::current(&offline, &object, agent).await;
        let path = object.path();
        lines.extend(status.conditions.iter().map(|it| of_condition(&path, it)));
    }
    lines
}

fn names(unresolved: &[String]) -> Line {
    match unresolved {
        [] => Line::ok("dns", "every name of an endpoint resolves"),
        names => Line::warning(
            "dns",
            names.join("; "),
            "check the names, and this host's resolver: `resolvectl query NAME`",
        ),
    }
}

/// `node Forwarding`: the condition as the status document has it.
fn of_condition(object: &str, condition: &Condition) -> Line {
    let about = condition.condition_type;
    let verdict = match condition.status {
        _ if is_bad(condition) && stops_work(about) => Verdict::Failed,
        _ if is_bad(condition) => Verdict::Warning,
        ConditionStatus::Unknown => Verdict::Unknown,
        _ if condition.next_action.is_some() => Verdict::Warning,
        _ => Verdict::Ok,
    };
    let message = match condition.message.as_str() {
        "" => condition.reason.clone(),
        message => message.to_owned(),
    };
    Line {
        next_action: condition.next_action.clone(),
        ..Line::new(&format!("{object} {about:?}"), verdict, message)
    }
}

fn print(lines: &[Line]) {
    let rows = lines.iter().map(|line| {
        let status = line.status.word().to_owned();
        vec![line.check.clone(), status, line.message.clone()]
    });
    output::line(output::table(&["CHECK", "STATUS", "MESSAGE"], rows));
    let to_do: Vec<_> = lines
        .iter()
        .filter_map(|line| Some((line, line.next_action.as_ref()?)))
        .collect();
    if to_do.is_empty() {
        return;
    }
    output::line("\nWhat to do");
    for (line, action) in to_do {
        output::line(format_args!("  {}: {action}", line.check));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::ConditionType;

    /// Returns the verdict about the node while only this condition is bad.
    fn verdict(about: ConditionType) -> Verdict {
        let condition = Condition {
            condition_type: about,
            status: ConditionStatus::False,
            reason: "Because".to_owned(),
            message: String::new(),
            next_action: None,
            last_transition_time: jiff::Timestamp::UNIX_EPOCH,
        };
        of_condition("node", &condition).status
    }

    #[test]
    fn only_a_check_without_which_the_agent_cannot_work_fails() {
        for (about, expected) in [
            (ConditionType::KeyAvailable, Verdict::Failed),
            (ConditionType::BirdConfigured, Verdict::Failed),
            (ConditionType::OriginsValidated, Verdict::Warning),
            (ConditionType::EndpointResolved, Verdict::Warning),
            (ConditionType::HistoryRecorded, Verdict::Warning),
            (ConditionType::InService, Verdict::Ok),
        ] {
            assert_eq!(verdict(about), expected, "{about:?}");
        }
        let names = names(&["peer.invalid: no such name".to_owned()]);
        assert_eq!(names.status, Verdict::Warning);
        assert!(is_fit(&[names]));
    }
}
