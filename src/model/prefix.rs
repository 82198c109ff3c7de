use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::{Asn, Invalid, shown, text_type};

/// A link-local IPv6 address (fe80::/10, RFC 4291, section 2.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkLocal(Ipv6Addr);

impl LinkLocal {
    /// Returns the address.
    pub fn get(self) -> Ipv6Addr {
        self.0
    }

    /// Returns the link-local address of a router in every tunnel,
    /// `fe80::<last four decimal digits of the ASN, leading zeros dropped>:<node id>`
    /// (docs/contract/session.md#our-side-of-the-tunnel): AS4242420998, node 1 is `fe80::998:1`.
    /// The digits are written, not converted: 998 becomes `0x998`. A node id of five digits does
    /// not fit one group and takes two, four digits in the last: node 12345 is `fe80::998:1:2345`,
    /// which is no other node's address.
    pub fn derived(asn: Asn, node_id: u16) -> Self {
        let digits = hex_as_written(asn.last_four());
        let (high, low) = (
            hex_as_written(node_id / 10_000),
            hex_as_written(node_id % 10_000),
        );
        let groups = if high == 0 {
            [0, digits, low]
        } else {
            [digits, high, low]
        };
        let [one, two, three] = groups;
        Self(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, one, two, three))
    }
}

/// Returns the 16-bit group whose hexadecimal digits are the decimal digits of a number of at most
/// four digits: 1080 is `0x1080`.
fn hex_as_written(number: u16) -> u16 {
    number
        .to_string()
        .bytes()
        .fold(0, |group, digit| group * 16 + u16::from(digit - b'0'))
}

impl TryFrom<Ipv6Addr> for LinkLocal {
    type Error = Invalid;
    fn try_from(address: Ipv6Addr) -> Result<Self, Invalid> {
        if address.is_unicast_link_local() {
            Ok(Self(address))
        } else {
            Err(Invalid(format!(
                "a link-local address lies in fe80::/10; {address} does not"
            )))
        }
    }
}

impl FromStr for LinkLocal {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        parse_v6(text).and_then(Self::try_from)
    }
}

impl fmt::Display for LinkLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(LinkLocal, "LinkLocal", {
    "type": "string", "pattern": "^[fF][eE][89abAB][0-9a-fA-F:]+$",
    "description": "A link-local IPv6 address.", "examples": ["fe80::2"]
});

/// A peer's tunnel address: link-local, or unique local (fc00::/7, RFC 4193). Public addresses are
/// accepted, since networks outside DN42 also use the agent; unspecified, loopback and multicast
/// addresses are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIpv6(Ipv6Addr);

impl PeerIpv6 {
    /// Returns the address.
    pub fn get(self) -> Ipv6Addr {
        self.0
    }
}

impl FromStr for PeerIpv6 {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let address = parse_v6(text)?;
        let mapped = address.to_ipv4_mapped().is_some();
        if mapped || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(Invalid(format!(
                "{address} is not a unicast address that a peer can have"
            )));
        }
        Ok(Self(address))
    }
}

impl fmt::Display for PeerIpv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(PeerIpv6, "PeerIpv6", {
    "type": "string", "pattern": "^[0-9a-fA-F:.]+$",
    "description": "The peer's IPv6 address in the tunnel, link-local or ULA.", "examples": ["fd00:1080::1"]
});

/// Parses an IPv6 address; a prefix length (`fe80::1/64`), common on the wire, is dropped.
fn parse_v6(text: &str) -> Result<Ipv6Addr, Invalid> {
    let bare = text.split_once('/').map_or(text, |(address, length)| {
        if length.parse::<u8>().is_ok_and(|l| l <= 128) {
            address
        } else {
            text
        }
    });
    bare.parse()
        .map_err(|_| Invalid(format!("invalid IPv6 address {}", shown(text))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn our_side_is_written_from_the_digits_of_the_asn() {
        for (asn, id, want) in [
            (4242420998, 1, "fe80::998:1"),
            (4242421080, 12, "fe80::1080:12"),
            (4242420000, 3, "fe80::3"),
            (4242420998, 9999, "fe80::998:9999"),
            (4242420998, 12345, "fe80::998:1:2345"),
        ] {
            let asn = Asn::try_from(asn).unwrap();
            assert_eq!(LinkLocal::derived(asn, id).to_string(), want);
        }
    }

    #[test]
    fn no_two_nodes_of_a_network_have_one_address() {
        for asn in [4242420998, 4242420000, 4242420001] {
            let asn = Asn::try_from(asn).unwrap();
            let all: BTreeSet<_> = (1..=u16::MAX)
                .map(|id| LinkLocal::derived(asn, id))
                .collect();
            assert_eq!(all.len(), usize::from(u16::MAX));
        }
    }

    #[test]
    fn only_fe80_is_link_local() {
        assert!("fe80::1".parse::<LinkLocal>().is_ok());
        assert!("fe80::1/64".parse::<LinkLocal>().is_ok());
        for text in [
            "fd00::1",
            "::1",
            "fe80::1%eth0",
            "1.2.3.4",
            "fe80::1/x",
            "fe80::1/200",
        ] {
            assert!(text.parse::<LinkLocal>().is_err(), "{text:?}");
        }
    }
}
