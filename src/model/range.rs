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
}
