//! What the operators wrote for each router: derived from the description of a network, else in the router's own
//! folder. The last description without an error is served; the store only holds files.

mod last;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::check::{self, Problem};
use super::finding::Finding;
use super::good::{Good, Written};
use super::layout::{Tokens, file_of, shown};
use super::mesh_keys::KnownKeys;
use super::network::{
    FleetFiles, MeshKeys, NETWORK, Network, ROUTERS, SESSIONS, TokenFields, Tunnel,
    maintenance_path, router_path, session,
};
use super::revisions::Described as DescribedRevisions;
use super::rollout::{Description, Rollouts};
use super::store::{Door, PostedKeys, Store};
use super::version::{Revisions, Version, version};
use crate::http::{ApiError, Client};
use crate::intervals::FLEET_POLL;
use crate::model::{ObjectName, Secret};
use crate::util::task::blocking;
use crate::wire::Call;
use last::Last;

/// The files of the operators, of both layouts.
pub(super) struct Described {
    store: Arc<dyn Store>,
    /// `None` for verbs of the command line, which decide nothing.
    rollouts: Option<Rollouts>,
    /// The description of routers without the change on its way.
    before: Mutex<Option<Arc<Current>>>,
    last: tokio::sync::Mutex<Last>,
    /// The newest tokens of each router that its file gave, also a file of a description with an error.
    tokens: Mutex<HashMap<ObjectName, TokenFields>>,
    keys: KnownKeys,
    /// The errors in the sessions of each router, of the version that was looked at last.
    session_errors: Mutex<HashMap<ObjectName, (Version, Vec<String>)>>,
    /// The last valid text of each session's file that changed since its list was made.
    sessions: Mutex<HashMap<String, Arc<str>>>,
    /// What the last look found, for requests that arrive during the next one.
    served: Mutex<Look>,
}

/// The description to serve, and why a newer one is not served.
type Look = (Option<Arc<Current>>, Option<Trouble>);

/// The reason why newer files are not served.
#[derive(Debug, Clone)]
struct Trouble {
    why: String,
    /// Whether it passes by itself within seconds, as while files are written.
    passes: bool,
    /// The newer files; `None` while they cannot be read.
    files: Option<Arc<FleetFiles>>,
}

impl Trouble {
    /// Returns whether a router may have newer tokens than those that were read.
    fn hides_tokens_of(&self, router: &ObjectName) -> bool {
        let text = self
            .files
            .as_ref()
            .and_then(|it| it.text(&router_path(router)));
        text.and_then(|text| TokenFields::read(text)).is_none()
    }
}

/// A description, and the files with its sessions.
struct Current {
    files: Arc<FleetFiles>,
    network: Arc<Network>,
    /// The revisions with the keys of tunnels at the last look.
    revisions: Mutex<Option<Arc<DescribedRevisions>>>,
}

/// What the answer of a described router depends on.
struct Inputs {
    current: Arc<Current>,
    /// The keys of the neighbours, for the tunnels.
    keys: MeshKeys,
}

