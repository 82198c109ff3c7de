//! Waits until a list has changed, if the Control Plane offers it (docs/contract/control-plane.md#long-poll).

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::sync::watch;

use super::Client;
use crate::control_plane::transport::read_body;
use crate::control_plane::{Failure, State};
use crate::intervals::LONG_POLL_MAX;
use crate::wire::reference::LONG_POLL;

/// Size limit of the answer.
const BODY_MAX: usize = 4096;

/// The longest wait that the Control Plane offered with its last answer to a list; `None` without an offer.
#[derive(Debug, Default)]
pub(super) struct Offer(watch::Sender<Option<Duration>>);

impl Offer {
    /// Reads the offer of an answer.
    pub(super) fn read(&self, headers: &HeaderMap) {
        let text = headers.get(LONG_POLL).and_then(|value| value.to_str().ok());
        let seconds = text.and_then(|text| text.parse().ok());
        let wait = seconds.filter(|seconds| *seconds > 0);
        let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONG_POLL_MAX));
        self.0.send_replace(wait);
    }

    fn end(&self) {
        self.0.send_replace(None);
    }

    async fn wait(&self) -> Duration {
        let mut offer = self.0.subscribe();
        match offer.wait_for(Option::is_some).await.map(|wait| *wait) {
            Ok(Some(wait)) => wait,
            // The sender lives as long as `self`, and the value is one.
            _ => std::future::pending().await,
        }
    }
}

impl Client {
    /// Waits until the lists have another revision than the known one, or the offered wait is over, and returns their
    /// revision. While the Control Plane offers no wait or does not answer lists, waits for its next offer.
    ///
    /// # Errors
    /// The request failed. This ends the offer; it is no failure of a list, whose next poll tells what is wrong.
    pub async fn next_revision(&self, known: Option<&str>) -> Result<String, Failure> {
        let wait = self.offer.wait().await;
        let answered = self.wait_for_revision(known, wait).await;
        if answered.is_err() || self.breaker() != State::Closed {
            self.offer.end();
        }
        answered
    }

    /// Ends an offer that the Control Plane does not keep: it answers at once although nothing changed.
    pub fn end_offer(&self) {
        self.offer.end();
    }

    async fn wait_for_revision(
        &self,
        known: Option<&str>,
        wait: Duration,
    ) -> Result<String, Failure> {
        let mut url = self.url(self.options.dialect.revision_segments(&self.options.router));
        url.query_pairs_mut()
            .append_pair("wait", &wait.as_secs().to_string())
            .extend_pairs(known.map(|known| ("revision", known)));
        let request = self
            .request(Method::GET, url, self.authorization()?)?
            .timeout(wait + self.options.request_timeout);
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body = read_body(response, BODY_MAX).await?;
        self.options
            .dialect
            .decode_revision(&body)
            .map_err(Failure::Body)
    }
}
