use std::cell::RefCell;

use tokio::time::{Instant, timeout};

use super::*;
use crate::control_plane::Failure;
use crate::status::{Health, HealthFacts};

const HOUR: Duration = Duration::from_secs(3600);

fn error(call: Call, failure: Failure) -> CallError {
    CallError { call, failure }
}

fn no_answer(call: Call) -> CallError {
    error(call, Failure::Network("connection refused".into()))
}

fn refused(call: Call) -> CallError {
    let detail = String::new();
    error(call, Failure::Auth { detail })
}

/// A network that comes up later, with the time and result of each try.
struct Network {
    began: Instant,
    up: Duration,
    tries: RefCell<Vec<(Call, Duration, bool)>>,
}

impl Network {
    fn up_after(seconds: u64) -> Self {
        Self {
            began: Instant::now(),
            up: Duration::from_secs(seconds),
            tries: RefCell::default(),
        }
    }

    fn attempt(&self, call: Call) -> Result<(), CallError> {
        let up = self.began.elapsed() >= self.up;
        self.tries
            .borrow_mut()
            .push((call, self.began.elapsed(), up));
        up.then_some(()).ok_or_else(|| no_answer(call))
    }

    async fn repeat(&self, calls: &Calls, call: Call, interval: Duration) {
        let attempt = || async { self.attempt(call) };
        repeat(calls, call, || Some(interval), attempt, |_| {}).await;
    }

    /// Time of the first success of a call, since the beginning.
    fn success(&self, call: Call) -> Option<Duration> {
        let tries = self.tries.borrow();
        let success = tries.iter().find(|(of, _, up)| *of == call && *up);
        success.map(|(_, at, _)| *at)
    }
}

#[test]
fn changing_words_of_the_control_plane_are_one_cause() {
    let key = |failure: Failure| {
        let calls = Calls::default();
        calls.failed(&error(Call::Mesh, failure), HOUR);
        let mut facts = calls.facts().into_iter();
        let fact = facts.find(|(topic, _)| *topic == Topic::Call("mesh".into()));
        fact.unwrap().1.key.unwrap()
    };
    let server = |status, detail: &str| {
        key(Failure::Server {
            status,
            detail: detail.into(),
            retry_after: None,
        })
    };
    assert_eq!(server(500, "request 4711"), server(500, "request 4712"));
    assert_ne!(server(500, "request 4711"), server(502, "request 4711"));
    let envelope = |error: &str| {
        let (error, code) = (error.to_owned(), None);
        key(Failure::Body(crate::wire::WireError::Envelope {
            error,
            code,
        }))
    };
    assert_eq!(envelope("id 1"), envelope("id 2"));
    let cut = |bytes| key(Failure::Body(crate::wire::WireError::Truncated { bytes }));
    assert_eq!(cut(1), cut(2));
    assert_ne!(cut(1), envelope("id 1"));
}

#[tokio::test(start_paused = true)]
async fn network_that_comes_after_boot_costs_no_interval() {
    let (calls, network) = (Calls::default(), Network::up_after(10));
    let config = network.repeat(&calls, Call::Config, Duration::from_secs(300));
    let _ = timeout(Duration::from_secs(60), config).await;
    let success = network.success(Call::Config);
    assert!(success.is_some(), "{:?}", network.tries);
}

#[tokio::test(start_paused = true)]
async fn success_wakes_the_calls_that_failed() {
    let (calls, network) = (Calls::default(), Network::up_after(10_000));
    let both = async {
        tokio::join!(
            network.repeat(&calls, Call::Config, HOUR * 24),
            network.repeat(&calls, Call::Sessions, Duration::from_secs(60)),
        )
    };
    let _ = timeout(Duration::from_secs(10_100), both).await;
    let (config, sessions) = (
        network.success(Call::Config),
        network.success(Call::Sessions),
    );
    assert!(config.is_some(), "{:?}", network.tries);
    assert!(config <= sessions, "{config:?} {sessions:?}");
}

