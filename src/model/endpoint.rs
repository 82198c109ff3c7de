use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::range::is_public;
use super::{Invalid, Port, shown, text_type};

/// Address on which a peer's WireGuard listens: `host:port`, `203.0.113.9:51820` or
/// `[2001:db8::1]:51820`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A name that needs resolving, or an address that does not.
    pub host: Host,
    /// The UDP port.
    pub port: Port,
}

/// The host half of an [`Endpoint`], and of an RPKI server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name of letters, digits, `-`, `_` and dots, lower case, at most 253 bytes.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Endpoint {
    /// Returns the socket address, when no name needs resolving.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Address(address) => Some(SocketAddr::new(address, self.port.get())),
            Host::Name(_) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wanted = || {
            Invalid(format!(
                "invalid endpoint {}: use host:port, 192.0.2.1:port or [2001:db8::1]:port",
                shown(text)
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port = port.parse().map_err(|_| wanted())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => Host::address(IpAddr::V6(v6.parse().map_err(|_| wanted())?)),
            None => parse_host(host).ok_or_else(wanted)?,
        };
        Ok(Self { host, port })
    }
}

impl Host {
    /// Returns whether every network of the Internet may have this host: its address is routed there, or its name is one
    /// of the public DNS. The addresses of a name are unknown here.
    pub(crate) fn is_public(&self) -> bool {
        match self {
            Self::Address(address) => is_public(*address),
            Self::Name(name) => {
                let (_, last) = name.rsplit_once('.').unwrap_or_default();
                !["", "localhost", "local", "internal", "arpa", "dn42"].contains(&last)
            }
        }
    }

    /// Returns an address host. IPv4 written as IPv6 (`::ffff:192.0.2.1`) becomes IPv4.
    pub fn address(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl FromStr for Host {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse::<Ipv6Addr>() {
            Ok(v6) => Some(Self::address(v6.into())),
            Err(_) => parse_host(text),
        }
        .ok_or_else(|| Invalid(format!("must be a name or an address, not {}", shown(text))))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

text_type!(Host, "Host", {
    "type": "string", "pattern": r"^[0-9A-Za-z:._\[\]-]+$",
    "description": "A DNS name or an address.", "examples": ["rpki.example.dn42", "172.20.129.189"]
});

/// Returns a name in lower case without its final dot, or an IPv4 address.
fn parse_host(text: &str) -> Option<Host> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    if let Ok(v4) = bare.parse() {
        return Some(Host::Address(IpAddr::V4(v4)));
    }
    let name = bare.to_ascii_lowercase();
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits only would be a mistyped IPv4 address (RFC 3696, section 2), and getaddrinfo(3) takes one in
    // hexadecimal for an address too.
    let last = name.rsplit('.').next()?;
    let hexadecimal = last.strip_prefix("0x");
    let numeric_end = last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    (name.len() <= 253 && !numeric_end && name.split('.').all(label_ok)).then_some(Host::Name(name))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port.get()).fmt(f),
        }
    }
}

text_type!(Endpoint, "Endpoint", {
    "type": "string",
    "description": "Where the peer's WireGuard listens: host:port or [v6]:port.",
    "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$",
    "examples": ["example.com:51820", "[2001:db8::1]:51820"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_families_read_back_as_written() {
        for text in [
            "example.com:51820",
            "192.0.2.1:1",
            "[2001:db8::1]:65535",
            "_wg.a-b.dn42:9",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn two_spellings_of_one_endpoint_are_equal() {
        for (one, other) in [
            ("Example.COM.:51820", "example.com:51820"),
            ("[2001:DB8:0::1]:5", "[2001:db8::1]:5"),
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
            ("192.0.2.1.:5", "192.0.2.1:5"),
            ("a.b:0051", "a.b:51"),
        ] {
            let [one, other] = [one, other].map(|text| text.parse::<Endpoint>().unwrap());
            assert_eq!((&one, one.to_string()), (&other, other.to_string()));
        }
        for (one, other) in [
            ("RPKI.Example.DN42.", "rpki.example.dn42"),
            ("[2001:DB8::1]", "2001:db8:0::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(one.parse::<Host>(), other.parse::<Host>());
        }
        assert!("a b".parse::<Host>().is_err());
    }

    #[test]
    fn hostile_endpoints_are_refused() {
        for text in [
            "",
            ":",
            "a:0",
            "a:65536",
            "a b:1",
            "a\n:1",
            "-a:1",
            "a..b:1",
            "2001:db8::1:51820x",
            "256.1.1.1:5",
            "[::1:5",
            "a",
            "[fe80::1%eth0]:5",
            "a:+5",
            "a: 5",
            "0x7f.0x1:5",
            "a.0xA:5",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
