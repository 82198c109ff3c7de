//! The web page: the router and its objects, read-only. It works without scripts, loads nothing from elsewhere, and every
//! text from outside is escaped and without secrets.

mod filters;

use std::sync::LazyLock;

use axum::http::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde::Serialize;
use serde_json::json;

use super::view::ObjectView;
use super::{ApiError, Overview};
use crate::redact::redact_value;

/// The path of an object's page, before the object.
pub(super) const OBJECT: &str = "/page/";
pub(super) const STYLE: &str = "/style.css";
pub(super) const SCRIPT: &str = "/live.js";
/// The address of the form that takes the token.
pub(super) const LOGIN: &str = "/login";

/// Nothing from elsewhere, no inline scripts or styles, and no frame of another page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    filters::add(&mut environment);
    for (name, text) in [
        ("layout.html", include_str!("layout.html")),
        ("overview.html", include_str!("overview.html")),
        ("object.html", include_str!("object.html")),
        ("error.html", include_str!("error.html")),
        ("login.html", include_str!("login.html")),
        ("fleet.html", include_str!("fleet.html")),
        ("fleet_router.html", include_str!("fleet_router.html")),
        ("fleet_login.html", include_str!("fleet_login.html")),
        ("glass.html", include_str!("glass.html")),
        ("glass_login.html", include_str!("glass_login.html")),
    ] {
        #[expect(clippy::expect_used, reason = "a built-in text, which a test renders")]
        environment
            .add_template(name, text)
            .expect("the template is valid");
    }
    environment
});

pub(super) fn overview(view: &Overview) -> Result<Response, ApiError> {
    page("overview.html", view)
}

pub(super) fn object(view: &ObjectView) -> Result<Response, ApiError> {
    page("object.html", view)
}

/// The form that takes the token, with the reason why the last one was refused.
pub(super) fn login(error: Option<&str>) -> Result<Response, ApiError> {
    page("login.html", &json!({ "error": error }))
}

/// Returns whether a client asks for a page first, as browsers do. Programs ask for JSON or for anything.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with("text/html"))
}

/// An error, as a page or in the format of the API.
pub(crate) fn error(error: ApiError, as_page: bool) -> Response {
    let view = json!({ "title": error.status.to_string(), "error": error.message });
    let page = as_page.then(|| page("error.html", &view).ok()).flatten();
    match page {
        Some(page) => error.with_headers((error.status, page).into_response()),
        None => error.into_response(),
    }
}

/// The looking glass, with an answer.
pub(super) fn glass(shown: &impl Serialize) -> Result<Response, ApiError> {
    page("glass.html", shown)
}

/// The form that takes the token of the looking glass.
pub(super) fn glass_login(error: Option<&str>) -> Result<Response, ApiError> {
    page("glass_login.html", &json!({ "error": error }))
}

/// A whole fleet.
pub(crate) fn fleet(view: &impl Serialize) -> Result<Response, ApiError> {
    page("fleet.html", view)
}

/// A router of a fleet.
pub(crate) fn fleet_router(view: &impl Serialize) -> Result<Response, ApiError> {
    page("fleet_router.html", view)
}

/// The form that takes the token of a role in a fleet.
pub(crate) fn fleet_login(error: Option<&str>) -> Result<Response, ApiError> {
    page("fleet_login.html", &json!({ "error": error }))
}

pub(crate) fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("style.css"))
}

pub(super) fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("live.js"))
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    protect(response.headers_mut());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn page(template: &str, view: &impl Serialize) -> Result<Response, ApiError> {
    let text = render(template, view, Timestamp::now())
        .map_err(|error| ApiError::internal(format!("cannot make the page: {error:#}")))?;
    let mut response = Html(text).into_response();
    protect(response.headers_mut());
    Ok(response)
}

fn render(
    template: &str,
    view: &impl Serialize,
    now: Timestamp,
) -> Result<String, minijinja::Error> {
    let mut view = json!(view);
    redact_value(&mut view);
    let context = json!({ "view": view, "now": now });
    TEMPLATES
        .get_template(template)?
        .render(Value::from(Serde(&context)))
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` the login form would be sent with the origin `null`, and be refused.
        (REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests;
