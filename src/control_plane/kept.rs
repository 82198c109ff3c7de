//! The last answer of each list with the tag that the Control Plane gave it, so that an unchanged list costs one short
//! answer (RFC 9110, section 13.1.2).

use std::collections::BTreeMap;

use parking_lot::Mutex;
use reqwest::header::{ETAG, HeaderMap, HeaderValue};

use crate::util::sorted::Sorted as _;
use crate::wire::Call;
use crate::wire::reference::LIST;

/// Maximum length of the name of a list.
const NAME_MAX: usize = 64;

/// The kept answers. Only what could be decoded stays.
#[derive(Debug, Default)]
pub(super) struct KeptAnswers(Mutex<BTreeMap<Call, Kept>>);

#[derive(Debug)]
struct Kept {
    tag: HeaderValue,
    body: Vec<u8>,
    /// The text with which the Control Plane names the content.
    name: Option<String>,
    /// Whether the list became documents.
    is_written: bool,
}

impl KeptAnswers {
    /// Returns the tag for `If-None-Match`.
    pub(super) fn tag(&self, call: Call) -> Option<HeaderValue> {
        self.0.lock().get(&call).map(|kept| kept.tag.clone())
    }

    /// Returns the answer that is still current after a 304 with these headers.
    pub(super) fn body(&self, call: Call, headers: &HeaderMap) -> Option<Vec<u8>> {
        let mut all = self.0.lock();
        let kept = all.get_mut(&call)?;
        kept.name = name(headers);
        Some(kept.body.clone())
    }

    /// Records that the documents of a list were written.
    pub(super) fn written(&self, call: Call) {
        if let Some(kept) = self.0.lock().get_mut(&call) {
            kept.is_written = true;
        }
    }

    /// Returns the names of the written lists that have one.
    pub(super) fn names(&self) -> BTreeMap<Call, String> {
        let all = self.0.lock();
        let written = all.iter().filter(|(_, kept)| kept.is_written);
        written
            .filter_map(|(call, kept)| Some((*call, kept.name.clone()?)))
            .sorted_map()
    }

    /// Keeps an answer that has a tag, in place of the one before it.
    pub(super) fn keep(&self, call: Call, headers: &HeaderMap, body: &[u8]) {
        match headers.get(ETAG) {
            Some(tag) => {
                let kept = Kept {
                    tag: tag.clone(),
                    body: body.to_vec(),
                    name: name(headers),
                    is_written: false,
                };
                self.0.lock().insert(call, kept)
            }
            None => self.0.lock().remove(&call),
        };
    }

    /// Forgets an answer, so that the next one comes whole.
    pub(super) fn forget(&self, call: Call) {
        self.0.lock().remove(&call);
    }
}

/// Returns the name of a list, of a length that a heartbeat may have.
fn name(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(LIST)?.to_str().ok()?;
    (!name.is_empty() && name.len() <= NAME_MAX).then(|| name.to_owned())
}
