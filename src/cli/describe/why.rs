//! Why a session is not Established: the chain from the root cause. Pure: plain facts in, sentences out,
//! and each sentence says what was observed.

use crate::model::AdminState;
use crate::plan::HANDSHAKE_FRESH_SECONDS;

/// What was observed about one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Its documents are not valid.
    pub(super) invalid: Option<String>,
    /// Another object has what it claims.
    pub(super) clash: Option<String>,
    /// Something that it needs is not known.
    pub(super) waiting: Option<String>,
    /// The override that says to write nothing.
    pub(super) paused: Option<String>,
    /// Its removal waits.
    pub(super) held: Option<String>,
    /// What the administrator wants of it.
    pub(super) admin_state: AdminState,
    /// The router is in maintenance.
    pub(super) drained: bool,
    /// Maintenance has disabled external sessions.
    pub(super) disabled_by_maintenance: bool,
    /// The name of the endpoint that does not resolve, and why.
    pub(super) unresolved: Option<(String, String)>,
    /// What the daemon failed at last.
    pub(super) failed: Option<String>,
    /// The tunnel; none for an object that has none of its own.
    pub(super) link: Option<Link>,
    /// Steps that the controller would make, as `tunnel.mtu: want 1380, have 1420`.
    pub(super) drift: Vec<String>,
    /// BIRD; none for an object that has no BGP session.
    pub(super) bird: Option<Bird>,
}

/// The link of the tunnel.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// There is none of this name.
    Missing(String),
    /// There is one, and it is not ours: its name and whose it is.
    Foreign(String, String),
    /// It is there and not up.
    Down(String),
    /// It is there and up, with its peer when it is WireGuard.
    Up(String, Option<Peer>),
}

/// The peer of a WireGuard link.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// Seconds since the last handshake; none when there never was one.
    pub(super) handshake_age: Option<i64>,
    /// Bytes received.
    pub(super) received: u64,
    /// Bytes sent.
    pub(super) sent: u64,
    /// Where packets go.
    pub(super) endpoint: Option<String>,
    /// Our port.
    pub(super) port: Option<u16>,
}

/// BIRD and the BGP sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Bird {
    /// It answers on its control socket.
    pub(super) running: bool,
    /// Its words, when it refused the session.
    pub(super) refused: Option<String>,
    /// It has loaded what is on disk.
    pub(super) loaded: bool,
    /// The sessions that it should have.
    pub(super) sessions: Vec<Session>,
}

/// One BGP session.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    /// Name of the protocol.
    pub(super) protocol: String,
    /// Its state; none when BIRD has no such protocol.
    pub(super) state: Option<String>,
    /// It is established.
    pub(super) established: bool,
    /// The protocol is off.
    pub(super) off: bool,
    /// BIRD's last error.
    pub(super) last_error: Option<String>,
    /// An administrative message.
    pub(super) message: Option<String>,
    /// The neighbour's address in BIRD and the one that is wanted, when they differ.
    pub(super) wrong_address: Option<(String, String)>,
    /// Limits that were hit, as `ipv4 import limit of 1000 (disable)`.
    pub(super) limits: Vec<String>,
}

/// The chain, root cause first. Empty: nothing is wrong.
pub(super) fn chain(facts: &Facts) -> Vec<String> {
    let mut chain = Vec::new();
    documents(facts, &mut chain);
    if let Some(why) = not_wanted(facts.admin_state) {
        chain.push(why.to_owned());
        return chain;
    }
    let up = is_up(facts);
    if !up {
        if facts.disabled_by_maintenance {
            chain.push("The router is in maintenance, and external sessions are disabled.".into());
        }
        tunnel(facts, &mut chain);
    }
    if let Some(bird) = &facts.bird {
        sessions(bird, &mut chain);
    }
    if !up && facts.drained && !facts.disabled_by_maintenance {
        chain.push(
            "The router is in maintenance: its routes are drained, its sessions are not closed.".into(),
        );
    }
    chain
}

