use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Config, ConfigError, Environment, load};

use crate::util::sorted::Sorted as _;

/// The keys whose values take effect on SIGHUP; a key includes those below it.
const RELOADABLE: [&str; 13] = [
    "controlPlane.token",
    "controlPlane.tokenFile",
    "controlPlane.heartbeatInterval",
    "controlPlane.syncInterval",
    "controlPlane.meshInterval",
    "controlPlane.birdConfigInterval",
    "controlPlane.configInterval",
    "controlPlane.metricInterval",
    "server.token",
    "server.tokenFile",
    "guard",
    "maintenance",
    "log.level",
];

/// The configuration of a running agent. Some keys take effect when its file is read again.
#[derive(Debug)]
pub struct LiveConfig {
    started: Config,
    current: Mutex<Arc<Config>>,
}

/// The result of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose new value is in effect.
    pub changed: Vec<String>,
    /// The keys whose new value takes effect at the next start.
    pub needs_restart: Vec<String>,
}

impl LiveConfig {
    /// Starts with this configuration.
    pub fn new(config: Config) -> Self {
        let current = Mutex::new(Arc::new(config.clone()));
        Self {
            started: config,
            current,
        }
    }

    /// Returns the current configuration.
    pub fn get(&self) -> Arc<Config> {
        Arc::clone(&self.current.lock())
    }

    /// Reads the file again and applies the values that may change while the agent runs.
    ///
    /// # Errors
    /// As [`load()`]; nothing changes then.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        let read = load(Some(&self.started.source.path), Environment::read())?;
        Ok(self.take(read))
    }

    fn take(&self, new: Config) -> Reloaded {
        let mut current = self.current.lock();
        let keys = |before: &Config| differences(&before.source.values, &new.source.values);
        let changed = keys(&current).into_iter().filter(|k| is_reloadable(k));
        let needs_restart = keys(&self.started)
            .into_iter()
            .filter(|k| !is_reloadable(k));
        let reloaded = Reloaded {
            changed: changed.collect(),
            needs_restart: needs_restart.collect(),
        };
        *current = Arc::new(merged(&self.started, new));
        reloaded
    }
}

/// Returns the configuration of the start, with the reloadable values of the new one.
fn merged(started: &Config, new: Config) -> Config {
    let mut merged = started.clone();
    if let (Some(into), Some(from)) = (&mut merged.control_plane, new.control_plane) {
        into.token = from.token;
        into.token_file = from.token_file;
        into.heartbeat_interval = from.heartbeat_interval;
        into.sync_interval = from.sync_interval;
        into.mesh_interval = from.mesh_interval;
        into.bird_config_interval = from.bird_config_interval;
        into.config_interval = from.config_interval;
        into.metric_interval = from.metric_interval;
    }
    merged.server.token = new.server.token;
    merged.server.token_file = new.server.token_file;
    merged.guard = new.guard;
    merged.maintenance = new.maintenance;
    merged.log.level = new.log.level;
    merged.source = new.source;
    merged
}

/// Returns whether the value of a key takes effect on SIGHUP.
pub(crate) fn is_reloadable(key: &str) -> bool {
    let covers = |known: &&str| {
        let below = key.strip_prefix(*known);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    RELOADABLE.iter().any(covers)
}

/// Returns the keys with a changed value, as `guard.maxRemovals`; never the values, which may be secret.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect("", before, after, &mut found);
    found
}

fn collect(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    let none = serde_json::Map::new();
    let fields = |value: &Value| {
        value
            .as_object()
            .cloned()
            .or_else(|| value.is_null().then(|| none.clone()))
    };
    match (fields(before), fields(after)) {
        (Some(one), Some(other)) => {
            let keys: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).sorted_set();
            for key in keys {
                let at = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let value = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_default()
                };
                collect(&at, &value(&one), &value(&other), found);
            }
        }
        _ if before != after => found.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = crate::config::parse(text).unwrap();
        config.source.values = crate::document::parse_value(text).unwrap();
        config
    }

    const STARTED: &str = "node: {name: a, id: 1, asn: 64512}\nlog: {level: info}\n";

    #[test]
    fn reload_applies_live_keys_and_names_restart_keys() {
        let live = LiveConfig::new(config(STARTED));
        let text = "node: {name: b, id: 1, asn: 64512}\nlog: {level: debug, format: json}\nguard: {maxRemovals: 1}\n";
        let reloaded = live.take(config(text));
        assert_eq!(reloaded.changed, ["guard.maxRemovals", "log.level"]);
        assert_eq!(reloaded.needs_restart, ["log.format", "node.name"]);
        let now = live.get();
        assert_eq!(
            (now.log.level.as_str(), now.node.name.as_str()),
            ("debug", "a")
        );
        let again = live.take(config(text));
        assert_eq!(again.changed, Vec::<String>::new());
        assert_eq!(
            again.needs_restart, reloaded.needs_restart,
            "said until the restart"
        );
        let back = live.take(config(STARTED));
        assert_eq!(back.changed, ["guard.maxRemovals", "log.level"]);
        assert!(back.needs_restart.is_empty() && live.get().log.level == "info");
    }

    #[test]
    fn no_value_of_a_changed_key_is_named() {
        let cp = |token: &str| {
            format!("node: {{name: a}}\ncontrolPlane: {{url: 'http://x', token: {token}}}\n")
        };
        let live = LiveConfig::new(config(&cp("first")));
        let reloaded = live.take(config(&cp("s3cret")));
        assert_eq!(reloaded.changed, ["controlPlane.token"]);
        assert!(!format!("{reloaded:?}{live:?}").contains("s3cret"));
    }

    #[test]
    fn every_reloadable_key_is_a_key_of_the_configuration() {
        let schema = crate::config::schema().to_string();
        for key in RELOADABLE {
            let last = key.rsplit('.').next().unwrap();
            assert!(schema.contains(&format!("\"{last}\"")), "{key}");
        }
    }
}
