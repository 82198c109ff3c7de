//! Versions of BIRD, and what each can do. Pure.

use std::fmt;

/// A version of BIRD, from the greeting, from `bird --version` or written as `2.17.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2 or 3.
    pub major: u16,
    /// `17` of `2.17.6`.
    pub minor: u16,
    /// `6` of `2.17.6`; 0 where it is not given.
    pub patch: u16,
}

impl Version {
    /// A version from its numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// The first word of a text that is a version: `2.0.12`, `BIRD 2.0.12 ready.`, `BIRD version 3.4.0`.
    pub fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse_word)
    }

    /// A package may add to the number (`2.17.6+branch.abc`, `3.0-alpha2`): digits and dots count.
    fn parse_word(word: &str) -> Option<Self> {
        let numbers = word.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.trim_end_matches('.').split('.').map(str::parse);
        let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
        let patch = parts.next().unwrap_or(Ok(0)).ok()?;
        Some(Self::new(major, minor, patch))
    }

    /// Versions 2 and 3 are developed side by side: a feature arrives in each at its own number.
    const fn since(self, two: u16, three: u16) -> bool {
        match self.major {
            0..=1 => false,
            2 => self.minor >= two,
            3 => self.minor >= three,
            _ => true,
        }
    }

    /// Whether this is a version the agent is tested with: 2.0.12 and later, 3.1 and later.
    pub fn is_supported(self) -> bool {
        self >= Self::new(2, 0, 12) && (self.major != 3 || self.minor >= 1)
    }

    /// `reload filters in X` in place of `reload in X`: 3.x only (measured; the wrong form is 9001).
    pub const fn reloads_filters(self) -> bool {
        self.major >= 3
    }

    /// `function f() -> bool { … }`: 2.14 (from the sources; measured ok on 2.17.6 and later, an
    /// error on 2.0.12, where later versions warn about the old form).
    pub const fn typed_functions(self) -> bool {
        self.since(14, 0)
    }

    /// `authentication md5; password "x";`: 2.17 (measured; without it later versions warn).
    pub const fn authentication_md5(self) -> bool {
        self.since(17, 1)
    }

    /// Babel `type tunnel`, `rtt cost`, `send timestamps`: 2.14 (sources; measured on 2.17.6).
    pub const fn babel_tunnel(self) -> bool {
        self.since(14, 0)
    }

    /// Babel `extended next hop`: 2.13 (sources; measured on 2.17.6).
    pub const fn babel_extended_next_hop(self) -> bool {
        self.since(13, 0)
    }

    /// RPKI `local address`: 2.15 (sources; measured on 2.17.6).
    pub const fn rpki_local_address(self) -> bool {
        self.since(15, 0)
    }

    /// RPKI `min version` and `max version`: 2.16 (sources; measured on 2.17.6 and 3.1.8).
    pub const fn rpki_versions(self) -> bool {
        self.since(16, 1)
    }

    /// BGP `send hold time` and `require …`: 2.15 (sources; measured on 2.17.6).
    pub const fn send_hold_time(self) -> bool {
        self.since(15, 0)
    }

    /// BGP `onlink` and `next hop prefer local`: 2.18 and 3.2 (measured: not on 2.17.6 and 3.1.8).
    pub const fn bgp_onlink(self) -> bool {
        self.since(18, 2)
    }

    /// Routes with an AS_SET are refused unless `allow as sets`: 2.18 and 3.2 (sources).
    pub const fn refuses_as_sets(self) -> bool {
        self.since(18, 2)
    }

    /// The attribute `scope` exists in filters: 2.x only (measured).
    pub const fn scope_attribute(self) -> bool {
        self.major == 2
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_bird_says() {
        let cases = [
            ("2.0.12", Some((2, 0, 12))),
            ("BIRD 3.4.0 ready.", Some((3, 4, 0))),
            ("BIRD version 2.17.6", Some((2, 17, 6))),
            ("BIRD version 2.16", Some((2, 16, 0))),
            ("BIRD version 3.0-alpha2", Some((3, 0, 0))),
            ("BIRD 2.17.6+branch.x ready.", Some((2, 17, 6))),
            ("BIRD ready.", None),
            ("", None),
            ("99999999.1", None),
        ];
        for (text, want) in cases {
            assert_eq!(Version::find(text), want.map(|(a, b, c)| Version::new(a, b, c)), "{text}");
        }
    }

    #[test]
    fn features_arrive_in_both_branches_at_their_own_number() {
        let versions = ["2.0.12", "2.17.6", "2.20.0", "3.1.8", "3.4.0"].map(|v| Version::find(v).unwrap());
        assert_eq!(versions.map(Version::typed_functions), [false, true, true, true, true]);
        assert_eq!(versions.map(Version::authentication_md5), [false, true, true, true, true]);
        assert_eq!(versions.map(Version::bgp_onlink), [false, false, true, false, true]);
        assert_eq!(versions.map(Version::reloads_filters), [false, false, false, true, true]);
        assert_eq!(versions.map(Version::scope_attribute), [true, true, true, false, false]);
        assert_eq!(versions.map(Version::is_supported), [true; 5]);
    }
}
