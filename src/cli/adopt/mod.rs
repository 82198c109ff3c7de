//! `adopt`: takes over a router that runs already, under a watch, and undoes it.

mod answer;
mod apply;
mod fleet;
mod read;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::offline::Rehearsal;
use super::wait::interval;
use super::{Arguments, Outcome, block_on, output};
use crate::adoption::{self, specifications, write_documents};
use crate::config::{Config, Interval};
use crate::intervals::ADOPT_WATCH;
use crate::util::fs;
use crate::util::task::blocking;

use answer::Answer;

/// Take over a router that runs already.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Change nothing
    #[arg(long, conflicts_with_all = ["undo", "yes"])]
    plan: bool,
    /// Undo the adoption, also an interrupted one
    #[arg(long)]
    undo: bool,
    /// Write the sessions as files of the embedded Control Plane, below DIR, and change nothing on this router
    #[arg(long, value_name = "DIR", conflicts_with_all = ["plan", "undo", "yes"])]
    fleet: Option<PathBuf>,
    /// Accept the named interruptions, and disable the units that configure the same interfaces
    #[arg(long)]
    yes: bool,
    /// Watch the sessions for this time, and undo everything after a loss
    #[arg(long, value_name = "TIME", default_value_t = format!("{}s", ADOPT_WATCH.as_secs()))]
    watch: String,
    /// The share of a session's prefixes that may be lost, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(..=100))]
    max_prefix_loss: u8,
    /// The directory of wg-quick. Default: /etc/wireguard, if it exists
    #[arg(long, value_name = "DIR")]
    wg_quick: Option<PathBuf>,
    /// The directory of systemd-networkd. Default: /etc/systemd/network, if it exists
    #[arg(long, value_name = "DIR")]
    networkd: Option<PathBuf>,
}

impl Adopt {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        if self.undo {
            let config = arguments.load()?;
            return block_on(apply::undo(config, arguments.output, self.yes));
        }
        let watch = interval(&self.watch).with_context(|| format!("--watch {}", self.watch))?;
        for (flag, given) in [
            ("--wg-quick", &self.wg_quick),
            ("--networkd", &self.networkd),
        ] {
            let missing = given.iter().find(|folder| !fs::is_dir(folder));
            if let Some(folder) = missing {
                anyhow::bail!("{flag} {}: no such directory", folder.display());
            }
        }
        let config = arguments.load()?;
        if self.plan {
            return self.show(arguments, config);
        }
        if let Some(fleet) = &self.fleet {
            let answer = block_on(self.answer(config.clone()))?;
            return fleet::write(fleet, &config, &answer);
        }
        block_on(self.take_over(arguments, config, watch))
    }

    fn show(&self, arguments: &Arguments, config: Config) -> Outcome {
        let answer = block_on(async {
            apply::refuse_recorded(&config).await?;
            self.answer(config).await
        })?;
        if !output::value(arguments.output, &answer)? {
            answer.print();
            output::line(answer.verdict());
        }
        Ok(match answer.is_harmless() && answer.refusals().is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    /// Returns what would be taken over, and the plan of it.
    async fn answer(&self, config: Config) -> anyhow::Result<Answer> {
        let state = config.state.directory.clone();
        let folder =
            |given: &Option<PathBuf>, usual: &str| given.clone().unwrap_or_else(|| usual.into());
        let wg_quick = folder(&self.wg_quick, "/etc/wireguard");
        let networkd = folder(&self.networkd, "/etc/systemd/network");
        let files = blocking(move || -> anyhow::Result<_> {
            let mut files = read::tunnel_files(&wg_quick, &["conf"])?;
            files.extend(read::tunnel_files(&networkd, &["netdev", "network"])?);
            Ok(files)
        })
        .await?;
        let rehearsal = Rehearsal::begin(config).await?;
        let store = Arc::clone(&rehearsal.parts.shared.context.store);
        let synced = blocking(move || store.load()).await?;
        let mut adoption = read::adoption(&rehearsal, &synced, &files).await?;
        let synced = synced
            .sessions
            .values()
            .filter_map(|slot| slot.as_ref().ok());
        adoption.beside(synced.map(|stored| &*stored.document));
        if self.plan {
            let secrets = adoption.documents.iter().filter_map(|it| it.secret(&state));
            adoption.findings.extend(secrets);
        }
        let store = Arc::clone(&rehearsal.parts.shared.context.store);
        let documents = adoption.documents.clone();
        let planned = blocking(move || {
            write_documents(&store, &documents)?;
            specifications(&store)
        })
        .await?;
        let offline = rehearsal.offline().await?;
        Ok(Answer::of(adoption, &files, &offline, planned))
    }

    async fn take_over(&self, arguments: &Arguments, config: Config, watch: Interval) -> Outcome {
        if adoption::undo_interrupted(&config).await? {
            output::note("an interrupted adoption was undone first");
        }
        apply::refuse_recorded(&config).await?;
        let answer = self.answer(config.clone()).await?;
        if !output::value(arguments.output, &answer)? {
            answer.print();
        }
        let accepted = apply::Accepted {
            yes: self.yes,
            watch: watch.get(),
            max_loss: self.max_prefix_loss,
        };
        apply::take_over(config, answer, accepted).await
    }
}