#[tokio::test(start_paused = true)]
async fn success_of_another_call_does_not_hammer_a_refused_one() {
    let (calls, network) = (Calls::default(), Network::up_after(30));
    let posts = RefCell::new(0);
    let post = || async {
        *posts.borrow_mut() += 1;
        Err(refused(Call::Report))
    };
    let both = async {
        tokio::join!(
            repeat(&calls, Call::Report, || Some(HOUR), post, |_| {}),
            network.repeat(&calls, Call::Sessions, Duration::from_secs(60)),
        )
    };
    let _ = timeout(Duration::from_secs(200), both).await;
    assert!(network.success(Call::Sessions).is_some());
    assert_eq!(*posts.borrow(), 1);
}

#[tokio::test(start_paused = true)]
async fn wait_that_the_control_plane_asked_for_is_kept() {
    let (calls, network) = (Calls::default(), Network::up_after(30));
    let posts = RefCell::new(0);
    let retry_after = Duration::from_secs(400);
    let post = || async {
        *posts.borrow_mut() += 1;
        Err(error(Call::Report, Failure::RateLimited { retry_after }))
    };
    let both = async {
        tokio::join!(
            repeat(
                &calls,
                Call::Report,
                || Some(Duration::from_secs(1)),
                post,
                |_| {}
            ),
            network.repeat(&calls, Call::Sessions, Duration::from_secs(60)),
        )
    };
    let _ = timeout(Duration::from_secs(399), both).await;
    assert!(network.success(Call::Sessions).is_some());
    assert_eq!(*posts.borrow(), 1);
}

fn state(calls: &Calls, topic: &Topic) -> State {
    let facts = calls.facts();
    let fact = facts.iter().find(|(of, _)| of == topic);
    fact.map_or(State::Unknown, |(_, fact)| fact.state)
}

fn fail(calls: &Calls, call: Call) {
    calls.failed(&no_answer(call), HOUR);
}

#[test]
fn one_hanging_endpoint_is_no_unreachable_control_plane() {
    let calls = Calls::default();
    let heartbeat = Topic::Call("heartbeat".into());
    for round in 1..=9 {
        fail(&calls, Call::Heartbeat);
        fail(&calls, Call::Heartbeat);
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Good, "{round}");
        calls.succeeded(Call::Sessions);
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Good, "{round}");
    }
    assert_eq!(state(&calls, &heartbeat), State::Bad, "its own fault");
}

#[test]
fn several_endpoints_that_keep_hanging_do_not_flap() {
    let calls = Calls::default();
    let posts = [Call::Heartbeat, Call::Report, Call::Modify];
    posts.iter().for_each(|call| fail(&calls, *call));
    calls.succeeded(Call::Sessions);
    for _ in 0..9 {
        posts.iter().for_each(|call| fail(&calls, *call));
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Good);
        calls.succeeded(Call::Sessions);
    }
}

#[test]
fn any_answer_ends_unreachable() {
    let calls = Calls::default();
    let sessions = Topic::Call("sessions".into());
    assert_eq!(state(&calls, &Topic::ControlPlane), State::Unknown);
    for answer in [None, Some(Call::Report)] {
        fail(&calls, Call::Sessions);
        fail(&calls, Call::Config);
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Bad);
        let open = Failure::BreakerOpen { retry_in: HOUR };
        calls.failed(&error(Call::Mesh, open), HOUR);
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Bad, "not sent");
        assert_eq!(
            state(&calls, &sessions),
            State::Unknown,
            "one line is enough"
        );
        match answer {
            Some(call) => calls.failed(&refused(call), HOUR),
            None => drop(calls.succeeded(Call::Mesh)),
        }
        assert_eq!(state(&calls, &Topic::ControlPlane), State::Good);
        calls.succeeded(Call::Sessions);
    }
}

