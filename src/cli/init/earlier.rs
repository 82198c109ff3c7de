//! The `config.json` of the earlier agent, written in Go: what each key becomes.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::values::Values;

/// What a key of the earlier agent becomes.
enum Counterpart {
    /// A key with the same meaning.
    Key(&'static str),
    /// The directory above.
    Parent(&'static str),
    /// None, and why.
    Nothing(&'static str),
}

use Counterpart::{Key, Nothing, Parent};

const NO_LIMIT: &str = "the limits of the local API are fixed";
const NO_POOL: &str = "the agent needs one connection to BIRD";

/// Every key that the earlier agent read.
const KEYS: [(&str, Counterpart); 30] = [
    ("node.name", Key("node.name")),
    ("node.id", Key("node.id")),
    ("node.region", Key("node.region")),
    ("server.listen", Key("server.listen")),
    ("server.readTimeout", Nothing(NO_LIMIT)),
    ("server.writeTimeout", Nothing(NO_LIMIT)),
    ("server.idleTimeout", Nothing(NO_LIMIT)),
    ("controlPlane.url", Key("controlPlane.url")),
    ("controlPlane.token", Key("controlPlane.token")),
    (
        "controlPlane.requestTimeout",
        Key("controlPlane.requestTimeout"),
    ),
    (
        "controlPlane.heartbeatInterval",
        Key("controlPlane.heartbeatInterval"),
    ),
    (
        "controlPlane.syncInterval",
        Key("controlPlane.syncInterval"),
    ),
    (
        "controlPlane.metricInterval",
        Key("controlPlane.metricInterval"),
    ),
    ("controlPlane.maxRetries", Key("controlPlane.maxRetries")),
    (
        "controlPlane.retryInitialDelay",
        Key("controlPlane.retryInitialDelay"),
    ),
    ("bird.controlSocket", Key("bird.controlSocket")),
    ("bird.poolSize", Nothing(NO_POOL)),
    ("bird.poolSizeMax", Nothing(NO_POOL)),
    ("bird.peerConfDir", Parent("bird.directory")),
    (
        "bird.ibgpConfDir",
        Nothing(
            "internal sessions are in moenet/ibgp.conf below bird.directory; your files stay yours",
        ),
    ),
    ("wireguard.privateKeyPath", Key("wireguard.privateKeyPath")),
    (
        "wireguard.publicKeyPath",
        Nothing("the public key follows from the private key"),
    ),
    (
        "wireguard.configDir",
        Nothing(
            "tunnels are documents and have no files; `moenet-agent adopt --wg-quick DIR` reads those files",
        ),
    ),
    (
        "wireguard.persistentKeepaliveInterval",
        Key("wireguard.persistentKeepaliveInterval"),
    ),
    ("wireguard.dn42Ipv4", Key("node.loopbackIpv4")),
    ("wireguard.dn42Ipv6", Key("node.loopbackIpv6")),
    ("metric.pingTimeout", Key("probe.timeout")),
    ("metric.pingCount", Key("probe.count")),
    (
        "metric.pingWorkers",
        Nothing("probes are spread over their interval"),
    ),
    (
        "autoUpdate.enabled",
        Nothing("the package manager updates the agent"),
    ),
];

/// One key of the earlier configuration, without its value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken {
    pub(super) key: String,
    /// The key that has its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) becomes: Option<&'static str>,
    /// Why no key has its value, or where the value comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<&'static str>,
}

/// Why a file is no configuration of the earlier agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum EarlierError {
    #[error("is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is not a configuration of the earlier agent: it is no object with the section `node`")]
    Other,
}

/// Reads the text of an earlier configuration.
///
/// # Errors
/// It is no such configuration.
pub(super) fn read(text: &str) -> Result<(Values, Vec<Taken>), EarlierError> {
    let value: Value = serde_json::from_str(text)?;
    let sections = value.as_object().ok_or(EarlierError::Other)?;
    if !sections.get("node").is_some_and(Value::is_object) {
        return Err(EarlierError::Other);
    }
    let (mut values, mut taken) = (Values::default(), Vec::new());
    for (section, content) in sections {
        let Some(keys) = content.as_object() else {
            taken.push(take(section, content, &mut values));
            continue;
        };
        for (key, value) in keys {
            taken.push(take(&format!("{section}.{key}"), value, &mut values));
        }
    }
    Ok((values, taken))
}

fn take(key: &str, value: &Value, values: &mut Values) -> Taken {
    let known = KEYS.iter().find(|(known, _)| *known == key);
    let (becomes, note) = match known.map(|(_, counterpart)| counterpart) {
        Some(Key(path)) => {
            values.set(path, value.clone());
            (Some(*path), None)
        }
        Some(Parent(path)) => {
            let parent = value.as_str().and_then(|text| Path::new(text).parent());
            let parent = parent
                .and_then(Path::to_str)
                .filter(|text| !text.is_empty());
            values.set(path, parent);
            match parent {
                Some(_) => (Some(*path), Some("the directory above")),
                None => (None, Some("it has no directory above")),
            }
        }
        Some(Nothing(why)) => (None, Some(*why)),
        None => (None, Some("the key is unknown")),
    };
    Taken {
        key: key.to_owned(),
        becomes,
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = include_str!("../../../tests/cases/go-agent-router/config.json");

    #[test]
    fn every_key_of_the_case_is_named_once() {
        let (values, taken) = read(CONFIG).unwrap();
        assert_eq!(taken.len(), 30);
        let becomes = |key: &str| taken.iter().find(|it| it.key == key).unwrap().becomes;
        assert_eq!(becomes("wireguard.dn42Ipv4"), Some("node.loopbackIpv4"));
        assert_eq!(becomes("bird.peerConfDir"), Some("bird.directory"));
        assert_eq!(becomes("bird.poolSize"), None);
        assert!(
            taken
                .iter()
                .all(|it| it.becomes.is_some() || it.note.is_some())
        );
        let text = crate::cli::commented::configuration(values.sections());
        let config = crate::config::parse(&text).unwrap();
        assert_eq!(config.node.name, "jp1");
        assert_eq!(config.bird.directory, Path::new("/etc/bird"));
        assert_eq!(config.probe.count, 4);
        assert_eq!(values.missing(), []);
    }

    #[test]
    fn unknown_keys_are_named_and_other_files_refused() {
        let (_, taken) = read(r#"{"node": {"name": "a", "colour": 1}, "extra": 2}"#).unwrap();
        let unknown = taken
            .iter()
            .filter(|it| it.note == Some("the key is unknown"));
        assert_eq!(unknown.count(), 2);
        for other in ["[]", "{}", r#"{"node": 1}"#, "node: {name: a}"] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