impl Described {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            rollouts: None,
            before: Mutex::default(),
            last: tokio::sync::Mutex::default(),
            tokens: Mutex::default(),
            keys: KnownKeys::default(),
            session_errors: Mutex::default(),
            sessions: Mutex::default(),
            served: Mutex::default(),
        }
    }

    /// The same for a server, which gives changes to the routers in waves.
    pub(super) fn in_waves(store: Arc<dyn Store>) -> Self {
        Self {
            rollouts: Some(Rollouts::new(Arc::clone(&store))),
            ..Self::new(store)
        }
    }

    async fn look(&self) -> Look {
        let last = match self.last.try_lock() {
            Ok(last) => last,
            Err(_) => {
                let served = self.served.lock().clone();
                if served.0.is_some() {
                    return served;
                }
                self.last.lock().await
            }
        };
        self.look_with(last).await
    }

    /// Looks after a change of the files by this server: each request after it is answered from them, also one that
    /// arrives during another look.
    pub(super) async fn look_after_change(&self) {
        let last = self.last.lock().await;
        drop(self.look_with(last).await);
    }

    async fn look_with(&self, mut last: tokio::sync::MutexGuard<'_, Last>) -> Look {
        match self.store.network().await {
            Err(error) => last.unread(&error),
            Ok(None) if last.current.is_none() => *last = Last::default(),
            Ok(None) => {
                last.was_read();
                last.seen = None;
                last.fail(vec![format!("{NETWORK} does not exist any more")]);
            }
            Ok(Some(files)) if last.has_seen(&files) => last.was_read(),
            Ok(Some(_)) if last.waits() => {}
            Ok(Some(files)) => self.take(&mut last, files).await,
        }
        let look = (last.current.clone(), last.trouble());
        self.served.lock().clone_from(&look);
        look
    }

    async fn take(&self, last: &mut Last, files: Arc<FleetFiles>) {
        let before = last.current.clone();
        let before_files = last.seen.clone();
        let (files, read, tokens) = blocking(move || {
            let read = Current::read(&files, before.as_deref());
            let tokens = tokens(&files, read.as_ref().ok());
            (files, read, tokens)
        })
        .await;
        // A token counts at once, also one of a description that is not served.
        self.tokens.lock().extend(tokens);
        if let (Ok(current), Some(rollouts)) = (&read, &self.rollouts) {
            // Until it is decided on, no router gets it.
            let decided = rollouts.look(&current.newest(), &files).await;
            if !matches!(decided, Ok(true)) {
                last.retry = Some(Instant::now() + FLEET_POLL);
            }
            match decided {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return last.unread(&error),
            }
        }
        last.was_read();
        self.keep_sessions(before_files.as_deref(), &files);
        last.take(files, read);
    }

    /// Makes the next step of a change that is on its way. Requests do not wait for it.
    async fn go_on(&self) {
        let (current, seen) = {
            let last = self.last.lock().await;
            (last.current.clone(), last.seen.clone())
        };
        let (Some(rollouts), Some(current), Some(seen)) = (&self.rollouts, current, seen) else {
            return;
        };
        if rollouts.is_recent() {
            return;
        }
        if let Err(error) = rollouts.look(&current.newest(), &seen).await {
            tracing::debug!(%error, "next step of a change of the network is not possible now");
        }
    }

    /// Returns the description that a router gets, which is an earlier one until a change reaches the router.
    fn structure(&self, newest: &Arc<Current>, router: &ObjectName) -> Arc<Current> {
        let rollouts = self.rollouts.as_ref();
        let Some(earlier) = rollouts.and_then(|rollouts| rollouts.before(router)) else {
            return Arc::clone(newest);
        };
        // A router that is new has no earlier description.
        if earlier.network.router(router).is_none() {
            return Arc::clone(newest);
        }
        let mut before = self.before.lock();
        let known = before.take();
        let known = known.filter(|it| Arc::ptr_eq(&it.network, &earlier.network));
        let known = known.unwrap_or_else(|| Arc::new(Current::of(earlier)));
        *before = Some(Arc::clone(&known));
        known
    }

    /// Returns whether a router gets the newest description.
    pub(super) fn gets_newest(&self, router: &ObjectName) -> bool {
        let rollouts = self.rollouts.as_ref();
        rollouts.is_none_or(|rollouts| rollouts.before(router).is_none())
    }

    /// Permits a router to drain, or says which budget forbids it. `by` is the client, and whether it forces the drain.
    pub(super) async fn drain(
        &self,
        router: &ObjectName,
        by: (Client, bool),
    ) -> Result<(), ApiError> {
        let Some(rollouts) = &self.rollouts else {
            return Ok(());
        };
        let current = self.current(router).await;
        let network = current.as_ref().map(|current| &*current.network);
        rollouts.drain(network, router, by).await
    }

    /// Returns why the newest description is not served; `None` during a short write, while one of before is.
    pub(super) async fn error(&self) -> Option<String> {
        let (current, trouble) = self.look().await;
        let trouble = trouble.filter(|it| !it.passes || current.is_none());
        trouble.map(|it| it.why)
    }

    async fn current(&self, router: &ObjectName) -> Option<Arc<Current>> {
        let (current, _) = self.look().await;
        current.filter(|current| current.network.router(router).is_some())
    }

    /// Returns each router with the revision of its answers.
    pub(super) async fn revisions(&self) -> Arc<Revisions> {
        self.go_on().await;
        let mut all = self.store.revisions().await;
        let (Some(current), _) = self.look().await else {
            return Arc::new(all);
        };
        // Without the keys of now, those of before are served.
        let keys = self.store.mesh_keys().await.ok();
        let mut described = blocking(move || current.revisions(keys)).await;
        let rollouts = self.rollouts.as_ref();
        if let Some(rollouts) = rollouts.filter(|it| it.has_before()) {
            for (router, revision) in Arc::make_mut(&mut described) {
                // It changes again when the change on its way reaches the router.
                if rollouts.before(router).is_some() {
                    revision.answers = version(&(revision.answers, "before"));
                }
            }
        }
        if all.is_empty() {
            return described;
        }
        all.extend(described.iter().map(|(router, it)| (router.clone(), *it)));
        Arc::new(all)
    }

    /// Returns how a router is let in. `None`: the fleet has no such router.
    pub(super) async fn door(&self, name: &ObjectName) -> Result<Option<Door>, ApiError> {
        let (current, error) = self.look().await;
        let described = current
            .as_ref()
            .filter(|it| it.network.router(name).is_some());
        if let Some(current) = described {
            return Ok(Some(Door {
                tokens: self.tokens(name).await,
                is_being_written: error.is_some_and(|it| it.hides_tokens_of(name)),
                in_maintenance: current.files.text(&maintenance_path(name)).is_some(),
            }));
        }
        let file = self.store.file(Path::new(&router_path(name))).await;
        // A server that has read no valid description does not serve an old folder in its place.
        if (current.is_some() || matches!(file, Ok(None)))
            && let Some(door) = self.store.door(name).await?
        {
            return Ok(Some(door));
        }
        // After a 404, a router waits for an operator.
        match file {
            Ok(None) => Ok(None),
            Ok(Some(_)) | Err(_) => {
                let why = error.map(|it| it.why);
                let why = why.unwrap_or_else(|| "its file is being written; retry".to_owned());
                let message = format!("{name} is not served yet: {why}");
                Err(ApiError::internal(message))
            }
        }
    }

    /// Returns the tokens of a router.
    async fn tokens(&self, name: &ObjectName) -> Result<Tokens, ApiError> {
        let wrong = |message: String| ApiError::internal(format!("routers/{name}.yaml: {message}"));
        let fields = self.tokens.lock().get(name).cloned();
        let fields = fields.unwrap_or_default();
        let token = match (fields.token, fields.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => {
                let text = self.store.file(&Path::new(ROUTERS).join(path)).await;
                let text = text.map_err(|error| wrong(format!("tokenFile: {error}")))?;
                let text = text.ok_or_else(|| wrong("tokenFile does not exist".to_owned()))?;
                Some(Secret::new(text.to_string()))
            }
            (None, None) => None,
        };
        Tokens::new(token.as_ref(), fields.token_hashes).map_err(|error| wrong(error.to_string()))
    }

    /// Returns the version of what the operator wrote for an answer; `None` while its files may change.
    pub(super) async fn version(
        &self,
        router: &ObjectName,
        call: Call,
    ) -> Result<Option<Version>, ApiError> {
        match self.inputs(router, call).await? {
            Some(inputs) => Ok(Some(inputs.version(router, call))),
            None => Ok(self.store.version(router, call).await),
        }
    }

    /// Returns what the operator wrote for an answer. May wait until a file is complete.
    pub(super) async fn written(
        &self,
        router: &ObjectName,
        call: Call,
    ) -> Result<Written, ApiError> {
        let Some(inputs) = self.inputs(router, call).await? else {
            let before = self.store.version(router, call).await;
            let written = self.store.written(router, call).await?;
            let after = self.store.version(router, call).await;
            let version = before.filter(|_| before == after);
            return Ok(Written { version, ..written });
        };
        let Inputs { current, keys } = &inputs;
        let answer = match call {
            Call::Config => current.network.config(router),
            Call::Mesh => current.network.mesh(router, keys),
            Call::BirdConfig => current.network.bird_config(router),
            _ => Some(self.sessions(&current.files, router)?),
        };
        let config = current.network.config(router).unwrap_or_default();
        Ok(Written {
            answer: Arc::new(answer.unwrap_or_default()),
            node: config.get("node").cloned(),
            version: Some(inputs.version(router, call)),
        })
    }

    /// Returns what the answer of a router of the network depends on; `None` for another router.
    async fn inputs(&self, router: &ObjectName, call: Call) -> Result<Option<Inputs>, ApiError> {
        let Some(newest) = self.current(router).await else {
            return Ok(None);
        };
        let current = match call {
            // A list of sessions concerns its own router only.
            Call::Sessions => Arc::clone(&newest),
            _ => self.structure(&newest, router),
        };
        let mut keys = MeshKeys::new();
        if call == Call::Mesh {
            self.keys.look(&newest.network, &*self.store).await?;
            keys = self.keys.of(&current.network, router);
        }
        Ok(Some(Inputs { current, keys }))
    }

    /// Returns the list of sessions; of a file with an error, the last valid version.
    fn sessions(
        &self,
        files: &FleetFiles,
        router: &ObjectName,
    ) -> Result<Map<String, Value>, ApiError> {
        // A request for older files may come after newer ones, so `keep_sessions` alone changes them.
        let last = self.sessions.lock();
        let mut list = Vec::new();
        for (path, text) in files.sessions_of(router) {
            let error = match text.map(|text| (text, session(path, text))) {
                Ok((_, Ok(value))) => {
                    list.push(value);
                    continue;
                }
                Ok((_, Err(error))) => error,
                Err(why) => Finding::whole(path.as_ref(), why),
            };
            let valid = last.get(path).and_then(|text| session(path, text).ok());
            let Some(value) = valid else {
                // Without it, the list would remove a session.
                return Err(ApiError::internal(error.to_string()));
            };
            tracing::warn!(%error, "session has an error; serving the last valid version");
            list.push(value);
        }
        let list = ("sessions".to_owned(), Value::from(list));
        Ok(Map::from_iter([list]))
    }

    /// Refuses an empty list after one with sessions that were not deleted: their folder may not be mounted.
    pub(super) async fn check_no_sessions(
        &self,
        name: &ObjectName,
        before: &Good,
    ) -> Result<(), ApiError> {
        let Some(current) = self.current(name).await else {
            return Ok(());
        };
        match current.network.lost_sessions(name, before.len()) {
            Some(why) => Err(ApiError::internal(why)),
            None => Ok(()),
        }
    }

    /// Keeps the valid texts of sessions whose files changed, in case that the new ones are not valid.
    fn keep_sessions(&self, before: Option<&FleetFiles>, files: &FleetFiles) {
        let mut last = self.sessions.lock();
        last.retain(|path, _| files.has(path));
        for (path, text) in before.into_iter().flat_map(|it| files.changed_sessions(it)) {
            if session(path, text).is_ok() {
                last.insert(path.to_owned(), Arc::clone(text));
            }
        }
    }

    /// Returns the errors in the sessions that the operator wrote for a router, as its agent would find them.
    pub(super) async fn session_errors(
        &self,
        router: &ObjectName,
        written: &Written,
    ) -> Vec<String> {
        if let Some((version, known)) = self.session_errors.lock().get(router)
            && Some(*version) == written.version
        {
            return known.clone();
        }
        let found = match self.current(router).await {
            Some(current) => {
                let router = router.clone();
                blocking(move || {
                    current
                        .network
                        .findings_of_sessions(&router, &current.files)
                })
                .await
            }
            None => {
                let call = Call::Sessions;
                let units = check::units(call, &written.answer, written.node.as_ref());
                let problems: Vec<_> = units.into_iter().flat_map(|unit| unit.problems).collect();
                self.findings(router, call, &problems).await
            }
        };
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        if let Some(version) = written.version {
            let known = (version, found.clone());
            self.session_errors.lock().insert(router.clone(), known);
        }
        found
    }

    /// Returns the tunnels of the network, unless it has more routers than this.
    pub(super) async fn tunnels(&self, most: usize) -> Option<Vec<Tunnel>> {
        let (current, _) = self.look().await;
        let current = current.filter(|it| it.network.routers().count() <= most)?;
        Some(current.network.tunnels())
    }

    /// Returns the file behind an answer, to name it.
    pub(super) async fn shown(&self, router: &ObjectName, call: Call) -> PathBuf {
        match (self.current(router).await, call) {
            (Some(_), Call::Sessions) => Path::new(SESSIONS).join(router.as_str()),
            (Some(_), _) => router_path(router).into(),
            (None, _) => shown(router.as_str(), file_of(call)),
        }
    }

    /// Returns problems of an answer with their places in the files.
    pub(super) async fn findings(
        &self,
        router: &ObjectName,
        call: Call,
        problems: &[Problem],
    ) -> Vec<Finding> {
        let problems = problems.iter();
        if let Some(current) = self.current(router).await {
            let Current { network, files, .. } = &*current;
            // Only the key of a peer's tunnel can be missing, which is logged once and not for each neighbour.
            return problems
                .filter(|_| call != Call::Mesh)
                .map(|problem| network.finding(files, router, call, problem))
                .collect();
        }
        let file = shown(router.as_str(), file_of(call));
        let text = self.store.text(router, call).await;
        problems
            .map(|problem| Finding::new(&file, &text, problem))
            .collect()
    }
}

