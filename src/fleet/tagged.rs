//! Answers with a tag of their content, so that an unchanged one costs a 304 without a body (RFC 9110, section 13.1.2).

use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// An answer with its tag.
pub(super) struct Tagged {
    pub(super) tag: String,
    /// `None` if the client has it.
    body: Option<String>,
}

impl Tagged {
    pub(super) fn new(answer: &Value, known: &KnownTags) -> Self {
        let body = answer.to_string();
        let tag = tag(body.as_bytes());
        let body = (!known.has(&tag)).then_some(body);
        Self { tag, body }
    }

    /// Returns an answer that the client has.
    pub(super) fn unchanged(tag: String) -> Self {
        Self { tag, body: None }
    }
}

impl IntoResponse for Tagged {
    fn into_response(self) -> Response {
        // Weak: the same answer may be compressed or not. Hexadecimal digits in quotes are a valid header value.
        let tag = HeaderValue::try_from(format!("W/{}", self.tag));
        let tag = tag.unwrap_or(HeaderValue::from_static("\"\""));
        match self.body {
            None => {
                // As the answer with a body, which may be compressed (RFC 9110, section 15.4.5).
                let vary = HeaderValue::from_static("accept-encoding");
                (StatusCode::NOT_MODIFIED, [(ETAG, tag), (VARY, vary)]).into_response()
            }
            Some(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, json), (ETAG, tag)], body).into_response()
            }
        }
    }
}

/// Returns the tag of a content, in quotes.
pub(super) fn tag(body: &[u8]) -> String {
    format!("\"{:x}\"", Sha256::digest(body))
}

/// The tags of the answers that a client has.
pub(super) struct KnownTags(Vec<HeaderValue>);

impl KnownTags {
    pub(super) fn of(request: &HeaderMap) -> Self {
        Self(request.get_all(IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Returns whether the client has an answer with this tag. The comparison is the weak one.
    pub(super) fn has(&self, tag: &str) -> bool {
        let lists = self.0.iter();
        let mut tags = lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','))
            .map(str::trim);
        tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    }
}
