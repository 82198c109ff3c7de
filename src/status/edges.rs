//! Log events from two sets of facts: each edge is one event, with its cause.
//!
//! Every source of facts (conditions, BIRD, the kernel, the state directory, calls to the Control Plane, overrides, held
//! changes, maintenance) goes through [`Edges::step`]; no source keeps a flag of its own. Facts and time are inputs.

mod cause;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::document::ConditionType;

/// Seconds that a condition must last before it is announced: steps of a setup pass through `False`.
const HOLD_SECONDS: i64 = 3;
/// The same for ROAs: RPKI servers need more time after a start.
const HOLD_ROAS_SECONDS: i64 = 15;
/// BIRD derives `since` from a monotonic clock: a smaller difference is not a new session.
const SINCE_JITTER_SECONDS: i64 = 2;

/// Number of announced causes of one bad state that are remembered.
const CAUSES_MAX: usize = 16;

/// Subject of a fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Bird,
    BirdFiles,
    Kernel,
    StateDirectory,
    ControlPlane,
    /// One call to the Control Plane, as `sessions`.
    Call(String),
    /// A circuit breaker, of `fetches` or `posts`.
    Breaker(String),
    RpkiServers,
    RpkiName(String),
    /// The drain of the router; `Bad` while drained.
    Maintenance,
    Condition(String, ConditionType),
    /// An override in effect, by its object; `Bad` while in effect.
    Override(String),
    /// A pause in effect, by its object; `Bad` while in effect.
    Pause(String),
    /// A change held for approval, by its object; `Bad` while held.
    Held(String),
    /// Removals that wait until the files of the state directory are at rest; `Bad` while they wait.
    Settling,
}

/// State of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// As it should be.
    Good,
    /// Not as it should be, or an override is in effect.
    Bad,
    /// Not known at this moment; no edge.
    #[default]
    Unknown,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub state: State,
    /// The cause in the words of its source.
    pub cause: String,
    /// Identifies the cause where its text also holds details of another program, as the number of a request.
    pub key: Option<String>,
    /// The next action, while the state is bad.
    pub action: Option<String>,
    /// When the state began; for an override, when it expires.
    pub at: Option<Timestamp>,
}

impl Fact {
    /// A fact without a time.
    pub fn new(state: State, cause: impl Into<String>) -> Self {
        Self {
            state,
            cause: cause.into(),
            key: None,
            action: None,
            at: None,
        }
    }

    /// Adds the identity of the cause.
    pub fn of(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    fn identity(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.cause)
    }

    /// Adds the next action.
    pub fn action(self, action: Option<String>) -> Self {
        Self { action, ..self }
    }

    /// Adds the time.
    pub fn at(self, at: Option<Timestamp>) -> Self {
        Self { at, ..self }
    }
}

/// All facts of one moment.
pub type FactSet = BTreeMap<Topic, Fact>;

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A fact is good again, or an operator asked for the change.
    Info,
    /// An operator should look at it.
    Warn,
    /// An operator must act.
    Error,
}

/// One edge, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub severity: Severity,
    /// The object, where there is one.
    pub object: Option<String>,
    pub message: &'static str,
    /// The cause; empty if the message is complete.
    pub cause: String,
    /// The next action, where the event needs one.
    pub action: Option<String>,
}

/// Facts of the last step, and the announced ones.
#[derive(Debug, Default)]
pub struct Edges {
    /// The time of the first step.
    began: Option<Timestamp>,
    seen: BTreeMap<Topic, Seen>,
    /// The second in which a bad state that waits is announced.
    due: Option<i64>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    /// The last known state.
    state: State,
    /// When it became bad.
    bad_since: Option<Timestamp>,
    /// The announced causes, while the state is bad; the last one at the end.
    announced: Vec<String>,
    /// The time of the last good or bad fact.
    at: Option<Timestamp>,
}

/// How edges of a topic are announced.
struct Rule {
    bad: &'static str,
    good: &'static str,
    severity: Severity,
    /// Whether an edge to bad needs a preceding good state, and each start of a good state is an edge.
    liveness: bool,
    /// Seconds that a bad state lasts before it is announced.
    hold: i64,
    /// Which causes of a bad state are announced.
    each_cause: Each,
}

/// The causes of one bad state that are announced.
enum Each {
    /// The first cause only.
    First,
    /// Every change: it is a configuration error that an operator works on.
    Change,
    /// Each cause once: another program may return to an earlier one with every call.
    New,
}

impl Edges {
    /// Compares all facts with those of the last step, and returns the edges.
    pub fn step(&mut self, facts: &FactSet, now: Timestamp) -> Vec<Event> {
        self.step_of(facts, &|_| true, now)
    }

