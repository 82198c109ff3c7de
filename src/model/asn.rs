use std::fmt;
use std::num::NonZeroU32;

use super::{Invalid, Port, number_type};

/// An AS number that a network can have: 4 bytes (RFC 6793), without the reserved numbers 0 (RFC
/// 7607), 23456 (RFC 6793), 65535 and 4294967295 (RFC 7300).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(NonZeroU32);

impl Asn {
    /// Numbers that no network has, besides 0.
    const RESERVED: [u32; 3] = [23_456, 65_535, u32::MAX];

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Returns the last four decimal digits, from which DN42 builds addresses and ports.
    pub fn last_four(self) -> u16 {
        // The remainder is below 10000, which fits.
        (self.get() % 10_000) as u16
    }

    /// Returns the conventional listen port towards this peer: `2` and the last four digits of its
    /// ASN (docs/contract/session.md#listen-port): AS4242421080 has 21080, AS7 has 20007.
    pub fn conventional_port(self) -> Port {
        Port::new(20_000 + self.last_four()).unwrap_or(Port::MIN)
    }
}

impl TryFrom<u64> for Asn {
    type Error = Invalid;
    fn try_from(number: u64) -> Result<Self, Invalid> {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .filter(|number| !Self::RESERVED.contains(&number.get()))
            .map(Self)
            .ok_or_else(|| {
                let rule = "use 1..4294967294 except 23456 and 65535";
                Invalid(format!("invalid AS number {number}: {rule}"))
            })
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number_type!(Asn, "Asn", {
    "type": "integer", "minimum": 1, "maximum": 4294967294u32, "not": {"enum": [23456, 65535]},
    "description": "A 4-byte AS number.", "examples": [4242421080u32]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conventional_port_is_2_and_the_last_four_digits() {
        for (asn, port) in [
            (4242421080, 21080),
            (4242420007, 20007),
            (65000, 25000),
            (7, 20007),
        ] {
            assert_eq!(Asn::try_from(asn).unwrap().conventional_port().get(), port);
        }
    }

    #[test]
    fn reserved_numbers_are_no_as_numbers() {
        for number in [0, 23_456, 65_535, 4_294_967_295, 1 << 32] {
            assert!(Asn::try_from(number).is_err(), "{number}");
        }
        for number in [1, 65_534, 65_536, 4_294_967_294] {
            assert!(Asn::try_from(number).is_ok(), "{number}");
        }
    }
}
