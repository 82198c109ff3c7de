use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex as StdMutex;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::unread::Unread;
use crate::bird::Committer;
use crate::intervals::BIRD_OBSERVATION_WAIT;
use crate::model::InterfaceName;
use crate::observed::bird::{BirdName, BirdState, Silence, Texts};
use crate::observed::kernel::{KernelView, Link};
use crate::ports::{
    BaseError, Bird, BirdError, CommitError, Committed, Fragment, FragmentError, Kernel,
    KernelError,
};

/// Observes the kernel and BIRD, once for all keys that ask at about the same time: an observation that began after
/// a key became due is fresh enough for it.
pub struct Observer {
    kernel: Arc<dyn Kernel>,
    links: Shared<Result<Arc<KernelView>, Arc<KernelError>>>,
    bird: Arc<BirdLooks>,
    is_patient: AtomicBool,
    observations: AtomicU64,
    /// What the kernel announced and no view has yet.
    unread: StdMutex<Unread>,
    /// Whether events are received.
    is_listening: AtomicBool,
    kernel_error: StdMutex<Option<String>>,
    seen: StdMutex<Arc<KernelView>>,
    /// During a dump, the links that were read one by one meanwhile: the dump may have read them before.
    glanced: StdMutex<Option<OneByOne>>,
}

/// Links as they were read one by one; `None`: not there.
type OneByOne = BTreeMap<InterfaceName, Option<Link>>;

impl Observer {
    pub fn new(kernel: Arc<dyn Kernel>, bird: Arc<dyn Bird>) -> Self {
        let (state, looks) = (StdMutex::default(), watch::Sender::default());
        Self {
            kernel,
            links: Shared::default(),
            bird: Arc::new(BirdLooks { bird, state, looks }),
            is_patient: AtomicBool::new(false),
            observations: AtomicU64::new(0),
            unread: StdMutex::default(),
            is_listening: AtomicBool::new(false),
            kernel_error: StdMutex::default(),
            seen: StdMutex::default(),
            glanced: StdMutex::default(),
        }
    }

    /// Makes every later observation of BIRD wait until it ends, for a pass without a later observation.
    pub fn wait_for_bird(&self) {
        self.is_patient.store(true, Ordering::Relaxed);
    }

    /// Returns whether observations of BIRD are awaited until they end.
    pub fn is_patient(&self) -> bool {
        self.is_patient.load(Ordering::Relaxed)
    }

