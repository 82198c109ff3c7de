use std::sync::atomic::{AtomicU64, Ordering};

/// The counted results; a withheld request was never sent.
const WORDS: [&str; 9] = [
    "ok",
    "auth",
    "not_found",
    "rate_limited",
    "refused",
    "server",
    "network",
    "body",
    "withheld",
];

/// Number of calls by result, for the metrics.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; WORDS.len()]);

impl Counters {
    pub(super) fn count(&self, word: &'static str) {
        if let Some(counter) = WORDS
            .iter()
            .position(|known| *known == word)
            .and_then(|i| self.0.get(i))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns each result with its number.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        WORDS
            .iter()
            .zip(&self.0)
            .map(|(word, counter)| (*word, counter.load(Ordering::Relaxed)))
            .collect()
    }
}
