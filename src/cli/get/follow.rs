//! When `get --watch` reads again: the running agent tells of changes, and without it the files are read often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use crate::cli::api::Api;
use crate::cli::block_on;
use crate::config::Config;
use crate::intervals::{VERB_POLL, WATCH_POLL, WATCH_RETRY};

/// The hints of the running agent. They say that something has changed, and never what: the files do.
pub(super) struct Hints {
    changes: Receiver<()>,
    is_told: Arc<AtomicBool>,
    /// Whether the last read followed a hint: the agent may tell of a status before its file is written.
    is_fresh: bool,
}

impl Hints {
    /// Follows the agent's events in the background, for as long as the process runs.
    pub(super) fn begin(config: &Config) -> Self {
        let (tell, changes) = channel();
        let is_told = Arc::new(AtomicBool::new(false));
        let (config, told) = (config.clone(), Arc::clone(&is_told));
        // Without a thread the files are read often, as without an agent.
        let _ = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || block_on(follow(config, tell, &told)));
        Self {
            changes,
            is_told,
            is_fresh: false,
        }
    }

    /// Returns whether the agent tells of changes.
    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Waits until the files should be read again.
    pub(super) fn wait(&mut self) {
        let wait = match self.is_told() && !self.is_fresh {
            true => WATCH_POLL,
            false => VERB_POLL,
        };
        self.is_fresh = match self.changes.recv_timeout(wait) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                crate::util::task::pause(wait);
                false
            }
        };
        // Changes that came together are one reading.
        while self.changes.try_recv().is_ok() {}
    }
}

/// Tells of each part of the stream; the agent ends it from time to time.
async fn follow(config: Config, tell: Sender<()>, is_told: &AtomicBool) -> anyhow::Result<()> {
    loop {
        if let Ok(api) = Api::new(&config)
            && let Ok(mut events) = api.events().await
        {
            is_told.store(true, Ordering::Relaxed);
            while let Ok(Some(_)) = events.chunk().await {
                if tell.send(()).is_err() {
                    return Ok(());
                }
            }
        }
        is_told.store(false, Ordering::Relaxed);
        // Something may have changed since the stream ended.
        if tell.send(()).is_err() {
            return Ok(());
        }
        tokio::time::sleep(WATCH_RETRY).await;
    }
}
