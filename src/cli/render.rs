//! `render`: the text that BIRD gets for a session.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde_json::json;

use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, complete, objects, output};
use crate::desired::Object;
use crate::status::Acceptance;

/// Replacement for a password; `wg show` prints the same for a key.
const HIDDEN: &str = "(hidden)";

/// Print the BIRD configuration of a session.
#[derive(Debug, Args)]
pub struct Render {
    /// The session
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
    /// Print the password instead of `(hidden)`
    #[arg(long)]
    secrets: bool,
}

impl Render {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let wanted = block_on(Wanted::read(config))?;
        let object = objects::find(&wanted.desired, &wanted.snapshot, &self.name)?;
        let Some(text) = object.text().filter(|text| !text.is_empty()) else {
            anyhow::bail!(
                "{} has no BIRD file of its own: {}",
                object.path(),
                why_none(&object)
            );
        };
        let text = if self.secrets {
            text.to_string()
        } else {
            without_password(&object, text)
        };
        let value = json!({"object": object.path(), "text": text});
        if !arguments.output.is_for_people() {
            output::unredacted_value(arguments.output, &value)?;
        } else {
            // The text has no password now, or the operator asked for it.
            output::unredacted(text.trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the text without the password, so that it can be shared. BIRD's strings have no escapes, so
/// the password appears in it unchanged.
fn without_password(object: &Object, text: &str) -> String {
    match object
        .session()
        .and_then(|session| session.password.as_ref())
    {
        Some(password) => text.replace(
            &format!("\"{}\"", password.expose()),
            &format!("\"{HIDDEN}\""),
        ),
        None => text.to_owned(),
    }
}

fn why_none(object: &Object) -> String {
    match &object.acceptance {
        Acceptance::Invalid(why) | Acceptance::Clash(why) | Acceptance::Waiting(why) => why.clone(),
        _ if object.kind.is_single() => {
            "render works on sessions; the shared files are in moenet/ of bird.directory".to_owned()
        }
        Acceptance::Valid if object.wanted().is_some() => {
            "it is part of the shared files".to_owned()
        }
        Acceptance::Valid => format!("its adminState is {:?}", object.admin_state),
    }
}
