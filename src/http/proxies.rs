//! The client of a request that came through a reverse proxy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::model::AddressRange;

/// A request's client, as limits count it; the peer, until the headers of proxies are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Client {
    /// On loopback or a unix socket.
    #[default]
    Local,
    Address(IpAddr),
    /// Behind a proxy whose headers do not name it.
    Unnamed,
}

impl From<Option<IpAddr>> for Client {
    fn from(counted: Option<IpAddr>) -> Self {
        counted.map_or(Self::Local, Self::Address)
    }
}

impl Client {
    /// Returns the client of a request.
    pub(crate) fn of(request: &Parts) -> Self {
        let client = request.extensions.get::<Self>().copied();
        client.unwrap_or_default()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Address(address) => address.fmt(f),
            Self::Unnamed => f.write_str("unnamed"),
        }
    }
}

/// Trusted reverse proxies: their headers name the client. A client could write these headers itself, so only the last hop of
/// a header, which the proxy added, counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies(Vec<AddressRange>);

impl Proxies {
    pub(crate) fn new(ranges: Vec<AddressRange>) -> Self {
        Self(ranges)
    }

    /// Returns whether connections of this address are a proxy's. A unix socket (`None`) counts as loopback.
    pub(super) fn has(&self, peer: Option<IpAddr>) -> bool {
        let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let has = |address| self.0.iter().any(|range| range.contains(address));
        peer.map_or_else(|| local.into_iter().any(has), has)
    }

    /// Replaces the peer of a request by the client that a proxy names.
    pub(crate) fn name_client(&self, request: &mut Parts) {
        let client = self.client(Client::of(request), &request.headers);
        request.extensions.insert(client);
    }

    /// Returns the client by which limits count. If a proxy's two headers disagree, one of them is the client's own. Without
    /// either header the request is the proxy's.
    fn client(&self, peer: Client, headers: &HeaderMap) -> Client {
        let address = match peer {
            Client::Local => None,
            Client::Address(address) => Some(address),
            Client::Unnamed => return peer,
        };
        if !self.has(address) {
            return peer;
        }
        let plain = last(headers, "x-forwarded-for").map(node);
        let standard = last(headers, "forwarded").map(forwarded_for);
        let named = match (plain, standard) {
            (None, None) => return peer,
            (Some(plain), Some(standard)) if plain != standard => None,
            (plain, standard) => plain.or(standard).flatten(),
        };
        named.map_or(Client::Unnamed, Client::Address)
    }
}

/// Returns the last element of a header that is a list.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?;
    Some(line.to_str().map_or("", |line| last_part(line, ',')))
}

/// Returns the address of `for=` (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut rest = element;
    loop {
        let part = last_part(rest, ';');
        let (key, value) = part.trim().split_once('=')?;
        if key.eq_ignore_ascii_case("for") {
            return node(value.trim_matches('"'));
        }
        rest = rest.get(..rest.len().checked_sub(part.len() + 1)?)?;
    }
}

/// Returns the part after the last separator outside of quotes: a quoted value may have a client's text.
fn last_part(text: &str, separator: char) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    let mut start = 0;
    for (at, found) in text.char_indices() {
        match found {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            found if found == separator && !quoted => start = at + found.len_utf8(),
            _ => {}
        }
    }
    text.get(start..).unwrap_or_default()
}

/// Parses an address, perhaps in brackets or with a port.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse().map(|it: SocketAddr| it.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.1";

    fn client(peer: Option<&str>, lines: &[(&'static str, &str)]) -> Client {
        let ranges = ["127.0.0.1/32", "2001:db8::/64"].map(|range| range.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        Proxies::new(ranges.into()).client(peer.into(), &headers)
    }

    fn address(text: &str) -> Client {
        Client::Address(text.parse().unwrap())
    }

    #[test]
    fn last_hop_of_a_proxy_is_the_client() {
        for lines in [
            &[("x-forwarded-for", "198.51.100.9, 192.0.2.1")][..],
            &[
                ("x-forwarded-for", "198.51.100.9"),
                ("x-forwarded-for", CLIENT),
            ],
            &[("forwarded", "for=198.51.100.9, For=192.0.2.1;proto=https")],
            &[("forwarded", "proto=https; for=\"192.0.2.1:4711\"")],
            &[("x-forwarded-for", CLIENT), ("forwarded", "for=192.0.2.1")],
            &[("x-forwarded-for", "::ffff:192.0.2.1")],
        ] {
            for peer in [None, Some("127.0.0.1"), Some("2001:db8::7")] {
                assert_eq!(client(peer, lines), address(CLIENT), "{lines:?}");
            }
        }
        let sixth = [("forwarded", "for=\"[2001:db8:1::2]:4711\"")];
        assert_eq!(client(None, &sixth), address("2001:db8:1::2"));
    }

    #[test]
    fn header_of_a_stranger_counts_for_nothing() {
        let lines = [("x-forwarded-for", CLIENT)];
        let stranger = "198.51.100.9";
        assert_eq!(client(Some(stranger), &lines), address(stranger));
        assert!(!Proxies::default().has(None), "off by default");
    }

    #[test]
    fn doubtful_header_is_no_request_of_the_proxy() {
        assert_eq!(client(None, &[]), Client::Local);
        assert_eq!(client(Some("127.0.0.1"), &[]), address("127.0.0.1"));
        for lines in [
            &[("x-forwarded-for", "unknown")][..],
            &[("x-forwarded-for", "192.0.2.1,")],
            &[("forwarded", "for=_hidden")],
            &[("forwarded", "host=\"x, for=192.0.2.1\"")],
            &[("forwarded", "host=\"x\\\", for=192.0.2.1;y=\"")],
            &[("forwarded", "host=\"x;for=192.0.2.1")],
            // One of them is the client's own.
            &[("x-forwarded-for", CLIENT), ("forwarded", "for=192.0.2.2")],
            &[("x-forwarded-for", CLIENT), ("forwarded", "for=unknown")],
        ] {
            for peer in [None, Some("127.0.0.1")] {
                assert_eq!(client(peer, lines), Client::Unnamed, "{lines:?}");
            }
        }
    }
}
