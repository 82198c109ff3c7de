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
