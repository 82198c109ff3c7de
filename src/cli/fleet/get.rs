//! `fleet get` and `fleet describe`: what the routers have posted last.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

#[cfg(feature = "postgres")]
use super::store_of_environment;
use crate::cli::get::{ago, or_dash};
use crate::cli::output::{self, Format};
use crate::cli::printable::escaped;
use crate::cli::{Arguments, Outcome, block_on};
use crate::fleet::{self, GitView, RolloutView, RouterView, SessionView, Source};
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::wire::WireStatus;

/// Where the fleet is.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The fleet directory. Default: the database that MOENET_FLEET_STORE names, else the working directory
    #[arg(long = "fleet", value_name = "DIR")]
    dir: Option<PathBuf>,
    #[cfg(feature = "postgres")]
    /// The database instead: postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    store: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct Describe {
    /// The router
    #[arg(value_name = "ROUTER")]
    router: String,
    #[command(flatten)]
    place: Place,
}

impl Place {
    pub(super) fn source(&self) -> Source {
        #[cfg(feature = "postgres")]
        if let Some(url) = self.database() {
            return Source::Database(Secret::new(url));
        }
        let dir = self.dir.clone();
        Source::Directory(dir.unwrap_or_else(|| ".".into()))
    }

    /// Returns the URL of the database. What the command line names counts, not the environment.
    #[cfg(feature = "postgres")]
    fn database(&self) -> Option<String> {
        let of_environment = || store_of_environment().filter(|_| self.dir.is_none());
        self.store.clone().or_else(of_environment)
    }

    fn routers(&self) -> anyhow::Result<Vec<RouterView>> {
        block_on(async { Ok(fleet::routers(&self.source()).await?) })
    }

    /// Returns how far a change of the network has come.
    pub(super) fn rollout(&self) -> anyhow::Result<RolloutView> {
        block_on(async { Ok(fleet::rollout(&self.source()).await?) })
    }

    /// Returns the Git reference that the server of a directory follows.
    fn followed(&self) -> anyhow::Result<Option<GitView>> {
        match self.source() {
            Source::Directory(dir) => Ok(fleet::followed(&dir)?),
            #[cfg(feature = "postgres")]
            Source::Database(_) => Ok(None),
        }
    }
}

/// The columns of `-o wide`; without it the first nine.
const COLUMNS: [&str; 11] = [
    "ROUTER",
    "SEEN",
    "VERSION",
    "SESSIONS",
    "ESTABLISHED",
    "REVIEW",
    "DRAINED",
    "HELD",
    "ERRORS",
    "STATES",
    "UPTIME",
];
const NARROW: usize = 9;

impl Get {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let routers = self.place.routers();
        let git = self.place.followed()?;
        let shown = match &routers {
            Ok(routers) if output::value(arguments.output, routers)? => None,
            Ok(routers) => {
                print(routers, arguments.output);
                git
            }
            // Why there is no commit to serve.
            Err(_) => git,
        };
        if let Some(git) = shown {
            followed(&git);
        }
        if routers.is_ok() && arguments.output.is_for_people() {
            note_rollout(&self.place.rollout()?);
        }
        routers.map(|_| ExitCode::SUCCESS)
    }
}

fn print(routers: &[RouterView], format: Format) {
    if routers.is_empty() {
        return output::line("No routers.");
    }
    if format == Format::Name {
        return routers.iter().for_each(|it| output::line(&it.router));
    }
    let columns = match format {
        Format::Wide => COLUMNS.len(),
        _ => NARROW,
    };
    let cells = routers.iter().map(cells);
    output::line(output::table(&COLUMNS[..columns], cells));
    for router in routers {
        errors(router);
    }
}

