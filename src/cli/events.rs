//! `events`: the last transition of each condition, and the changes of the history, in one order.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;
use serde::Serialize;

use super::{Arguments, Outcome, block_on, complete, get, history, objects, offline, output};
use crate::config::Interval;
use crate::document::Kind;
use crate::history::History;
use crate::model::ObjectName;
use crate::store::{Area, Place, Store};

/// What happened last.
#[derive(Debug, Args)]
pub struct Events {
    /// Only of this object: wg_1, sessions/wg_1, node, policy
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::names))]
    name: Option<String>,
    /// Only of the last time: 30m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = super::wait::interval)]
    since: Option<Interval>,
    /// Maximum number of events, the newest ones
    #[arg(long, short = 'n', default_value = "50")]
    limit: NonZeroUsize,
}

/// One event. The names of its fields are part of the interface for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    time: Timestamp,
    /// The object of a condition, or the author of a change.
    of: String,
    /// `BgpEstablished=False (NotEstablished)`, or the commit of a change.
    what: String,
    message: String,
}

impl Events {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let store = offline::open(&config.state.directory)?;
        let mut events = self.transitions(&store)?;
        let paths = self.name.as_deref().map(history::paths).transpose()?;
        let history = History::new(&config.state.directory);
        let paths = paths.unwrap_or_default();
        let changes = block_on(async { Ok(history.log(&paths, self.limit.get()).await?) })?;
        events.extend(changes.into_iter().map(|change| Event {
            time: change.time,
            of: change.author.clone(),
            what: change.id.short().to_owned(),
            message: change.subject,
        }));
        self.arrange(&mut events);
        if !output::value(arguments.output, &events)? {
            print(&events);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Keeps the newest events, the last one at the end.
    fn arrange(&self, events: &mut Vec<Event>) {
        if let Some(since) = self.since {
            let seconds = i64::try_from(since.get().as_secs()).unwrap_or(i64::MAX);
            let oldest = Timestamp::now().as_second().saturating_sub(seconds);
            events.retain(|event| event.time.as_second() >= oldest);
        }
        events.sort_by_key(|event| event.time);
        let surplus = events.len().saturating_sub(self.limit.get());
        events.drain(..surplus);
    }

    /// Returns the last transition of every condition.
    fn transitions(&self, store: &Store) -> anyhow::Result<Vec<Event>> {
        let singles = [Kind::Node, Kind::RoutingPolicy];
        let singles = singles.map(|kind| (kind, Place::single(Area::Status, kind).name));
        let mut all: Vec<(Kind, ObjectName)> = singles.into_iter().collect();
        all.extend(store.statuses());
        let wanted = match &self.name {
            None => all,
            Some(meant) => {
                let known = all.iter().map(|(kind, name)| kind.path(name));
                let found = objects::one(&all, |(kind, name)| (*kind, name), meant)?;
                vec![found.ok_or_else(|| objects::unknown(meant, known))?.clone()]
            }
        };
        let statuses = wanted.iter().filter_map(|(kind, name)| {
            let status = store.read_status(*kind, name)?.status;
            Some((kind.path(name), status))
        });
        let events = statuses.flat_map(|(object, status)| {
            let conditions = status.conditions.into_iter();
            conditions.map(move |condition| Event {
                time: condition.last_transition_time,
                of: object.clone(),
                what: format!(
                    "{:?}={:?} ({})",
                    condition.condition_type, condition.status, condition.reason
                ),
                message: condition.message,
            })
        });
        Ok(events.collect())
    }
}

fn print(events: &[Event]) {
    if events.is_empty() {
        return output::line("No events.");
    }
    let rows = events.iter().map(|event| {
        vec![
            get::ago(event.time),
            event.of.clone(),
            event.what.clone(),
            event.message.clone(),
        ]
    });
    output::line(output::table(&["AGO", "OF", "EVENT", "MESSAGE"], rows));
}
