//! `fleet accept`, `fleet disable` and `fleet delete`.

use std::process::ExitCode;

use clap::Args;

#[cfg(feature = "postgres")]
use super::STORE_ENV;
use super::{Changed, Directory};
use crate::cli::{Arguments, Outcome, block_on, output};
use crate::fleet::{self, Changes, Must, SessionPlace, Source, Wish};
#[cfg(feature = "postgres")]
use crate::model::Secret;

/// A session, by its name.
#[derive(Debug, Args)]
struct Named {
    /// The session: ROUTER/NAME, as jp1/alice or jp1/wg_4242421080, or its uuid
    #[arg(value_name = "SESSION")]
    session: String,
    #[command(flatten)]
    fleet: Directory,
}

#[derive(Debug, Args)]
pub(super) struct Accept {
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Args)]
pub(super) struct Disable {
    #[command(flatten)]
    named: Named,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    named: Named,
    #[cfg(feature = "postgres")]
    /// The database where the router confirms the removal: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(
        long,
        value_name = "URL",
        env = STORE_ENV,
        hide_env_values = true
    )]
    store: Option<String>,
    /// Remove the file although the router has not confirmed the removal
    #[arg(long)]
    force: bool,
}

impl Accept {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let next = "the router sets it up at its next poll";
        self.named.wish(Wish::Accept, next, arguments)
    }
}

impl Disable {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let next = "the router takes it down at its next poll; `moenet-agent fleet accept` is the way back";
        self.named.wish(Wish::Disable, next, arguments)
    }
}

impl Delete {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let (named, dir) = (&self.named, &self.named.fleet.dir);
        let mut changes = Changes::begin(dir)?;
        let place = changes.session(&named.session)?;
        if changes.wish(&place, Wish::Delete)? {
            let next = format!(
                "the router removes it at its next poll; then `moenet-agent fleet delete {}` removes it from the files",
                place.full_name()
            );
            return Changed::write(changes, Must::NotGetWorse, (None, next), arguments);
        }
        anyhow::ensure!(
            self.force || self.is_removed(&place)?,
            "{} has not confirmed the removal of {}; wait for it, or add --force if the router is gone for good",
            place.router,
            place.full_name()
        );
        changes.forget(&place)?;
        let next = format!("{} is removed", place.full_name());
        Changed::write(changes, Must::NotGetWorse, (None, next), arguments)
    }
}

impl Delete {
    fn is_removed(&self, place: &SessionPlace) -> anyhow::Result<bool> {
        block_on(async { Ok(fleet::is_removed(&self.source(), place).await?) })
    }

    fn source(&self) -> Source {
        #[cfg(feature = "postgres")]
        if let Some(url) = self.store.as_ref().filter(|url| !url.is_empty()) {
            return Source::Database(Secret::new(url.clone()));
        }
        Source::Directory(self.named.fleet.dir.clone())
    }
}

impl Named {
    fn wish(&self, wish: Wish, next: &str, arguments: &Arguments) -> Outcome {
        let mut changes = Changes::begin(&self.fleet.dir)?;
        let place = changes.session(&self.session)?;
        if changes.wish(&place, wish)? {
            let next = (None, next.to_owned());
            return Changed::write(changes, Must::NotGetWorse, next, arguments);
        }
        let files = Vec::new();
        let next = format!("{} is as wanted already", place.full_name());
        if arguments.output.is_for_people() {
            output::line(format_args!("No changes: {next}."));
            return Ok(ExitCode::SUCCESS);
        }
        Changed {
            files,
            removed: Vec::new(),
            token: None,
            next,
        }
        .print(arguments)
    }
}
