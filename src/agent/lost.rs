//! A start without its state directory waits for it, and answers the local API meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::build::BuildError;
use crate::config::Config;
use crate::controller::Missing;
use crate::document::{Kind, StatusBody};
use crate::http::view::ObjectView;
use crate::http::{
    AgentApi, ApiRefusal, BirdView, Confirmation, HttpOptions, MaintenanceView, NodeView, Overview,
    Server, StatusView,
};
use crate::intervals::LOST_DIRECTORY_POLL;
use crate::model::{InterfaceName, ObjectName};
use crate::telemetry::chain;
use crate::util::notices::Notices;
use crate::util::task::blocking;
use crate::util::version::{COMMIT, VERSION};

/// Waits until the state directory is back, or an operator confirms that it is lost, and answers
/// the local API meanwhile. Returns whether to start.
pub(super) async fn wait(config: &Config, missing: Missing, stop: &CancellationToken) -> bool {
    let directory = config.state.directory.display();
    let waiting = Arc::new(Waiting::new(config, &missing));
    error!(%directory, error = waiting.why(), "waiting for the state directory");
    let serving = CancellationToken::new();
    let http = serve(config.clone(), Arc::clone(&waiting), serving.clone());
    tokio::pin!(http);
    let back = loop {
        tokio::select! {
            () = stop.cancelled() => break false,
            () = &mut http => break false,
            () = tokio::time::sleep(LOST_DIRECTORY_POLL) => {}
        }
        match Missing::look(config).await {
            Ok(()) => break true,
            Err(missing) if waiting.set(&missing) => {
                error!(%directory, error = waiting.why(), "still waiting for the state directory");
            }
            Err(_) => {}
        }
    };
    serving.cancel();
    if back {
        http.await;
        info!(%directory, "state directory available; starting");
    }
    back
}

/// Serves the local API until `stop`. Retries while the port is in use.
async fn serve(config: Config, state: Arc<Waiting>, stop: CancellationToken) {
    loop {
        let of_server = config.server.clone();
        let options = HttpOptions {
            listen: config.server.listen.clone(),
            token: blocking(move || of_server.token_source()).await,
            state: state.clone(),
            trusted_proxies: config.server.trusted_proxies.clone(),
        };
        match Server::bind(&options).await {
            Ok(server) => return server.run(stop.cancelled_owned()).await,
            Err(error) => {
                warn!(error = %chain(&error), "the local API cannot listen; trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOST_DIRECTORY_POLL) => {}
        }
    }
}

/// The local API of an agent that waits for its state directory.
struct Waiting {
    name: String,
    /// The last finding.
    why: Notices,
    since: Instant,
}

impl Waiting {
    fn new(config: &Config, missing: &Missing) -> Self {
        let waiting = Self {
            name: config.node.name.clone(),
            why: Notices::default(),
            since: Instant::now(),
        };
        waiting.set(missing);
        waiting
    }

    fn why(&self) -> String {
        self.why.first().unwrap_or_default()
    }

    /// Stores a new finding. Returns whether it differs.
    fn set(&self, missing: &Missing) -> bool {
        !self.why.new_in([missing.to_string()]).is_empty()
    }

    fn refusal<T>(&self) -> Result<T, ApiRefusal> {
        Err(ApiRefusal::Failed(self.why()))
    }
}

#[async_trait]
impl AgentApi for Waiting {
    async fn status(&self) -> StatusView {
        StatusView {
            status: "failed".to_owned(),
            version: VERSION.to_owned(),
            commit: COMMIT.to_owned(),
            uptime: self.since.elapsed().as_secs(),
            node: NodeView {
                name: self.name.clone(),
                ..NodeView::default()
            },
            circuit_breaker: "closed".to_owned(),
            bird: BirdView {
                error: Some(
                    "not observed while the agent waits for its state directory".to_owned(),
                ),
                ..BirdView::default()
            },
            notices: vec![self.why()],
            ..StatusView::default()
        }
    }

    async fn object_status(&self, _: Kind, _: &ObjectName) -> Option<StatusBody> {
        None
    }

    async fn overview(&self) -> Overview {
        Overview {
            status: self.status().await,
            objects: Vec::new(),
        }
    }

    async fn object_view(&self, _: Kind, _: &ObjectName) -> Option<ObjectView> {
        None
    }

    fn changes(&self) -> watch::Receiver<u64> {
        // Nothing changes until the agent starts again, with another server.
        watch::Sender::default().subscribe()
    }

    fn phases(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn trigger_sync(&self) -> Result<(), ApiRefusal> {
        self.refusal()
    }

    async fn restart(&self, _: InterfaceName) -> Result<(), ApiRefusal> {
        self.refusal()
    }

    async fn maintenance(&self) -> MaintenanceView {
        MaintenanceView::default()
    }

    async fn may_drain(&self, _: bool) -> Result<Option<String>, ApiRefusal> {
        self.refusal()
    }

    async fn set_maintenance(&self, _: bool) -> Result<Confirmation, ApiRefusal> {
        self.refusal()
    }

    async fn metrics(&self) -> String {
        "# HELP moenet_agent_state_directory_missing Whether the agent waits for its state directory\n\
         # TYPE moenet_agent_state_directory_missing gauge\n\
         moenet_agent_state_directory_missing 1\n"
            .to_owned()
    }

    async fn ready(&self) -> bool {
        false
    }
}

impl From<Missing> for BuildError {
    fn from(missing: Missing) -> Self {
        Self::StateDirectoryMissing(Box::new(missing))
    }
}
