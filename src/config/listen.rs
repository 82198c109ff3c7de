use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::model::shown;

/// Address of the local API: `127.0.0.1:24368`, `:24368` (every address) or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// The text is not a valid address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid listen address {0}: use 127.0.0.1:24368, [::1]:24368, :24368 or unix:/path")]
pub struct InvalidListen(String);

impl Listen {
    /// Returns whether only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;
    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let wrong = || InvalidListen(shown(text));
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(wrong())
            };
        }
        match text.strip_prefix(':') {
            // The IPv6 wildcard accepts IPv4 too.
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                let port = port.parse().map_err(|_| wrong())?;
                Ok(Self::Tcp(SocketAddr::new(
                    Ipv6Addr::UNSPECIFIED.into(),
                    port,
                )))
            }
            _ => text.parse().map(Self::Tcp).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        for (text, local) in [
            ("127.0.0.1:24368", true),
            ("[::1]:24368", true),
            ("unix:/run/moenet-agent/api.sock", true),
            (":24368", false),
            ("0.0.0.0:1", false),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:80", false),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().is_local(), local, "{text}");
        }
        for text in [
            "",
            "24368",
            "localhost:1",
            "unix:",
            "unix:relative",
            ":99999",
            ":+1",
            "127.0.0.1",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
