//! `package-files`: the files of a package that the program makes of itself: manual pages, completions, schemas and
//! the commented configuration. Hidden, since it is for `packaging/build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap_complete::Shell;
use serde_json::Map;

use super::schema::names;
use super::{Outcome, commented, completions, man};
use crate::util::{fs, schemas};

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
        (
            "config.yaml".to_owned(),
            commented::configuration(&Map::new()),
        ),
    ];
    for (shell, name) in [
        (Shell::Bash, "moenet-agent"),
        (Shell::Zsh, "_moenet-agent"),
        (Shell::Fish, "moenet-agent.fish"),
    ] {
        files.push((format!("completions/{name}"), completions::script(shell)));
    }
    for name in names() {
        let text = schemas::text(&name).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

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
