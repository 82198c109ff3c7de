//! Numbers that change with the answers of each router, and the requests that wait for a change.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::network::{FleetFiles, NETWORK, Named, Network, router_path};
use super::store::{PostedKeys, Revision, Revisions, Version, version};
use crate::intervals::LONG_POLL_MAX;
use crate::model::ObjectName;

/// Maximum number of requests that wait, and at most half of the connections, so that waits never fill the server. A
/// router without a place polls.
const WAITING: usize = 16 * 1024;

/// The newest revisions, and the requests that wait for the next ones.
pub(super) struct Waiting {
    /// `None` until the files were read once.
    newest: watch::Sender<Option<Revisions>>,
    free: Semaphore,
    /// Answers all requests that wait.
    pub(super) stop: CancellationToken,
}

impl Waiting {
    /// Returns an empty one for a server with this number of connections.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            newest: watch::Sender::default(),
            free: Semaphore::new(WAITING.min(connections / 2)),
            stop: CancellationToken::new(),
        }
    }

    /// Wakes the requests of the routers whose revision changed.
    pub(super) fn publish(&self, revisions: Revisions) {
        self.newest.send_if_modified(|newest| {
            let is_new = newest.as_ref() != Some(&revisions);
            *newest = Some(revisions);
            is_new
        });
    }

    /// Returns the newest revisions.
    pub(super) fn newest(&self) -> Revisions {
        self.newest.borrow().clone().unwrap_or_default()
    }

    /// Returns a receiver that tells that a revision changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Revisions>> {
        self.newest.subscribe()
    }

    /// Returns the longest wait to offer; `None` while there is no place.
    pub(super) fn offer(&self) -> Option<Duration> {
        (self.free.available_permits() > 0 && !self.stop.is_cancelled()).then_some(LONG_POLL_MAX)
    }

    /// Returns the revision of a router's answers as soon as it is another one than the known, or after the wait.
    pub(super) async fn revision(
        &self,
        router: &ObjectName,
        known: Option<&str>,
        wait: Duration,
    ) -> String {
        let known = known.and_then(|known| Version::from_str_radix(known, 16).ok());
        if let Ok(_place) = self.free.try_acquire() {
            let mut newest = self.newest.subscribe();
            let changed = newest.wait_for(|newest| {
                let newest = newest.as_ref().map(|all| answers(all, router));
                newest.is_some_and(|newest| Some(newest) != known)
            });
            let ended = async {
                tokio::select! {
                    _ = changed => {}
                    () = self.stop.cancelled() => {}
                }
            };
            let _ = timeout(wait.min(LONG_POLL_MAX), ended).await;
        }
        let newest = self.newest.borrow();
        let newest = newest.as_ref().map(|all| answers(all, router));
        format!("{:x}", newest.or(known).unwrap_or_default())
    }
}

/// Returns the revisions of a network's routers.
pub(super) fn described(network: &Network, files: &FleetFiles, keys: &PostedKeys) -> Revisions {
    let text = |path: &str| version(&files.text(path));
    let structure = text(NETWORK);
    let routers: BTreeMap<&ObjectName, Version> = network
        .routers()
        .map(|(name, _)| (name, version(&(text(&router_path(name)), keys.get(name)))))
        .collect();
    let revision = |router: Named| {
        let sessions = version(&files.sessions_of(router.0).collect::<Vec<_>>());
        let neighbours = network.neighbours(router.0).map(|(name, _)| name);
        let others = [router.0].into_iter().chain(neighbours);
        let others = others.filter_map(|name| routers.get(name).copied());
        let parts: Vec<Version> = [structure, sessions].into_iter().chain(others).collect();
        let answers = version(&parts);
        (router.0.clone(), Revision { answers, sessions })
    };
    network.routers().map(revision).collect()
}

