//! Texts that several hold at a time: each is in memory once, however often it is read or rendered.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Number of texts up to which those without a holder stay.
const FEW: usize = 64;

static ALL: Mutex<Texts> = Mutex::new(Texts {
    known: BTreeSet::new(),
    limit: FEW,
});

struct Texts {
    known: BTreeSet<Arc<str>>,
    /// Number of texts at which those without a holder are dropped.
    limit: usize,
}

/// Size from which a text is not shared, since it would stay for a while without a holder: a table of ROAs has megabytes.
const LARGE: usize = 64 * 1024;

/// Returns the shared text with this content.
pub(crate) fn shared(text: &str) -> Arc<str> {
    if text.len() >= LARGE {
        return text.into();
    }
    ALL.lock().get(text)
}

impl Texts {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.limit {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            let held = self.known.len();
            self.limit = (held + held / 4).max(FEW);
        }
        let new: Arc<str> = text.into();
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unheld_ones_go() {
        let mut texts = Texts {
            known: BTreeSet::new(),
            limit: FEW,
        };
        let held = texts.get("held");
        assert!(Arc::ptr_eq(&held, &texts.get("held")));
        for number in 0..10 * FEW {
            texts.get(&number.to_string());
            assert!(texts.known.len() <= FEW);
        }
        assert!(Arc::ptr_eq(&held, &texts.get("held")));
    }
}
