use serde::Serialize;

/// Features of a BIRD version. All other constructs of the built-in templates were run on
/// 2.0.12, 2.17, 2.20, 3.1 and 3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Features {
    /// First number of the version.
    pub major: u32,
    /// Second number of the version.
    pub minor: u32,
    /// `function f() -> bool`: required without a warning from 2.14, a syntax error before. The
    /// built-in functions return nothing and do not need it; an operator's templates may.
    pub typed_functions: bool,
    /// `authentication md5;` in addition to `password`: without it 2.17 and later warn, in earlier versions it is a
    /// syntax
    /// error (2.0.12 refuses it; 2.17, 2.20, 3.1 and 3.4 warn without it).
    pub authentication_md5: bool,
    /// Babel's `type tunnel` with round-trip times as cost, `send timestamps` (2.14, from the sources;
    /// measured on 2.17.6).
    pub babel_tunnel: bool,
    /// Babel's `extended next hop`: IPv4 over links that have only IPv6 addresses (RFC 9229; 2.13, from
    /// the sources; measured on 2.17.6).
    pub babel_extended_next_hop: bool,
}

impl Features {
    /// Returns the features of version `major.minor`. Versions 2 and 3 are developed in parallel: a feature
    /// arrives in each at its own number.
    pub fn of(major: u32, minor: u32) -> Self {
        let since = |two: u32, three: u32| match major {
            0 | 1 => false,
            2 => minor >= two,
            3 => minor >= three,
            _ => true,
        };
        Self {
            major,
            minor,
            typed_functions: since(14, 0),
            authentication_md5: since(17, 1),
            babel_tunnel: since(14, 0),
            babel_extended_next_hop: since(13, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_supported_version_has_none_of_the_new_words() {
        let old = Features::of(2, 0);
        assert!(!old.typed_functions && !old.authentication_md5 && !old.babel_tunnel);
        assert!(!old.babel_extended_next_hop);
    }

    #[test]
    fn later_versions_have_all_of_them() {
        for (major, minor) in [(2, 17), (2, 20), (3, 1), (3, 4), (4, 0)] {
            let new = Features::of(major, minor);
            assert!(
                new.typed_functions && new.authentication_md5 && new.babel_tunnel,
                "{major}.{minor}"
            );
        }
    }
}