    /// As [`Self::step`]; the facts have the conditions only of these objects, and those of others are as they were.
    pub fn step_of(
        &mut self,
        facts: &FactSet,
        has_conditions: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let began = *self.began.get_or_insert(now);
        for (topic, fact) in facts {
            let rule = rule(topic);
            let before = self.seen.remove(topic);
            let (seen, event) = follow(&rule, topic, fact, before, (began, now));
            if rule.remembers(&seen) {
                self.seen.insert(topic.clone(), seen);
            }
            events.extend(event);
        }
        let is_known = |topic: &Topic| match topic {
            Topic::Condition(object, _) => has_conditions(object),
            _ => true,
        };
        let gone: Vec<Topic> = self
            .seen
            .keys()
            .filter(|topic| is_known(topic) && !facts.contains_key(topic))
            .cloned()
            .collect();
        for topic in gone {
            let seen = self.seen.remove(&topic);
            events.extend(seen.and_then(|seen| ended(&topic, &seen, now)));
        }
        let due = |(topic, seen): (&Topic, &Seen)| {
            let since = seen.bad_since.filter(|_| seen.announced.is_empty())?;
            Some(since.as_second() + rule(topic).hold)
        };
        self.due = self.seen.iter().filter_map(due).min();
        events
    }

    /// Returns whether a bad state has waited long enough to be announced, so that the same facts are an edge now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now.as_second())
    }
}

fn follow(
    rule: &Rule,
    topic: &Topic,
    fact: &Fact,
    before: Option<Seen>,
    (began, now): (Timestamp, Timestamp),
) -> (Seen, Option<Event>) {
    let mut seen = before.unwrap_or_default();
    let event = match fact.state {
        State::Unknown => {
            // A state that was bad before it became unknown has not lasted since.
            if seen.announced.is_empty() {
                seen.bad_since = None;
            }
            return (seen, None);
        }
        State::Good => rule.on_good(topic, fact, &seen, began),
        State::Bad => rule.on_bad(topic, fact, &mut seen, (began, now)),
    };
    if fact.state == State::Good {
        (seen.bad_since, seen.announced) = (None, Vec::new());
    }
    seen.state = fact.state;
    seen.at = fact.at.or(seen.at);
    (seen, event)
}

impl Rule {
    /// Returns whether the next step depends on what was seen: mostly nothing is amiss, and a thousand objects have eight
    /// topics each.
    fn remembers(&self, seen: &Seen) -> bool {
        self.liveness || seen.bad_since.is_some() || !seen.announced.is_empty()
    }

    fn on_good(&self, topic: &Topic, fact: &Fact, seen: &Seen, began: Timestamp) -> Option<Event> {
        let good = || event(Severity::Info, topic, self.good, fact);
        if !self.liveness {
            let ends = !seen.announced.is_empty() && !self.good.is_empty();
            return ends.then(good);
        }
        match seen.state {
            State::Good if is_session(topic) && is_later(fact.at, seen.at) => {
                let message = "BGP session went down and came back between two observations";
                Some(event(Severity::Warn, topic, message, fact))
            }
            State::Good => None,
            State::Bad => Some(good()),
            // A session that was up before the agent started is not an edge. BIRD says whole seconds.
            State::Unknown => {
                let is_new = |at: Timestamp| at.as_second() >= began.as_second();
                fact.at.is_none_or(is_new).then(good)
            }
        }
    }

    fn on_bad(
        &self,
        topic: &Topic,
        fact: &Fact,
        seen: &mut Seen,
        (began, now): (Timestamp, Timestamp),
    ) -> Option<Event> {
        if self.liveness && seen.state != State::Good {
            return None;
        }
        if matches!(topic, Topic::Override(_)) && began == now {
            // Overrides that were in effect before the agent started are in `/status`.
            seen.announced = vec![fact.cause.clone()];
            return None;
        }
        let since = *seen.bad_since.get_or_insert(now);
        let due = now.as_second() - since.as_second() >= self.hold;
        let is_same = |announced: &String| cause::is_same(announced, fact.identity());
        let said = match self.each_cause {
            Each::First => !seen.announced.is_empty(),
            Each::Change => seen.announced.last().is_some_and(is_same),
            Each::New => seen.announced.iter().any(is_same),
        };
        if !due || said {
            return None;
        }
        if seen.announced.len() >= CAUSES_MAX {
            seen.announced.remove(0);
        }
        seen.announced.push(fact.identity().to_owned());
        Some(event(self.severity, topic, self.bad, fact))
    }
}

fn is_session(topic: &Topic) -> bool {
    matches!(topic, Topic::Condition(_, ConditionType::BgpEstablished))
}