#[test]
fn outage_failures_are_not_announced_afterwards() {
    let calls = Calls::default();
    let mesh = Topic::Call("mesh".into());
    for _ in 0..5 {
        fail(&calls, Call::Mesh);
        fail(&calls, Call::Sessions);
    }
    calls.succeeded(Call::Sessions);
    assert_eq!(
        state(&calls, &mesh),
        State::Unknown,
        "its next attempt is due"
    );
    fail(&calls, Call::Mesh);
    fail(&calls, Call::Mesh);
    assert_eq!(state(&calls, &mesh), State::Bad);
}

#[test]
fn outage_beside_a_hanging_endpoint_is_noticed() {
    let calls = Calls::default();
    fail(&calls, Call::Heartbeat);
    calls.succeeded(Call::Sessions);
    fail(&calls, Call::Heartbeat);
    fail(&calls, Call::Sessions);
    assert_eq!(state(&calls, &Topic::ControlPlane), State::Bad);
    // The only success, followed by failures.
    calls.succeeded(Call::Mesh);
    assert_eq!(state(&calls, &Topic::ControlPlane), State::Good);
    fail(&calls, Call::Heartbeat);
    fail(&calls, Call::Mesh);
    assert_eq!(state(&calls, &Topic::ControlPlane), State::Bad);
}

#[test]
fn settled_call_keeps_its_last_success() {
    let calls = Calls::default();
    calls.succeeded(Call::Modify);
    calls.failed(&refused(Call::Modify), HOUR);
    assert_eq!(calls.notices().len(), 1);
    calls.settled(Call::Modify);
    assert!(calls.notices().is_empty());
    assert!(calls.all()[&Call::Modify].last_success.is_some());
}

/// The health of an agent with these calls only.
fn health(calls: &Calls) -> (Health, Vec<String>) {
    let facts = HealthFacts {
        lists: calls.failures(),
        ..HealthFacts::default()
    };
    facts.judge()
}

#[test]
fn third_list_failure_sets_notice_condition_and_degraded() {
    let calls = Calls::default();
    calls.succeeded(Call::Mesh);
    for _ in 0..2 {
        fail(&calls, Call::Mesh);
        assert!(calls.notices().is_empty() && calls.lists_state().works);
        assert_eq!(health(&calls), (Health::Ok, Vec::new()));
    }
    fail(&calls, Call::Mesh);
    let notice = &calls.notices()[0];
    assert!(
        notice.contains("mesh failed 3 times since") && notice.contains("connection refused"),
        "{notice}"
    );
    let condition = calls.lists_state();
    assert_eq!((condition.works, condition.reason), (false, "FetchFailed"));
    assert!(condition.message.contains("mesh since"), "{condition:?}");
    let (word, reasons) = health(&calls);
    assert_eq!(word, Health::Degraded);
    assert!(
        reasons[0].contains("mesh failed 3 times in a row"),
        "{reasons:?}"
    );
    let before = condition.message;
    fail(&calls, Call::Mesh);
    assert_eq!(calls.lists_state().message, before, "a count is no news");

    calls.succeeded(Call::Mesh);
    assert!(calls.notices().is_empty() && calls.lists_state().works);
    assert_eq!(health(&calls).0, Health::Ok);
}

#[test]
fn failing_post_is_a_notice_and_no_list() {
    let calls = Calls::default();
    for _ in 0..3 {
        fail(&calls, Call::Heartbeat);
    }
    assert_eq!(calls.notices().len(), 1);
    assert!(calls.lists_state().works && calls.failures().is_empty());
}

#[test]
fn unwritten_list_fails_with_the_directory_error() {
    let calls = Calls::default();
    calls.succeeded(Call::Mesh);
    let failure = Failure::NotWritten("No space left on device".into());
    calls.failed(&error(Call::Mesh, failure), HOUR);
    assert_eq!(calls.failures_of(Call::Mesh), 1);
    let topic = Topic::Call("mesh".into());
    assert_eq!(state(&calls, &topic), State::Unknown);
    assert_eq!(state(&calls, &Topic::ControlPlane), State::Good);
}
