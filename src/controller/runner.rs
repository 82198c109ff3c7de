use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::batch::Batch;
use super::context::Context;
use super::hint::Hint;
use super::needs::{LINKS_MAX, Need, Needs};
use super::pass::{Observation, Reads};
use super::queue::{Backoff, Outcome, Queue};
use super::ready::Ready;
use super::reconcile::{Asking, BirdSteps, Commit, Committed, Next, Progress, reconcile};
use super::runs::Runs;
use super::sweep::Sweep;
use crate::intervals::{COMMIT_WAIT, GLANCE_GATHER, PASS_GATHER, RECONCILE_TICK};
use crate::model::{ErrorClass, InterfaceName, ObjectKey};
use crate::util::sorted::Sorted as _;

/// Number of messages that read one link, where one reads its WireGuard configuration alone.
const LINK_MESSAGES: usize = 4;

/// Number of times that one pass retries an object that waits for another one: about ten seconds in total.
const WAITS: u8 = 6;

/// Runs passes over the dirty keys until the agent stops.
pub struct Runner {
    context: Arc<Context>,
    queue: Queue<ObjectKey>,
    /// The keys of the observation in progress; at most one.
    observing: Runs<Keys, Observation>,
    /// The keys of the observations of single links in progress.
    glancing: Runs<Keys, Observation>,
    /// What the waiting keys need to see.
    needs: Needs,
    /// The earliest time of the next observation of everything.
    rest: Instant,
    /// Keys that plan, or whose steps run in the kernel.
    running: Runs<ObjectKey, Next>,
    /// Those of the last pass.
    batch: Batch,
    /// Whether a key that has not begun may have changed: its pass waits for no batch.
    is_hinted: bool,
    /// Keys whose steps are to run in BIRD, with those of the others of their pass.
    ready: Ready<(ObjectKey, BirdSteps)>,
    /// Keys whose steps run in BIRD. Such a key takes part in passes meanwhile.
    committing: Runs<ObjectKey, Committed>,
    /// Their commits, and those whose results no run has taken yet.
    commits: BTreeMap<ObjectKey, Commit>,
    /// State of the reconciles that are not over.
    progress: BTreeMap<ObjectKey, Progress>,
    sweep: Sweep,
    /// Whether no further reconcile begins.
    stopping: bool,
}

/// The keys of a pass.
struct Keys(Vec<ObjectKey>);

impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects", self.0.len())
    }
}

impl Runner {
    /// Returns a runner without any scheduled key.
    pub fn new(context: Arc<Context>) -> Self {
        let backoff = Backoff {
            beat: RECONCILE_TICK,
            ..Backoff::default()
        };
        Self {
            context,
            queue: Queue::new(backoff, Instant::now()),
            observing: Runs::new(),
            glancing: Runs::new(),
            needs: Needs::default(),
            rest: Instant::now(),
            running: Runs::new(),
            batch: Batch::new(),
            is_hinted: false,
            ready: Ready::new(),
            committing: Runs::new(),
            commits: BTreeMap::new(),
            progress: BTreeMap::new(),
            sweep: Sweep::default(),
            stopping: false,
        }
    }

    /// Runs until the channel of hints is closed, and then until the steps in progress have run.
    pub async fn run(mut self, mut hints: mpsc::UnboundedReceiver<Hint>) {
        // The tick falls on the beats of the queue, so failed keys and all others share an observation.
        let mut tick = tokio::time::interval_at(self.queue.origin(), RECONCILE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            // A tick that is due goes before a pass, so that it shares one with the hints that have come. At the start this is the
            // first tick.
            while let Ok(hint) = hints.try_recv() {
                self.take(hint);
            }
            tokio::select! {
                biased;
                at = tick.tick() => {
                    self.context.pulse.tick();
                    let (turns, reads) = self.sweep.tick(&self.context.desired());
                    self.refresh(turns, at, reads);
                }
                hint = hints.recv() => match hint {
                    Some(hint) => self.take(hint),
                    None => break,
                },
                ended = self.turn() => if let Some((key, outcome)) = ended {
                    self.queue.finish(&key, outcome, Instant::now(), rand::random());
                },
            }
        }
        self.stop().await;
    }

