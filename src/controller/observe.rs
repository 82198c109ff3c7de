use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::bird::{
    BaseError, BirdError, BirdName, Blocked, CommitError, Committed, Committer, Fragment,
    FragmentError, LiveTree, Protocol, Version,
};
use crate::plan::kernel_view::KernelView;
use crate::ports::{Bird, Kernel, KernelError};

/// Looks at the kernel and at BIRD, once for all keys that ask at about the same time: a look that began
/// after a key became due is fresh enough for it.
pub struct Observer {
    kernel: Arc<dyn Kernel>,
    committer: Arc<dyn Bird>,
    links: Shared<Result<Arc<KernelView>, Arc<KernelError>>>,
    bird: Shared<Arc<BirdState>>,
    looks: watch::Sender<Arc<BirdState>>,
    kernel_error: std::sync::Mutex<Option<String>>,
}

/// BIRD, as it was at one moment.
#[derive(Debug, Clone, Default)]
pub struct BirdState {
    /// Its version, while it answers.
    pub running: Option<Version>,
    /// The version of the installed program.
    pub installed: Option<Version>,
    /// Why it does not answer; absent while it answers, and before the first look.
    pub down: Option<String>,
    /// Its protocols, sorted by name.
    pub protocols: Vec<Protocol>,
    /// The files in its directory.
    pub live: LiveTree,
    /// Why the files could not be read.
    pub files_error: Option<String>,
    /// Whether the daemon has loaded exactly these files.
    pub loaded: bool,
}

impl BirdState {
    /// Whether BIRD answers.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Why nothing can be loaded into BIRD until an operator acts.
    pub fn blocked(&self) -> Option<Blocked> {
        const SHARED: [&str; 3] = ["Device", "Kernel", "Direct"];
        // What runs beside a main file that does not include our tree, runs by that file.
        let running = self.protocols.iter();
        let running = running.filter(|protocol| !SHARED.contains(&protocol.proto.as_str()));
        self.live
            .blocked(running.map(|protocol| protocol.name.as_str()))
    }

    /// The protocols of these names.
    pub fn protocols(&self, names: &BTreeSet<String>) -> Vec<Protocol> {
        let find = |name: &String| {
            self.protocols
                .binary_search_by(|protocol| protocol.name.cmp(name))
                .ok()
        };
        names
            .iter()
            .filter_map(find)
            .map(|index| self.protocols[index].clone())
            .collect()
    }
}

impl Observer {
    /// An observer of this kernel and this BIRD.
    pub fn new(kernel: Arc<dyn Kernel>, committer: Arc<dyn Bird>) -> Self {
        Self {
            kernel,
            committer,
            links: Shared::default(),
            bird: Shared::default(),
            looks: watch::Sender::default(),
            kernel_error: std::sync::Mutex::default(),
        }
    }

    /// The kernel, not older than this.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn kernel(&self, not_before: Instant) -> Result<Arc<KernelView>, Arc<KernelError>> {
        let look = || async {
            let view = self.kernel.observe().await.map(Arc::new).map_err(Arc::new);
            let error = view
                .as_ref()
                .err()
                .map(|error| crate::telemetry::chain(&**error));
            *self
                .kernel_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = error;
            view
        };
        self.links.get(not_before, look).await
    }

    /// Why the last look at the kernel failed.
    pub fn kernel_error(&self) -> Option<String> {
        self.kernel_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// BIRD at the last look.
    pub fn last_bird(&self) -> Arc<BirdState> {
        Arc::clone(&self.looks.borrow())
    }

    /// BIRD, not older than this.
    pub async fn bird(&self, not_before: Instant) -> Arc<BirdState> {
        let look = || async {
            let state = Arc::new(self.committer.look().await);
            self.looks.send_replace(Arc::clone(&state));
            state
        };
        self.bird.get(not_before, look).await
    }

    /// Every look at BIRD from now on, the latest if several are taken at once.
    pub fn looks(&self) -> watch::Receiver<Arc<BirdState>> {
        self.looks.subscribe()
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

    async fn set_base(&self, files: BTreeMap<String, String>) -> Result<Committed, BaseError> {
        self.set_base(files).await
    }

    async fn converge(&self) -> Result<Committed, Arc<CommitError>> {
        self.converge().await
    }

    async fn restart(&self, name: BirdName) -> Result<(), BirdError> {
        self.client().restart(name).await
    }
}

/// Everything about BIRD that a plan or a status needs. Reads only.
pub async fn look_at_bird(committer: &Committer) -> BirdState {
    let client = committer.client();
    let mut state = BirdState::default();
    match committer.live().await {
        Ok(live) => state.live = live,
        Err(error) => state.files_error = Some(crate::telemetry::chain(&*error)),
    }
    state.running = client.version().await.ok();
    state.installed = committer.checker().installed().await;
    match client.version().await {
        Ok(version) => state.running = Some(version),
        Err(error) => state.down = Some(crate::telemetry::chain(&error)),
    }
    if state.is_running() {
        state.protocols = client.protocols().await.unwrap_or_default();
        state.loaded = committer.is_loaded(&state.live).await;
    }
    state
}

/// The last value of something that costs, with when it was begun.
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
    use std::sync::atomic::{AtomicU32, Ordering};
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