/// Returns whether a session restarted between two observations.
fn is_later(now: Option<Timestamp>, before: Option<Timestamp>) -> bool {
    now.zip(before)
        .is_some_and(|(now, before)| now.as_second() - before.as_second() > SINCE_JITTER_SECONDS)
}

/// Returns the end of an override whose fact is gone. Removed objects have no edges.
fn ended(topic: &Topic, seen: &Seen, now: Timestamp) -> Option<Event> {
    let object = match topic {
        Topic::Override(object) | Topic::Pause(object) | Topic::Held(object) => object,
        _ => return None,
    };
    // The end of an override whose time is over was announced while its file was still there.
    if seen.state != State::Bad {
        return None;
    }
    let expired = seen.at.is_some_and(|end| end <= now);
    let message = match (topic, expired) {
        (Topic::Held(_), _) => "change no longer held",
        (Topic::Pause(_), _) => "pause ended",
        (_, true) => "override expired",
        (_, false) => "override removed",
    };
    let cause = seen
        .at
        .filter(|_| expired)
        .map(|end| format!("expiresAt {end}"));
    Some(Event {
        severity: Severity::Info,
        object: Some(object.clone()),
        message,
        cause: cause.unwrap_or_default(),
        action: None,
    })
}

fn event(severity: Severity, topic: &Topic, message: &'static str, fact: &Fact) -> Event {
    let object = match topic {
        Topic::Condition(object, _)
        | Topic::Override(object)
        | Topic::Pause(object)
        | Topic::Held(object)
        | Topic::Call(object)
        | Topic::Breaker(object)
        | Topic::RpkiName(object) => Some(object.clone()),
        Topic::Bird
        | Topic::BirdFiles
        | Topic::Kernel
        | Topic::StateDirectory
        | Topic::Settling
        | Topic::ControlPlane
        | Topic::RpkiServers
        | Topic::Maintenance => None,
    };
    Event {
        severity,
        object,
        message,
        cause: fact.cause.clone(),
        action: fact.action.clone(),
    }
}

fn rule(topic: &Topic) -> Rule {
    let (bad, good) = texts(topic);
    use ConditionType as About;
    let (severity, liveness, hold) = match topic {
        Topic::Condition(
            _,
            About::BgpEstablished | About::HandshakeRecent | About::BabelAdjacent,
        ) => (Severity::Warn, true, 0),
        Topic::Condition(_, About::OriginsValidated) | Topic::RpkiServers => {
            (Severity::Warn, false, HOLD_ROAS_SECONDS)
        }
        Topic::Condition(_, About::KeyAvailable) => (Severity::Error, false, 0),
        // Git moves a tree at once, without intermediate setup steps.
        Topic::Condition(_, About::WorkTreeCurrent) => (Severity::Warn, false, 0),
        Topic::Condition(..)
        | Topic::BirdFiles
        | Topic::Kernel
        | Topic::StateDirectory
        | Topic::Settling => (Severity::Warn, false, HOLD_SECONDS),
        Topic::Override(_) | Topic::Pause(_) => (Severity::Info, false, 0),
        Topic::Bird
        | Topic::ControlPlane
        | Topic::Call(_)
        | Topic::Breaker(_)
        | Topic::RpkiName(_)
        | Topic::Held(_)
        | Topic::Maintenance => (Severity::Warn, false, 0),
    };
    let each_cause = match topic {
        Topic::Call(_) => Each::New,
        Topic::Condition(
            _,
            About::Accepted
            | About::TunnelConfigured
            | About::BirdConfigured
            | About::TemplatesAccepted
            | About::WithinLimits,
        ) => Each::Change,
        _ => Each::First,
    };
    Rule {
        bad,
        good,
        severity,
        liveness,
        hold,
        each_cause,
    }
}