    /// Ends the reconciles in progress, so that no tunnel stays half made, and begins no other.
    async fn stop(&mut self) {
        self.stopping = true;
        for key in self.queue.waiting() {
            if !self.progress.contains_key(&key) {
                self.queue.remove(&key);
            }
        }
        while !(self.is_idle() && self.progress.is_empty()) {
            if let Some((key, outcome)) = self.turn().await
                && self.progress.contains_key(&key)
            {
                self.queue.finish(&key, outcome, Instant::now(), 0.0);
            }
        }
    }

    /// Runs every key until all are settled, or have failed, once.
    pub async fn run_once(mut self) {
        let (hints, mut hinted) = mpsc::unbounded_channel();
        self.context.hints.lock().replace(hints);
        self.context.observer.wait_for_bird();
        let keys = self.context.desired().keys();
        self.refresh(keys, Instant::now(), Reads::Everything);
        // The firewall follows the tunnels that the other keys create, and the node's record follows the firewall.
        self.queue.remove(&ObjectKey::Firewall);
        self.wave(&mut hinted).await;
        for last in [ObjectKey::Firewall, ObjectKey::Router] {
            self.queue.add(last, Instant::now());
            self.wave(&mut hinted).await;
        }
    }

    /// Runs until no key is due.
    async fn wave(&mut self, hinted: &mut mpsc::UnboundedReceiver<Hint>) {
        let mut seen = BTreeSet::new();
        let mut waited: BTreeMap<ObjectKey, u8> = BTreeMap::new();
        loop {
            while let Ok(hint) = hinted.try_recv() {
                // Every other key has already been added; this is for links that belong to no key.
                if let Hint::Keys(mut keys) = hint {
                    keys.retain(|key| matches!(key, ObjectKey::Orphan(_)));
                    keys.into_iter()
                        .for_each(|key| self.queue.add(key, Instant::now()));
                }
            }
            if self.is_idle() && self.queue.next_due().is_none() {
                return;
            }
            let Some((key, outcome)) = self.turn().await else {
                continue;
            };
            // A key may ask for an immediate retry: when the node's addresses move to `lo`.
            let again = match outcome {
                Outcome::Settled(wait) => wait.is_zero() && seen.insert(key.clone()),
                // Keys that wait for another object are retried.
                Outcome::Waiting => {
                    let times = waited.entry(key.clone()).or_default();
                    *times += 1;
                    *times <= WAITS
                }
                Outcome::Again(_) => true,
                Outcome::Failed(_) | Outcome::Gone => false,
            };
            let outcome = if again { outcome } else { Outcome::Gone };
            self.queue.finish(&key, outcome, Instant::now(), 0.0);
        }
    }

    fn is_idle(&self) -> bool {
        self.observing.is_empty()
            && self.glancing.is_empty()
            && self.running.is_empty()
            && self.ready.is_empty()
            && self.committing.is_empty()
    }

    /// Begins a pass if keys are due, waits for the next event, and handles it. Returns a key whose run ended.
    /// Cancel-safe.
    async fn turn(&mut self) -> Option<(ObjectKey, Outcome)> {
        self.begin_glance();
        self.begin_pass();
        self.begin_commits();
        let observation = self.next_observation().into_iter();
        let due = observation.chain(self.ready.due(self.gathered())).min();
        tokio::select! {
            Some((keys, seen)) = self.observing.ended() => self.begin_runs_of_pass(keys, seen),
            Some((keys, seen)) = self.glancing.ended() => self.begin_runs(keys, seen),
            Some((key, next)) = self.running.ended() => return Some(self.end_run(key, next)),
            Some((key, committed)) = self.committing.ended() => self.end_commit(key, committed),
            () = sleep_until(due.unwrap_or(self.rest)), if due.is_some() => {}
            else => std::future::pending().await,
        }
        None
    }

    /// Returns the time at which the next observation may begin.
    fn next_observation(&self) -> Option<Instant> {
        let glance = self.glanced().filter_map(|key| self.queue.due(key)).min();
        let rest = self.awaited().map_or(self.rest, |it| it.max(self.rest));
        let all = self.queue.next_due().map(|due| due.max(rest));
        let all = all.filter(|_| self.observing.is_empty());
        glance.into_iter().chain(all).min()
    }

