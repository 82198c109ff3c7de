//! The last answer of each list with the tag that the Control Plane gave it, so that an unchanged list costs one short
//! answer (RFC 9110, section 13.1.2).

use std::collections::BTreeMap;

use parking_lot::Mutex;
use reqwest::header::{ETAG, HeaderMap, HeaderValue};

use crate::wire::Call;

/// The kept answers. Only what could be decoded stays.
#[derive(Debug, Default)]
pub(super) struct KeptAnswers(Mutex<BTreeMap<Call, (HeaderValue, Vec<u8>)>>);

impl KeptAnswers {
    /// Returns the tag for `If-None-Match`.
    pub(super) fn tag(&self, call: Call) -> Option<HeaderValue> {
        self.0.lock().get(&call).map(|(tag, _)| tag.clone())
    }

    /// Returns the answer that is still current after a 304.
    pub(super) fn body(&self, call: Call) -> Option<Vec<u8>> {
        self.0.lock().get(&call).map(|(_, body)| body.clone())
    }

    /// Keeps an answer that has a tag, in place of the one before it.
    pub(super) fn keep(&self, call: Call, headers: &HeaderMap, body: &[u8]) {
        match headers.get(ETAG) {
            Some(tag) => self.0.lock().insert(call, (tag.clone(), body.to_vec())),
            None => self.0.lock().remove(&call),
        };
    }

    /// Forgets an answer, so that the next one comes whole.
    pub(super) fn forget(&self, call: Call) {
        self.0.lock().remove(&call);
    }
}
