use super::*;

const WG: &str = "sessions/wg_4242421080";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn about(condition_type: ConditionType) -> Topic {
    Topic::Condition(WG.to_owned(), condition_type)
}

/// A run, recorded as its log.
#[derive(Default)]
struct Run {
    edges: Edges,
    facts: FactSet,
    log: String,
}

impl Run {
    fn set(&mut self, topic: Topic, state: State, cause: &str) -> &mut Self {
        self.facts.insert(topic, Fact::new(state, cause));
        self
    }

    fn session(&mut self, state: State, cause: &str, since: i64) -> &mut Self {
        let fact = Fact::new(state, cause).at(Some(at(since)));
        self.facts
            .insert(about(ConditionType::BgpEstablished), fact);
        self
    }

    fn step(&mut self, second: i64) -> usize {
        let events = self.edges.step(&self.facts, at(second));
        for event in &events {
            let object = event.object.as_deref().unwrap_or("-");
            let cause = &event.cause;
            let line = format!(
                "{second:3} {:?} {object} {} [{cause}]\n",
                event.severity, event.message
            );
            self.log.push_str(&line.replace(" []", ""));
        }
        // The same facts again are not an edge.
        assert!(
            self.edges.step(&self.facts, at(second)).is_empty(),
            "{}",
            self.log
        );
        events.len()
    }
}

#[test]
fn conditions_that_are_not_given_stay() {
    let (mut edges, down) = (Edges::default(), Fact::new(State::Bad, "down"));
    let about = |object: &str| Topic::Condition(object.to_owned(), ConditionType::Accepted);
    let all = FactSet::from([(about("a"), down.clone()), (about("b"), down.clone())]);
    edges.step(&all, at(0));
    assert_eq!(edges.step(&all, at(10)).len(), 2);
    let repaired = FactSet::from([(about("a"), Fact::new(State::Good, ""))]);
    let events = edges.step_of(&repaired, &|object| object == "a", at(20));
    assert_eq!(events.len(), 1, "{events:?}");
    let repaired = FactSet::from([(about("b"), Fact::new(State::Good, ""))]);
    let events = edges.step_of(&repaired, &|object| object == "b", at(30));
    assert_eq!(events.len(), 1, "what was bad is remembered: {events:?}");
    edges.step(&all, at(40));
    assert_eq!(edges.step(&all, at(50)).len(), 2);
    edges.step_of(&FactSet::new(), &|object| object == "a", at(60));
    let again = edges.step_of(&all, &|_| true, at(70));
    assert!(again.is_empty(), "a removed object begins again: {again:?}");
}

#[test]
fn a_run_through_every_edge_logs_each_once() {
    let mut run = Run::default();
    run.session(State::Good, "", -3600).step(0);
    run.session(
        State::Bad,
        "ebgp_1 is idle: Received: Peer de-configured",
        10,
    );
    run.step(10);
    run.session(State::Good, "", 20).step(20);
    run.session(State::Good, "", 25).step(30);

    run.set(
        Topic::Bird,
        State::Bad,
        "BIRD is not running (/run/bird.ctl)",
    );
    run.session(State::Unknown, "", 0).step(40);
    run.set(Topic::Bird, State::Good, "2.17.1");
    run.session(State::Good, "", 45).step(50);

    run.set(
        Topic::ControlPlane,
        State::Bad,
        "sessions: connection refused",
    )
    .step(60);
    run.set(Topic::ControlPlane, State::Good, "").step(61);
    run.set(Topic::Call("mesh".into()), State::Bad, "not JSON")
        .step(62);
    run.set(Topic::Call("mesh".into()), State::Good, "")
        .step(63);

    let handshake = about(ConditionType::HandshakeRecent);
    run.set(handshake.clone(), State::Bad, "the peer has never answered")
        .step(70);
    run.set(handshake.clone(), State::Good, "").step(71);
    run.set(
        handshake.clone(),
        State::Bad,
        "no handshake for more than three minutes",
    )
    .step(72);
    run.set(handshake, State::Good, "").step(73);

    run.set(Topic::Maintenance, State::Bad, "since 2026-11-26T14:00:00Z")
        .step(80);
    run.set(Topic::Maintenance, State::Good, "").step(81);

    let override_ = Topic::Override(WG.to_owned());
    let until = Fact::new(State::Bad, "spec.tunnel.mtu: on PPPoE").at(Some(at(95)));
    run.facts.insert(override_.clone(), until.clone());
    run.set(Topic::Pause(WG.to_owned()), State::Bad, "hands off")
        .step(90);
    run.facts.remove(&override_);
    run.facts.remove(&Topic::Pause(WG.to_owned()));
    run.step(95);
    run.facts.insert(override_.clone(), until.at(Some(at(200))));
    run.step(96);
    run.facts.remove(&override_);
    run.step(97);

    let accepted = about(ConditionType::Accepted);
    run.set(accepted.clone(), State::Bad, "spec.asn: 0 is reserved")
        .step(100);
    run.step(103);
    run.set(accepted.clone(), State::Bad, "spec.asn: it is ours")
        .step(104);
    run.set(accepted, State::Good, "").step(105);
    let held = Topic::Held(WG.to_owned());
    run.set(held.clone(), State::Bad, "removal: every session would go")
        .step(110);
    run.facts.remove(&held);
    run.step(114);
    every_other_topic(&mut run);
    assert_eq!(run.log, include_str!("golden.log"));
}

