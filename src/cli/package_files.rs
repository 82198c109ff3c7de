//! `package-files`: the files of a package that the program makes of itself: manual pages, completions, schemas and
//! the commented configuration. Hidden, since it is for `packaging/build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap_complete::Shell;
use serde_json::Value;

use super::fields::{Field, Schema};
use super::{Outcome, completions, man, schemas};
use crate::util::fs;

/// The files of a package.
#[derive(Debug, Args)]
pub struct PackageFiles {
    /// The directory to write to
    directory: PathBuf,
}

impl PackageFiles {
    pub(super) fn run(&self) -> Outcome {
        for (path, text) in files()? {
            write(&self.directory.join(path), &text)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns every file, by its path in the directory.
fn files() -> anyhow::Result<Vec<(String, String)>> {
    let mut files = vec![
        ("man/moenet-agent.1".to_owned(), man::program()?),
        ("man/moenet-agent-config.5".to_owned(), man::configuration()),
        ("config.yaml".to_owned(), commented_configuration()),
    ];
    for (shell, name) in [
        (Shell::Bash, "moenet-agent"),
        (Shell::Zsh, "_moenet-agent"),
        (Shell::Fish, "moenet-agent.fish"),
    ] {
        files.push((format!("completions/{name}"), completions::script(shell)));
    }
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema)? + "\n";
        files.push((format!("schemas/{name}.json"), text));
    }
    Ok(files)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dirs(folder, 0o755)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("write {}", path.display()))
}

const HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/Config.json
#
# The configuration of moenet-agent. Every key is here with its default, or with an example where it has none:
# take the # at the start of a line away to set a key. A router needs node.name, and either controlPlane.url with
# a token, or node.id with node.asn.
#
#   moenet-agent validate            checks this file
#   systemctl reload moenet-agent    applies it; the log names the keys that need a restart
#   man moenet-agent-config          describes every key
";

/// Returns the configuration with every key, commented out: without the `#` at the start of each line it is valid.
fn commented_configuration() -> String {
    let root = crate::config::schema();
    let mut text = HEAD.to_owned();
    for section in Schema::of(&root).fields() {
        text.push('\n');
        text.push_str(&comment("", &section));
        text.push_str(&format!("#{}:\n", section.name));
        for field in section.schema.fields() {
            text.push_str(&comment("  ", &field));
            let value = field.schema.default().or(field.schema.example());
            let value = value.map_or("null".to_owned(), Value::to_string);
            text.push_str(&format!("#  {}: {value}\n", field.name));
        }
    }
    text
}

/// Returns the description of a field as comments, at most 100 columns wide.
fn comment(indent: &str, field: &Field<'_>) -> String {
    let mut text = field.schema.description();
    let words: Vec<_> = field
        .schema
        .values()
        .into_iter()
        .map(|(word, _)| word)
        .collect();
    if words.len() > 1 {
        text.push_str(&format!(" One of: {}.", words.join(", ")));
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() > 96);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    let lines = lines.into_iter();
    lines.map(|line| format!("#{indent}#{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uncommented(text: &str) -> String {
        let lines = text
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn configuration_with_every_key_set_is_valid() {
        let text = commented_configuration();
        let keys = text.strip_prefix(HEAD).unwrap();
        let config = crate::config::parse(&uncommented(keys)).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:24368");
        assert_eq!(config.node.name, "jp1");
    }

    #[test]
    fn configuration_as_installed_sets_nothing() {
        let text = commented_configuration();
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with('#'))
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 120),
            "{text}"
        );
    }

    #[test]
    fn packages_have_pages_completions_and_schemas() {
        let files = files().unwrap();
        for name in [
            "man/moenet-agent.1",
            "man/moenet-agent-config.5",
            "config.yaml",
            "completions/_moenet-agent",
            "schemas/Config.json",
        ] {
            let text = files.iter().find(|(path, _)| path == name);
            assert!(text.is_some_and(|(_, text)| text.len() > 500), "{name}");
        }
    }
}
