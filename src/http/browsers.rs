//! What a browser sends on behalf of pages of other servers.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

use super::ApiError;

/// Refuses requests that a browser sends on behalf of another page: an `Origin` other than this server (a page
/// on another port of localhost included), a `Host` name that an attacker's DNS points at 127.0.0.1 (DNS
/// rebinding), or a `Sec-Fetch-Site` of another site. The last is the only sign when a page embeds this server
/// as an image: such a GET has no `Origin`.
pub(super) fn refuse_browsers(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let host = headers.get(HOST).map(text);
    if host.is_some_and(|host| !is_local_host(&host)) {
        return Err(other_page());
    }
    refuse_other_pages(headers)
}

/// Refuses requests that a browser sends on behalf of a page that this server did not send.
pub(crate) fn refuse_other_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_owned();
    let host = headers.get(HOST).map(text);
    let origin = headers.get(ORIGIN).map(text);
    let foreign_origin = origin.is_some_and(|origin| !is_own_origin(&origin, host.as_deref()));
    let site = headers.get("sec-fetch-site").map(text);
    let foreign_page = site.is_some_and(|site| !matches!(site.as_str(), "none" | "same-origin"));
    match foreign_origin || foreign_page {
        true => Err(other_page()),
        false => Ok(()),
    }
}

fn other_page() -> ApiError {
    ApiError::bad_request(
        "pages of other origins cannot use this API, and without server.token only programs on this machine can",
    )
}

/// Returns whether a page of this origin was served by this server, as the client names it. A proxy that ends TLS makes an origin
/// `https` of what arrives here as HTTP, so both schemes count; the port of the scheme may be omitted.
fn is_own_origin(origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| {
        let name = authority.strip_suffix(port).unwrap_or(authority);
        name.to_ascii_lowercase()
    };
    Some(bare(authority)) == host.map(bare)
}

fn is_local_host(host: &str) -> bool {
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, after)) if port(after) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    let address = bare.parse::<std::net::IpAddr>();
    bare.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_server_are_own_origins() {
        let host = Some("localhost:24368");
        assert!(is_own_origin("http://localhost:24368", host));
        assert!(is_own_origin("http://LOCALHOST", Some("localhost:80")));
        // Behind a proxy that ends TLS: the page is this server's, and a browser names the scheme of the proxy.
        assert!(is_own_origin("https://localhost:24368", host));
        for name in ["glass.example", "glass.example:443"] {
            assert!(is_own_origin("https://glass.example", Some(name)));
        }
        for origin in [
            "http://localhost:3000",
            "http://localhost",
            "https://localhost",
            "https://localhost:443",
            "ftp://localhost:24368",
            "localhost:24368",
            "http://127.0.0.1:24368",
            "null",
            "",
        ] {
            assert!(!is_own_origin(origin, host), "{origin}");
        }
        assert!(!is_own_origin("http://localhost:24368", None));
        assert!(!is_own_origin(
            "https://glass.example",
            Some("glass.example:80")
        ));
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in [
            "localhost",
            "localhost:24368",
            "127.0.0.1:1",
            "[::1]:24368",
            "[::1]",
            "LOCALHOST",
            "127.1.2.3",
        ] {
            assert!(is_local_host(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil",
            "192.0.2.1",
            "",
            "null",
        ] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
