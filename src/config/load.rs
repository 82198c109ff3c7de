use std::path::{Path, PathBuf};

use super::{Config, Source};
use crate::disk;
use crate::document::{DocumentError, parse_value};
use crate::model::Secret;

/// Where the configuration is looked for when `--config` is not given.
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was found.
    #[error(
        "no configuration: give --config FILE, or put one at ./config.yaml or /etc/moenet-agent/config.yaml"
    )]
    NotFound,
    /// A file cannot be read.
    #[error("reading {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error(transparent)]
    Invalid(#[from] DocumentError),
    /// A value contradicts another.
    #[error("{path}: {reason}", path = path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Loads the configuration from `--config`, or from the first place that has one.
///
/// # Errors
/// Names the file, the line and the key.
pub fn load(given: Option<&Path>, environment: Environment) -> Result<Config, ConfigError> {
    let found = || PLACES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = given
        .map(Path::to_owned)
        .or_else(found)
        .ok_or(ConfigError::NotFound)?;
    let text = read(&path, disk::DOCUMENT)?;
    let mut config = parse(&text).map_err(|error| error.in_file(&path))?;
    let values = parse_value(&text).map_err(|error| error.in_file(&path))?;
    apply(&mut config, environment);
    check(&config).map_err(|reason| ConfigError::Rule {
        path: path.clone(),
        reason,
    })?;
    config.source = Source { path, values };
    Ok(config)
}

/// Parses the text of a configuration file.
///
/// # Errors
/// Line, column, key and reason.
pub fn parse(text: &str) -> Result<Config, DocumentError> {
    parse_value(text)
}

fn read(path: &Path, limit: u64) -> Result<String, ConfigError> {
    disk::read_text(path, limit).map_err(|source| ConfigError::Read {
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

fn check(config: &Config) -> Result<(), String> {
    if let Some(control_plane) = &config.control_plane {
        let token = control_plane
            .token
            .as_ref()
            .map(|token| token.expose().trim());
        let is_missing = token.is_none() && control_plane.token_file.is_none();
        if is_missing || token.is_some_and(str::is_empty) {
            return Err(
                "controlPlane: a token is needed; give token, tokenFile or MOENET_CP_TOKEN".into(),
            );
        }
    }
    if config.control_plane.is_none() && (config.node.id.is_none() || config.node.asn.is_none()) {
        return Err("node: without controlPlane, give node.id and node.asn".into());
    }
    let name = &config.node.name;
    if name.is_empty()
        || name.len() > 63
        || !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    {
        return Err(format!(
            "node.name: 1..63 characters of A-Z a-z 0-9 _ . -, not {name:?}"
        ));
    }
    if config.node.id == Some(0) {
        return Err("node.id: 1..65535, not 0".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "node: {name: jp1}\ncontrolPlane: {url: 'http://127.0.0.1:1', token: t}\n";

    #[test]
    fn the_minimal_file_is_enough() {
        let config = parse(MINIMAL).unwrap();
        assert_eq!(config.bird.confirm_timeout.get().as_secs(), 30);
        check(&config).unwrap();
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
        assert!(
            check(&parse("node: {name: a}\n").unwrap())
                .unwrap_err()
                .contains("node.id")
        );
        assert!(check(&parse("node: {name: a, id: 1, asn: 64512}\n").unwrap()).is_ok());
    }
}
