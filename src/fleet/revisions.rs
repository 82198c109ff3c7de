//! Numbers that change with the answers of each router, and the requests that wait for a change.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::network::{FleetFiles, NETWORK, Named, Network, router_path};
use super::store::PostedKeys;
use super::version::{Revision, Revisions, Version, version};
use crate::intervals::LONG_POLL_MAX;
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

/// Maximum number of requests that wait, and at most three quarters of the connections, so that waits never fill the
/// server: with many connections, the others close after their answer. A router without a place polls.
const WAITING: usize = 16 * 1024;

/// The newest revisions, and the requests that wait for the next ones.
pub(super) struct Waiting {
    /// `None` until the files were read once.
    newest: watch::Sender<Option<Arc<Revisions>>>,
    /// Wakes the requests of a router, of each that ever waited.
    requests: Mutex<HashMap<ObjectName, Arc<Notify>>>,
    free: Semaphore,
    /// Answers all requests that wait.
    pub(super) stop: CancellationToken,
}

impl Waiting {
    /// Returns an empty one for a server with this number of connections.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            newest: watch::Sender::default(),
            requests: Mutex::default(),
            free: Semaphore::new(WAITING.min(connections / 4 * 3)),
            stop: CancellationToken::new(),
        }
    }

    /// Wakes the requests of the routers whose revision changed.
    pub(super) fn publish(&self, revisions: &Arc<Revisions>) {
        let before = self.newest.borrow().clone();
        if before.as_ref() == Some(revisions) {
            return;
        }
        self.newest.send_replace(Some(Arc::clone(revisions)));
        let answers_before = |router| before.as_ref().map(|before| answers(before, router));
        let requests = self.requests.lock();
        let changed = requests
            .iter()
            .filter(|(router, _)| answers_before(router) != Some(answers(revisions, router)));
        changed.for_each(|(_, requests)| requests.notify_waiters());
    }

    /// Returns the newest revisions.
    pub(super) fn newest(&self) -> Arc<Revisions> {
        self.newest.borrow().clone().unwrap_or_default()
    }

    /// Returns a receiver that tells that a revision changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Revisions>>> {
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
            let requests = Arc::clone(self.requests.lock().entry(router.clone()).or_default());
            let ended = async {
                tokio::select! {
                    () = self.changed(router, known, &requests) => {}
                    () = self.stop.cancelled() => {}
                }
            };
            let _ = timeout(wait.min(LONG_POLL_MAX), ended).await;
        }
        format!("{:x}", self.of(router).or(known).unwrap_or_default())
    }

    async fn changed(&self, router: &ObjectName, known: Option<Version>, requests: &Notify) {
        loop {
            let mut woken = pin!(requests.notified());
            // Before the look, so that no change comes between.
            woken.as_mut().enable();
            if self.of(router).is_some_and(|newest| Some(newest) != known) {
                return;
            }
            woken.await;
        }
    }

    fn of(&self, router: &ObjectName) -> Option<Version> {
        let newest = self.newest.borrow();
        newest.as_ref().map(|all| answers(all, router))
    }
}

/// The revisions of a network's routers, with their parts that a change of sessions does not change.
pub(super) struct Described {
    pub(super) keys: Arc<PostedKeys>,
    structure: Arc<BTreeMap<ObjectName, Version>>,
    pub(super) revisions: Arc<Revisions>,
}

impl Described {
    pub(super) fn new(network: &Network, files: &FleetFiles, keys: Arc<PostedKeys>) -> Self {
        let structure = Arc::new(structure(network, files, &keys));
        Self::of(structure, files, keys, |_| None)
    }

    /// Returns the revisions of other files with the same structure; `before` are the files of now.
    pub(super) fn with_sessions(&self, before: &FleetFiles, files: &FleetFiles) -> Self {
        let (structure, keys) = (Arc::clone(&self.structure), Arc::clone(&self.keys));
        Self::of(structure, files, keys, self.known_sessions(before, files))
    }

    /// Returns the revisions of another structure, or with other keys; `before` are the files of now.
    pub(super) fn with_structure(
        &self,
        before: &FleetFiles,
        (network, files): (&Network, &FleetFiles),
        keys: Arc<PostedKeys>,
    ) -> Self {
        let structure = Arc::new(structure(network, files, &keys));
        Self::of(structure, files, keys, self.known_sessions(before, files))
    }

