//! `man`: the manual page, with every verb.

use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::{Arguments, Outcome, output};

pub(super) fn run() -> Outcome {
    let command = Arguments::command();
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    // Not the library's list of verbs, which names a page for each: they are all on this one.
    for verb in command.get_subcommands() {
        verb_section(verb, &mut text)?;
    }
    more(&command, "FIRST STEPS", &mut text);
    output::line(String::from_utf8_lossy(&text).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Writes a verb's section, with its arguments and its examples.
fn verb_section(verb: &Command, text: &mut Vec<u8>) -> std::io::Result<()> {
    let name = verb.get_name().to_uppercase();
    text.extend(format!(".SH \"{name}\"\n").bytes());
    let page = Man::new(
        verb.clone()
            .bin_name(format!("moenet-agent {}", verb.get_name())),
    );
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    more(verb, "EXAMPLES", text);
    Ok(())
}

/// Writes the text below a command's options, line by line: examples must not be filled into paragraphs.
fn more(command: &Command, title: &str, text: &mut Vec<u8>) {
    let Some(below) = command.get_after_help() else {
        return;
    };
    text.extend(format!(".SH {title}\n.nf\n").bytes());
    for line in below.to_string().lines() {
        // A backslash begins an escape, and a dot or an apostrophe at the start a request (groff(7)).
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) {
            "\\&"
        } else {
            ""
        };
        text.extend(format!("{guard}{line}\n").bytes());
    }
    text.extend(b".fi\n");
}
