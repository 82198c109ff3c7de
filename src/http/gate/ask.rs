//! The question of a request. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::ApiError;

pub(super) const ROUTE: &str = "route";
pub(super) const PING: &str = "ping";
pub(super) const TRACE: &str = "trace";

/// The longest text that is an address or a prefix.
const LONGEST: usize = 49;

/// A question, after everything in it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Route(IpNet),
    Ping(IpAddr),
    Trace(IpAddr),
}

impl Ask {
    /// Parses a question.
    ///
    /// # Errors
    /// An unknown word, or a target that is no address, or for a route no prefix. The error does not quote it.
    pub(super) fn parse(word: &str, target: &str) -> Result<Self, ApiError> {
        let target = target.trim();
        match word {
            ROUTE => prefix(target).map(Self::Route),
            PING => address(target).map(Self::Ping),
            TRACE => address(target).map(Self::Trace),
            _ => None,
        }
        .ok_or_else(|| {
            ApiError::bad_request(match word {
                ROUTE => "the target is no prefix and no address; write 172.20.0.0/24 or fd00::1",
                PING | TRACE => "the target is no IP address; names are not resolved",
                _ => "ask is route, ping or trace",
            })
        })
    }
}

fn address(text: &str) -> Option<IpAddr> {
    if text.len() > LONGEST {
        return None;
    }
    text.parse().ok()
}

fn prefix(text: &str) -> Option<IpNet> {
    if text.len() > LONGEST {
        return None;
    }
    let net = text.parse::<IpNet>().map(|net| net.trunc());
    net.ok().or_else(|| address(text).map(IpNet::from))
}

/// Returns the known word, for the form.
pub(super) fn word(text: &str) -> &'static str {
    let known = [PING, TRACE].into_iter().find(|known| *known == text);
    known.unwrap_or(ROUTE)
}

/// Returns the fields `ask` and `target` of a query.
pub(super) fn fields(query: &str) -> (String, String) {
    let of = |wanted: &str| {
        let mut fields = form_urlencoded::parse(query.as_bytes());
        let field = fields.find(|(name, _)| name == wanted);
        field
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    (of("ask"), of("target"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_prefixes_are_targets() {
        for hostile in [
            "",
            "all",
            "10.0.0.0/8 all",
            "10.0.0.1\nconfigure",
            "10.0.0.1;reboot",
            "10.0.0.1%eth0",
            "fe80::1%wg0",
            "example.org",
            "10.0.0.0/33",
            "010.0.0.1",
            "\"",
            "::/129",
            &"1".repeat(1000),
        ] {
            for word in [ROUTE, PING, TRACE] {
                assert!(Ask::parse(word, hostile).is_err(), "{word} {hostile}");
            }
        }
        for prefix in ["10.0.0.0/8", "::/0"] {
            assert!(Ask::parse(PING, prefix).is_err(), "{prefix}");
        }
        assert!(Ask::parse("configure", "10.0.0.1").is_err());
    }

    #[test]
    fn route_takes_an_address_as_its_host_prefix() {
        let of = |text: &str| match Ask::parse(ROUTE, text) {
            Ok(Ask::Route(net)) => net.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(" 172.20.0.53 "), "172.20.0.53/32");
        assert_eq!(of("fd00::1"), "fd00::1/128");
        assert_eq!(of("172.20.1.5/24"), "172.20.1.0/24");
    }

    #[test]
    fn fields_are_decoded() {
        let (ask, target) = fields("ask=ping&target=fd00%3A%3A1&x=1");
        assert_eq!((ask.as_str(), target.as_str()), ("ping", "fd00::1"));
        assert_eq!(fields(""), Default::default());
    }
}
