//! `rollback`: an override that restores an earlier applied state.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::{Map, Value, json};

use super::change::{Draft, change};
use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, complete, documents, history, objects, output};
use crate::config::{self, Config};
use crate::desired::{Desired, configured_node};
use crate::document::{self, BgpSessionSpec, Kind, OverrideSpec, Scalars, parse_value, to_yaml};
use crate::effective::{Defaults, difference};
use crate::history::{CommitId, History};
use crate::model::ObjectName;
use crate::store::{AppliedDocument, Area, Place, Slot};

/// Write an override that restores an earlier applied state.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The object
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
    /// A commit of `history`, or any Git revision. Default: the commit before the object's last applied change
    commit: Option<String>,
    /// Replace the existing override instead of merging; keeps its reason and pause
    #[arg(long)]
    force: bool,
    /// Check the rollback and print the override, write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Rollback {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let roll_back = async |draft: &mut Draft| self.roll_back(&config, draft).await;
        let (done, changed) = block_on(change(&config, self.dry_run, roll_back))?;
        let value = json!({"file": done.place.relative(), "commit": done.commit, "override": done.override_});
        if !output::value(arguments.output, &value)? {
            done.print(self.dry_run)?;
        }
        changed.note();
        Ok(ExitCode::SUCCESS)
    }

    async fn roll_back(&self, config: &Config, draft: &mut Draft) -> anyhow::Result<Done> {
        let defaults = Filling::of(config);
        let history = History::new(&config.state.directory);
        let (kind, name) = self.object(&draft.wanted, &history).await?;
        let (commit, then) = self.then(&history, kind, &name).await?;
        let now = document(&draft.wanted, kind, &name)?;
        let patch = patch(&draft.wanted.desired, kind, &defaults, &now, &then);
        let place = Place::new(Area::Overrides, kind, &name);
        let existing = draft.wanted.snapshot.overrides.get(&(kind, name.clone()));
        anyhow::ensure!(
            existing.is_none() || self.force,
            "{place} exists and conflicts with the rollback; use --force to replace it (the \
             history keeps the old one)"
        );
        // An invalid one is never replaced.
        draft.override_(kind, &name)?;
        let override_ = override_(&commit, patch, existing);
        let had_one = existing.is_some();
        draft.put_override(kind, &name, override_.clone())?;
        // Without a field and a pause, the document alone describes the earlier applied state.
        let override_ =
            Some(override_).filter(|override_| !override_.set.is_empty() || override_.paused);
        Ok(Done {
            name,
            place,
            commit,
            override_,
            had_one,
        })
    }

    /// Returns the requested commit, and its applied state.
    async fn then(
        &self,
        history: &History,
        kind: Kind,
        name: &ObjectName,
    ) -> anyhow::Result<(CommitId, Value)> {
        let applied = Place::new(Area::Applied, kind, name).relative();
        let commit = self.commit(history, &applied).await?;
        let text = history.committed_at(commit.as_str(), &applied).await?;
        let text = text.with_context(|| {
            format!(
                "{} was not applied at {}; choose another commit",
                self.name,
                commit.short()
            )
        })?;
        Ok((commit, specification(&text)?))
    }

    /// Returns the requested object.
    async fn object(
        &self,
        wanted: &Wanted,
        history: &History,
    ) -> anyhow::Result<(Kind, ObjectName)> {
        let documents = documents::all(&wanted.snapshot);
        let mut meant = history::places(&self.name)
            .into_iter()
            .filter(|key| documents.contains_key(key));
        match (meant.next(), meant.next()) {
            (Some((Kind::Maintenance, _)), _) => anyhow::bail!(
                "maintenance cannot be rolled back; use `moenet-agent maintenance start` or `stop`"
            ),
            (Some(one), None) => Ok(one),
            (None, _) if self.was_known(history).await => anyhow::bail!(
                "the document of {} no longer exists, so a rollback has nothing to override; to \
                 restore it as your own, copy it from `git log -p` in the state directory, \
                 without its uid",
                self.name
            ),
            (None, _) => Err(objects::unknown(
                &self.name,
                documents.keys().map(|(kind, name)| kind.path(name)),
            )),
            _ => anyhow::bail!("{} is ambiguous; add the kind: sessions/…", self.name),
        }
    }

    /// Returns whether the history has an object of this name.
    async fn was_known(&self, history: &History) -> bool {
        let Ok(paths) = history::paths(&self.name) else {
            return false;
        };
        history
            .log(&paths, 1)
            .await
            .is_ok_and(|entries| !entries.is_empty())
    }

    async fn commit(&self, history: &History, applied: &Path) -> anyhow::Result<CommitId> {
        if let Some(commit) = &self.commit {
            return Ok(history.resolve(commit).await?);
        }
        let changes = history.log(&[applied.to_owned()], 2).await?;
        let before = changes.into_iter().nth(1);
        before.map(|entry| entry.id).with_context(|| {
            format!(
                "the history has no earlier state of {}; see `moenet-agent history`",
                self.name
            )
        })
    }
}