/// Whether every BGP session is up, or, without any, the tunnel answers.
fn is_up(facts: &Facts) -> bool {
    match (&facts.bird, &facts.link) {
        (Some(bird), _) => !bird.sessions.is_empty() && bird.sessions.iter().all(|s| s.established),
        (None, Some(Link::Up(_, Some(peer)))) => peer.is_fresh(),
        (None, link) => matches!(link, None | Some(Link::Up(..))),
    }
}

fn documents(facts: &Facts, chain: &mut Vec<String>) {
    let mut say = |lead: &str, why: &Option<String>| {
        chain.extend(why.as_ref().map(|why| format!("{lead}: {why}")));
    };
    say("Its documents are not valid, so what was in force stays", &facts.invalid);
    say("It clashes with another object and is left as it is", &facts.clash);
    say("It cannot be made yet", &facts.waiting);
    say("It is paused by its override, so nothing is written", &facts.paused);
    say("Its document is gone and its removal is held", &facts.held);
}

fn not_wanted(state: AdminState) -> Option<&'static str> {
    match state {
        AdminState::Enabled => None,
        AdminState::Disabled => Some("Its adminState is Disabled."),
        AdminState::Pending => Some("Its adminState is Pending: it waits for approval."),
        AdminState::Absent => Some("It is to be gone: its document says so, or there is none."),
    }
}

fn tunnel(facts: &Facts, chain: &mut Vec<String>) {
    if let Some((name, why)) = &facts.unresolved {
        chain.push(format!("The endpoint's name {name} does not resolve: {why}"));
    }
    chain.extend(facts.failed.as_ref().map(|why| format!("The daemon could not configure it: {why}")));
    match &facts.link {
        Some(Link::Missing(name)) => return chain.push(format!("There is no link {name}.")),
        Some(Link::Foreign(name, whose)) => {
            return chain.push(format!("The link {name} is not ours ({whose}), so it is left alone."));
        }
        Some(Link::Down(name)) => chain.push(format!("The link {name} is down.")),
        Some(Link::Up(..)) | None => {}
    }
    if let Some(first) = facts.drift.first() {
        let more = match facts.drift.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        chain.push(format!("It is not as wanted: {first}{more}; `moenet-agent plan` shows the steps."));
    }
    if let Some(Link::Up(name, Some(peer))) = &facts.link {
        chain.extend(peer.silence(name));
    }
}

impl Peer {
    fn is_fresh(&self) -> bool {
        self.handshake_age.is_some_and(|age| age < HANDSHAKE_FRESH_SECONDS)
    }

    /// What is wrong with the handshake.
    fn silence(&self, link: &str) -> Option<String> {
        match self.handshake_age {
            Some(_) if self.is_fresh() => None,
            Some(age) => Some(format!(
                "The last handshake on {link} was {} minutes ago; {} bytes have come in and {} gone out{}.",
                age / 60,
                self.received,
                self.sent,
                self.towards()
            )),
            None => Some(format!("There was never a handshake on {link}: {}", self.never())),
        }
    }

    fn never(&self) -> String {
        let port = self.port.map(|port| format!(" (we listen on UDP port {port})")).unwrap_or_default();
        match (self.sent, self.received, &self.endpoint) {
            (_, 1.., _) => format!(
                "{} bytes have come in and no handshake comes about, so public or preshared keys differ.",
                self.received
            ),
            (1.., 0, _) => format!(
                "{} bytes have gone out{} and nothing has come in; the peer is off, a firewall is between, \
                 or its port or key is another{port}.",
                self.sent,
                self.towards()
            ),
            (0, 0, None) => {
                format!("no endpoint is known, so we wait for the peer, and nothing has come in{port}.")
            }
            (0, 0, Some(endpoint)) => format!("nothing has gone out to {endpoint} and nothing has come in."),
        }
    }

    fn towards(&self) -> String {
        self.endpoint.as_ref().map(|endpoint| format!(" to {endpoint}")).unwrap_or_default()
    }
}