    /// Returns a view of the kernel that is not older than `not_before`.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub async fn kernel(&self, not_before: Instant) -> Result<Arc<KernelView>, Arc<KernelError>> {
        let look = || async {
            self.observations.fetch_add(1, Ordering::Relaxed);
            let events = self.unread.lock().events();
            *self.glanced.lock() = Some(OneByOne::new());
            let view = self.kernel.observe().await;
            let view = view.map(|mut view| {
                let mut seen = self.seen.lock();
                let glanced = self.glanced.lock().take();
                set_links(&mut view, glanced.unwrap_or_default());
                remember(&mut seen, view)
            });
            let view = view.map_err(Arc::new);
            let error = view
                .as_ref()
                .err()
                .map(|error| crate::telemetry::chain(&**error));
            *self.kernel_error.lock() = error;
            if view.is_ok() {
                self.unread.lock().read_all(events);
            }
            view
        };
        self.links.get(not_before, look).await
    }

    /// Returns a view of the kernel whose WireGuard configuration is not older than `not_before`. Everything else is as
    /// last observed, unless the kernel has announced a change that was not read since.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub(super) async fn wireguard(
        &self,
        not_before: Instant,
    ) -> Result<Arc<KernelView>, Arc<KernelError>> {
        let Some(last) = self.last_kernel().filter(|_| !self.is_changed()) else {
            return self.kernel(not_before).await;
        };
        let view = KernelView::clone(&last);
        let view = self.kernel.observe_wireguard(view).await;
        match self.replace(&last, view) {
            Some(view) => Ok(view),
            None => self.kernel(Instant::now()).await,
        }
    }

    /// Keeps a view that was made from this one, unless links were read meanwhile.
    fn replace(&self, last: &Arc<KernelView>, view: KernelView) -> Option<Arc<KernelView>> {
        let mut seen = self.seen.lock();
        Arc::ptr_eq(&seen, last).then(|| remember(&mut seen, view))
    }

    /// Records that the kernel announced a change of a link; of `None`, that any may have changed, as when its events are
    /// received from now on.
    pub fn announced(&self, link: Option<InterfaceName>) {
        self.unread.lock().add(link);
        self.is_listening.store(true, Ordering::Relaxed);
    }

    /// Records that no event of the kernel is received any more.
    pub(super) fn events_ended(&self) {
        self.is_listening.store(false, Ordering::Relaxed);
    }

    /// Returns whether a link may have changed since it was last read.
    fn is_changed(&self) -> bool {
        !self.is_listening.load(Ordering::Relaxed) || !self.unread.lock().is_empty()
    }

    /// Returns whether only these links may have changed since the last view of the kernel.
    pub(super) fn has_read_all_but(&self, links: &BTreeSet<InterfaceName>) -> bool {
        let is_listening = self.is_listening.load(Ordering::Relaxed);
        is_listening && self.last_kernel().is_some() && self.unread.lock().is_within(links)
    }

    /// Returns how often the whole kernel was observed.
    pub fn observations(&self) -> u64 {
        self.observations.load(Ordering::Relaxed)
    }

    /// Returns the last view of the kernel with these links as they are now; `None` before the first view.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub async fn links(
        &self,
        names: &BTreeSet<InterfaceName>,
    ) -> Result<Option<Arc<KernelView>>, Arc<KernelError>> {
        let events = self.unread.lock().events();
        let links = self.kernel.observe_links(names).await.map_err(Arc::new)?;
        if let Some(glanced) = &mut *self.glanced.lock() {
            glanced.extend(links.clone());
        }
        let mut seen = self.seen.lock();
        if seen.links.is_empty() {
            return Ok(None);
        }
        let mut view = KernelView::clone(&seen);
        set_links(&mut view, links);
        self.unread.lock().read(names, events);
        Ok(Some(remember(&mut seen, view)))
    }

    /// Returns the last view of the kernel. `None` before the first one, and while the kernel cannot be read.
    pub(super) fn last_kernel(&self) -> Option<Arc<KernelView>> {
        let seen = Arc::clone(&self.seen.lock());
        (!seen.links.is_empty() && self.kernel_error.lock().is_none()).then_some(seen)
    }

    /// Returns the reason why the last observation of the kernel failed.
    pub fn kernel_error(&self) -> Option<String> {
        self.kernel_error.lock().clone()
    }

    /// Returns BIRD's state at the last observation.
    pub fn last_bird(&self) -> Arc<BirdState> {
        Arc::clone(&self.bird.looks.borrow())
    }

    /// Returns BIRD's state at the last observation, for a plan: unread before the first one has ended.
    pub(super) fn known_bird(&self) -> Arc<BirdState> {
        self.bird.last()
    }

    /// Returns BIRD's state, not older than `not_before`; or the last state, when BIRD takes too long to answer.
    pub async fn bird(&self, not_before: Instant) -> Arc<BirdState> {
        let patience = (!self.is_patient()).then_some(BIRD_OBSERVATION_WAIT);
        let asked = Instant::now();
        let mut looks = self.bird.looks.subscribe();
        loop {
            let begun = match self.bird.begin(not_before) {
                Ok(state) => return state,
                Err(begun) => begun,
            };
            // An observation that has already taken this long delays no other caller.
            let changed = match patience {
                Some(patience) => {
                    let until = begun.min(asked) + patience;
                    tokio::time::timeout_at(until, looks.changed()).await
                }
                None => Ok(looks.changed().await),
            };
            if changed.is_err() {
                return self.bird.last();
            }
        }
    }

    /// Returns a receiver of every later observation of BIRD; of several at once, the latest.
    pub fn looks(&self) -> watch::Receiver<Arc<BirdState>> {
        self.bird.looks.subscribe()
    }
}

fn set_links(view: &mut KernelView, links: OneByOne) {
    for (name, link) in links {
        match link {
            Some(link) => view.links.insert(name, link),
            None => drop(view.links.remove(&name)),
        }
    }
}

/// Keeps a view for the next one, and completes it from the previous one.
fn remember(seen: &mut Arc<KernelView>, mut view: KernelView) -> Arc<KernelView> {
    view.keep_ports(seen);
    view.links.share(&seen.links);
    *seen = Arc::new(view);
    Arc::clone(seen)
}

/// Observations of BIRD, each in its own task, one at a time.
struct BirdLooks {
    bird: Arc<dyn Bird>,
    state: StdMutex<Looking>,
    looks: watch::Sender<Arc<BirdState>>,
}

#[derive(Default)]
struct Looking {
    /// The last observation, with the time it began.
    last: Option<(Instant, Arc<BirdState>)>,
    /// Time at which the observation in progress began.
    begun: Option<Instant>,
}

