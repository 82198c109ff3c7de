//! Versions of BIRD. `render::Features` holds the template constructs of each. Pure.

use std::fmt;

/// The versions with [`Support::Tested`], in words.
pub const TESTED_VERSIONS: &str = "2.0.12 to 2.20 and 3.1 to 3.4";

/// A version of BIRD, from the greeting, from `bird --version` or written as `2.17.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2 or 3.
    pub major: u16,
    /// `17` of `2.17.6`.
    pub minor: u16,
    /// `6` of `2.17.6`; 0 if it is missing.
    pub patch: u16,
}

/// Support level of a BIRD version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// This version or its neighbours loaded the templates, and the live tests run.
    Tested,
    /// Not tested.
    Untested,
    /// It cannot read the templates.
    TooOld,
}

impl Version {
    /// Creates a version from its numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Returns the first word of a text that is a version: `2.0.12`, `BIRD 2.0.12 ready.`, `BIRD version 3.4.0`.
    pub fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(Self::parse_word)
    }

    /// Parses a word. A package may add to the number (`2.17.6+branch.abc`, `3.0-alpha2`): digits and dots count.
    fn parse_word(word: &str) -> Option<Self> {
        let numbers = word
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()?;
        let mut parts = numbers.trim_end_matches('.').split('.').map(str::parse);
        let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
        let patch = parts.next().unwrap_or(Ok(0)).ok()?;
        Some(Self::new(major, minor, patch))
    }

    /// Returns the support level of this version.
    pub fn support(self) -> Support {
        let two = (self.minor, self.patch);
        match self.major {
            0 | 1 => Support::TooOld,
            // 2.0.7 rejects a variable declaration after a statement (run: "syntax error, unexpected INT").
            2 if two <= (0, 7) => Support::TooOld,
            2 if two < (0, 12) => Support::Untested,
            2 if self.minor <= 20 => Support::Tested,
            3 if (1..=4).contains(&self.minor) => Support::Tested,
            _ => Support::Untested,
        }
    }

    /// Returns a warning for the operator if the version is not known to work; `None` otherwise.
    pub fn warning(self) -> Option<String> {
        match self.support() {
            Support::Tested => None,
            Support::Untested => Some(format!(
                "BIRD {self} was never tested with this agent, only {TESTED_VERSIONS}; this BIRD may \
                 interpret the agent's files differently"
            )),
            Support::TooOld => Some(format!(
                "BIRD {self} cannot read the agent's files, so the agent leaves it unchanged; \
                 it was tested with {TESTED_VERSIONS}"
            )),
        }
    }

    /// Returns whether the command is `reload filters in X` instead of `reload in X`: 3.x only (measured; the wrong
    /// form is
    /// 9001).
    pub const fn reloads_filters(self) -> bool {
        self.major >= 3
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
            assert_eq!(
                Version::find(text),
                want.map(|(a, b, c)| Version::new(a, b, c)),
                "{text}"
            );
        }
    }

    #[test]
    fn untested_and_too_old_versions_are_reported() {
        let support = |text| Version::find(text).unwrap().support();
        for tested in ["2.0.12", "2.13.1", "2.17.6", "2.20.0", "3.1.8", "3.4.0"] {
            assert_eq!(support(tested), Support::Tested, "{tested}");
            assert_eq!(Version::find(tested).unwrap().warning(), None);
        }
        for untested in ["2.0.8", "2.0.11", "2.21", "3.0.1", "3.5", "4.0"] {
            assert_eq!(support(untested), Support::Untested, "{untested}");
            assert!(
                Version::find(untested)
                    .unwrap()
                    .warning()
                    .unwrap()
                    .contains("never tested")
            );
        }
        for old in ["1.6.8", "2.0.7", "2.0.0"] {
            assert_eq!(support(old), Support::TooOld, "{old}");
            assert!(
                Version::find(old)
                    .unwrap()
                    .warning()
                    .unwrap()
                    .contains("it was tested with 2.0.12")
            );
        }
    }

    #[test]
    fn only_the_newer_branch_reloads_filters_by_name() {
        let versions = ["2.0.12", "2.20.0", "3.1.8", "3.4.0"].map(|v| Version::find(v).unwrap());
        assert_eq!(
            versions.map(Version::reloads_filters),
            [false, false, true, true]
        );
    }
}