    /// Returns the time until which the next pass waits for the runs of the last one.
    fn awaited(&self) -> Option<Instant> {
        self.batch.until().filter(|_| !self.is_hinted)
    }

    /// Returns the keys for which an observation of their changed links is enough.
    fn glanced(&self) -> impl Iterator<Item = &ObjectKey> {
        self.needs.glances().filter(|key| self.is_glanced(key))
    }

    fn is_glanced(&self, key: &ObjectKey) -> bool {
        self.needs.is_glance(key) && !self.commits.contains_key(key)
    }

    /// Begins to observe the changed links of the keys that need no other observation.
    fn begin_glance(&mut self) {
        let now = Instant::now();
        let is_due = |key: &ObjectKey| self.queue.is_due(key, now);
        if !self.glanced().any(is_due) {
            return;
        }
        let mut keys: Vec<_> = self.glanced().cloned().collect();
        keys.retain(|key| self.queue.take(key, now + GLANCE_GATHER));
        let mut names = self.links_of(&keys);
        names.extend(keys.iter().flat_map(|key| self.needs.begin_glance(key)));
        self.context.pulse.begin(&keys);
        let (context, of) = (Arc::clone(&self.context), keys.clone());
        let observe = async move { context.observe_links(of, names, None).await };
        self.glancing.start(Keys(keys), observe);
    }

    /// Returns the links that these keys want, and those that they have, as after a change of the name.
    fn links_of(&self, keys: &[ObjectKey]) -> BTreeSet<InterfaceName> {
        let (desired, last) = (self.context.desired(), self.context.observer.last_kernel());
        let objects = || keys.iter().filter_map(|key| desired.objects.get(key));
        let wanted = objects().filter_map(|object| Some(object.link()?.interface));
        let had = last.iter().flat_map(|last| {
            let uids = objects().flat_map(|it| [Some(&it.uid), it.formerly.as_ref()]);
            let owned = uids.flatten().flat_map(|uid| last.owned_by(uid));
            owned.map(|(name, _)| name)
        });
        wanted.chain(had).cloned().sorted_set()
    }

    /// Begins to observe for all keys that are due.
    fn begin_pass(&mut self) {
        let now = Instant::now();
        let is_due = self.queue.next_due().is_some_and(|due| due <= now);
        if !is_due || !self.observing.is_empty() || now < self.rest || self.awaited().is_some() {
            return;
        }
        let mut due: Vec<_> = std::iter::from_fn(|| self.queue.next(now)).collect();
        // Those whose steps have just ended are read back by the same observation.
        let ended = self.progress.keys().filter(|key| !self.is_glanced(key));
        let ended: Vec<_> = ended.cloned().collect();
        let is_ended = |key: &ObjectKey| self.queue.take(key, now + PASS_GATHER);
        due.extend(ended.into_iter().filter(is_ended).map(|key| (key, now)));
        if self.batch.until().is_some() {
            // A change does not wait for the batch; what is read back does, so that one load of BIRD has all.
            let is_read_back = |(key, _): &mut (ObjectKey, _)| {
                self.progress.contains_key(key) && !self.commits.contains_key(key)
            };
            for (key, _) in due.extract_if(.., is_read_back) {
                let again = Outcome::Again(Duration::ZERO);
                self.queue.finish(&key, again, now, 0.0);
            }
        }
        self.is_hinted = false;
        let Some(latest) = due.iter().map(|(_, due)| *due).max() else {
            return;
        };
        let keys: Vec<_> = due.into_iter().map(|(key, _)| key).collect();
        self.context.pulse.begin(&keys);
        let (context, of) = (Arc::clone(&self.context), keys.clone());
        let has_firewall = context.desired().firewall;
        let reads = |key: &ObjectKey| match (key, self.needs.begin(key)) {
            (ObjectKey::Firewall, _) if !has_firewall => Reads::Nothing,
            (_, reads) => reads,
        };
        let reads = keys.iter().map(reads).max().unwrap_or(Reads::Nothing);
        let links = self.few_links(&keys, reads);
        let observe = async move {
            match links {
                Some(links) => context.observe_links(of, links, Some(latest)).await,
                None => context.observe(of, latest, reads).await,
            }
        };
        self.observing.start(Keys(keys), observe);
    }