/// The result of a rollback.
struct Done {
    name: ObjectName,
    place: Place,
    commit: CommitId,
    override_: Option<OverrideSpec>,
    had_one: bool,
}

impl Done {
    fn print(&self, dry_run: bool) -> anyhow::Result<()> {
        if dry_run {
            output::note("dry run: nothing is written");
        }
        let (name, place, commit) = (&self.name, &self.place, self.commit.short());
        let Some(override_) = &self.override_ else {
            output::line(match self.had_one {
                true => format!("Removed {place}; {name} is back to {commit}."),
                false => format!("No changes: {name} is already as it was at {commit}."),
            });
            return Ok(());
        };
        output::line(format_args!("{place} restores the state of {commit}:"));
        output::line(to_yaml(override_)?.trim_end());
        if override_.paused {
            output::note(
                "the override is still paused: it takes effect after you remove paused: true from \
                 it",
            );
        }
        Ok(())
    }
}

/// Returns the applied specification in an `applied/` record.
fn specification(text: &str) -> anyhow::Result<Value> {
    let applied: AppliedDocument = parse_value(text)?;
    let spec = applied.applied.spec.context("nothing was applied then")?;
    Ok(spec.value())
}

fn document(wanted: &Wanted, kind: Kind, name: &ObjectName) -> anyhow::Result<Value> {
    let loaded = documents::all(&wanted.snapshot).remove(&(kind, name.clone()));
    let (_, spec) = loaded.with_context(|| format!("there is no document of {name}"))??;
    Ok(spec)
}

/// The defaults that the configuration gives to documents.
struct Filling {
    keepalive: u16,
    node: config::Node,
}

impl Filling {
    fn of(config: &Config) -> Self {
        Self {
            keepalive: config.wireguard.persistent_keepalive_interval,
            node: config.node.clone(),
        }
    }

    /// Returns a specification with every default filled in, as it is applied; `None` for a kind without defaults.
    fn fill(&self, desired: &Desired, kind: Kind, spec: &Value) -> Option<Value> {
        match kind {
            Kind::BgpSession => {
                let spec: BgpSessionSpec = document::read(spec, Scalars::Typed).ok()?;
                let defaults = Defaults {
                    keepalive: self.keepalive,
                };
                serde_json::to_value(spec.filled(desired.router.as_ref().ok()?, &defaults)).ok()
            }
            Kind::Node => {
                let node = document::read(spec, Scalars::Typed).ok()?;
                serde_json::to_value(configured_node(&self.node, Some(node))).ok()
            }
            _ => None,
        }
    }
}

/// Returns the patch that turns the document into the earlier applied state. That state has every default filled
/// in; defaults that are unchanged now are left out of the override, if the result is the same.
fn patch(
    desired: &Desired,
    kind: Kind,
    filling: &Filling,
    now: &Value,
    then: &Value,
) -> Map<String, Value> {
    let filled = |spec: &Value| filling.fill(desired, kind, spec);
    let short = filled(now)
        .map(|now| difference(&now, then))
        .filter(|patch| {
            let mut after = now.clone();
            json_patch::merge(&mut after, patch);
            filled(&after).as_ref() == Some(then)
        });
    match short.unwrap_or_else(|| difference(now, then)) {
        Value::Object(patch) => patch,
        _ => Map::new(),
    }
}

fn override_(
    commit: &CommitId,
    set: Map<String, Value>,
    existing: Option<&Slot<OverrideSpec>>,
) -> OverrideSpec {
    let before = existing
        .and_then(|slot| slot.as_ref().ok())
        .map(|stored| &stored.document.spec);
    let reason = format!("rolled back to {}", commit.short());
    OverrideSpec {
        reason: match before {
            Some(before) => format!("{reason}; before: {}", before.reason),
            None => reason,
        },
        target_kind: None,
        expires_at: None,
        paused: before.is_some_and(|before| before.paused),
        set,
    }
}
