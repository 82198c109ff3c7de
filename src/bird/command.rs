//! Typed commands for BIRD. Pure.
//!
//! The control socket has neither escapes nor quoting: a newline in a name starts another command, and `all` as a name
//! selects every protocol. Therefore no free text is accepted: names are types, and only this module builds the text.

use std::time::Duration;

use ipnet::IpNet;

use crate::observed::bird::{BirdName, Symbol, Version};

/// A command for BIRD. `help`, `quit` and `exit` are left out on purpose: on the socket they get no
/// reply at all (measured).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `show protocols`: rows only.
    ShowProtocols,
    /// `show protocols all`: every protocol with its details, in one reply.
    ShowProtocolsAll,
    /// `show protocols all "X"`: one protocol with its details.
    ShowProtocol(BirdName),
    /// `show route table moe_roa4 where …`: the ROAs that did not come from the agent's cached table, which
    /// would otherwise look like those of a server (the forms are the same on 2.0.12 to 3.4, measured).
    ShowRoas {
        /// Selects `moe_roa6`.
        ipv6: bool,
    },
    /// `show route for X all`: the routes to a network or an address, for someone outside. BIRD runs it with restricted
    /// access, in which it refuses everything that changes something.
    ShowRoute(IpNet),
    /// `show babel neighbors` for every Babel protocol.
    ShowBabelNeighbours,
    /// `eval S`: the value of a constant in the running configuration.
    Eval(Symbol),
    /// `configure timeout N`: reads the files, and reverts after N seconds (at least 1) without a confirmation.
    Configure {
        /// How long BIRD waits. 0 would mean no timeout, so at least 1 s is sent.
        timeout: Duration,
    },
    /// `configure confirm`
    ConfigureConfirm,
    /// `configure undo`. BIRD 3 aborts if a reconfiguration is in progress (measured, 10 of 10).
    ConfigureUndo,
    /// `configure status`
    ConfigureStatus,
    /// `enable "X"`
    Enable(BirdName),
    /// `restart "X"`
    Restart(BirdName),
    /// `reload in "X"` on 2.x, `reload filters in "X"` on 3.x: runs the import filters again.
    ReloadIn(BirdName),
}

impl Command {
    /// Returns whether it may change any detail of a protocol.
    pub(super) fn changes_protocols(&self) -> bool {
        matches!(
            self,
            Self::Configure { .. }
                | Self::ConfigureUndo
                | Self::Enable(_)
                | Self::Restart(_)
                | Self::ReloadIn(_)
        )
    }

    /// Returns whether someone outside has asked.
    pub(super) fn is_restricted(&self) -> bool {
        matches!(self, Self::ShowRoute(_))
    }

    /// Returns the request line for this version, without its newline. Always below BIRD's limit of 1023 bytes.
    pub fn text(&self, version: Version) -> String {
        match self {
            Self::ShowProtocols => "show protocols".into(),
            Self::ShowProtocolsAll => "show protocols all".into(),
            Self::ShowProtocol(name) => format!("show protocols all \"{name}\""),
            Self::ShowRoas { ipv6 } => {
                let family = if *ipv6 { 6 } else { 4 };
                format!("show route table moe_roa{family} where proto !~ \"moe_cached_roa*\"")
            }
            Self::ShowRoute(net) => format!("show route for {net} all"),
            Self::ShowBabelNeighbours => "show babel neighbors".into(),
            Self::Eval(symbol) => format!("eval {symbol}"),
            Self::Configure { timeout } => {
                format!("configure timeout {}", timeout.as_secs().max(1))
            }
            Self::ConfigureConfirm => "configure confirm".into(),
            Self::ConfigureUndo => "configure undo".into(),
            Self::ConfigureStatus => "configure status".into(),
            Self::Enable(name) => format!("enable \"{name}\""),
            Self::Restart(name) => format!("restart \"{name}\""),
            Self::ReloadIn(name) if version.reloads_filters() => {
                format!("reload filters in \"{name}\"")
            }
            Self::ReloadIn(name) => format!("reload in \"{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_named_all_is_only_itself() {
        let all = BirdName::new("all").unwrap();
        assert_eq!(
            Command::Restart(all).text(Version::new(3, 4, 0)),
            "restart \"all\""
        );
    }

    #[test]
    fn reload_has_the_words_of_its_version() {
        let reload = Command::ReloadIn(BirdName::new("x").unwrap());
        assert_eq!(reload.text(Version::new(2, 20, 0)), "reload in \"x\"");
        assert_eq!(
            reload.text(Version::new(3, 1, 8)),
            "reload filters in \"x\""
        );
    }

    #[test]
    fn the_undo_timer_is_never_switched_off() {
        let configure = Command::Configure {
            timeout: Duration::from_millis(300),
        };
        assert_eq!(
            configure.text(Version::new(2, 0, 12)),
            "configure timeout 1"
        );
    }
}
