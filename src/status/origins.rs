use std::net::IpAddr;

use crate::model::{Endpoint, RoaTable};

/// The data for the validation of route origins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origins {
    /// RPKI servers in the policy.
    pub servers: usize,
    pub roas: RoaFacts,
    /// Whether routes without a ROA are rejected.
    pub rejects_unknown: bool,
}

/// The known ROAs, independent of the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoaFacts {
    /// Number of servers that have sent all their data; `None` while BIRD does not answer.
    pub answering: Option<usize>,
    /// Current ROAs of the servers.
    pub live: Roas,
    /// ROAs of the last good table on disk.
    pub kept: Roas,
    /// Whether the servers have so many fewer ROAs than the kept table that they must be at fault.
    pub collapsed: bool,
}

impl RoaFacts {
    /// Returns the data for a policy with this number of servers.
    pub fn under(self, servers: usize, rejects_unknown: bool) -> Origins {
        Origins {
            servers,
            roas: self,
            rejects_unknown,
        }
    }
}

/// An RPKI server of the policy, and its resolved address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpkiName {
    /// Name and port.
    pub endpoint: Endpoint,
    /// The address in use, from the last good answer.
    pub address: Option<IpAddr>,
    /// Why the last lookup failed.
    pub error: Option<String>,
}

impl RpkiName {
    /// Returns a name without a lookup.
    pub fn unknown(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            address: None,
            error: None,
        }
    }

    /// Returns what is wrong with the name, and the agent's reaction.
    pub fn problem(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(match self.address {
            Some(address) => format!("{error}; {address} stays in use"),
            None => {
                format!(
                    "{error}; RPKI server {} is not used until its name resolves",
                    self.endpoint
                )
            }
        })
    }
}

/// Number of ROAs, by family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roas {
    pub ipv4: usize,
    pub ipv6: usize,
}

impl Roas {
    pub fn of(table: &RoaTable) -> Self {
        Self {
            ipv4: table.count(false),
            ipv6: table.count(true),
        }
    }
}

/// Quality of the validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is neither a server nor a kept table: origins are not checked.
    NoServer,
    /// BIRD does not answer.
    NotRead,
    /// Validated with the servers' ROAs.
    Live,
    /// Validated with the last good table: no server answers.
    FromCache,
    /// Validated with the last good table: the servers' data is implausible.
    Collapsed,
    /// A family has no ROAs, so that all its routes are unknown.
    NoRoas,
}

impl Verdict {
    /// Returns whether an operator has to act.
    pub fn is_alarm(self) -> bool {
        matches!(self, Self::Collapsed | Self::NoRoas)
    }

    /// Returns the reason as one word, as in conditions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoServer => "NoServer",
            Self::NotRead => "NotRead",
            Self::Live => "Live",
            Self::FromCache => "FromCache",
            Self::Collapsed => "Collapsed",
            Self::NoRoas => "NoRoas",
        }
    }
}

impl Origins {
    /// Returns the quality of the validation.
    pub fn verdict(&self) -> Verdict {
        let nothing_kept = self.roas.kept == Roas::default();
        match (self.servers, self.roas.answering) {
            (0, _) if nothing_kept => Verdict::NoServer,
            (0, _) => Verdict::FromCache,
            (_, None) => Verdict::NotRead,
            _ if self.missing().is_some() => Verdict::NoRoas,
            _ if self.roas.collapsed => Verdict::Collapsed,
            (_, Some(0)) => Verdict::FromCache,
            (_, Some(_)) => Verdict::Live,
        }
    }

    /// Returns the families without a known ROA.
    fn missing(&self) -> Option<&'static str> {
        let none = |live: usize, kept: usize| live == 0 && kept == 0;
        let RoaFacts { live, kept, .. } = self.roas;
        match (none(live.ipv4, kept.ipv4), none(live.ipv6, kept.ipv6)) {
            (true, true) => Some("IPv4 and IPv6"),
            (true, false) => Some("IPv4"),
            (false, true) => Some("IPv6"),
            (false, false) => None,
        }
    }

    /// Returns a sentence for operators; empty without a problem. It contains no number that changes by itself.
    pub fn message(&self) -> String {
        match self.verdict() {
            Verdict::Live => String::new(),
            Verdict::NoServer => {
                "there is no RPKI server; routes without a ROA are accepted".to_owned()
            }
            Verdict::NotRead => "BIRD does not report the state of the RPKI servers".to_owned(),
            Verdict::FromCache if self.servers == 0 => {
                "there is no RPKI server; the table in roa.conf is used".to_owned()
            }
            Verdict::FromCache => {
                "no RPKI server answers; the last good table of ROAs (roa.conf) is used".to_owned()
            }
            Verdict::Collapsed => format!(
                "the RPKI servers serve {} IPv4 and {} IPv6 ROAs, before {} and {}; the last good \
                 table (roa.conf) stays in use. If they are right, remove roa.conf from the state \
                 directory",
                self.roas.live.ipv4, self.roas.live.ipv6, self.roas.kept.ipv4, self.roas.kept.ipv6
            ),
            Verdict::NoRoas => {
                let fate = if self.rejects_unknown {
                    "refused"
                } else {
                    "accepted unchecked"
                };
                let families = self.missing().unwrap_or_default();
                format!(
                    "no ROA of {families} is known, so that every such route from outside is {fate}: is an \
                     RPKI server reachable? A file roa.conf in the state directory helps a cold start"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Roas = Roas { ipv4: 30, ipv6: 20 };

    fn origins(servers: usize, answering: Option<usize>, live: Roas, kept: Roas) -> Origins {
        let roas = RoaFacts {
            answering,
            live,
            kept,
            collapsed: false,
        };
        roas.under(servers, true)
    }

    #[test]
    fn an_empty_table_is_never_silent() {
        let none = Roas::default();
        for answering in [Some(0), Some(2)] {
            let verdict = origins(2, answering, none, none).verdict();
            assert_eq!((verdict, verdict.is_alarm()), (Verdict::NoRoas, true));
        }
        let half = origins(1, Some(1), Roas { ipv4: 9, ipv6: 0 }, none);
        assert!(
            half.verdict().is_alarm() && half.message().contains("no ROA of IPv6"),
            "{}",
            half.message()
        );
        assert_eq!(origins(0, None, none, none).verdict(), Verdict::NoServer);
    }

    #[test]
    fn a_kept_table_carries_over_servers_that_are_away() {
        let none = Roas::default();
        assert_eq!(
            origins(1, Some(0), none, SOME).verdict(),
            Verdict::FromCache
        );
        assert_eq!(
            origins(1, Some(0), SOME, none).verdict(),
            Verdict::FromCache
        );
        assert_eq!(
            origins(0, Some(0), none, SOME).verdict(),
            Verdict::FromCache
        );
        assert_eq!(origins(1, None, none, SOME).verdict(), Verdict::NotRead);
        assert_eq!(origins(2, Some(1), SOME, SOME).verdict(), Verdict::Live);
        assert_eq!(origins(2, Some(1), SOME, SOME).message(), "");
    }

    #[test]
    fn a_collapse_is_an_alarm_that_says_what_to_do() {
        let mut after = origins(1, Some(1), Roas::default(), SOME);
        after.roas.collapsed = true;
        assert!(after.verdict().is_alarm());
        assert!(
            after.message().contains("remove roa.conf"),
            "{}",
            after.message()
        );
    }
}
