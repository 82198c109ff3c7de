//! What an operator does by hand in the state directory, and what one finds there.

use super::neighbour::Neighbour;
use super::watch::{BirdHistory, NetlinkEvents, bird_history, session_ages};
use super::world::{World, interface};
use super::{contains, wait_until};
use serde_json::Value;
use std::path::PathBuf;

/// The file of the override of a session, below the state directory.
pub(crate) fn override_of(number: u32) -> String {
    format!("overrides/sessions/{}.yaml", interface(number))
}

/// The file of a session's document, below the state directory.
pub(crate) fn document_of(number: u32) -> String {
    format!("sessions/{}.yaml", interface(number))
}

/// An override as an operator writes one; `spec` is what follows `spec:`, two columns in.
pub(crate) fn exception(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"
    )
}

/// An override that sets the MTU of a session.
pub(crate) fn mtu_exception(number: u32, mtu: u32) -> String {
    exception(
        &interface(number),
        &format!("reason: lab\nset: {{tunnel: {{mtu: {mtu}}}}}"),
    )
}

impl World {
    /// A world whose sessions are fetched at the start and when `POST /sync` asks for it, and not between.
    pub(crate) fn converged_without_polls(neighbours: u32) -> Self {
        let mut world = Self::new(neighbours);
        world.router.configure(&world.control_plane.url, 3600);
        world.router.start_agent();
        world.wait_established();
        world.wait_measured();
        world
    }