fn cells(router: &RouterView) -> Vec<String> {
    let states = router.states();
    let listed = states
        .iter()
        .map(|(state, count)| format!("{count} {state}"));
    let listed = listed.collect::<Vec<_>>().join(", ");
    let count = |status| router.with_status(status).to_string();
    let established = states.get("established").copied().unwrap_or_default();
    vec![
        router.router.to_string(),
        router.last_seen.map_or_else(|| "never".to_owned(), ago),
        or_dash(router.version.clone()),
        router.sessions.len().to_string(),
        established.to_string(),
        count(WireStatus::PendingReview),
        if router.drained { "yes" } else { "no" }.to_owned(),
        router.held.to_string(),
        router.errors().to_string(),
        or_dash(Some(listed).filter(|listed| !listed.is_empty())),
        or_dash(router.uptime.map(|seconds| format!("{seconds}s"))),
    ]
}

/// Prints which commit is served, and why a newer one is not.
fn followed(git: &GitView) {
    let commit = git.commit.as_ref().map_or_else(
        || "no commit".to_owned(),
        |commit| {
            format!(
                "commit {} of {}: {}",
                commit.id, commit.author, commit.subject
            )
        },
    );
    output::note(&format!("the server serves {commit}"));
    for error in &git.errors {
        output::note(&format!("a newer commit is not served: {error}"));
    }
}

/// Says that some routers have an earlier description than the files.
fn note_rollout(rollout: &RolloutView) {
    let state = match (rollout.wave, &rollout.taken_back) {
        (Some(wave), _) => format!("wave {wave} of {} has it", rollout.waves.len()),
        (None, Some(_)) => "it was rolled back, and the routers have the previous one".to_owned(),
        (None, None) => return,
    };
    output::note(&format!(
        "newest description of the network: {state}; see `moenet-agent fleet rollout`"
    ));
}

/// Prints the errors of a router and of its sessions.
fn errors(router: &RouterView) {
    let name = &router.router;
    let sessions = router.sessions.iter();
    let of_sessions = sessions.filter_map(|it| Some((title(it), it.error.as_ref()?)));
    for (session, error) in of_sessions {
        let word = output::shade("Error");
        let (session, error) = (escaped(&session), escaped(error));
        output::line(format_args!("{name}/{session}  {word}: {error}"));
    }
    for error in router.problems() {
        let (word, error) = (output::shade("Error"), escaped(error));
        output::line(format_args!("{name}  {word}: {error}"));
    }
}

fn title(session: &SessionView) -> String {
    let uuid = || session.uuid.to_string();
    session.name.clone().unwrap_or_else(uuid)
}

impl Describe {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let routers = self.place.routers()?;
        let found = routers.iter().find(|it| it.router.as_str() == self.router);
        let Some(router) = found else {
            let known: Vec<_> = routers.iter().map(|it| it.router.as_str()).collect();
            let known = match known.is_empty() {
                true => "no routers".to_owned(),
                false => known.join(", "),
            };
            anyhow::bail!("the fleet has no router {}; it has {known}", self.router);
        };
        if !output::value(arguments.output, router)? {
            describe(router);
        }
        Ok(ExitCode::SUCCESS)
    }
}

const SESSION: [&str; 8] = [
    "SESSION", "ASN", "WANTED", "BGP", "RTT", "IMPORTED", "EXPORTED", "UUID",
];

fn describe(router: &RouterView) {
    output::line(output::table(&COLUMNS, [cells(router)]));
    if !router.sessions.is_empty() {
        output::line("");
        let sessions = router.sessions.iter().map(session_cells);
        output::line(output::table(&SESSION, sessions));
    }
    errors(router);
}

fn session_cells(session: &SessionView) -> Vec<String> {
    let number = |count: Option<u64>| or_dash(count.map(|count| count.to_string()));
    vec![
        title(session),
        number(session.asn),
        or_dash(session.status.map(|status| status.word().to_owned())),
        or_dash(session.state.map(|state| state.word().to_owned())),
        or_dash(session.rtt_ms.map(|rtt| format!("{rtt:.1}ms"))),
        number(session.routes_imported),
        number(session.routes_exported),
        session.uuid.to_string(),
    ]
}
