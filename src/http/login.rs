//! The login of a browser, which cannot send `Authorization`: a form takes the token and answers with a cookie. The
//! cookie proves the token to this process only, opens the web page and `/events` only, and ends with the browser, with
//! the process, or with the token.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::model::Secret;

/// What the cookies of this process are made with.
pub(crate) struct Logins {
    /// The name of the cookie. Cookies ignore ports, and other agents may be forwarded to the same host.
    name: String,
    /// The paths that get the cookie: this one and those below it.
    path: &'static str,
    /// Whether browsers send the cookie over TLS only.
    secure: bool,
    key: Secret<[u8; 32]>,
}

impl Logins {
    pub(crate) fn new(path: &'static str) -> Self {
        Self {
            name: format!("moenet-agent-{:08x}", rand::random::<u32>()),
            path,
            secure: false,
            key: Secret::new(rand::random()),
        }
    }

    /// For a server with TLS: its cookies are never sent without.
    pub(crate) fn secure(self, has_tls: bool) -> Self {
        Self {
            secure: has_tls,
            ..self
        }
    }

    /// Returns the cookie of someone who knows the token.
    pub(crate) fn cookie(&self, token: &Secret<String>) -> Option<HeaderValue> {
        let (name, path, value) = (&self.name, self.path, self.value(token));
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Path={path}{secure}");
        let mut cookie = HeaderValue::from_str(&cookie).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }

    /// Returns whether a request carries the cookie of this token.
    pub(crate) fn is_known(&self, headers: &HeaderMap, token: &Secret<String>) -> bool {
        let wanted = self.value(token);
        let lines = headers.get_all(COOKIE).iter();
        let cookies = lines.filter_map(|line| line.to_str().ok());
        let cookies = cookies.flat_map(|line| line.split(';'));
        let values = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        values
            .filter(|(name, _)| *name == self.name)
            .any(|(_, value)| value.as_bytes().ct_eq(wanted.as_bytes()).into())
    }

    fn value(&self, token: &Secret<String>) -> String {
        let digest = Sha256::new()
            .chain_update(self.key.expose())
            .chain_update(token.expose());
        let digest = digest.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the token that the form sent.
pub(crate) fn token_of(body: &[u8]) -> Option<String> {
    let mut fields = form_urlencoded::parse(body);
    let token = fields.find(|(name, _)| name == "token");
    token.map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    #[test]
    fn cookie_opens_with_its_token_and_process_only() {
        let (logins, others) = (Logins::new("/"), Logins::new("/"));
        let token = Secret::new("s3cret".to_owned());
        let cookie = logins.cookie(&token).unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        assert!(!cookie.contains("s3cret"));
        let sent = headers(&format!("theme=dark; {cookie}; lang=en"));
        assert!(logins.is_known(&sent, &token));
        assert!(!logins.is_known(&sent, &Secret::new("other".to_owned())));
        assert!(!others.is_known(&sent, &token));
        let name = format!("{}=", logins.name);
        for wrong in ["", &name, &cookie[..cookie.len() - 1]] {
            assert!(!logins.is_known(&headers(wrong), &token), "{wrong}");
        }
    }

    #[test]
    fn cookie_of_a_server_with_tls_is_secure() {
        let token = Secret::new("s3cret".to_owned());
        for has_tls in [false, true] {
            let cookie = Logins::new("/").secure(has_tls).cookie(&token).unwrap();
            assert_eq!(cookie.to_str().unwrap().ends_with("; Secure"), has_tls);
        }
    }

    #[test]
    fn token_of_the_form_is_decoded() {
        assert_eq!(token_of(b"token=a%2Bb+c&x=1").as_deref(), Some("a+b c"));
        assert_eq!(token_of(b"x=1"), None);
    }
}
