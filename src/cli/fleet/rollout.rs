//! `fleet rollout`: how far a change of the network has come.

use std::process::ExitCode;

use clap::Args;

use super::get::Place;
use crate::cli::get::ago;
use crate::cli::{Arguments, Outcome, output};
use crate::fleet::RolloutView;
use crate::model::ObjectName;

#[derive(Debug, Args)]
pub(super) struct Rollout {
    #[command(flatten)]
    place: Place,
}

impl Rollout {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let view = self.place.rollout()?;
        if !output::value(arguments.output, &view)? {
            print(&view);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(view: &RolloutView) {
    let since = view.since.map_or_else(|| "-".to_owned(), ago);
    match (view.wave, &view.taken_back) {
        (Some(wave), _) => {
            let of = view.waves.len();
            output::line(format_args!(
                "Wave {wave} of {of} has the change, since {since}."
            ));
            let waves = view.waves.iter().enumerate();
            let cells = waves.map(|(at, routers)| {
                let state = match at + 1 {
                    at if at < wave => "kept",
                    at if at == wave => "observed",
                    _ => "waits",
                };
                vec![(at + 1).to_string(), state.to_owned(), names(routers)]
            });
            output::line(output::table(&["WAVE", "STATE", "ROUTERS"], cells));
        }
        (None, Some(why)) => output::line(format_args!(
            "The newest description was rolled back {since}: {why}. Correct it; any change of it starts a new rollout."
        )),
        (None, None) => output::line("No rollout in progress."),
    }
    if !view.drains.is_empty() {
        let drains = names(&view.drains);
        output::line(format_args!("Permitted to drain: {drains}."));
    }
}

fn names(routers: &[ObjectName]) -> String {
    let names: Vec<&str> = routers.iter().map(ObjectName::as_str).collect();
    names.join(", ")
}