/// Returns the version of a router's answers; zero of a router without one.
fn answers(all: &Revisions, router: &ObjectName) -> Version {
    all.get(router).map_or(0, |it| it.answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK_FILE: &str =
        "{asn: 4242420998, prefixes: {ipv6: 'fd48:4da8:420::/48'}, mesh: {topology: hub}}";

    const MOST: usize = 64;

    fn name(name: &str) -> ObjectName {
        name.parse().unwrap()
    }

    fn revisions(all: &[(&str, Version)]) -> Revisions {
        let revision = |answers| Revision {
            answers,
            sessions: 0,
        };
        let all = all.iter();
        all.map(|(router, answers)| (name(router), revision(*answers)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_another_router_ends_no_wait() {
        let waiting = Waiting::new(MOST);
        waiting.publish(revisions(&[("a", 1), ("b", 1)]));
        let (a, minute) = (name("a"), Duration::from_secs(60));
        let wait = waiting.revision(&a, Some("1"), minute);
        tokio::pin!(wait);
        let second = Duration::from_secs(1);
        assert!(timeout(second, &mut wait).await.is_err());
        waiting.publish(revisions(&[("a", 1), ("b", 2)]));
        assert!(timeout(second, &mut wait).await.is_err());
        waiting.publish(revisions(&[("a", 10), ("b", 2)]));
        assert_eq!(wait.await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_wait_ends_in_time_with_the_known_revision() {
        let waiting = Waiting::new(MOST);
        // Before the files were read, as after a restart.
        for all in [None, Some(revisions(&[("a", 7)]))] {
            all.into_iter().for_each(|all| waiting.publish(all));
            let begin = tokio::time::Instant::now();
            let hour = Duration::from_secs(3600);
            assert_eq!(waiting.revision(&name("a"), Some("7"), hour).await, "7");
            assert_eq!(begin.elapsed(), LONG_POLL_MAX);
        }
        assert_eq!(waiting.revision(&name("a"), None, LONG_POLL_MAX).await, "7");
    }

    #[tokio::test(start_paused = true)]
    async fn full_server_answers_at_once_and_offers_nothing() {
        let waiting = Waiting::new(MOST);
        waiting.publish(revisions(&[("a", 7)]));
        let places = waiting.free.acquire_many(MOST as u32 / 2).await.unwrap();
        assert_eq!(waiting.offer(), None);
        let begin = tokio::time::Instant::now();
        let answer = waiting.revision(&name("a"), Some("7"), LONG_POLL_MAX).await;
        assert_eq!((&*answer, begin.elapsed()), ("7", Duration::ZERO));
        drop(places);
        waiting.stop.cancel();
        waiting.revision(&name("a"), Some("7"), LONG_POLL_MAX).await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "a stop ends all waits");
    }

    #[test]
    fn change_concerns_a_router_and_its_neighbours_only() {
        let router = |id: u8, more: &str| format!("{{id: {id}, token: t{id}{more}}}");
        let all = |hub: &str, session: &str| -> FleetFiles {
            let files = [
                ("network.yaml", NETWORK_FILE.to_owned()),
                (
                    "routers/hub.yaml",
                    router(1, &format!(", type: rr, address: {hub}.example.net")),
                ),
                ("routers/one.yaml", router(2, "")),
                ("routers/two.yaml", router(3, "")),
                ("sessions/one/a.yaml", session.to_owned()),
            ];
            files.into_iter().collect()
        };
        let of = |files: &FleetFiles, keys: &PostedKeys| {
            described(&Network::read(files).unwrap(), files, keys)
        };
        let (none, before) = (PostedKeys::new(), all("a", "asn: 1"));
        let known = of(&before, &none);
        let changed = |files: &FleetFiles, keys: &PostedKeys| -> Vec<String> {
            let now = of(files, keys).into_iter();
            now.filter(|(name, revision)| known[name].answers != revision.answers)
                .map(|(name, _)| name.to_string())
                .collect()
        };
        assert!(changed(&before, &none).is_empty());
        assert_eq!(changed(&all("a", "asn: 2"), &none), ["one"]);
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
            .parse()
            .unwrap();
        let keys = PostedKeys::from([(name("two"), key)]);
        assert_eq!(changed(&before, &keys), ["hub", "two"]);
        let moved = all("b", "asn: 1");
        assert_eq!(changed(&moved, &none), ["hub", "one", "two"]);
    }
}
