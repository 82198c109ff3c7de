//! The protocols with their details, without asking for all details each time: with many sessions BIRD prints megabytes.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Client, Command};
use crate::intervals::BIRD_DETAILS;
use crate::observed::bird::{BirdName, Protocol, protocols};
use crate::ports::BirdError;

/// Up to this number of protocols all details are read at each observation.
const FEW: usize = 200;
/// Number of protocols in another state that are asked for one by one; more are read all at once.
const ONE_BY_ONE: usize = 16;

/// The details at the last observation, with the time at which all of them were read. A load, and a command that
/// changes a protocol, ends them.
pub(super) type Details = Mutex<Option<(Instant, Arc<[Protocol]>)>>;

impl Client {
    /// Returns every protocol, sorted by name. With more than 200, counts of routes and of limits are up to
    /// [`BIRD_DETAILS`] old; states, and all about RPKI, never are.
    ///
    /// # Errors
    /// Any [`BirdError`].
    pub async fn protocols(&self) -> Result<Arc<[Protocol]>, BirdError> {
        let known = self.details.lock().clone();
        if let Some((at, known)) = known
            && known.len() > FEW
            && at.elapsed() < BIRD_DETAILS
            && let Some(now) = self.completed(&known).await?
        {
            let now: Arc<[Protocol]> = now.into();
            let mut details = self.details.lock();
            // A load meanwhile may have changed any detail.
            if matches!(&*details, Some((_, last)) if Arc::ptr_eq(last, &known)) {
                *details = Some((at, Arc::clone(&now)));
            }
            return Ok(now);
        }
        let at = Instant::now();
        let reply = self.run(&Command::ShowProtocolsAll).await?;
        let all: Arc<[Protocol]> = protocols::parse(&reply).into();
        *self.details.lock() = Some((at, Arc::clone(&all)));
        Ok(all)
    }

    /// Returns the rows of now with the details of `known`, and with those of now where a state is another one; `None`
    /// if those are too many.
    async fn completed(&self, known: &[Protocol]) -> Result<Option<Vec<Protocol>>, BirdError> {
        let mut now = Vec::with_capacity(known.len());
        let mut asked = 0;
        for row in self.protocol_rows().await? {
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
