//! `fleet token`: tokens of routers.

use clap::{Args, Subcommand};

use super::{Changed, Directory, random};
use crate::cli::{Arguments, Outcome};
use crate::fleet::{Changes, Must};
use crate::model::ObjectName;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Replace all tokens of a router by a new one, which is shown once
    ///
    /// The router is refused until it has the new token. Only the hash is stored.
    #[command(after_help = "Example: moenet-agent fleet token new jp1 --fleet ./fleet")]
    New(Of),
    /// Add a new token to that of a router, which stays valid until it is revoked
    #[command(after_help = "\
Example:
  moenet-agent fleet token rotate jp1 --fleet ./fleet     then write the new token to the router
  moenet-agent fleet token revoke jp1 --fleet ./fleet")]
    Rotate(Of),
    /// Revoke all tokens but the newest one
    #[command(after_help = "Example: moenet-agent fleet token revoke jp1 --fleet ./fleet")]
    Revoke(Of),
}

#[derive(Debug, Args)]
pub(super) struct Of {
    /// The router
    #[arg(value_name = "ROUTER")]
    router: ObjectName,
    #[command(flatten)]
    fleet: Directory,
}

impl Token {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let (Self::New(of) | Self::Rotate(of) | Self::Revoke(of)) = self;
        let router = &of.router;
        let mut changes = Changes::begin(&of.fleet.dir)?;
        let token = random::token();
        let (token, next) = match self {
            Self::New(_) => {
                changes.replace_tokens(router, &token)?;
                let next =
                    format!("the token is shown only here; {router} is refused until it has it");
                (Some(token), next)
            }
            Self::Rotate(_) => {
                let place = changes.tokens(router)?;
                changes.rotate_tokens(router, &place, &token)?;
                let next = format!(
                    "the token is shown only here; both tokens of {router} are valid until \
                     `moenet-agent fleet token revoke {router}`"
                );
                (Some(token), next)
            }
            Self::Revoke(_) => {
                let place = changes.tokens(router)?;
                changes.revoke_tokens(router, &place)?;
                (None, format!("only the newest token of {router} is valid"))
            }
        };
        Changed::write(changes, Must::NotGetWorse, (token, next), arguments)
    }
}