    /// Returns the links of these keys, if nothing else of the kernel is to be read for them. What all objects share, links
    /// without an object, and a change of another link that was not read yet need more.
    fn few_links(&self, keys: &[ObjectKey], reads: Reads) -> Option<BTreeSet<InterfaceName>> {
        let desired = self.context.desired();
        let are_objects = || keys.iter().all(|key| desired.objects.contains_key(key));
        let are_few = reads == Reads::WireGuard && keys.len() <= LINKS_MAX && are_objects();
        let links = are_few.then(|| self.links_of(keys));
        let observer = &self.context.observer;
        let all = observer.last_kernel().map_or(0, |last| last.links.len());
        let is_enough = |links: &BTreeSet<_>| {
            links.len() <= LINKS_MAX.min(all / LINK_MESSAGES) && observer.has_read_all_but(links)
        };
        links.filter(is_enough)
    }

    /// Begins a run of each key of a pass, and marks others whose state changed as due.
    fn begin_runs_of_pass(&mut self, keys: Keys, seen: Option<Observation>) {
        let rest = seen.as_ref().map(Observation::rest).unwrap_or_default();
        self.rest = Instant::now() + rest;
        if let Some(seen) = &seen {
            let mut changed = self.sweep.changed(&self.context.desired(), seen);
            for key in &keys.0 {
                changed.remove(key);
            }
            if !changed.is_empty() {
                // This observation is theirs too.
                self.refresh(changed, seen.begun, Reads::Nothing);
            }
            if self.sweep.is_shared_text_new(&seen.bird) {
                // Those of this pass see the new fact.
                let seeing: BTreeSet<_> = keys.0.iter().sorted_set();
                self.queue.retry_failed(Instant::now(), &seeing);
            }
        }
        self.batch.begin(keys.0.iter().cloned());
        self.begin_runs(keys, seen);
    }

    /// Begins a run of each of these keys. Without an observation every key has failed.
    fn begin_runs(&mut self, Keys(keys): Keys, seen: Option<Observation>) {
        let seen = seen.map(Arc::new);
        for key in keys {
            let progress = self.progress.remove(&key);
            if self.stopping && progress.is_none() {
                self.batch.end(&key);
                continue;
            }
            let mut progress = progress.unwrap_or_default();
            progress.commit = self.commits.get(&key).cloned().unwrap_or_default();
            let (context, of, seen) = (Arc::clone(&self.context), key.clone(), seen.clone());
            self.running.start(key, async move {
                match seen {
                    Some(seen) => reconcile(&context, &of, &seen, progress).await,
                    None => Next::Done(Outcome::Failed(ErrorClass::Bug)),
                }
            });
        }
    }

    /// Ends a run: of a reconcile that is over, or of a part of it.
    fn end_run(&mut self, key: ObjectKey, next: Option<Next>) -> (ObjectKey, Outcome) {
        self.context.pulse.end(&key);
        let is_of_pass = self.batch.end(&key);
        if self
            .commits
            .get(&key)
            .is_some_and(|commit| commit.open().is_none())
        {
            self.commits.remove(&key);
        }
        let is_read_back = matches!(next, Some(Next::Observe(_)));
        if self.needs.end(&key, is_read_back) {
            self.queue.add(key.clone(), Instant::now() + GLANCE_GATHER);
        }
        let (progress, wait) = match next.unwrap_or(Next::Done(Outcome::Failed(ErrorClass::Bug))) {
            Next::Done(outcome) => return (key, outcome),
            Next::Observe(progress) => (progress, PASS_GATHER),
            Next::Wait(progress, wait) => (progress, wait),
            Next::Commit(progress, steps) => {
                self.commits.insert(key.clone(), steps.commit.clone());
                match is_of_pass {
                    true => self.ready.add((key.clone(), steps)),
                    false => self.committing.start(key.clone(), steps.run(None)),
                }
                (progress, COMMIT_WAIT)
            }
        };
        self.progress.insert(key.clone(), progress);
        (key, Outcome::Again(wait))
    }

