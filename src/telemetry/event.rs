//! An event of the log, before it has a form. The message of the agent's own events is constant text; values come from
//! outside, and lose their secrets.

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::redact::redact;

/// The field with the text of an event.
const MESSAGE: &str = "message";

/// The AS numbers of the sessions' peers, by object.
static ASNS: RwLock<BTreeMap<String, u32>> = RwLock::new(BTreeMap::new());

/// Sets the AS number that lines about an object have as `asn`.
pub(crate) fn set_asns(asns: BTreeMap<String, u32>) {
    *ASNS.write() = asns;
}

/// An event.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    /// The module that logged it, of events of a library.
    pub(super) library: Option<&'static str>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Line {
    /// Creates a line of the agent itself.
    pub(super) fn new(level: Level, message: &str, fields: Vec<(&'static str, Value)>) -> Self {
        Self {
            time: Timestamp::now(),
            level,
            library: None,
            message: message.to_owned(),
            fields,
        }
    }

    /// Reads an event.
    pub(super) fn of(event: &Event<'_>) -> Self {
        let about = event.metadata();
        let own = about.target().starts_with(env!("CARGO_CRATE_NAME"));
        let mut line = Self::new(*about.level(), "", Vec::new());
        event.record(&mut line);
        line.add_asn();
        if !own {
            line.library = Some(about.target());
            line.message = redact(&line.message).into_owned();
        }
        line
    }

    fn add_asn(&mut self) {
        let has = |name| self.fields.iter().find(|(field, _)| *field == name);
        if has("asn").is_some() {
            return;
        }
        let object = has("object").and_then(|(_, object)| object.as_str());
        if let Some(asn) = object.and_then(|object| ASNS.read().get(object).copied()) {
            self.fields.push(("asn", asn.into()));
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let name = field.name();
        if name == MESSAGE {
            text.clone_into(&mut self.message);
            return;
        }
        // With the name, because a public key is readable only after the word.
        let named = format!("{name}={text}");
        let shown = redact(&named);
        let rest = shown
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='));
        self.push(field, rest.unwrap_or(&shown).into());
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = format!("{value:?}");
        // The text in a text's debug form.
        let text = serde_json::from_str::<String>(&shown);
        self.text(field, text.as_deref().unwrap_or(&shown));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;
    use crate::redact::{forget, remember};

    #[derive(Clone, Default)]
    struct Caught(Arc<Mutex<Vec<Line>>>);

    impl<S: tracing::Subscriber> Layer<S> for Caught {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Line::of(event));
        }
    }

    fn caught(log: impl FnOnce()) -> Line {
        let caught = Caught::default();
        let registry = tracing_subscriber::registry().with(caught.clone());
        tracing::subscriber::with_default(registry, log);
        let mut lines = caught.0.lock().unwrap();
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }

    #[test]
    fn lines_about_a_session_have_its_asn() {
        set_asns([("sessions/wg_event".to_owned(), 4_242_421_080)].into());
        let of = |object: &'static str| caught(|| tracing::info!(object, "line")).fields;
        let asn = ("asn", 4_242_421_080_u32.into());
        assert_eq!(of("sessions/wg_event")[1..], [asn]);
        assert_eq!(of("sessions/wg_other").len(), 1);
    }

    #[test]
    fn values_lose_secrets_and_constant_text_stays() {
        remember("event", "a-word-of-the-log");
        let line = caught(|| {
            let error = String::from("it is a-word-of-the-log or");
            tracing::warn!(error, shown = ?error, display = %error, lines = 5, "this is a-word-of-the-log");
        });
        let library = caught(|| tracing::warn!(target: "library", "of a-word-of-the-log"));
        forget("event");
        assert_eq!(line.message, "this is a-word-of-the-log");
        assert_eq!(line.library, None);
        for (name, value) in &line.fields[..3] {
            assert_eq!(value, "it is (secret) or", "{name}");
        }
        assert_eq!(line.fields[3], ("lines", 5.into()));
        assert_eq!(library.library, Some("library"));
        assert_eq!(library.message, "of (secret)");
    }
}
