//! `man`: the manual page, with every verb.

use std::process::ExitCode;

use clap::CommandFactory as _;

use super::{Arguments, Outcome, output};

pub(super) fn run() -> Outcome {
    let command = Arguments::command();
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    for verb in command.get_subcommands() {
        verb_section(verb, &mut text)?;
    }
    output::line(String::from_utf8_lossy(&text).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// A verb's own part, with its arguments and its example.
fn verb_section(verb: &clap::Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    let name = verb.get_name().to_uppercase();
    text.extend(format!(".SH \"{name}\"\n").bytes());
    let page = clap_mangen::Man::new(verb.clone().bin_name(format!("moenet-agent {}", verb.get_name())));
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    page.render_extra_section(text)
}
