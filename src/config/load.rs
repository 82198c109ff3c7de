use std::path::{Path, PathBuf};

use super::rules::rules;
use super::{Config, Source};
use crate::document::{self, DocumentError, Problems, Scalars, parse_value};
use crate::model::Secret;
use crate::util::file;
use crate::util::fs;

/// The paths of the configuration when `--config` is not given.
const PLACES: [&str; 3] = [
    "config.yaml",
    "config.json",
    "/etc/moenet-agent/config.yaml",
];

/// The environment variables that override the file.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `MOENET_NODE_NAME`
    pub node_name: Option<String>,
    /// `MOENET_CP_URL`
    pub control_plane_url: Option<String>,
    /// `MOENET_CP_TOKEN`
    pub control_plane_token: Option<Secret<String>>,
    /// `MOENET_STATE_DIR`
    pub state_directory: Option<PathBuf>,
}

impl Environment {
    /// Reads the process's environment.
    pub fn read() -> Self {
        let get = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            node_name: get("MOENET_NODE_NAME"),
            control_plane_url: get("MOENET_CP_URL"),
            control_plane_token: get("MOENET_CP_TOKEN").map(Secret::new),
            state_directory: get("MOENET_STATE_DIR").map(PathBuf::from),
        }
    }
}

/// Reason why the configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was found.
    #[error(
        "no configuration: give --config FILE, or put one at ./config.yaml or /etc/moenet-agent/config.yaml"
    )]
    NotFound,
    /// A file cannot be read.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl ConfigError {
    /// Returns the problems of the file's content.
    pub(crate) fn problems(&self) -> Option<&Problems> {
        match self {
            Self::Invalid(problems) => Some(problems),
            Self::NotFound | Self::Read { .. } => None,
        }
    }
}

/// Returns the first path that has a configuration.
pub(crate) fn found() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .find(|path| fs::exists(path))
}

/// Loads the configuration from `--config`, or from the first path that has one.
///
/// # Errors
/// Names the file, the line and the key.
pub fn load(given: Option<&Path>, environment: Environment) -> Result<Config, ConfigError> {
    let path = given
        .map(Path::to_owned)
        .or_else(found)
        .ok_or(ConfigError::NotFound)?;
    let text = read(&path, file::DOCUMENT)?;
    let in_file = |errors: Vec<DocumentError>| {
        let errors = errors.into_iter().map(|error| error.in_file(&path));
        Problems(errors.collect())
    };
    let mut config = checked(&text, environment).map_err(in_file)?;
    let values = parse_value(keys(&text)).map_err(|error| in_file(vec![error]))?;
    config.source = Source {
        text: text.into(),
        path,
        values,
    };
    Ok(config)
}

/// Checks the text of a file as [`load`] does.
///
/// # Errors
/// Every problem, with line and key.
pub(crate) fn check(text: &str, environment: Environment) -> Result<(), Problems> {
    checked(text, environment).map(drop).map_err(Problems)
}

/// Parses and checks the text of a file. Where some values cannot be read, the rules about others are checked too.
fn checked(text: &str, environment: Environment) -> Result<Config, Vec<DocumentError>> {
    let error = match parse(text) {
        Ok(mut config) => {
            apply(&mut config, environment);
            let broken = rules(&config);
            return match broken.is_empty() {
                true => Ok(config),
                false => Err(broken.iter().map(|it| it.placed(text)).collect()),
            };
        }
        Err(error) => error,
    };
    let Ok(value) = parse_value::<serde_json::Value>(keys(text)) else {
        return Err(vec![error]);
    };
    let (rest, faults) = document::read_rest::<Config>(&value, &sample(), Scalars::AsWritten);
    let wrong: Vec<_> = faults.iter().map(|fault| fault.field("")).collect();
    let mut found = document::placed(text, error, faults);
    if let Some(mut config) = rest {
        apply(&mut config, environment);
        let broken = rules(&config).into_iter();
        let broken = broken.filter(|it| !wrong.iter().any(|field| it.is_about(field)));
        found.extend(broken.map(|it| it.placed(text)));
    }
    Err(found)
}

/// Returns every reason for which [`load`] rejects a file.
pub(crate) fn problems(path: &Path, environment: Environment) -> Vec<DocumentError> {
    match load(Some(path), environment) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid(Problems(all))) => all,
        Err(error) => vec![DocumentError::whole(error.to_string())],
    }
}

/// Returns the shortest configuration with the required keys of every section.
fn sample() -> serde_json::Value {
    serde_json::json!({"node": {"name": "sample"}, "controlPlane": {"url": "http://127.0.0.1"}})
}

/// Parses the text of a configuration file.
///
/// # Errors
/// Line, column, key and reason.
pub fn parse(text: &str) -> Result<Config, DocumentError> {
    parse_value(keys(text))
}

