use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Invalid, shown, text_type};

/// A range of addresses that peers and loopbacks may use, besides DN42's own: a prefix without host
/// bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange(IpNet);

impl AddressRange {
    /// Returns whether the address is in the range.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    pub(crate) fn net(self) -> IpNet {
        self.0
    }
}

/// Returns whether an address is in DN42's own space: 172.20.0.0/14, 10.0.0.0/8 or fd00::/8.
pub(crate) fn is_dn42(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 10 || (first == 172 && (20..24).contains(&second))
        }
        IpAddr::V6(v6) => v6.octets().first() == Some(&0xfd),
    }
}

/// Returns whether an address is routed in the Internet, and in no range for a special purpose (RFC 6890 and the
/// registries of IANA). IPv6 that embeds IPv4, as of 6to4 and Teredo, is not: it may lead to any of these ranges.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !matches!(
            v4.octets(),
            [0 | 10 | 127 | 224..=255, ..]
                | [100, 64..=127, ..]
                | [169, 254, ..]
                | [172, 16..=31, ..]
                | [192, 0, 0 | 2, _]
                | [192, 88, 99, _]
                | [192, 168, ..]
                | [198, 18 | 19, ..]
                | [198, 51, 100, _]
                | [203, 0, 113, _]
        ),
        IpAddr::V6(v6) => match v6.segments() {
            [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
            [first, ..] => (0x2000..=0x3fff).contains(&first),
        },
    }
}

impl FromStr for AddressRange {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let net: IpNet = text.parse().map_err(|_| {
            Invalid(format!(
                "invalid address range {}: use a prefix such as 2001:db8:42::/48",
                shown(text)
            ))
        })?;
        if net.prefix_len() == 0 {
            return Err(Invalid(format!(
                "{net} is every address; name the ranges that are used"
            )));
        }
        let whole = net.trunc();
        if whole == net {
            Ok(Self(net))
        } else {
            Err(Invalid(format!(
                "{net} has bits set after its length; did you mean {whole}?"
            )))
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(AddressRange, "AddressRange", {
    "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$",
    "description": "A range of addresses.", "examples": ["2001:db8:42::/48", "192.0.2.0/24"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_no_host_bits_and_is_not_everything() {
        for text in ["2001:db8:42::/48", "192.0.2.0/24", "192.0.2.1/32"] {
            assert_eq!(text.parse::<AddressRange>().unwrap().to_string(), text);
        }
        for text in ["", "0.0.0.0/0", "::/0", "192.0.2.1/24", "192.0.2.1", "a/8"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn special_ranges_are_not_public() {
        let is = |text: &str| is_public(text.parse().unwrap());
        for public in [
            "1.1.1.1",
            "100.63.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(is(public), "{public}");
        }
        for special in [
            "0.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.20.0.53",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd42::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is(special), "{special}");
        }
    }

    #[test]
    fn space_of_dn42_has_three_ranges() {
        let is = |text: &str| is_dn42(text.parse().unwrap());
        for inside in [
            "10.0.0.1",
            "172.20.0.0",
            "172.23.255.255",
            "fd00::1",
            "fdff::",
        ] {
            assert!(is(inside), "{inside}");
        }
        for outside in [
            "172.19.255.255",
            "172.24.0.0",
            "192.168.0.1",
            "127.0.0.1",
            "fc00::1",
            "fe80::1",
            "::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is(outside), "{outside}");
        }
    }
}