    /// Returns the versions of the lists of sessions that are the same in other files.
    fn known_sessions(
        &self,
        before: &FleetFiles,
        files: &FleetFiles,
    ) -> impl Fn(&ObjectName) -> Option<Version> {
        |router| {
            let revision = self.revisions.get(router)?;
            let is_same = files.shares_sessions(before, router);
            is_same.then_some(revision.sessions)
        }
    }

    fn of(
        structure: Arc<BTreeMap<ObjectName, Version>>,
        files: &FleetFiles,
        keys: Arc<PostedKeys>,
        known: impl Fn(&ObjectName) -> Option<Version>,
    ) -> Self {
        let revision = |(router, structure): (&ObjectName, &Version)| {
            let read = || version(&files.sessions_of(router).collect::<Vec<_>>());
            let sessions = known(router).unwrap_or_else(read);
            let answers = version(&(structure, sessions));
            (router.clone(), Revision { answers, sessions })
        };
        let revisions = Arc::new(structure.iter().map(revision).sorted_map());
        Self {
            keys,
            structure,
            revisions,
        }
    }
}

/// Returns the version of each router's answers without its sessions.
fn structure(
    network: &Network,
    files: &FleetFiles,
    keys: &PostedKeys,
) -> BTreeMap<ObjectName, Version> {
    let text = |path: &str| version(&files.text(path));
    let of_all = text(NETWORK);
    let routers: BTreeMap<&ObjectName, Version> = network
        .routers()
        .map(|(name, _)| (name, version(&(text(&router_path(name)), keys.get(name)))))
        .sorted_map();
    let structure = |router: Named| {
        let neighbours = network.neighbours(router.0).map(|(name, _)| name);
        let others = [router.0].into_iter().chain(neighbours);
        let others = others.filter_map(|name| routers.get(name).copied());
        let parts: Vec<Version> = [of_all].into_iter().chain(others).collect();
        (router.0.clone(), version(&parts))
    };
    network.routers().map(structure).sorted_map()
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

    fn revisions(all: &[(&str, Version)]) -> Arc<Revisions> {
        let revision = |answers| Revision {
            answers,
            sessions: 0,
        };
        let all = all.iter();
        let all = all.map(|(router, answers)| (name(router), revision(*answers)));
        Arc::new(all.collect())
    }

    #[tokio::test(start_paused = true)]
    async fn change_of_another_router_ends_no_wait() {
        let waiting = Waiting::new(MOST);
        waiting.publish(&revisions(&[("a", 1), ("b", 1)]));
        let (a, minute) = (name("a"), Duration::from_secs(60));
        let wait = waiting.revision(&a, Some("1"), minute);
        tokio::pin!(wait);
        let second = Duration::from_secs(1);
        assert!(timeout(second, &mut wait).await.is_err());
        waiting.publish(&revisions(&[("a", 1), ("b", 2)]));
        assert!(timeout(second, &mut wait).await.is_err());
        waiting.publish(&revisions(&[("a", 10), ("b", 2)]));
        assert_eq!(wait.await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_wait_ends_in_time_with_the_known_revision() {
        let waiting = Waiting::new(MOST);
        // Before the files were read, as after a restart.
        for all in [None, Some(revisions(&[("a", 7)]))] {
            all.iter().for_each(|all| waiting.publish(all));
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
        waiting.publish(&revisions(&[("a", 7)]));
        let places = waiting
            .free
            .acquire_many(MOST as u32 / 4 * 3)
            .await
            .unwrap();
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
            let network = Network::read(files).unwrap();
            let all = Described::new(&network, files, Arc::new(keys.clone()));
            let same = all.with_sessions(files, files);
            assert_eq!(all.revisions, same.revisions);
            let same = all.with_structure(files, (&network, files), Arc::new(keys.clone()));
            assert_eq!(all.revisions, same.revisions);
            Revisions::clone(&all.revisions)
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
        let network = Network::read(&before).unwrap();
        let after = Network::read_after(Some((&before, &network)), &moved).unwrap();
        assert!(after != network && after == Network::read(&moved).unwrap());
        assert_eq!(changed(&moved, &none), ["hub", "one", "two"]);
    }
}