/// Returns the tokens of the routers, also if their description is not valid.
fn tokens(files: &FleetFiles, current: Option<&Current>) -> HashMap<ObjectName, TokenFields> {
    match current {
        Some(current) => current.network.tokens().collect(),
        None => {
            let routers = files.routers();
            let fields = |(_, text, name): (_, &Arc<str>, Result<_, _>)| {
                Some((name.ok()?, TokenFields::read(text)?))
            };
            routers.filter_map(fields).collect()
        }
    }
}

impl Current {
    fn of(description: Description) -> Self {
        Self {
            files: description.files,
            network: description.network,
            revisions: Mutex::default(),
        }
    }

    fn newest(&self) -> Description {
        Description {
            files: Arc::clone(&self.files),
            network: Arc::clone(&self.network),
        }
    }

    fn read(files: &Arc<FleetFiles>, before: Option<&Self>) -> Result<Self, Vec<Finding>> {
        let network = match before.filter(|it| it.files.has_structure_of(files)) {
            Some(before) => Arc::clone(&before.network),
            None => {
                let before = before.map(|it| (&*it.files, &*it.network));
                Arc::new(Network::read_after(before, files)?)
            }
        };
        let revisions = before.and_then(|before| before.revisions_with(files, &network));
        let files = Arc::clone(files);
        let current = Self::of(Description { files, network });
        *current.revisions.lock() = revisions;
        Ok(current)
    }

