use super::{Config, Server};
use crate::document::{self, DocumentError};
use crate::model::Secret;

/// A violated rule.
pub(super) struct Broken {
    /// The keys that the rule is about. The first one is named.
    keys: &'static [&'static str],
    reason: String,
}

impl Broken {
    fn new(keys: &'static [&'static str], reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { keys, reason }
    }

    /// Returns whether another value of this field could keep the rule.
    pub(super) fn is_about(&self, field: &str) -> bool {
        let is_below = |below: &str, above: &str| {
            let rest = below.strip_prefix(above);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let mut keys = self.keys.iter();
        keys.any(|key| is_below(field, key) || is_below(key, field))
    }

    pub(super) fn placed(&self, text: &str) -> DocumentError {
        let key = self.keys.first().copied().unwrap_or_default();
        at_key(text, key, &format!("{key}: {}", self.reason))
    }
}

/// Returns an error about a key, at its location or that of the nearest key above.
pub(super) fn at_key(text: &str, key: &str, message: &str) -> DocumentError {
    let path: Vec<&str> = key.split('.').collect();
    let mut above = (1..=path.len()).rev();
    DocumentError {
        location: above.find_map(|end| document::locate(text, path.get(..end)?)),
        field: key.to_owned(),
        ..DocumentError::whole(message)
    }
}

/// Returns the rules about several keys, or about values that their types accept, which a configuration violates.
pub(super) fn rules(config: &Config) -> Vec<Broken> {
    let all = of_node(config).into_iter().chain(of_server(&config.server));
    all.flatten().collect()
}

fn of_node(config: &Config) -> [Option<Broken>; 4] {
    let name = &config.node.name;
    let is_name = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let alone = config.control_plane.is_none();
    let unknown = alone && (config.node.id.is_none() || config.node.asn.is_none());
    [
        lacks_token(config).then(|| {
            let reason = "a token is needed; give token, tokenFile or MOENET_CP_TOKEN";
            Broken::new(&["controlPlane"], reason)
        }),
        unknown.then(|| {
            let reason = "without controlPlane, give node.id and node.asn";
            Broken::new(&["node", "controlPlane"], reason)
        }),
        (!is_name).then(|| {
            let reason =
                format!("invalid name {name:?}: use 1..63 characters of A-Z a-z 0-9 _ . -");
            Broken::new(&["node.name"], reason)
        }),
        (config.node.id == Some(0))
            .then(|| Broken::new(&["node.id"], "invalid id 0: use 1..65535")),
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

fn of_server(server: &Server) -> [Option<Broken>; 3] {
    let glass = server.looking_glass.as_ref();
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
        let is_same = token.is_some() && token == text(&server.token);
        is_same || glass.token_file.is_some() && glass.token_file == server.token_file
    });
    let is_open = server.token.is_none() && server.token_file.is_none();
    let is_empty = |token: &Secret<String>| token.expose().trim().is_empty();
    [
        (is_open_glass || is_shared_token).then(|| {
            let reason =
                "a token of its own is needed, other than server.token; give token or tokenFile";
            let keys = &["server.lookingGlass", "server.token", "server.tokenFile"];
            Broken::new(keys, reason)
        }),
        (is_open && !server.listen.is_local()).then(|| {
            let reason = format!(
                "{} can be reached from outside; set server.token (or tokenFile), or listen on 127.0.0.1",
                server.listen
            );
            let keys = &["server.listen", "server.token", "server.tokenFile"];
            Broken::new(keys, reason)
        }),
        server.token.as_ref().is_some_and(is_empty).then(|| {
            let reason = "is empty; remove it, or give it a value";
            Broken::new(&["server.token"], reason)
        }),
    ]
}
