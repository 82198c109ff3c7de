//! `render`: the text that BIRD gets for a session.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, objects, output};
use crate::status::Acceptance;

/// The text that BIRD gets for a session.
#[derive(Debug, Args)]
pub struct Render {
    /// The session
    name: String,
}

impl Render {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let wanted = block_on(Wanted::read(config))?;
        let object = objects::find(&wanted.world, &self.name)?;
        let Some(text) = object.text.filter(|text| !text.is_empty()) else {
            anyhow::bail!("{} has no text for BIRD: {}", object.path(), why_none(&object));
        };
        let value = json!({"object": object.path(), "text": text});
        if !output::value(arguments.output, &value)? {
            output::line(text.trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn why_none(object: &objects::Object<'_>) -> String {
    match object.acceptance {
        Acceptance::Invalid(why) | Acceptance::Clash(why) | Acceptance::Waiting(why) => why.clone(),
        Acceptance::Valid if object.text.is_some() => "it is part of the files that all share".to_owned(),
        Acceptance::Valid => format!("its adminState is {:?}", object.admin_state),
    }
}
