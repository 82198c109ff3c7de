//! Client of the running daemon's local API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use serde_json::Value;

use crate::config::{Config, Listen};
use crate::document::StatusBody;
use crate::intervals::{API_CALL, API_CONNECT, DAEMON_CHECK};
use crate::model::Secret;
use crate::status::Health;

/// The local API.
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    listen: Listen,
    token: Option<Secret<String>>,
}

impl Api {
    /// Creates a client for the listening address in the configuration.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        // An error means that it is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listen = config.server.listen.clone();
        let builder = reqwest::Client::builder()
            .timeout(API_CALL)
            .connect_timeout(API_CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_certs_only([]);
        let (builder, base) = match &listen {
            Listen::Tcp(address) => (builder, format!("http://{}", reachable(*address))),
            Listen::Unix(path) => (
                builder.unix_socket(path.as_path()),
                "http://localhost".to_owned(),
            ),
        };
        let http = builder.build().context("set up the HTTP client")?;
        Ok(Self {
            http,
            base,
            listen,
            token: config.server.token_source().current()?,
        })
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(self.url(path))).await
    }

    /// `POST`, with a body if the call has one.
    pub(crate) async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let request = self.http.post(self.url(path));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.send(request).await
    }

    /// Opens the stream of events.
    pub(crate) async fn events(&self) -> anyhow::Result<reqwest::Response> {
        let request = self.with_token(self.http.get(self.url("/events")));
        let response = request.send().await?.error_for_status()?;
        Ok(response)
    }

    fn with_token(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose().trim()),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let request = self.with_token(request);
        // Its text holds the address, which the message already has.
        let response = request
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| {
                format!(
                    "no daemon answers on {}; start it with `moenet-agent run`",
                    self.listen
                )
            })?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(reqwest::Error::without_url)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        match refusal(&answer) {
            Some(text) => anyhow::bail!("{text}"),
            None => anyhow::bail!("the daemon answers {status}"),
        }
    }
}

/// The running agent, if there is one.
pub(crate) struct Agent(Option<Api>);

impl Agent {
    pub(crate) async fn find(config: &Config) -> Self {
        let Ok(api) = Api::new(config) else {
            return Self(None);
        };
        let answers = tokio::time::timeout(DAEMON_CHECK, api.get("/healthz")).await;
        Self(matches!(answers, Ok(Ok(_))).then_some(api))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Returns why it cannot do its work, if it says so.
    pub(crate) async fn failure(&self) -> Option<Vec<String>> {
        let status = self.0.as_ref()?.get("/status").await.ok()?;
        let reasons = status["reasons"].as_array().into_iter().flatten();
        let reasons = reasons.filter_map(Value::as_str).map(str::to_owned);
        (status["status"] == Health::Failed.to_string()).then(|| reasons.collect())
    }

    /// Returns its status of an object.
    pub(crate) async fn status(&self, object: &str) -> Option<StatusBody> {
        let api = self.0.as_ref()?;
        let status = api.get(&format!("/status/{object}")).await.ok()?;
        serde_json::from_value(status).ok()
    }
}

/// Returns the reason in an error response.
fn refusal(answer: &Value) -> Option<&str> {
    answer["error"].as_str()
}

/// Converts a listening address to one to connect to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        for (listen, connect) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:24368", "[::1]:24368"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), connect.parse().unwrap());
        }
    }
}
