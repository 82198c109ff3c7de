//! `approve`: approve held changes.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde::Serialize;

use super::offline::Offline;
use super::{Arguments, Outcome, block_on, change, complete, objects, output};
use crate::config::Config;
use crate::controller::Missing;
use crate::desired::{Desired, HeldChange};
use crate::document::Kind;
use crate::http::HeldView;
use crate::model::ObjectKey;
use crate::store::{COMPLETE, Store};
use crate::util::sorted::Sorted as _;

/// Approve held changes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Approve {
    /// Objects with a held change, e.g. sessions/wg_4242421080 or node
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    names: Vec<String>,
    /// Approve every change that is held now
    #[arg(long)]
    all: bool,
    /// List held changes with reasons, approve nothing
    #[arg(long)]
    list: bool,
    /// Confirm that the state directory is lost: a new one takes over the links that its documents want
    #[arg(long)]
    state_lost: bool,
    /// Say that links and BIRD files with the mark of an earlier build, which names no state directory, are this agent's
    #[arg(long)]
    earlier_build: bool,
}

/// One held change.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    held: HeldView,
    approved: bool,
}

impl Approve {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        if self.state_lost {
            return block_on(state_lost(config));
        }
        if self.earlier_build {
            return earlier_build(&config);
        }
        let directory = config.state.directory.clone();
        let offline = block_on(Offline::look(config.clone()))?;
        let held = all(&offline);
        let chosen = self.chosen(&held)?;
        if !chosen.is_empty() {
            Store::approve(&directory, &self.lines(&chosen, offline.desired.complete))?;
        }
        let chosen: BTreeSet<ObjectKey> =
            chosen.into_iter().map(|held| held.key.clone()).sorted_set();
        let rows: Vec<Row> = held
            .iter()
            .filter(|held| self.list || chosen.contains(&held.key))
            .map(|held| row(held, chosen.contains(&held.key)))
            .collect();
        if !output::value(arguments.output, &rows)? {
            print(&rows);
        }
        if !chosen.is_empty() {
            let when = block_on(async { Ok(change::takes_effect(&config, &[]).await) })?;
            output::note(&when);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the lines of the approval. Only an approval of everything states that no document is missing: the
    /// documents of
    /// objects that were not named may still come back.
    fn lines(&self, chosen: &[&HeldChange], complete: bool) -> BTreeSet<String> {
        let objects = chosen.iter().map(|held| held.approval.clone());
        let all = (self.all && !complete).then(|| COMPLETE.to_owned());
        objects.chain(all).sorted_set()
    }

    /// Returns the held changes that the arguments name.
    fn chosen<'a>(&self, held: &'a [HeldChange]) -> anyhow::Result<Vec<&'a HeldChange>> {
        if self.all {
            return Ok(held.iter().collect());
        }
        let mut chosen = Vec::new();
        for name in &self.names {
            let before = chosen.len();
            chosen.extend(held.iter().filter(|held| is_meant(&held.key, name)));
            anyhow::ensure!(
                chosen.len() > before,
                "no change of {name} is held; `moenet-agent approve --list` shows the held changes"
            );
        }
        Ok(chosen)
    }
}

/// Creates the new identity that a start without the state directory waits for.
async fn state_lost(config: Config) -> Outcome {
    let directory = config.state.directory.display().to_string();
    match Missing::look(&config).await {
        Ok(()) => output::line(format_args!(
            "Nothing to approve: {directory} has its identity, or no link carries the agent's \
             mark."
        )),
        Err(missing) if !missing.can_be_succeeded() => return Err(missing.into()),
        Err(missing) => {
            let new = missing.succeed()?;
            output::line(format_args!(
                "{directory} has the new identity {}. Links that documents want are taken over in place; the others stay.",
                new.identity
            ));
            output::note(&change::takes_effect(&config, &[]).await);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes over what an earlier build left, whose marks name no state directory. A running agent notices it by itself.
fn earlier_build(config: &Config) -> Outcome {
    let directory = &config.state.directory;
    let text = match Store::approve_earlier_build(directory)? {
        true => "Marks of earlier builds now belong to",
        false => "Nothing to approve: marks of earlier builds already belong to",
    };
    output::line(format_args!("{text} {}.", directory.display()));
    Ok(ExitCode::SUCCESS)
}

/// Returns all held changes: objects, and links without a record.
fn all(offline: &Offline) -> Vec<HeldChange> {
    let orphan = |(uid, reason)| HeldChange::unrecorded(uid, reason);
    let desired: &Desired = &offline.desired;
    let orphans = offline.orphans().held.into_iter().map(orphan);
    desired.held().into_iter().chain(orphans).collect()
}

fn is_meant(key: &ObjectKey, meant: &str) -> bool {
    match Kind::of(key) {
        Some((kind, name)) => objects::is_meant(kind, name, meant),
        None => key.to_string() == meant,
    }
}

fn row(held: &HeldChange, approved: bool) -> Row {
    let held = held.clone().into();
    Row { held, approved }
}

fn print(rows: &[Row]) {
    if rows.is_empty() {
        return output::line("No changes are held.");
    }
    let cells = rows.iter().map(|row| {
        vec![
            row.held.object.clone(),
            if row.approved { "approved" } else { "held" }.to_owned(),
            row.held.change.clone(),
            row.held
                .since
                .map_or_else(|| "-".to_owned(), super::get::ago),
            row.held.reason.clone(),
        ]
    });
    output::line(output::table(
        &["OBJECT", "STATE", "CHANGE", "SINCE", "REASON"],
        cells,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(name: &str) -> HeldChange {
        let key = Kind::BgpSession.key(&name.parse().unwrap());
        HeldChange {
            approval: key.to_string(),
            key,
            change: "removal".to_owned(),
            reason: String::new(),
            since: None,
        }
    }

    fn approve(names: &[&str], all: bool) -> BTreeSet<String> {
        let approve = Approve {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            all,
            list: false,
            state_lost: false,
            earlier_build: false,
        };
        let held = [held("a"), held("b")];
        approve.lines(&approve.chosen(&held).unwrap(), false)
    }

    #[test]
    fn approval_by_name_does_not_settle_the_other_objects() {
        assert_eq!(
            approve(&["sessions/a"], false),
            ["sessions/a".to_owned()].into()
        );
        let all = ["sessions/a", "sessions/b", COMPLETE];
        assert_eq!(approve(&[], true), all.map(str::to_owned).into());
    }
}
