//! HTTP basics of the client: a URL, a header, a connection, and errors without secrets.

use std::time::Duration;

use reqwest::header::{HeaderValue, LOCATION};
use reqwest::{Response, Url};

use super::{ClientError, Failure};
use crate::model::{Secret, shown};

pub(super) fn base_url(text: &str) -> Result<Url, ClientError> {
    // The parser's errors do not repeat the text, which may hold a password.
    let mut url = Url::parse(text.trim()).map_err(|error| ClientError::Url(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(ClientError::Url(format!(
            "the scheme is {}",
            shown(url.scheme())
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        tracing::warn!(
            "controlPlane.url holds a user name or password, which is not sent; use controlPlane.token"
        );
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

pub(super) fn authorization(token: &Secret<String>) -> Result<HeaderValue, ClientError> {
    let token = token.expose().trim();
    if token.is_empty() {
        return Err(ClientError::Token);
    }
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn http_client(base: &Url, timeout: Duration) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        // The token must not be sent to another host, and a POST that a redirect turns into a GET
        // would count as delivered. The error names the new location to the operator instead.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("moenet-agent/", env!("CARGO_PKG_VERSION")));
    // A router that uses plain HTTP may have no certificates installed.
    let builder = if base.scheme() == "http" {
        builder.tls_certs_only([])
    } else {
        builder
    };
    builder.build().map_err(|error| Failure::Tls(chain(&error)))
}

pub(super) async fn read_body(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| network(&error))? {
        if body.len() + chunk.len() > max {
            return Err(Failure::TooLarge(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the target of a redirect: scheme, host and port. The rest may contain secrets.
pub(super) fn redirect(response: &Response) -> String {
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok());
    let place = location.and_then(|text| response.url().join(text).ok());
    match place {
        Some(url) => {
            format!(
                "redirected to {}; put its URL into controlPlane.url",
                url.origin().ascii_serialization()
            )
        }
        None => "redirected without a target".to_owned(),
    }
}

pub(super) fn network(error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() {
        "timed out: "
    } else {
        ""
    };
    Failure::Network(format!("{what}{}", chain(error)))
}

/// Returns whether TLS refused a certificate, of the server or of its authority.
pub(super) fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        // An I/O error that wraps another one has the source of that one, not itself, as its source.
        let wrapped = cause.downcast_ref::<std::io::Error>();
        let wrapped = wrapped.and_then(std::io::Error::get_ref);
        let tls = match wrapped {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => cause.downcast_ref(),
        };
        if let Some(tls) = tls {
            return matches!(
                tls,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
            );
        }
        source = cause.source();
    }
    false
}

/// Returns the causes of an error, the innermost last. Leaves out the outermost if it has a cause,
/// because its text contains the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if causes.is_empty() {
        "the request failed".to_owned()
    } else {
        causes.join(": ")
    }
}
