//! The protocols with their details, without asking for all details each time: with many sessions BIRD prints megabytes.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Client, Command};
use crate::intervals::BIRD_DETAILS;
use crate::observed::bird::{BirdName, Protocol, Reply, protocols};
use crate::ports::BirdError;

/// Up to this number of protocols all details are read at each observation.
const FEW: usize = 200;
/// Number of protocols in another state that are asked for one by one; more are read all at once.
const ONE_BY_ONE: usize = 16;

/// The last observation. A load, and a command that changes a protocol, ends it.
pub(super) type Details = Mutex<Option<Known>>;

/// The protocols of an observation.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// The time at which all details were read.
    at: Instant,
    protocols: Arc<[Protocol]>,
    /// The rows that they were completed from; none after all details were read.
    rows: Option<Arc<Reply>>,
}

impl Known {
    /// Returns whether these rows show the same protocols: each tells the time of its state, and the details of none change
    /// within a state, as those of RPKI do.
    fn is_of(&self, rows: &Reply) -> bool {
        let is_still = |it: &Protocol| it.since.is_some() && it.rpki.is_none();
        self.rows.as_deref() == Some(rows) && self.protocols.iter().all(is_still)
    }
}

impl Client {
    /// Returns every protocol, sorted by name. With more than 200, counts of routes and of limits are up to
    /// [`BIRD_DETAILS`] old; states, and all about RPKI, never are.
    ///
    /// # Errors
    /// Any [`BirdError`].
    pub async fn protocols(&self) -> Result<Arc<[Protocol]>, BirdError> {
        let known = self.details.lock().clone();
        if let Some(known) = known
            && known.protocols.len() > FEW
            && known.at.elapsed() < BIRD_DETAILS
        {
            let rows = self.run(&Command::ShowProtocols).await?;
            if known.is_of(&rows) {
                return Ok(known.protocols);
            }
            if let Some(now) = self.completed(&known.protocols, &rows).await? {
                let now: Arc<[Protocol]> = now.into();
                let mut details = self.details.lock();
                // A load meanwhile may have changed any detail.
                if let Some(last) = &mut *details
                    && Arc::ptr_eq(&last.protocols, &known.protocols)
                {
                    (last.protocols, last.rows) = (Arc::clone(&now), Some(Arc::new(rows)));
                }
                return Ok(now);
            }
        }
        let at = Instant::now();
        let reply = self.run(&Command::ShowProtocolsAll).await?;
        let all: Arc<[Protocol]> = protocols::parse(&reply).into();
        *self.details.lock() = Some(Known {
            at,
            protocols: Arc::clone(&all),
            rows: None,
        });
        Ok(all)
    }

    /// Returns the rows of now with the details of `known`, and with those of now where a state is another one; `None`
    /// if those are too many.
    async fn completed(
        &self,
        known: &[Protocol],
        rows: &Reply,
    ) -> Result<Option<Vec<Protocol>>, BirdError> {
        let mut now = Vec::with_capacity(known.len());
        let mut asked = 0;
        for row in protocols::parse(rows) {
            let before = known.binary_search_by(|it| it.name.cmp(&row.name));
            let same = before.ok().and_then(|index| known.get(index)?.in_row(&row));
            if let Some(same) = same {
                now.push(same);
                continue;
            }
            asked += 1;
            let Ok(name) = BirdName::new(&row.name) else {
                return Ok(None);
            };
            if asked > ONE_BY_ONE {
                return Ok(None);
            }
            let found = match self.run(&Command::ShowProtocol(name)).await {
                Ok(reply) => protocols::parse(&reply).pop(),
                Err(error) if error.is_refused() => None,
                Err(error) => return Err(error),
            };
            // It went away after its row was read.
            let Some(found) = found else {
                return Ok(None);
            };
            now.push(found);
        }
        Ok(Some(now))
    }
}