/// Returns the log events of both edges of a condition; `None`: it has none of its own.
pub fn condition_events(about: ConditionType) -> Option<[(Severity, &'static str); 2]> {
    let topic = Topic::Condition(String::new(), about);
    let rule = rule(&topic);
    let events = [(rule.severity, rule.bad), (Severity::Info, rule.good)];
    (!rule.bad.is_empty()).then_some(events)
}

/// Returns the log events of both edges of what has no condition.
pub fn other_events() -> Vec<[(Severity, &'static str); 2]> {
    let none = String::new;
    let topics = [
        Topic::Bird,
        Topic::BirdFiles,
        Topic::Kernel,
        Topic::StateDirectory,
        Topic::ControlPlane,
        Topic::Call(none()),
        Topic::Breaker(none()),
        Topic::RpkiServers,
        Topic::RpkiName(none()),
        Topic::Maintenance,
        Topic::Override(none()),
        Topic::Pause(none()),
        Topic::Held(none()),
        Topic::Settling,
    ];
    let events = topics.map(|topic| {
        let rule = rule(&topic);
        [(rule.severity, rule.bad), (Severity::Info, rule.good)]
    });
    events.into()
}

/// Messages of both edges.
fn texts(topic: &Topic) -> (&'static str, &'static str) {
    match topic {
        Topic::Bird => ("BIRD is down", "BIRD is up"),
        Topic::BirdFiles => ("BIRD's files not usable", "BIRD's files usable again"),
        Topic::Kernel => ("kernel not readable", "kernel readable again"),
        Topic::StateDirectory => (
            "state directory not usable, keeping the current configuration",
            "state directory usable again",
        ),
        Topic::Breaker(_) => (
            "circuit breaker opened after repeated failures",
            "circuit breaker closed",
        ),
        Topic::RpkiServers => (
            "no RPKI server answers, using the last good ROAs",
            "RPKI servers answer again",
        ),
        Topic::RpkiName(_) => (
            "RPKI server name does not resolve",
            "RPKI server name resolves again",
        ),
        Topic::Held(_) => (
            "change held until `moenet-agent approve`",
            "change no longer held",
        ),
        Topic::Settling => (
            "removals wait until the state directory is at rest",
            "state directory at rest, no removal waits for it",
        ),
        Topic::ControlPlane => (
            "Control Plane unreachable, keeping the current configuration",
            "Control Plane reachable again",
        ),
        Topic::Call(_) => (
            "Control Plane call failed, keeping the current configuration",
            "Control Plane call succeeds again",
        ),
        Topic::Maintenance => (
            "router is drained: neighbours route around it",
            "drain ended: the router carries traffic again",
        ),
        Topic::Override(_) => ("override in effect", "override expired"),
        Topic::Pause(_) => ("pause begun: the agent writes nothing", "pause ended"),
        Topic::Condition(_, about) => condition_texts(*about),
    }
}

fn condition_texts(about: ConditionType) -> (&'static str, &'static str) {
    use ConditionType as About;
    match about {
        About::Accepted => (
            "configuration rejected, previous one stays active",
            "configuration accepted again",
        ),
        // Logged by `Topic::Override`, `Topic::Pause` and `Topic::Maintenance`.
        About::InService => ("", ""),
        About::EndpointResolved => (
            "endpoint name does not resolve",
            "endpoint name resolves again",
        ),
        About::EndpointRouted => (
            "no route to the endpoint, check the uplink",
            "route to the endpoint is back",
        ),
        About::TunnelConfigured => ("tunnel cannot be configured", "tunnel configured again"),
        About::HandshakeRecent => (
            "WireGuard handshake lost",
            "WireGuard handshake established",
        ),
        About::BabelAdjacent => ("Babel neighbour lost", "Babel neighbour found"),
        About::BirdConfigured => (
            "BIRD configuration not loaded",
            "BIRD configuration loaded again",
        ),
        About::BgpEstablished => ("BGP session down", "BGP session up"),
        About::WithinLimits => ("route limit exceeded", "below the route limit again"),
        About::RemovalHeld | About::ChangeHeld => texts(&Topic::Held(String::new())),
        About::HistoryRecorded => ("history not recorded", "history recorded again"),
        About::WorkTreeCurrent => (
            "HEAD of the state directory left branch main, keeping the last documents",
            "HEAD of the state directory is at branch main again",
        ),
        About::StateDirectoryUnique => ("state directory copied", "state directory unique again"),
        About::OriginsValidated => ("ROA validation not working", "ROA validation recovered"),
        About::TemplatesAccepted => (
            "templates rejected, previous ones stay active",
            "templates accepted again",
        ),
        About::BirdFilesAccepted => (
            "a file beside the agent's was quarantined, BIRD refuses it",
            "no file of BIRD is quarantined any more",
        ),
        About::BirdSupported => ("BIRD version not supported", "BIRD version supported"),
        About::FirewallConfigured => (
            "firewall table not configured",
            "firewall table configured again",
        ),
        About::Forwarding => (
            "kernel does not forward between tunnels",
            "kernel forwards between tunnels again",
        ),
        About::PolicyInEffect => (
            "no routing policy, no routes are exchanged",
            "routing policy known, routes are exchanged",
        ),
        About::KeyAvailable => (
            "WireGuard private key missing",
            "WireGuard private key available",
        ),
        About::SysctlsConfigured => ("sysctl not set", "sysctls set"),
        // The server logs where it listens.
        About::ApiListening => ("local API does not listen, trying again", ""),
        About::TokensReadable => ("token file not readable", "token files readable again"),
        About::LogWritten => ("log lines dropped", "log written again"),
        About::ControlPlaneSynced => texts(&Topic::Call(String::new())),
    }
}

#[cfg(test)]
mod tests;