fn sessions(bird: &Bird, chain: &mut Vec<String>) {
    if let Some(words) = &bird.refused {
        chain.push(format!("BIRD refused the session's text: {words}"));
    }
    if !bird.running {
        return chain.push("BIRD is not running: it does not answer on its control socket.".into());
    }
    if !bird.loaded && bird.refused.is_none() && bird.sessions.iter().any(|s| !s.established) {
        chain.push("BIRD has not loaded what is on disk.".into());
    }
    for session in &bird.sessions {
        let hit = session.limits.iter().map(|limit| format!("{} has hit its {limit}.", session.protocol));
        chain.extend(hit);
        if !session.established {
            session.down(chain);
        }
    }
}

impl Session {
    fn down(&self, chain: &mut Vec<String>) {
        let Some(state) = &self.state else {
            return chain.push(format!("BIRD has no session {}.", self.protocol));
        };
        if let Some((has, wanted)) = &self.wrong_address {
            chain.push(format!("{} speaks to {has}; {wanted} is wanted.", self.protocol));
        }
        let off = if self.off { " (the protocol is off)" } else { "" };
        let message = self.message.as_ref().map(|text| format!(", with the message “{text}”"));
        let message = message.unwrap_or_default();
        let error = match &self.last_error {
            Some(error) => explained(error),
            None => "BIRD knows of no error".to_owned(),
        };
        chain.push(format!("BGP {} is {state}{off}{message}; {error}.", self.protocol));
    }
}

