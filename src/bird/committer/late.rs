//! Commits that did not end in time. They back off as one failure of the commit, and fail no object: the machine is
//! slow, or BIRD hangs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::intervals::COMMIT_RETRY;
use crate::ports::CommitError;
use crate::telemetry::chain;
use crate::util::backoff::Backoff;

/// The last commits that did not end in time.
#[derive(Debug, Default)]
pub(super) struct Late {
    failures: u32,
    last: Option<(Instant, Arc<CommitError>)>,
}

impl Late {
    /// Returns the error of the last commit while the next one has to wait.
    pub(super) fn waits(&self, now: Instant) -> Option<Arc<CommitError>> {
        let (until, error) = self.last.as_ref()?;
        (now < *until).then(|| Arc::clone(error))
    }

    /// Records the end of a commit. Logs the first of several that did not end in time, and the first that did.
    pub(super) fn ended(&mut self, error: Option<&Arc<CommitError>>, now: Instant) {
        match error.filter(|error| error.is_late()) {
            Some(error) => {
                let wait = self.missed(error, now);
                if self.failures == 1 {
                    let error = chain(&**error);
                    tracing::warn!(error, retry_in = ?wait, "BIRD files not committed in time");
                }
            }
            None if self.failures > 0 => {
                tracing::info!(late = self.failures, "BIRD files committed in time again");
                *self = Self::default();
            }
            None => {}
        }
    }

    fn missed(&mut self, error: &Arc<CommitError>, now: Instant) -> Duration {
        let wait = Backoff::new(COMMIT_RETRY.0, COMMIT_RETRY.1).wait(self.failures);
        self.failures += 1;
        self.last = Some((now + wait, Arc::clone(error)));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::CheckError;

    #[test]
    fn late_commit_waits_longer_each_time() {
        let timeout = CheckError::Timeout {
            program: "bird".into(),
            deadline: Duration::from_secs(10),
        };
        let (mut late, start) = (Late::default(), Instant::now());
        let error = Arc::new(CommitError::Check(timeout));
        let at = |seconds| start + Duration::from_secs(seconds);
        late.ended(Some(&error), start);
        assert!(late.waits(start).is_some() && late.waits(at(1)).is_none());
        late.ended(Some(&error), at(1));
        assert!(late.waits(at(2)).is_some() && late.waits(at(3)).is_none());
        late.ended(Some(&Arc::new(CommitError::Gone)), at(3));
        assert!(late.waits(at(3)).is_none(), "another error does not wait");
        late.ended(Some(&error), at(4));
        assert!(late.waits(at(5)).is_none(), "the wait begins again");
    }
}