    /// The same file as it is seen from outside of the router's namespace.
    pub(crate) fn state(&self, path: &str) -> PathBuf {
        let inside = self.router.path("state").join(path);
        self.router
            .inside
            .root()
            .join(inside.strip_prefix("/").unwrap())
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.state(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.state(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    pub(crate) fn remove(&self, path: &str) {
        std::fs::remove_file(self.state(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Runs a line of shell in the state directory, as the router sees it.
    #[track_caller]
    pub(crate) fn in_state(&self, line: &str) -> String {
        self.router.inside.shell(&format!(
            "cd {} && {line}",
            self.router.path("state").display()
        ))
    }

    /// Puts the word in a document or override in the place of another, as an editor that writes in place.
    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "no {from:?} in {path}:\n{text}");
        self.write(path, &text.replace(from, to));
    }

    /// Asks for a fetch of the sessions, and waits until what it brought is written down.
    #[track_caller]
    pub(crate) fn sync(&self) {
        let before = self.control_plane.asked("sessions");
        self.router.api("", "/sync");
        wait_until("the sessions are fetched", 30, || {
            if self.control_plane.asked("sessions") > before {
                Ok(())
            } else {
                Err("not yet".into())
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(500));
    }

    #[track_caller]
    pub(crate) fn wait_mtu(&self, number: u32, mtu: u32) {
        let line = format!("ip link show {}", interface(number));
        wait_until(&format!("session {number} has an MTU of {mtu}"), 40, || {
            contains(
                &self.router.inside.try_shell(&line)?,
                &format!("mtu {mtu} "),
            )
        });
    }

    pub(crate) fn has_link(&self, number: u32) -> Result<(), String> {
        contains(
            &self.router.inside.try_shell("ip -o link")?,
            &format!("{}:", interface(number)),
        )
    }

    pub(crate) fn has_no_link(&self, number: u32) -> Result<(), String> {
        self.has_link(number)
            .map_or(Ok(()), |()| Err(format!("{} is there", interface(number))))
    }

    /// What the status of an object says, `sessions/wg_1`; null where there is none.
    pub(crate) fn status(&self, object: &str) -> Value {
        let text = std::fs::read_to_string(self.state(&format!("status/{object}.yaml")))
            .unwrap_or_default();
        let document: Value = moenet_agent::document::parse_value(&text).unwrap_or_default();
        document["status"].clone()
    }

    pub(crate) fn session_status(&self, number: u32) -> Value {
        self.status(&format!("sessions/{}", interface(number)))
    }

    #[track_caller]
    pub(crate) fn wait_phase(&self, number: u32, phase: &str) {
        wait_until(&format!("session {number} is {phase}"), 40, || {
            let status = self.session_status(number);
            if status["phase"] == phase {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
    }

    /// Waits until the condition `Accepted` of a session is false and says all of this.
    #[track_caller]
    pub(crate) fn wait_refused(&self, number: u32, words: &[&str]) {
        wait_until(
            &format!("the documents of session {number} are refused: {words:?}"),
            40,
            || {
                let status = self.session_status(number);
                let accepted = condition(&status, "Accepted");
                let message = accepted["message"].as_str().unwrap_or_default();
                let refused = accepted["status"] == "False"
                    && words.iter().all(|word| message.contains(word));
                if refused {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            },
        );
    }

    /// Waits until the local API says that it is ready, or not, and `/status` says why not.
    #[track_caller]
    pub(crate) fn wait_ready(&self, ready: bool, notice: &str) {
        wait_until(&format!("ready: {ready} {notice}"), 60, || {
            let (code, body) = self.router.api("", "/readyz");
            let status = self.router.api("", "/status").1;
            let as_wanted = (code == 200) == ready && status.contains(notice);
            if as_wanted {
                Ok(())
            } else {
                Err(format!("{code} {body} {status}"))
            }
        });
    }

    #[track_caller]
    pub(crate) fn wait_accepted(&self, number: u32) {
        wait_until(
            &format!("the documents of session {number} are accepted"),
            40,
            || {
                let status = self.session_status(number);
                if condition(&status, "Accepted")["status"] == "True" {
                    Ok(())
                } else {
                    Err(status.to_string())
                }
            },
        );
    }

    /// Waits until a file below the state directory says this.
    #[track_caller]
    pub(crate) fn wait_file(&self, path: &str, wanted: &str) {
        wait_until(&format!("{path} says {wanted:?}"), 40, || {
            let text =
                std::fs::read_to_string(self.state(path)).map_err(|error| error.to_string())?;
            contains(&text, wanted)
        });
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.router.path("agent.log")).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_log(&self, wanted: &str) {
        wait_until(&format!("the log says {wanted:?}"), 40, || {
            contains(&self.log(), wanted)
        });
    }

    /// `git` in the state directory.
    pub(crate) fn git(&self, arguments: &str) -> String {
        let safe = format!(
            "-c safe.directory={}",
            self.state("").display().to_string().trim_end_matches('/')
        );
        let git = format!("git {safe} {arguments}");
        // The agent's own git holds the index for a moment at each commit, as an operator's would.
        self.in_state(&format!(
            "error=$(mktemp); until {git} 2>$error; do \
             grep -q index.lock $error || {{ cat $error >&2; exit 1; }}; sleep 0.1; done; rm -f $error"
        ))
    }

    /// A counter of `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.router.api("", "/metrics");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
            .trim()
            .parse()
            .unwrap()
    }

    /// Since when each neighbour sees its session Established, in the neighbours' own words.
    pub(crate) fn ages(&self) -> Vec<Age> {
        self.neighbours.iter().map(Age::of).collect()
    }
}

/// Since when a neighbour sees its session Established. BIRD derives the time from a monotonic clock at each
/// look, so that it moves by a millisecond at times; a session that was reset is younger by a second at least.
#[derive(Debug, Clone)]
pub(crate) struct Age(i64);

impl Age {
    pub(crate) fn of(neighbour: &Neighbour) -> Self {
        let session = neighbour.session().unwrap();
        let line = session
            .lines()
            .find(|line| line.contains(" BGP "))
            .expect("a BGP session");
        Self::in_line(line)
    }

    /// As [`Age::of`], from a line of `show protocols`.
    #[track_caller]
    pub(crate) fn in_line(line: &str) -> Self {
        assert!(line.contains("Established"), "it is not up: {line}");
        let since = line.split_whitespace().nth(4).unwrap();
        let parts: Vec<f64> = since
            .split(':')
            .map(|part| part.parse().expect(since))
            .collect();
        let [hours, minutes, seconds] = parts.as_slice() else {
            panic!("no time of day: {since}")
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a day has fewer milliseconds"
        )]
        Self(((hours * 3600.0 + minutes * 60.0 + seconds) * 1000.0) as i64)
    }
}

impl PartialEq for Age {
    fn eq(&self, other: &Self) -> bool {
        (self.0 - other.0).abs() < 500
    }
}

pub(crate) fn condition(status: &Value, wanted: &str) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .find(|condition| condition["type"] == wanted)
        .cloned()
        .unwrap_or_default()
}

/// Proof that nothing is done to the network: no event of a link or an address, no change asked of the kernel,
/// no reload of BIRD, and every session as old as before in the neighbour's eyes.
pub(crate) struct Untouched {
    events: NetlinkEvents,
    bird: BirdHistory,
    pub(crate) ages: Vec<Age>,
    writes: u64,
}

const WRITES: &str = "moenet_agent_netlink_writes_total";

impl Untouched {
    /// From now on. The world must be at rest.
    pub(crate) fn since_now(world: &World) -> Self {
        let events = NetlinkEvents::record(&world.router);
        let (bird, ages) = (bird_history(&world.router), world.ages());
        Self {
            events,
            bird,
            ages,
            writes: world.metric(WRITES),
        }
    }

    #[track_caller]
    pub(crate) fn assert(&self, world: &World) {
        self.assert_across_restart(world);
        assert_eq!(bird_history(&world.router), self.bird, "a reload of BIRD");
        assert_eq!(
            world.metric(WRITES),
            self.writes,
            "changes asked of the kernel"
        );
    }

    /// The counter begins anew with the agent, and so do its measurements of the peer, which BIRD is told.
    #[track_caller]
    pub(crate) fn assert_across_restart(&self, world: &World) {
        assert_eq!(self.events.seen(), Vec::<String>::new(), "netlink events");
        assert!(
            self.bird.sessions == session_ages(&world.router),
            "a session was reset in the router's eyes"
        );
        assert_eq!(
            world.ages(),
            self.ages,
            "a session was reset in the neighbour's eyes"
        );
    }
}
