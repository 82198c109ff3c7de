//! `override`, `pause` and `resume`: the override of one object.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::change::patch::{Assignment, AssignmentError, path, unset};
use super::change::{self, Because, Draft};
use super::{Arguments, Outcome, block_on, complete};
use crate::document::{DocumentError, Kind, OverrideSpec};
use crate::model::ObjectName;

/// An override of fields.
#[derive(Debug, Args)]
pub struct Override {
    /// The object, as sessions/wg_4242421080
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
    /// Fields with their values, as tunnel.mtu=1380; only fields with --remove
    #[arg(value_name = "FIELD=VALUE", add = ArgValueCompleter::new(complete::assignments))]
    fields: Vec<String>,
    #[command(flatten)]
    because: Because,
    /// Remove the fields from the override; without fields, the whole override
    #[arg(long, conflicts_with_all = ["reason", "expires"])]
    remove: bool,
    /// Check the change and print it, write nothing
    #[arg(long)]
    dry_run: bool,
}

/// A pause.
#[derive(Debug, Args)]
pub struct Pause {
    /// The object, as sessions/wg_4242421080
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
    #[command(flatten)]
    because: Because,
}

/// The end of a pause.
#[derive(Debug, Args)]
pub struct Resume {
    /// The object, as sessions/wg_4242421080
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
}

impl Override {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        change(arguments, &self.name, self.dry_run, |draft, kind, name| {
            let existing = draft.override_(kind, name)?;
            if self.remove && self.fields.is_empty() {
                return Ok(None);
            }
            anyhow::ensure!(
                !self.fields.is_empty() || !self.because.is_empty(),
                "name a field with its value, as tunnel.mtu=1380; `moenet-agent explain` lists the fields"
            );
            anyhow::ensure!(
                !self.fields.is_empty() || existing.is_some(),
                "there is no override of {} yet: name a field with its value, as tunnel.mtu=1380",
                kind.path(name)
            );
            match self.remove {
                true => self.without(existing).map(Some),
                false => self.with(existing).map(Some),
            }
        })
    }

    /// Returns the override with the fields.
    fn with(&self, existing: Option<OverrideSpec>) -> anyhow::Result<OverrideSpec> {
        let before = existing.as_ref().map(|it| it.set.clone());
        let mut named = BTreeSet::new();
        for field in &self.fields {
            let is_new = named.insert(field.split('=').next().and_then(path));
            anyhow::ensure!(is_new, "{field}: the field is given twice");
        }
        let mut spec = self.because.apply(existing, false)?;
        for field in &self.fields {
            let assignment: Assignment = field.parse().map_err(|error| wrong(field, &error))?;
            assignment.set(&mut spec.set);
        }
        // Reason and end are of the whole override: what it already set must not end with a new field.
        let mut rest = before.unwrap_or_default();
        for field in &self.fields {
            let name = field.split('=').next().unwrap_or_default();
            unset(&mut rest, &path(name).unwrap_or_default());
        }
        anyhow::ensure!(
            self.fields.is_empty() || self.because.is_empty() || rest.is_empty(),
            "the override of {} sets other fields too ({}), and --reason and --expires are of all: set the field without \
             them, or change them alone",
            self.name,
            serde_json::Value::Object(rest)
        );
        Ok(spec)
    }

    /// Returns the override without the fields.
    fn without(&self, existing: Option<OverrideSpec>) -> anyhow::Result<OverrideSpec> {
        let mut spec = existing
            .ok_or_else(|| anyhow::anyhow!("there is no override of {} in effect", self.name))?;
        for field in &self.fields {
            let path = path(field).unwrap_or_default();
            anyhow::ensure!(
                unset(&mut spec.set, &path),
                "the override does not set {field}; `moenet-agent get overrides {}` shows what it sets",
                self.name
            );
        }
        Ok(spec)
    }
}

impl Pause {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        change(arguments, &self.name, false, |draft, kind, name| {
            let existing = draft.override_(kind, name)?;
            let sets = existing.as_ref().is_some_and(|it| !it.set.is_empty());
            anyhow::ensure!(
                !sets || self.because.is_empty(),
                "the override of {} sets fields too, and its reason and end are of both: pause without --reason and \
                 --expires, or change them with `moenet-agent override`",
                kind.path(name)
            );
            let spec = self.because.apply(existing, false)?;
            Ok(Some(OverrideSpec {
                paused: true,
                ..spec
            }))
        })
    }
}

impl Resume {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        change(arguments, &self.name, false, |draft, kind, name| {
            let spec = draft.override_(kind, name)?.filter(|spec| spec.paused);
            let spec = spec.ok_or_else(|| anyhow::anyhow!("{} is not paused", kind.path(name)))?;
            Ok(Some(OverrideSpec {
                paused: false,
                ..spec
            }))
        })
    }
}

/// Returns the error of an argument, which has no place in a file.
fn wrong(argument: &str, error: &AssignmentError) -> DocumentError {
    let name = argument.split('=').next().and_then(path);
    DocumentError {
        field: name.map_or(String::new(), |name| format!("spec.{}", name.join("."))),
        ..DocumentError::whole(format!("{argument}: {error}"))
    }
}

/// Replaces the override of one object; `None` removes it.
fn change(
    arguments: &Arguments,
    meant: &str,
    dry_run: bool,
    make: impl Fn(&Draft, Kind, &ObjectName) -> anyhow::Result<Option<OverrideSpec>>,
) -> Outcome {
    let config = arguments.load()?;
    let put = async |draft: &mut Draft| {
        let (kind, name) = draft.named(meant)?;
        anyhow::ensure!(
            kind != Kind::Maintenance,
            "maintenance has no override; use `moenet-agent maintenance start` or `stop`"
        );
        match make(draft, kind, &name)? {
            Some(spec) => draft.put_override(kind, &name, spec),
            None => {
                draft.remove_override(kind, &name);
                Ok(())
            }
        }
    };
    let ((), changed) = block_on(change::change(&config, dry_run, put))?;
    changed.print(arguments.output, dry_run)?;
    Ok(ExitCode::SUCCESS)
}
