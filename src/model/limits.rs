use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use super::{Invalid, number_type, shown, text_type};

/// A tunnel's MTU in bytes, 1280..9000. Below 1280 IPv6 does not run (RFC 8200, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u16);

impl Mtu {
    /// 1420: the MTU of an Ethernet path minus the overhead of WireGuard over IPv6.
    pub const DEFAULT: Self = Self(1420);

    /// Returns the MTU in bytes.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Mtu {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u64> for Mtu {
    type Error = Invalid;
    fn try_from(number: u64) -> Result<Self, Invalid> {
        match u16::try_from(number) {
            Ok(mtu @ 1280..=9000) => Ok(Self(mtu)),
            _ => Err(Invalid(format!("invalid MTU {number}: use 1280..9000"))),
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number_type!(Mtu, "Mtu", {
    "type": "integer", "minimum": 1280, "maximum": 9000,
    "description": "MTU of the tunnel in bytes.", "examples": [1420]
});

/// A UDP or TCP port, 1..65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// Port 1.
    pub const MIN: Self = Self(NonZeroU16::MIN);

    /// Returns a port, unless the number is 0.
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// Returns the number.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u64> for Port {
    type Error = Invalid;
    fn try_from(number: u64) -> Result<Self, Invalid> {
        u16::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| Invalid(format!("invalid port {number}: use 1..65535")))
    }
}

impl FromStr for Port {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u64>().ok()).flatten();
        number
            .ok_or_else(|| Invalid(format!("invalid port {}: use 1..65535", shown(text))))
            .and_then(Self::try_from)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number_type!(Port, "Port", {
    "type": "integer", "minimum": 1, "maximum": 65535, "description": "A port.", "examples": [21080]
});

/// A link's bandwidth in Mbit/s, written as a number with `M` or `G`: `100M`, `1G`, `2.5G`
/// (docs/contract/node-policy-mesh.md#policy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth {
    kbit: u64,
}

impl Bandwidth {
    /// Returns the bandwidth in kbit/s.
    pub fn kbit(self) -> u64 {
        self.kbit
    }

    /// Returns the bandwidth in whole Mbit/s, rounded down.
    pub fn mbit(self) -> u64 {
        self.kbit / 1000
    }
}

impl FromStr for Bandwidth {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid(format!(
                "invalid bandwidth {}: use a number with M or G, such as 100M or 2.5G",
                shown(text)
            ))
        };
        let (number, unit) = match text.trim() {
            t if t.ends_with(['M', 'm']) => (&t[..t.len() - 1], 1_000),
            t if t.ends_with(['G', 'g']) => (&t[..t.len() - 1], 1_000_000),
            _ => return Err(wrong()),
        };
        let (whole, fraction) = number.trim().split_once('.').unwrap_or((number.trim(), ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || whole.len() > 7
            || fraction.len() > 3
            || !digits(whole)
            || !digits(fraction)
        {
            return Err(wrong());
        }
        let milli: u64 = format!("{whole}{fraction:0<3}")
            .parse()
            .map_err(|_| wrong())?;
        if milli == 0 {
            return Err(wrong());
        }
        Ok(Self {
            kbit: milli * unit / 1_000,
        })
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits after the point are whole Mbit/s of a Gbit/s; a finer value is written in M.
        let whole = self.kbit >= 1_000_000 && self.kbit.is_multiple_of(1_000);
        let (unit, letter) = if whole {
            (1_000_000, 'G')
        } else {
            (1_000, 'M')
        };
        let fraction = format!("{:03}", self.kbit % unit * 1_000 / unit);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}{letter}", self.kbit / unit),
            fraction => write!(f, "{}.{fraction}{letter}", self.kbit / unit),
        }
    }
}

text_type!(Bandwidth, "Bandwidth", {
    "type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,3})?[MG]$",
    "description": "Bandwidth: a number with M or G.", "examples": ["100M", "1G", "2.5G"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtu_has_the_floor_of_ipv6() {
        assert!(Mtu::try_from(1279).is_err());
        assert!(Mtu::try_from(1280).is_ok());
        assert!(Mtu::try_from(9001).is_err());
    }

    #[test]
    fn bandwidth_takes_any_number_with_a_unit() {
        for (text, kbit) in [
            ("100M", 100_000),
            ("1G", 1_000_000),
            ("2.5G", 2_500_000),
            ("0.5M", 500),
        ] {
            let parsed: Bandwidth = text.parse().unwrap();
            assert_eq!((parsed.kbit(), parsed.to_string().as_str()), (kbit, text));
        }
        for text in ["", "G", "1", "1T", "-1G", "1.2.3G", "0M", "1 000M"] {
            assert!(text.parse::<Bandwidth>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_port_is_digits_only() {
        assert!("+5".parse::<Port>().is_err());
        assert!("0".parse::<Port>().is_err());
        assert_eq!("65535".parse::<Port>().unwrap().get(), 65535);
    }
}