/// BIRD's error, with who it came from.
fn explained(error: &str) -> String {
    match error.split_once(": ") {
        Some(("Received", theirs)) => format!("the neighbour refuses: {theirs}"),
        Some(("BGP Error" | "Error", ours)) => format!("we refuse what the neighbour sends: {ours}"),
        Some(("Socket", words)) if words.contains("refused") => {
            format!("{words}: the neighbour's machine answers, and nothing there takes BGP from us")
        }
        Some(("Socket", words)) if words.contains("oute to host") || words.contains("unreachable") => {
            format!("{words}: nobody has the neighbour's address on the link")
        }
        _ => format!("BIRD's last error: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bgp(state: &str, error: Option<&str>) -> Option<Bird> {
        let session = Session {
            protocol: "bgp_1".into(),
            state: Some(state.into()),
            established: state == "Established",
            last_error: error.map(str::to_owned),
            ..Session::default()
        };
        Some(Bird { running: true, loaded: true, sessions: vec![session], refused: None })
    }

    fn with_peer(peer: Peer) -> Facts {
        let link = Some(Link::Up("wg_1".into(), Some(peer)));
        Facts { link, bird: bgp("Connect", None), ..Facts::default() }
    }

    fn fresh() -> Peer {
        Peer { handshake_age: Some(20), received: 1, sent: 1, ..Peer::default() }
    }

    /// The first sentence and how many there are.
    #[track_caller]
    fn root(facts: &Facts, words: &str, length: usize) {
        let chain = chain(facts);
        assert!(chain.first().is_some_and(|first| first.contains(words)), "{chain:#?}");
        assert_eq!(chain.len(), length, "{chain:#?}");
    }

    #[test]
    fn nothing_is_said_of_a_session_that_is_up() {
        let stale = Peer { handshake_age: Some(1000), ..fresh() };
        let facts = Facts { bird: bgp("Established", None), ..with_peer(stale) };
        assert_eq!(chain(&facts), Vec::<String>::new());
        assert_eq!(chain(&Facts { drained: true, ..facts }), Vec::<String>::new());
    }

    #[test]
    fn documents_come_before_everything_that_follows_from_them() {
        let why = || Some("why".to_owned());
        let down = with_peer(fresh());
        root(&Facts { invalid: why(), ..down.clone() }, "not valid", 2);
        root(&Facts { clash: why(), ..down.clone() }, "clashes", 2);
        root(&Facts { paused: why(), ..down.clone() }, "paused", 2);
        root(&Facts { held: why(), ..down.clone() }, "held", 2);
        root(&Facts { waiting: why(), ..down }, "cannot be made yet", 2);
    }

    #[test]
    fn what_is_not_wanted_needs_no_other_cause() {
        for state in [AdminState::Disabled, AdminState::Pending, AdminState::Absent] {
            let facts = Facts { admin_state: state, ..with_peer(Peer::default()) };
            assert_eq!(chain(&facts).len(), 1);
        }
    }

    #[test]
    fn a_link_that_is_not_there_is_the_root() {
        let with = |link| Facts { link: Some(link), bird: bgp("Idle", None), ..Facts::default() };
        root(&with(Link::Missing("wg_1".into())), "There is no link wg_1", 2);
        root(&with(Link::Foreign("wg_1".into(), "no mark".into())), "not ours", 2);
        root(&with(Link::Down("wg_1".into())), "is down", 2);
        let unresolved = Some(("peer.example".to_owned(), "NXDOMAIN".to_owned()));
        root(&Facts { unresolved, ..with_peer(Peer::default()) }, "peer.example does not resolve", 3);
    }

    #[test]
    fn a_silent_peer_is_told_by_which_way_packets_go() {
        let endpoint = Some("192.0.2.1:1".to_owned());
        root(
            &with_peer(Peer { sent: 148, endpoint, ..Peer::default() }),
            "148 bytes have gone out to 192.0.2.1:1",
            2,
        );
        root(&with_peer(Peer { received: 9, ..Peer::default() }), "keys differ", 2);
        root(&with_peer(Peer::default()), "we wait for the peer", 2);
        root(
            &with_peer(Peer { endpoint: Some("a".into()), ..Peer::default() }),
            "nothing has gone out to a",
            2,
        );
        root(&with_peer(Peer { handshake_age: Some(600), ..fresh() }), "10 minutes ago", 2);
        root(&with_peer(fresh()), "BGP bgp_1 is Connect", 1);
    }

    #[test]
    fn bird_is_blamed_for_what_bird_says() {
        let with = |bird| Facts { bird, ..with_peer(fresh()) };
        root(&with(Some(Bird::default())), "not running", 1);
        root(&with(bgp("Active", Some("Received: Bad peer AS"))), "the neighbour refuses: Bad peer AS", 1);
        root(&with(bgp("Idle", Some("BGP Error: Bad peer AS"))), "we refuse", 1);
        root(&with(bgp("Active", Some("Socket: Connection refused"))), "nothing there takes BGP", 1);
        root(&with(bgp("Active", Some("Socket: No route to host"))), "nobody has", 1);
        let refused = bgp("Idle", None).map(|bird| Bird { refused: Some("syntax error".into()), ..bird });
        root(&with(refused), "refused the session's text: syntax error", 2);
    }

    #[test]
    fn a_limit_comes_before_the_session_that_it_closed() {
        let mut bird = bgp("Down", None);
        if let Some(session) = bird.as_mut().and_then(|bird| bird.sessions.first_mut()) {
            (session.off, session.limits) = (true, vec!["ipv4 import limit of 5 (disable)".into()]);
        }
        root(&Facts { bird, ..with_peer(fresh()) }, "ipv4 import limit of 5", 2);
    }

    #[test]
    fn maintenance_is_the_cause_when_it_disables() {
        let facts = Facts { drained: true, ..with_peer(fresh()) };
        root(&Facts { disabled_by_maintenance: true, ..facts.clone() }, "external sessions are disabled", 2);
        assert!(chain(&facts).last().is_some_and(|last| last.contains("not closed")));
    }

    #[test]
    fn drift_is_named_with_what_was_found() {
        let drift = vec!["tunnel.listenPort: want 1, have 2".to_owned(), "x".to_owned()];
        root(&Facts { drift, ..with_peer(fresh()) }, "want 1, have 2, and 1 more", 2);
    }
}