#[test]
fn override_that_ends_before_it_was_seen_has_expired() {
    let topic = Topic::Override(WG.to_owned());
    let over = |run: &mut Run, second| {
        run.set(topic.clone(), State::Good, "expiresAt 2026-01-01T00:00:00Z");
        run.step(second)
    };
    let mut run = Run::default();
    // It had expired before the agent started, and then its file is removed.
    over(&mut run, 0);
    run.facts.remove(&topic);
    run.step(1);
    assert_eq!(run.log, "");
    // An operator sets the end of an override into the past.
    run.set(topic.clone(), State::Bad, "spec.tunnel.mtu: on PPPoE")
        .step(2);
    over(&mut run, 3);
    run.facts.remove(&topic);
    run.step(4);
    let (_, end) = run.log.split_once('\n').unwrap();
    let expected = format!("  3 Info {WG} override expired [expiresAt 2026-01-01T00:00:00Z]\n");
    assert_eq!(end, expected);
}

/// Turns each topic bad, keeps it so, and turns it good again.
fn every_other_topic(run: &mut Run) {
    use ConditionType as About;
    let conditions = [
        About::EndpointResolved,
        About::EndpointRouted,
        About::TunnelConfigured,
        About::BabelAdjacent,
        About::BirdConfigured,
        About::WithinLimits,
        About::HistoryRecorded,
        About::WorkTreeCurrent,
        About::OriginsValidated,
        About::TemplatesAccepted,
        About::BirdSupported,
        About::FirewallConfigured,
        About::Forwarding,
        About::PolicyInEffect,
        About::KeyAvailable,
        About::SysctlsConfigured,
        About::ApiListening,
        About::TokensReadable,
        About::LogWritten,
    ];
    let topics = [
        Topic::BirdFiles,
        Topic::Kernel,
        Topic::StateDirectory,
        Topic::Settling,
        Topic::Breaker("fetches".into()),
        Topic::RpkiServers,
        Topic::RpkiName("rpki.example.net:8282".into()),
    ];
    let topics = topics.into_iter().chain(conditions.map(about));
    for (topic, second) in topics.zip((200..).step_by(100)) {
        // A session must have been up to go down.
        run.set(topic.clone(), State::Good, "").step(second);
        run.set(topic.clone(), State::Bad, "its cause")
            .step(second + 10);
        run.step(second + 30);
        run.set(topic, State::Good, "").step(second + 40);
    }
}

#[test]
fn initial_good_state_is_no_edge_and_bad_state_is() {
    let mut run = Run::default();
    run.set(Topic::Bird, State::Good, "3.1.0");
    run.set(Topic::ControlPlane, State::Good, "");
    run.session(State::Good, "", -10);
    assert_eq!(run.step(0), 0);
    let mut run = Run::default();
    run.set(Topic::Bird, State::Bad, "");
    run.set(Topic::Maintenance, State::Bad, "");
    // A session that was never up does not go down.
    run.session(State::Bad, "", 0);
    assert_eq!(run.step(0), 2);
    run.session(State::Good, "", 5);
    assert_eq!(run.step(5), 1);
}

#[test]
fn session_of_the_second_of_the_start_is_an_edge() {
    let began = at(0) + jiff::SignedDuration::from_millis(900);
    for (since, edges) in [(0, 1), (-1, 0)] {
        let mut run = Run::default();
        run.session(State::Good, "", since);
        assert_eq!(run.edges.step(&run.facts, began).len(), edges);
    }
}

