use std::path::{Path, PathBuf};

use super::{Config, Source};
use crate::document::{self, DocumentError, Scalars, parse_value};
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
    Invalid(#[from] DocumentError),
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
    let mut config = parse(&text).map_err(|error| error.in_file(&path))?;
    let values = parse_value(&text).map_err(|error| error.in_file(&path))?;
    apply(&mut config, environment);
    if let Some(broken) = broken_rules(&config, &text).into_iter().next() {
        return Err(broken.in_file(&path).into());
    }
    config.source = Source { path, values };
    Ok(config)
}

/// Checks the text of a file as [`load`] does.
///
/// # Errors
/// Names line and key.
pub(crate) fn check(text: &str, environment: Environment) -> Result<(), DocumentError> {
    let mut config = parse(text)?;
    apply(&mut config, environment);
    let broken = broken_rules(&config, text).into_iter().next();
    broken.map_or(Ok(()), Err)
}

/// Returns every reason for which [`load`] rejects a file, with the text of its error first.
pub(crate) fn problems(path: &Path, environment: Environment) -> Vec<String> {
    let text = match read(path, file::DOCUMENT) {
        Ok(text) => text,
        Err(error) => return vec![error.to_string()],
    };
    let found = match parse(&text) {
        Ok(mut config) => {
            apply(&mut config, environment);
            broken_rules(&config, &text)
        }
        Err(first) => {
            let value = parse_value(keys(&text));
            let faults =
                value.map(|value| document::faults::<Config>(value, &sample(), Scalars::AsWritten));
            document::placed(&text, first, faults.unwrap_or_default())
        }
    };
    let found = found
        .into_iter()
        .map(|error| error.in_file(path).to_string());
    found.collect()
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

/// Returns the violated rules of a configuration, each at the location of its key or of the nearest key above.
fn broken_rules(config: &Config, text: &str) -> Vec<DocumentError> {
    let broken = rules(config).into_iter().flatten();
    let located = broken.map(|(key, reason)| {
        let path: Vec<&str> = key.split('.').collect();
        let location = (1..=path.len())
            .rev()
            .find_map(|end| document::locate(text, path.get(..end)?));
        DocumentError {
            file: None,
            location,
            field: key.to_owned(),
            message: format!("{key}: {reason}"),
            is_denied: false,
        }
    });
    located.collect()
}

/// A key, and the reason why its value is wrong.
type Broken = Option<(&'static str, String)>;

fn rules(config: &Config) -> [Broken; 5] {
    let name = &config.node.name;
    let is_name = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let alone = config.control_plane.is_none();
    let glass = config.server.looking_glass.as_ref();
    let is_open_glass = glass.is_some_and(|glass| {
        let token = glass.token.as_ref().map(|token| token.expose().trim());
        token.map_or(glass.token_file.is_none(), str::is_empty)
    });
    let is_shared_token = glass.is_some_and(|glass| {
        let text = |token: &Option<Secret<String>>| {
            let token = token.as_ref().map(|token| token.expose().trim().to_owned());
            token.filter(|token| !token.is_empty())
        };
        let token = text(&glass.token);
        let is_same = token.is_some() && token == text(&config.server.token);
        is_same || glass.token_file.is_some() && glass.token_file == config.server.token_file
    });
    let unknown = alone && (config.node.id.is_none() || config.node.asn.is_none());
    [
        lacks_token(config).then(|| {
            let reason = "a token is needed; give token, tokenFile or MOENET_CP_TOKEN";
            ("controlPlane", reason.to_owned())
        }),
        unknown.then(|| {
            let reason = "without controlPlane, give node.id and node.asn";
            ("node", reason.to_owned())
        }),
        (!is_name).then(|| {
            let reason =
                format!("invalid name {name:?}: use 1..63 characters of A-Z a-z 0-9 _ . -");
            ("node.name", reason)
        }),
        (is_open_glass || is_shared_token).then(|| {
            let reason =
                "a token of its own is needed, other than server.token; give token or tokenFile";
            ("server.lookingGlass", reason.to_owned())
        }),
        (config.node.id == Some(0)).then(|| ("node.id", "invalid id 0: use 1..65535".to_owned())),
    ]
}

fn lacks_token(config: &Config) -> bool {
    let Some(control_plane) = &config.control_plane else {
        return false;
    };
    let token = control_plane
        .token
        .as_ref()
        .map(|token| token.expose().trim());
    let is_missing = token.is_none() && control_plane.token_file.is_none();
    is_missing || token.is_some_and(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "node: {name: jp1}\ncontrolPlane: {url: 'http://127.0.0.1:1', token: t}\n";

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
        assert_eq!(broken_rules(&config, MINIMAL), []);
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
        let broken = |text: &str| broken_rules(&parse(text).unwrap(), text);
        let found = broken("node: {name: a}\n");
        assert!(found[0].message.contains("node.id"), "{found:?}");
        assert_eq!(broken("node: {name: a, id: 1, asn: 64512}\n"), []);
    }

    #[test]
    fn looking_glass_needs_a_token_of_its_own() {
        let broken = |glass: &str| {
            let text = format!("{MINIMAL}server: {{token: a, lookingGlass: {glass}}}\n");
            broken_rules(&parse(&text).unwrap(), &text).len()
        };
        assert_eq!((broken("{}"), broken("{token: ' '}")), (1, 1));
        assert_eq!(broken("{token: a}"), 1, "the API's token");
        assert_eq!((broken("{token: b}"), broken("{tokenFile: /x}")), (0, 0));
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
                "node:\n  name: a\n  idd: 1\nlog:\n  level: loud\nbird: {binary: 5}\nguard: 5\n",
                ["3:3: node.idd", "5:10: log.level", "7:8: guard"].as_slice(),
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = problems(&path, Environment::default());
            let refused = load(Some(&path), Environment::default()).unwrap_err();
            assert_eq!(found[0], refused.to_string());
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
