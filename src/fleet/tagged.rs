//! Answers with a tag of their content, so that an unchanged one costs a 304 without a body (RFC 9110, section 13.1.2).

use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Returns the answer, or 304 if the client has it.
pub(super) fn tagged(answer: &Value, request: &HeaderMap) -> Response {
    let body = answer.to_string();
    let tag = tag(body.as_bytes());
    let is_known = has(request, &tag);
    // Weak: the same answer may be compressed or not. Hexadecimal digits in quotes are a valid header value.
    let tag = HeaderValue::try_from(format!("W/{tag}")).unwrap_or(HeaderValue::from_static("\"\""));
    match is_known {
        true => (StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response(),
        false => {
            let json = HeaderValue::from_static("application/json");
            ([(CONTENT_TYPE, json), (ETAG, tag)], body).into_response()
        }
    }
}

/// Returns the tag of a content, in quotes.
pub(super) fn tag(body: &[u8]) -> String {
    format!("\"{:x}\"", Sha256::digest(body))
}

/// Returns whether the client has an answer with this tag. The comparison is the weak one.
fn has(request: &HeaderMap, tag: &str) -> bool {
    let lists = request.get_all(IF_NONE_MATCH).iter();
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}