#[test]
fn changed_cause_is_an_edge_and_a_countdown_is_not() {
    let mut run = Run::default();
    let call = Topic::Call("mesh".into());
    let mut edges = |cause: &str| run.set(call.clone(), State::Bad, cause).step(0);
    assert_eq!(edges("status 502; next try in 30 s"), 1);
    assert_eq!(edges("status 502; next try in 9 s"), 0);
    assert_eq!(edges("status 503; next try in 9 s"), 1);
}

#[test]
fn time_before_an_unknown_state_does_not_count() {
    let mut run = Run::default();
    let loaded = about(ConditionType::BirdConfigured);
    run.set(loaded.clone(), State::Bad, "waits for the node")
        .step(0);
    // The node reports its own problem, and the session's is the same one.
    run.set(loaded.clone(), State::Unknown, "").step(1);
    run.set(loaded.clone(), State::Bad, "waits for the node");
    assert_eq!(run.step(60), 0);
    run.set(loaded, State::Good, "");
    assert_eq!(run.step(61), 0);
}

#[test]
fn call_with_changing_words_logs_each_cause_once() {
    let mut run = Run::default();
    let mut edges = |key: &str, cause: &str| {
        let fact = Fact::new(State::Bad, cause).of(Some(key.to_owned()));
        run.facts.insert(Topic::Call("mesh".into()), fact);
        run.step(0)
    };
    assert_eq!(edges("status 500", "status 500: request 4711 failed"), 1);
    assert_eq!(edges("status 500", "status 500: request 4712 failed"), 0);
    assert_eq!(edges("status 502", "status 502: request 4713 failed"), 1);
    assert_eq!(edges("status 500", "status 500: request 4714 failed"), 0);
    // The operator's own errors are announced at each change.
    let mut edges = |cause: &str| {
        run.set(about(ConditionType::Accepted), State::Bad, cause)
            .step(9)
    };
    assert_eq!(edges("spec.asn: 0 is reserved"), 0, "it may pass");
    let mut edges = |cause: &str| {
        run.set(about(ConditionType::Accepted), State::Bad, cause)
            .step(20)
    };
    let causes = [
        "spec.asn: 0 is reserved",
        "spec.mtu: 1 is too small",
        "spec.asn: 0 is reserved",
    ];
    assert_eq!(causes.map(&mut edges), [1, 1, 1]);
}

#[test]
fn a_state_that_setup_passes_through_is_not_announced() {
    let mut run = Run::default();
    let tunnel = about(ConditionType::TunnelConfigured);
    run.set(tunnel.clone(), State::Bad, "there is no link");
    assert_eq!(run.step(0), 0);
    assert!(is_holding(&run));
    run.set(tunnel, State::Good, "");
    assert_eq!(run.step(1), 0);
    assert!(!is_holding(&run));
}

#[test]
fn bad_state_that_waits_is_due_after_its_time() {
    let mut run = Run::default();
    let tunnel = about(ConditionType::TunnelConfigured);
    run.set(tunnel, State::Bad, "there is no link").step(0);
    let due = (1..10).find(|second| run.edges.is_due(at(*second)));
    let due = due.unwrap();
    assert_eq!((run.step(due - 1), run.step(due)), (0, 1));
    assert!(!run.edges.is_due(at(100)));
}

/// Returns whether a bad state has not lasted long enough to be announced.
fn is_holding(run: &Run) -> bool {
    let mut seen = run.edges.seen.values();
    seen.any(|seen| seen.bad_since.is_some() && seen.announced.is_empty())
}

#[test]
fn an_object_that_is_removed_has_no_edge() {
    let mut run = Run::default();
    run.session(State::Good, "", -10);
    run.set(about(ConditionType::Accepted), State::Bad, "why")
        .step(0);
    run.step(3);
    run.facts.clear();
    assert_eq!(run.step(4), 0);
}

#[test]
fn object_without_a_fault_takes_no_memory() {
    let mut run = Run::default();
    let topic = about(ConditionType::TunnelConfigured);
    run.set(topic.clone(), State::Good, "").step(0);
    assert!(run.edges.seen.is_empty());
    run.set(topic.clone(), State::Bad, "no route").step(1);
    assert_eq!(run.edges.seen.len(), 1);
    run.set(topic, State::Good, "").step(10);
    assert!(run.edges.seen.is_empty());
}