    /// Begins what is ready for BIRD, once the runs of the last pass have ended, or are not waited for any more.
    fn begin_commits(&mut self) {
        let ready = self.ready.take(self.gathered());
        if ready.is_empty() {
            return;
        }
        // Without the last runs of the pass, and while the agent stops, more may follow at once.
        let is_all = self.batch.is_over() && !self.stopping;
        let asking = is_all.then(|| Asking::new(&self.context));
        for (key, steps) in ready {
            self.committing.start(key, steps.run(asking.clone()));
        }
    }

    /// Returns the time until which what is ready for BIRD waits for the runs of the last pass: not while the agent stops.
    fn gathered(&self) -> Option<Instant> {
        self.batch.until().filter(|_| !self.stopping)
    }

    /// Keeps the result of a commit for the next run of its key, which reads it back.
    fn end_commit(&mut self, key: ObjectKey, committed: Option<Committed>) {
        if let Some(commit) = self.commits.get(&key) {
            commit.end(committed);
        }
        // One load of BIRD ends for many keys.
        let at = Instant::now() + PASS_GATHER;
        self.schedule(key, at, Need::Reads(Reads::Nothing));
    }

    /// Schedules a run of a key, which needs to see this.
    fn schedule(&mut self, key: ObjectKey, at: Instant, need: Need) {
        match self.queue.is_running(&key) {
            true => self.needs.add_meanwhile(&key, need),
            false => {
                let is_due = self.queue.is_due(&key, Instant::now());
                self.needs.add(&key, need, is_due);
            }
        }
        self.queue.add(key, at);
    }

    /// Schedules a run of a key whose inputs may have changed: of its link, if it has one, as of a changed link.
    fn add(&mut self, key: ObjectKey) {
        let object = self.context.desired().objects.get(&key).cloned();
        let link = object.and_then(|object| Some(object.link()?.interface.clone()));
        let need = match link {
            Some(link) => Need::Links([link].into()),
            None => Need::Reads(Reads::WireGuard),
        };
        let is_new = !self.progress.contains_key(&key) && !self.queue.is_running(&key);
        self.schedule(key.clone(), Instant::now(), need);
        // What all objects share follows them, as they are once the last pass has ended.
        let is_shared = matches!(key, ObjectKey::Router | ObjectKey::Firewall);
        self.is_hinted |= is_new && !is_shared && !self.is_glanced(&key);
    }

    fn take(&mut self, hint: Hint) {
        match hint {
            Hint::Everything => {
                let keys = self.context.desired().keys();
                self.refresh(keys, Instant::now(), Reads::Everything);
            }
            Hint::Keys(keys) => keys.into_iter().for_each(|key| self.add(key)),
            Hint::Link(key, link) => self.add_link(key, link),
        }
    }

    /// Schedules a run for a changed link. The steps of the key cause such events themselves, so those that come before
    /// the steps are read back change nothing.
    fn add_link(&mut self, key: ObjectKey, link: InterfaceName) {
        // The node's plan depends on the sysctls of all links too.
        let need = match key {
            ObjectKey::Router => Need::Reads(Reads::Everything),
            _ => Need::Links([link].into()),
        };
        if self.queue.is_running(&key) {
            return self.needs.add_meanwhile(&key, need);
        }
        let has_commit = self.commits.contains_key(&key);
        if self.progress.contains_key(&key) && !has_commit {
            return self.needs.add(&key, need, true);
        }
        // Only a pass is for a key with a commit.
        self.is_hinted |= has_commit;
        self.schedule(key, Instant::now() + GLANCE_GATHER, need);
    }

    /// Schedules keys without a known change, which so wait out the backoff of a failure, and those that are not wanted any
    /// more: they have a status to forget.
    fn refresh(&mut self, keys: impl IntoIterator<Item = ObjectKey>, at: Instant, reads: Reads) {
        let (desired, mut gone) = (self.context.desired(), self.queue.waiting());
        let is_shared = |key: &ObjectKey| matches!(key, ObjectKey::Router | ObjectKey::Firewall);
        gone.retain(|key| !desired.objects.contains_key(key) && !is_shared(key));
        for key in keys.into_iter().chain(gone) {
            if !self.queue.is_failing(&key) {
                self.schedule(key, at, Need::Reads(reads));
            }
        }
    }
}