impl BirdLooks {
    /// Returns an observation that is not older than `not_before`, or the time at which the one in progress began.
    fn begin(self: &Arc<Self>, not_before: Instant) -> Result<Arc<BirdState>, Instant> {
        let mut state = self.state.lock();
        if let Some((begun, last)) = &state.last
            && *begun >= not_before
        {
            return Ok(Arc::clone(last));
        }
        Err(*state.begun.get_or_insert_with(|| {
            let begun = Instant::now();
            tokio::spawn(Arc::clone(self).look(begun));
            begun
        }))
    }

    async fn look(self: Arc<Self>, begun: Instant) {
        let ended = Ended(&self);
        let mut now = self.bird.look().await;
        now.remember(&self.last());
        let now = Arc::new(now);
        self.state.lock().last = Some((begun, Arc::clone(&now)));
        drop(ended);
        self.looks.send_replace(now);
    }

    /// Returns the last observation; before the first one has ended, nothing is known.
    fn last(&self) -> Arc<BirdState> {
        let last = self
            .state
            .lock()
            .last
            .as_ref()
            .map(|(_, last)| Arc::clone(last));
        last.unwrap_or_else(|| {
            Arc::new(BirdState {
                unread: true,
                silent: Some(Silence::NotYet),
                ..BirdState::default()
            })
        })
    }
}

/// Ends the observation in progress on drop, also after a panic.
struct Ended<'a>(&'a BirdLooks);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state.lock().begun = None;
    }
}

#[async_trait]
impl Bird for Committer {
    async fn look(&self) -> BirdState {
        look_at_bird(self).await
    }

    async fn set_fragment(
        &self,
        name: &str,
        fragment: Option<Fragment>,
    ) -> Result<Committed, FragmentError> {
        self.set_fragment(name, fragment).await
    }

    async fn set_base(&self, files: Texts) -> Result<Committed, BaseError> {
        self.set_base(files).await
    }

    fn all_requested(&self) {
        self.all_requested();
    }

    async fn converge(&self) -> Result<Committed, Arc<CommitError>> {
        self.converge().await
    }

    async fn restart(&self, name: BirdName) -> Result<(), BirdError> {
        self.client().restart(name).await
    }

    async fn enable(&self, name: BirdName) -> Result<bool, BirdError> {
        self.client().enable(name).await
    }
}

/// Reads everything about BIRD that a plan or a status needs. Changes nothing.
pub async fn look_at_bird(committer: &Committer) -> BirdState {
    let client = committer.client();
    let mut state = BirdState::default();
    match committer.live().await {
        Ok(live) => state.live = live,
        Err(error) => state.files_error = Some(crate::telemetry::chain(&*error)),
    }
    state.installed = committer.checker().installed().await;
    match client.version().await {
        Ok(version) => state.running = Some(version),
        Err(error) => {
            let why = crate::telemetry::chain(&error);
            state.silent = (!error.is_not_running()).then(|| Silence::Failed(why.clone()));
            state.down = Some(why);
        }
    }
    if state.is_running() {
        match client.protocols().await {
            Ok(protocols) => state.protocols = protocols,
            // Without an answer the sessions are unknown; an empty list of protocols would mean that all are gone.
            Err(error) => state.set_silent(crate::telemetry::chain(&error)),
        }
    }
    if state.is_running() {
        state.loaded = committer.is_loaded(&state.live).await;
        if state.protocols.iter().any(|p| p.proto == "Babel") {
            state.babel = client.babel_neighbours().await.ok();
        }
    }
    state
}

/// The last value of an expensive observation, with the time it began.
struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    async fn get<F: Future<Output = T>>(&self, not_before: Instant, look: impl FnOnce() -> F) -> T {
        let mut last = self.0.lock().await;
        if let Some((begun, value)) = &*last
            && *begun >= not_before
        {
            return value.clone();
        }
        let begun = Instant::now();
        let value = look().await;
        *last = Some((begun, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_keys_that_are_due_share_one_look() {
        let (shared, looks) = (Shared::default(), AtomicU32::new(0));
        let due = Instant::now();
        let look = || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            looks.fetch_add(1, Ordering::Relaxed)
        };
        let all = (0..1000).map(|_| shared.get(due, look));
        futures::future::join_all(all).await;
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        shared.get(Instant::now(), look).await;
        assert_eq!(
            looks.load(Ordering::Relaxed),
            2,
            "a later change wants a later look"
        );
    }
}
