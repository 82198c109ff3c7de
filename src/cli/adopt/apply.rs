//! Applying an adoption, and its undo.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::Answer;
use crate::adopt::Phase;
use crate::adoption::{self, Adoption, AdoptionError, Takeover, units};
use crate::cli::offline::Wanted;
use crate::cli::output::Format;
use crate::cli::{Outcome, output, terminal};
use crate::config::Config;
use crate::telemetry::chain;
use crate::util::progress;
use crate::util::text::counted;

const UNDOING: &str = "undoing the adoption";

/// What the operator accepts.
pub(super) struct Accepted {
    pub(super) yes: bool,
    pub(super) watch: Duration,
    pub(super) max_loss: u8,
}

/// Takes over, watches, and keeps or undoes.
pub(super) async fn take_over(config: Config, answer: Answer, accepted: Accepted) -> Outcome {
    let refusals = answer.refusals();
    anyhow::ensure!(
        refusals.is_empty(),
        "nothing was changed: {}",
        refusals.join("; ")
    );
    anyhow::ensure!(
        accepted.yes || answer.is_harmless(),
        "nothing was changed: the interruptions above need your consent; add --yes"
    );
    let enabled = enabled_units(&answer).await;
    // Until systemd starts the agent, these units build the tunnels after a boot.
    let disables = accepted.yes && units::is_agent_enabled().await;
    let takeover = Takeover {
        documents: answer.adopted,
        planned: answer.planned,
        added: answer.added,
        sysctls: answer.sysctls,
        enabled: enabled.clone(),
        disables,
        watch: accepted.watch,
        max_loss: accepted.max_loss,
    };
    let mut adoption = Adoption::begin(config, takeover).await?;
    if let Err(why) = run(&mut adoption, accepted.watch).await {
        return Err(undo_after(adoption, &why).await);
    }
    output::note("adopted; start the agent with `systemctl enable --now moenet-agent`");
    disable(&mut adoption, &enabled, disables).await;
    output::note("`moenet-agent adopt --undo` is the way back");
    Ok(ExitCode::SUCCESS)
}

/// Undoes everything, and returns why.
async fn undo_after(adoption: Adoption, why: &AdoptionError) -> anyhow::Error {
    let why = chain(why);
    output::note(&format!("{why}; undoing everything"));
    progress::say(UNDOING, None);
    match adoption.undo().await {
        Ok(undone) if undone.kept.is_empty() => {
            anyhow::anyhow!("not adopted, and every change is undone: {why}")
        }
        Ok(undone) => anyhow::anyhow!(
            "not adopted: {why}. Every change is undone, except: {}",
            undone.kept.join("; ")
        ),
        Err(error) => anyhow::anyhow!(
            "not adopted ({why}), and not everything is undone: {}. The next start of moenet-agent tries again, or run \
             `moenet-agent adopt --undo`",
            chain(&error)
        ),
    }
}

async fn run(adoption: &mut Adoption, watch: Duration) -> Result<(), AdoptionError> {
    progress::say("taking the links over", None);
    adoption.apply().await?;
    let baseline = adoption.baseline();
    output::note(&format!(
        "watching {} with {} prefixes, and {}, for {} s",
        counted(baseline.sessions(), "session"),
        baseline.prefixes(),
        counted(baseline.tunnels(), "tunnel"),
        watch.as_secs()
    ));
    progress::say("watching sessions and tunnels", Some(watch));
    if baseline.sessions() + baseline.tunnels() == 0 {
        output::note("nothing is up, so no loss can be seen: look at the sessions yourself");
    }
    adoption.watch().await?;
    adoption.keep().await
}

/// Disables the units of a kept adoption, or says how to. A failure undoes nothing: the agent and these units agree until the
/// next boot.
async fn disable(adoption: &mut Adoption, enabled: &BTreeSet<String>, disables: bool) {
    if enabled.is_empty() {
        return;
    }
    let command = units::command(enabled, false);
    if !disables {
        output::note(&format!(
            "then run `{command}`: after a boot both would configure the same interfaces"
        ));
        return;
    }
    match adoption.disable_units().await {
        Ok(done) => done
            .iter()
            .for_each(|command| output::note(&format!("ran `{command}`"))),
        Err(error) => output::note(&format!("{}; run `{command}` yourself", chain(&error))),
    }
}

/// Returns the enabled units of `wg-quick` for the adopted interfaces.
async fn enabled_units(answer: &Answer) -> BTreeSet<String> {
    let mut enabled = BTreeSet::new();
    for interface in answer.interfaces() {
        let unit = format!("wg-quick@{interface}.service");
        if units::is_enabled(&unit).await {
            enabled.insert(unit);
        }
    }
    enabled
}

/// Undoes the recorded adoption. A kept one only with consent, if a tunnel is interrupted.
pub(super) async fn undo(config: Config, format: Format, yes: bool) -> Outcome {
    progress::say(UNDOING, None);
    let recorded = adoption::recorded(&config).await?;
    let recorded = recorded.ok_or_else(|| AdoptionError::NoRecord {
        path: config.state.directory.clone(),
    })?;
    if recorded.phase == Phase::Kept {
        refuse_handed_over(&config).await?;
        let harm = adoption::interruptions_of_undo(&config).await?;
        if !yes && !harm.is_empty() {
            consent(&harm)?;
        }
    }
    let undone = adoption::undo_recorded(&config, recorded.phase).await?;
    if output::value(format, &undone)? {
        return Ok(ExitCode::SUCCESS);
    }
    undone.done.iter().for_each(output::line);
    let kept = undone.kept.iter();
    kept.for_each(|it| output::line(format_args!("left alone: {it}")));
    output::line(match undone.kept.len() {
        0 => "Adoption undone.".to_owned(),
        count => format!("Adoption undone, except for {count} things that were left alone."),
    });
    Ok(ExitCode::SUCCESS)
}

/// Asks whether to interrupt.
fn consent(harm: &[String]) -> anyhow::Result<()> {
    let harm = harm.join("; ");
    if !terminal::is_possible() {
        anyhow::bail!(
            "nothing was undone: this interrupts tunnels: {harm}; add --yes to accept it"
        );
    }
    output::note(&format!("this interrupts tunnels: {harm}"));
    let agrees = terminal::agrees("Undo the adoption?").context("read an answer")?;
    anyhow::ensure!(agrees, "nothing was undone");
    Ok(())
}

/// Refuses to remove files that BIRD loads: sessions that were handed over would end with them.
async fn refuse_handed_over(config: &Config) -> anyhow::Result<()> {
    let wanted = Wanted::read(config.clone()).await?;
    let main = wanted.main_file();
    anyhow::ensure!(
        !main.included && !main.is_agents(),
        "nothing was undone: {} loads the agent's files, and sessions in them would end; define the sessions there again, \
         take the include out, and reload BIRD first",
        main.path.display()
    );
    Ok(())
}

/// Refuses a plan beside a recorded adoption.
pub(super) async fn refuse_recorded(config: &Config) -> anyhow::Result<()> {
    let recorded = adoption::recorded(config).await?;
    anyhow::ensure!(
        recorded.is_none(),
        "an adoption is recorded in {}; `moenet-agent adopt --undo` undoes it",
        config.state.directory.display()
    );
    Ok(())
}
