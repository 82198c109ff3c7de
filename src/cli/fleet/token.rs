//! `fleet token`: tokens of routers, and of owners of AS numbers.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Changed, Directory};
use crate::cli::{Arguments, Outcome, commented};
use crate::fleet::{ChangeError, Changes, Holder, Must, TokenHash, owner_path};
use crate::model::{Asn, ObjectName, Secret};
use crate::util::{random, schemas};

const OWNER_HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/FleetOwner.json
#
# The owner of an AS number, who may ask for sessions with a token.
";

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Replace all tokens of a router by a new one, which is shown once
    ///
    /// The router is refused until it has the new token. Only the hash is stored. With --owner, the token of the owner of
    /// an AS number, who asks for sessions with it; writes owners/ASN.yaml.
    #[command(after_help = "\
Examples:
  moenet-agent fleet token new jp1 --fleet ./fleet
  moenet-agent fleet token new --owner 4242421080 --fleet ./fleet")]
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
    #[arg(value_name = "ROUTER", required_unless_present = "owner")]
    router: Option<ObjectName>,
    /// The AS number of an owner of sessions, instead of a router
    #[arg(long, value_name = "ASN", conflicts_with = "router", value_parser = asn)]
    owner: Option<Asn>,
    #[command(flatten)]
    fleet: Directory,
}

fn asn(text: &str) -> anyhow::Result<Asn> {
    Ok(Asn::try_from(text.parse::<u64>()?)?)
}

impl Of {
    fn holder(&self) -> anyhow::Result<Holder> {
        let owner = self.owner.map(Holder::Owner);
        let holder = owner.or_else(|| self.router.clone().map(Holder::Router));
        holder.context("give a router, or --owner ASN")
    }
}

fn shown(holder: &Holder) -> String {
    match holder {
        Holder::Router(router) => router.to_string(),
        Holder::Owner(asn) => format!("AS{asn}"),
    }
}

/// Replaces the tokens, or adds the file of an owner who has none.
fn replace(changes: &mut Changes, holder: &Holder, token: &Secret<String>) -> anyhow::Result<()> {
    match changes.replace_tokens(holder, token) {
        Err(ChangeError::NoOwner(asn)) => {
            let values = json!({"tokenHashes": [TokenHash::of(token)]});
            let values = values.as_object().cloned().unwrap_or_default();
            let text = commented::fields(OWNER_HEAD, &schemas::value("FleetOwner"), &values);
            Ok(changes.create(&owner_path(asn), text)?)
        }
        done => Ok(done?),
    }
}

impl Token {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let (Self::New(of) | Self::Rotate(of) | Self::Revoke(of)) = self;
        let holder = &of.holder()?;
        let mut changes = Changes::begin(&of.fleet.dir)?;
        let token = random::token();
        let (token, next) = match self {
            Self::New(_) => {
                replace(&mut changes, holder, &token)?;
                let next = match holder {
                    Holder::Router(router) => {
                        format!("the token is shown only here; {router} is refused until it has it")
                    }
                    Holder::Owner(asn) => format!(
                        "the token is shown only here; with it, the owner of AS{asn} asks for sessions at /v1/sessions"
                    ),
                };
                (Some(token), next)
            }
            Self::Rotate(_) => {
                let place = changes.tokens(holder)?;
                changes.rotate_tokens(holder, &place, &token)?;
                let next = format!(
                    "the token is shown only here; both tokens are valid until \
                     `moenet-agent fleet token revoke {holder}`"
                );
                (Some(token), next)
            }
            Self::Revoke(_) => {
                let place = changes.tokens(holder)?;
                changes.revoke_tokens(holder, &place)?;
                (
                    None,
                    format!("only the newest token of {} is valid", shown(holder)),
                )
            }
        };
        Changed::write(changes, Must::NotGetWorse, (token, next), arguments)
    }
}