/// Returns the text, or an empty mapping for one that has comments only, as a package installs it: its error names
/// the missing keys.
fn keys(text: &str) -> &str {
    let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_comment) {
        return "{}";
    }
    text
}

fn read(path: &Path, limit: u64) -> Result<String, ConfigError> {
    file::read_text(path, limit).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn apply(config: &mut Config, environment: Environment) {
    if let Some(name) = environment.node_name {
        config.node.name = name;
    }
    if let Some(directory) = environment.state_directory {
        config.state.directory = directory;
    }
    if let Some(control_plane) = &mut config.control_plane {
        if let Some(url) = environment.control_plane_url {
            control_plane.url = url;
        }
        control_plane.token = environment
            .control_plane_token
            .or(control_plane.token.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "node: {name: jp1}\ncontrolPlane: {url: 'http://127.0.0.1:1', token: t}\n";

    fn broken(text: &str) -> Vec<DocumentError> {
        let checked = check(text, Environment::default());
        checked.err().map(|problems| problems.0).unwrap_or_default()
    }

    #[test]
    fn file_of_comments_names_the_missing_key() {
        for text in ["", "# a comment\n\n  # another\n"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("node"), "{error}");
        }
    }

    #[test]
    fn the_minimal_file_is_enough() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.bird.confirm_timeout.get().as_secs(), 30);
        assert_eq!(config.node.name, "jp1");
        assert!(check(MINIMAL, Environment::default()).is_ok());
    }

    #[test]
    fn a_mistyped_key_names_its_line_and_the_nearest_one() {
        let error = parse(&format!("{MINIMAL}wireguard:\n  listenPortBas: 5\n")).unwrap_err();
        assert_eq!(error.location.map(|(line, _)| line), Some(4));
        assert!(
            error.to_string().contains("did you mean `listenPortBase`?"),
            "{error}"
        );
    }

    #[test]
    fn the_environment_wins_and_the_token_is_not_shown() {
        let mut config = parse(MINIMAL).unwrap();
        let environment = Environment {
            node_name: Some("hk1".into()),
            control_plane_token: Some(Secret::new("hunter2".into())),
            ..Environment::default()
        };
        apply(&mut config, environment);
        assert_eq!(config.node.name, "hk1");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_router_alone_needs_an_id_and_an_asn() {
        let found = broken("node: {name: a}\n");
        assert!(found[0].message.contains("node.id"), "{found:?}");
        assert_eq!(broken("node: {name: a, id: 1, asn: 64512}\n"), []);
    }

    #[test]
    fn looking_glass_needs_a_token_of_its_own() {
        let count = |glass: &str| {
            let text = format!("{MINIMAL}server: {{token: a, lookingGlass: {glass}}}\n");
            broken(&text).len()
        };
        assert_eq!((count("{}"), count("{token: ' '}")), (1, 1));
        assert_eq!(count("{token: a}"), 1, "the API's token");
        assert_eq!((count("{token: b}"), count("{tokenFile: /x}")), (0, 0));
    }

    #[test]
    fn every_broken_rule_and_every_wrong_key_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        for (text, places) in [
            (
                "node:\n  name: a b\n  id: 0\ncontrolPlane:\n  url: http://127.0.0.1\n",
                ["5:3: controlPlane", "2:9: node.name", "3:7: node.id"].as_slice(),
            ),
            (
                "node:\n  name: a b\n  idd: 1\nlog: {level: loud}\nserver:\n  listen: 0.0.0.0:1\n",
                [
                    "3:3: node.idd",
                    "4:14: log.level",
                    "2:9: node.name",
                    "6:11: server.listen",
                ]
                .as_slice(),
            ),
            (
                "node:\n  name: a\nserver:\n  token: ['x']\n  listen: 0.0.0.0:1\ncontrolPlane:\n  urll: x\n",
                [
                    "4:10: server.token",
                    "7:9: controlPlane.urll",
                    "7:3: controlPlane: `url`",
                ]
                .as_slice(),
            ),
            (
                "node:\n  name: a\n  idd: 1\nlog:\n  level: loud\nbird: {binary: 5}\nguard: 5\n",
                ["3:3: node.idd", "5:10: log.level", "7:8: guard"].as_slice(),
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = problems(&path, Environment::default());
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            let refused = load(Some(&path), Environment::default()).unwrap_err();
            assert!(refused.to_string().starts_with(&found[0]), "{refused}");
            assert_eq!(found.len(), places.len(), "{found:#?}");
            for place in places {
                let place = format!("{}:{place}", path.display());
                assert!(
                    found.iter().any(|it| it.starts_with(&place)),
                    "{place}: {found:#?}"
                );
            }
        }
    }
}
