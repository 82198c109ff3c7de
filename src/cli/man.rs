//! `man`: the manual pages, of the program with every verb, and of its configuration with every key.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_mangen::Man;
use serde_json::Value;

use super::fields::{Field, Schema};
use super::{Arguments, Outcome, output};
use crate::config;
use crate::util::schemas;
use crate::util::version::VERSION;

/// A manual page.
#[derive(Debug, Args)]
pub struct Page {
    /// The page: of the program, or of its configuration file
    #[arg(value_enum, default_value = "program")]
    page: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// moenet-agent(1)
    Program,
    /// moenet-agent-config(5)
    Config,
}

impl Page {
    pub(super) fn run(&self) -> Outcome {
        let text = match self.page {
            Which::Program => program()?,
            Which::Config => configuration(),
        };
        output::line(text.trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the page of the program, with every verb.
pub(super) fn program() -> std::io::Result<String> {
    let command = Arguments::command();
    let page = Man::new(command.clone());
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    // Not the library's list of verbs, which names a page for each: they are all on this one.
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verb_section(verb, &mut text)?;
    }
    more(&command, "FIRST STEPS", &mut text);
    text.extend(b".SH \"SEE ALSO\"\n.BR moenet\\-agent\\-config (5),\n.BR bird (8),\n.BR wg (8)\n");
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned() + "\n")
}

/// Returns the page of the configuration file, with every key.
pub(super) fn configuration() -> String {
    let root = schemas::value("Config");
    let mut text = format!(
        ".TH moenet\\-agent\\-config 5 \"\" \"moenet\\-agent {VERSION}\" \"File formats\"\n{}",
        CONFIGURATION
    );
    for section in Schema::of(&root).fields() {
        text.push_str(&format!(".SH \"{}\"\n", section.name.to_uppercase()));
        text.push_str(&format!("{}\n", roff(&section.schema.description())));
        for field in section.schema.fields() {
            text.push_str(&key(&format!("{}.{}", section.name, field.name), &field));
        }
    }
    text.push_str(".SH \"SEE ALSO\"\n.BR moenet\\-agent (1)\n");
    text
}

const CONFIGURATION: &str = r#".SH NAME
moenet\-agent\-config \- the configuration file of moenet\-agent
.SH SYNOPSIS
.I /etc/moenet\-agent/config.yaml
.SH DESCRIPTION
YAML or JSON. Unknown keys are errors with file, line, column and the nearest known key.
.B moenet\-agent validate
checks the file. A router needs
.BR node.name ,
and either
.B controlPlane.url
with a token, or
.B node.id
with
.BR node.asn .
.PP
Durations are a number of seconds, or as 200ms, 30s, 5m, 1h.
.PP
SIGHUP
.RB ( "systemctl reload moenet\-agent" )
reads the file again. Keys that are marked with
.I reload
take effect then, others at the next start. Tunnels and sessions stay up in both cases.
.SH ENVIRONMENT
.BR MOENET_NODE_NAME ,
.BR MOENET_CP_URL ,
.B MOENET_CP_TOKEN
and
.B MOENET_STATE_DIR
override the file.
.B RUST_LOG
overrides
.BR log.level .
"#;

/// Returns the entry of a key.
fn key(path: &str, field: &Field<'_>) -> String {
    let schema = &field.schema;
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let notes = [
        field.is_required.then(|| "required".to_owned()),
        schema.range(),
        schema.default().map(|it| format!("default {}", value(it))),
        config::is_reloadable(path).then(|| "reload".to_owned()),
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    let mut text = format!(".TP\n.BR {} \" ({}", roff(path), roff(&schema.type_name()));
    if !notes.is_empty() {
        text.push_str(&format!("; {}", roff(&notes.join("; "))));
    }
    text.push_str(&format!(")\"\n{}\n", roff(&schema.description())));
    if let Some(example) = schema.example().filter(|_| schema.default().is_none()) {
        text.push_str(&format!("Example: {}\n", roff(&value(example))));
    }
    for (word, description) in schema.values() {
        text.push_str(&format!(
            ".br\n\\fB{}\\fR: {}\n",
            roff(&word),
            roff(&description)
        ));
    }
    text
}

/// Escapes a line of text: a backslash begins an escape, and a dot or an apostrophe at the start a request (groff(7)).
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
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
        text.extend(format!("{}\n", roff(line)).bytes());
    }
    text.extend(b".fi\n");
}