    /// Returns the revisions of newer files, with the keys of before.
    fn revisions_with(
        &self,
        files: &FleetFiles,
        network: &Arc<Network>,
    ) -> Option<Arc<DescribedRevisions>> {
        let known = self.revisions.lock().clone()?;
        Some(Arc::new(match Arc::ptr_eq(&self.network, network) {
            true => known.with_sessions(&self.files, files),
            false => {
                let keys = Arc::clone(&known.keys);
                known.with_structure(&self.files, (network, files), keys)
            }
        }))
    }

    /// Returns the revision of each router, with the newest keys; with those of before if there are no newest.
    fn revisions(&self, keys: Option<Arc<PostedKeys>>) -> Arc<Revisions> {
        let mut last = self.revisions.lock();
        if let Some(known) = &*last
            && keys
                .as_ref()
                .is_none_or(|keys| Arc::ptr_eq(keys, &known.keys))
        {
            return Arc::clone(&known.revisions);
        }
        let keys = keys.unwrap_or_default();
        let (network, files) = (&*self.network, &*self.files);
        let new = match &*last {
            Some(known) => known.with_structure(files, (network, files), keys),
            None => DescribedRevisions::new(network, files, keys),
        };
        let new = Arc::new(new);
        Arc::clone(&last.insert(new).revisions)
    }
}

impl Inputs {
    fn version(&self, router: &ObjectName, call: Call) -> Version {
        let Current { files, network, .. } = &*self.current;
        let text = |router: &ObjectName| files.text(&router_path(router));
        let own = (files.text(NETWORK), text(router));
        match call {
            Call::Config => version(&own),
            Call::Sessions => version(&(own, files.sessions_of(router).collect::<Vec<_>>())),
            _ => {
                let neighbours = network.neighbours(router);
                let neighbours = neighbours.map(|(name, _)| (name, text(name)));
                version(&(own, &self.keys, neighbours.collect::<Vec<_>>()))
            }
        }
    }
}
