//! The answers of the server, and what a post changes, independent of the store.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::audit::Author;
use super::change::ChangeError;
use super::check::Problem;
use super::described::Described;
use super::good::{Good, LastGood, judge};
use super::history::{self, History, ServedList};
use super::posts::{
    Post, ReportedStatus, applies, outdated, overlay, served_status, superseded, without_nul,
};
use super::store::{Change, MakeChange, Store};
use super::tagged::{KnownTags, Tagged};
use super::version::{Version, version};
use crate::http::{ApiError, Client};
use crate::model::ObjectName;
use crate::util::notices::{News, Notices};
use crate::util::task::blocking;
use crate::util::text::bounded;
use crate::wire::reference::{
    CONFIG_HASH, SESSION_NOT_FOUND, check_heartbeat, check_report, decode_drain, decode_modify,
    endpoint, identity, written_status,
};
use crate::wire::{Call, Modify, WireError, WireStatus};

/// Maximum number of errors of one file that are logged at once.
const PROBLEMS_LOGGED: usize = 20;

/// The code of an answer without a fleet to serve.
pub(super) const NO_FLEET: &str = "NO_FLEET";

/// Length of the text that identifies the content of a list.
const CONTENT: usize = 16;

/// The reader of an answer.
#[derive(Clone, Copy)]
enum For {
    /// Its list is recorded.
    Router,
    /// A post, or an operator's view.
    Server,
}

/// The answers from a store.
pub(super) struct Answers {
    pub(super) store: Arc<dyn Store>,
    pub(super) files: Described,
    good: LastGood,
    history: History,
    /// The items that the last report of each router lost.
    rejected: Mutex<HashMap<ObjectName, Notices>>,
    /// Held while a router's posts are read, changed and written.
    writing: Mutex<HashMap<ObjectName, Arc<tokio::sync::Mutex<()>>>>,
}

impl Answers {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            files: Described::in_waves(Arc::clone(&store)),
            store,
            good: LastGood::default(),
            history: History::default(),
            rejected: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Returns the answer to a `GET` of a router, with the text that identifies the content of its list. One that the
    /// client has is not made again.
    pub(super) async fn get(
        &self,
        router: &ObjectName,
        call: Call,
        known: &KnownTags,
    ) -> Result<(Tagged, String), ApiError> {
        if let Some(version) = self.version(router, call).await?
            && let Some((content, tag)) = self.history.answer(router, call, version)
            && known.has(&tag)
        {
            return Ok((Tagged::unchanged(tag), content));
        }
        let (served, of_files) = self.served(router, call, For::Router).await?;
        let content = self.record(router, call, &served).await;
        let (answer, version) = match call {
            Call::Sessions => {
                let (answer, of_statuses) = self.overlaid(router, served).await?;
                (answer, of_files.map(|it| version(&(it, of_statuses))))
            }
            Call::BirdConfig => (hashed(Map::clone(&served)), of_files),
            _ => (Value::Object(Map::clone(&served)), of_files),
        };
        let answer = Tagged::new(&answer, known);
        if let Some(version) = version {
            let answer = (version, answer.tag.clone());
            self.history.answered(router, call, &content, answer);
        }
        Ok((answer, content))
    }

    /// Changes the operators' files, and logs who did. Each later request is answered from them.
    pub(super) async fn change_files(
        &self,
        by: &Author,
        make: MakeChange,
    ) -> Result<Vec<String>, ChangeError> {
        let changed = self.store.change_files(by, make).await;
        by.log(&changed);
        if changed.is_ok() {
            self.files.look_after_change().await;
        }
        changed
    }

    /// Returns whether there is a fleet to serve: a lost one must not look healthy.
    ///
    /// # Errors
    /// The fleet cannot be read or does not exist.
    pub(super) async fn ready(&self) -> Result<(), ApiError> {
        match self.store.network().await? {
            None if self.store.revisions().await.is_empty() => {
                let message = "the fleet has no network.yaml and no router: restore it, check --fleet or --store, or begin one with `moenet-agent fleet init`";
                Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    NO_FLEET,
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Returns the version of an answer, without making it.
    async fn version(&self, router: &ObjectName, call: Call) -> Result<Option<Version>, ApiError> {
        let of_files = self.files.version(router, call).await?;
        if call != Call::Sessions {
            return Ok(of_files);
        }
        let of_statuses = version(&self.store.statuses(router).await?);
        Ok(of_files.map(|it| version(&(it, of_statuses))))
    }

    /// Records that a router is served a list. Returns the text that identifies its content.
    async fn record(&self, router: &ObjectName, call: Call, answer: &Map<String, Value>) -> String {
        let content = content(answer);
        if self.history.has(router, call, &content) {
            return content;
        }
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        let recorded = self.record_new(router, call, &content).await;
        let edge = self.history.errors.edge(recorded.is_err());
        match recorded {
            Ok(list) => self.history.keep(router, call, &list),
            // The router gets its list; the next fetch is recorded.
            Err(error) if edge == Some(true) => {
                tracing::warn!(%router, %error, "history of a router cannot be written");
            }
            Err(_) => {}
        }
        content
    }

    /// Records a list that no other request records at this moment.
    async fn record_new(
        &self,
        router: &ObjectName,
        call: Call,
        content: &str,
    ) -> Result<ServedList, ApiError> {
        let (list, is_new) = self.listed(router, call, content).await?;
        if is_new {
            let change = Change::Served(vec![list.clone()]);
            self.store.write(router, vec![change]).await?;
        }
        Ok(list)
    }

    /// Returns the newest list of a router if it has this content, else a new one that is not recorded yet.
    async fn listed(
        &self,
        router: &ObjectName,
        call: Call,
        content: &str,
    ) -> Result<(ServedList, bool), ApiError> {
        let served = self.store.served(router).await?;
        if let Some(known) = history::newest(&served, call)
            && known.content == content
        {
            return Ok((known.clone(), false));
        }
        let commit = match call == Call::Sessions || self.files.gets_newest(router) {
            true => self.store.commit(),
            false => {
                let mut before = served.iter().rev();
                let before = before.find(|it| it.list == endpoint(call) && it.content == content);
                before.and_then(|it| it.commit.clone())
            }
        };
        let list = ServedList {
            list: endpoint(call).to_owned(),
            content: content.to_owned(),
            at: Timestamp::now(),
            written: None,
            commit,
        };
        Ok((list, true))
    }

    /// Stores the last valid version of each unit of an answer. Records the list in the same write if it is for the router:
    /// each write waits for the disk.
    async fn store_good(
        &self,
        router: &ObjectName,
        call: Call,
        (good, answer): (&Good, &Map<String, Value>),
        reader: For,
    ) -> Result<(), ApiError> {
        let mut changes = vec![Change::Good(call, good.clone())];
        let mut new = None;
        if let For::Router = reader {
            let listed = self.listed(router, call, &content(answer)).await;
            // What cannot be read now is recorded with its own error.
            new = listed.ok().filter(|(_, is_new)| *is_new);
        }
        let list = new.map(|(list, _)| list);
        changes.extend(list.iter().map(|list| Change::Served(vec![list.clone()])));
        self.store.write(router, changes).await?;
        if let Some(list) = list {
            self.history.keep(router, call, &list);
        }
        Ok(())
    }

    /// Stores a post. Returns the items that were left out.
    pub(super) async fn post(
        &self,
        router: &ObjectName,
        call: Call,
        (client, body): (Client, &[u8]),
    ) -> Result<Vec<String>, ApiError> {
        let body = &*without_nul(body);
        let (change, rejected) = match call {
            Call::Heartbeat => {
                let heartbeat = check_heartbeat(body).map_err(bad_request)?;
                return self.heartbeat(router, heartbeat).await.map(|()| Vec::new());
            }
            Call::Report => {
                let (report, rejected) = check_report(body).map_err(bad_request)?;
                let texts = rejected
                    .iter()
                    .map(|it| format!("{}: {}", it.field, it.message));
                let rejected = bounded(texts, "items");
                self.log_rejected(router, &rejected);
                (Change::Report(post(report)), rejected)
            }
            Call::Drain => {
                let wish = decode_drain(body).map_err(bad_request)?;
                self.files.drain(router, (client, wish.force)).await?;
                return Ok(Vec::new());
            }
            _ => {
                let modify = decode_modify(body).map_err(bad_request)?;
                return self.modify(router, modify).await.map(|()| Vec::new());
            }
        };
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        self.store.write(router, vec![change]).await?;
        Ok(rejected)
    }

    /// Stores a heartbeat, and which lists it shows as written.
    async fn heartbeat(&self, router: &ObjectName, heartbeat: Value) -> Result<(), ApiError> {
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        let lists = heartbeat.get("lists").cloned().unwrap_or_default();
        let lists = serde_json::from_value(lists).unwrap_or_default();
        let mut changes = vec![Change::Heartbeat(post(heartbeat))];
        if self.history.is_new(router, &lists) {
            let served = self.store.served(router).await?;
            let written = history::first_written(&served, &lists, Timestamp::now());
            if !written.is_empty() {
                changes.push(Change::Served(written));
            }
        }
        self.store.write(router, changes).await?;
        self.history.written(router, &lists);
        Ok(())
    }

    /// Logs the items that a router's report has lost since its last one.
    fn log_rejected(&self, router: &ObjectName, rejected: &[String]) {
        let new = match (self.rejected.lock(), rejected.is_empty()) {
            (mut all, true) => {
                all.remove(router);
                return;
            }
            (mut all, false) => {
                let notices = all.entry(router.clone()).or_default();
                notices.new_in(rejected.iter().cloned())
            }
        };
        if let Some(first) = new.first() {
            tracing::warn!(%router, items = rejected.len(), error = %first, "items of a report rejected; update this server if the agent is newer");
        }
    }

    /// Returns the lock of a router's posts.
    fn writing(&self, router: &ObjectName) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.writing.lock().entry(router.clone()).or_default())
    }

    /// Returns the answer from the files, with each invalid unit replaced by its last valid version, and the version of
    /// the files.
    async fn served(
        &self,
        router: &ObjectName,
        call: Call,
        reader: For,
    ) -> Result<(Arc<Map<String, Value>>, Option<Version>), ApiError> {
        if let Some(version) = self.files.version(router, call).await?
            && let Some(known) = self.good.known(router, call, version)
        {
            return Ok((known, Some(version)));
        }
        // May wait for the file's writer, so the lock is taken only after it.
        let written = self.files.written(router, call).await?;
        let version = written.version;
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        if let Some(version) = version
            && self.good.is_valid(router, call, version)
        {
            let served = written.answer;
            self.good.remember(router, call, version, &served);
            return Ok((served, Some(version)));
        }
        let before = self.store.good(router, call).await?;
        if call == Call::Sessions && list(&written.answer).is_empty() && !before.is_empty() {
            self.files.check_no_sessions(router, &before).await?;
        }
        let judged = blocking(move || judge(call, &written, &before)).await;
        if let Some(good) = &judged.good {
            let stored = (good, &*judged.served);
            self.store_good(router, call, stored, reader).await?;
        }
        let served = Arc::clone(&judged.served);
        if let Some(version) = version {
            self.good.remember(router, call, version, &served);
        }
        let news = self.good.keep(router, call, version, judged);
        self.log(router, call, &news).await;
        Ok((served, version))
    }

    /// Logs the new problems of a file, and its recovery when all are solved.
    async fn log(&self, router: &ObjectName, call: Call, news: &News<Problem>) {
        if !news.is_over && news.new.is_empty() {
            return;
        }
        let file = self.files.shown(router, call).await;
        if news.is_over {
            tracing::info!(file = %file.display(), "fleet file is valid again");
        }
        let logged = &news.new[..news.new.len().min(PROBLEMS_LOGGED)];
        for finding in self.files.findings(router, call, logged).await {
            tracing::warn!(error = %finding, "fleet file has an error; serving the last valid version of this item");
        }
        if let Some(more @ 1..) = news.new.len().checked_sub(PROBLEMS_LOGGED) {
            tracing::warn!(file = %file.display(), more, "more errors in this file; `moenet-agent fleet validate` lists all");
        }
    }

    /// Returns the sessions with the statuses that their router has posted.
    pub(super) async fn sessions(&self, router: &ObjectName) -> Result<Value, ApiError> {
        let (served, _) = self.served(router, Call::Sessions, For::Server).await?;
        Ok(self.overlaid(router, served).await?.0)
    }

    /// Forgets the statuses that a router posted and a changed list of sessions supersedes.
    pub(super) async fn supersede(&self, router: &ObjectName) -> Result<(), ApiError> {
        if self.store.statuses(router).await?.is_empty() {
            return Ok(());
        }
        self.sessions(router).await.map(drop)
    }

    /// Returns the answer with the statuses that the router has posted, and the version of these.
    async fn overlaid(
        &self,
        router: &ObjectName,
        served: Arc<Map<String, Value>>,
    ) -> Result<(Value, Version), ApiError> {
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        let statuses = self.store.statuses(router).await?;
        let of_statuses = version(&statuses);
        let (items, outdated) = blocking(move || {
            let mut items = list(&served).to_vec();
            let outdated = outdated(&statuses, &items);
            overlay(&mut items, &statuses);
            (items, outdated)
        })
        .await;
        if !outdated.is_empty() {
            let forget = outdated.into_iter().map(Change::Forget).collect();
            self.store.write(router, forget).await?;
        }
        Ok((json!({ "sessions": items }), of_statuses))
    }

    /// Processes a session's change of status.
    async fn modify(&self, router: &ObjectName, modify: Modify) -> Result<(), ApiError> {
        if !matches!(
            modify.status,
            WireStatus::Disabled | WireStatus::Active | WireStatus::Error
        ) {
            return Err(ApiError::bad_request("status: an agent reports 0, 1 or 2"));
        }
        let (answer, _) = self.served(router, Call::Sessions, For::Server).await?;
        let writing = self.writing(router);
        let _writing = writing.lock().await;
        let items = list(&answer);
        let mut statuses = self.store.status(router, &modify.uuid).await?;
        let outdated = statuses.extract_if(.., |_, entry| superseded(entry, items));
        let mut changes: Vec<Change> = outdated.map(|(_, entry)| Change::Forget(entry)).collect();
        let item = items
            .iter()
            .find(|item| identity(item).as_ref() == Some(&modify.uuid));
        let served =
            item.and_then(|item| served_status(item, &statuses).map(|served| (item, served)));
        let unknown = served.is_none();
        if let Some((item, served)) = served {
            changes.extend(answered(item, served, &modify));
        }
        if !changes.is_empty() {
            self.store.write(router, changes).await?;
        }
        match unknown {
            true => Err(session_not_found(&modify)),
            false => Ok(()),
        }
    }
}

/// Returns the changes that a post of a status makes, for a session that is served with a status.
fn answered(item: &Value, served: Option<WireStatus>, modify: &Modify) -> Vec<Change> {
    let applied = applies(modify.status, served);
    let log = Change::Log {
        modify: modify.clone(),
        applied,
    };
    let status = applied.then(|| {
        Change::Status(ReportedStatus {
            uuid: modify.uuid.clone(),
            status: modify.status,
            error: modify.error.clone(),
            file_status: written_status(item),
            at: Timestamp::now(),
        })
    });
    [log].into_iter().chain(status).collect()
}

fn session_not_found(modify: &Modify) -> ApiError {
    let message = format!("no session has the uuid {}", modify.uuid);
    ApiError::new(StatusCode::NOT_FOUND, SESSION_NOT_FOUND, message)
}

fn list(answer: &Map<String, Value>) -> &[Value] {
    answer
        .get("sessions")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// Adds the hash of the rest of the answer, so that a router detects a change.
fn hashed(mut answer: Map<String, Value>) -> Value {
    answer.remove(CONFIG_HASH);
    let hash = digest(&answer);
    answer.insert(CONFIG_HASH.to_owned(), Value::from(hash));
    Value::Object(answer)
}

/// Returns the text that identifies the content of a list.
fn content(answer: &Map<String, Value>) -> String {
    let mut content = digest(answer);
    content.truncate(CONTENT);
    content
}

fn digest(answer: &Map<String, Value>) -> String {
    let text = serde_json::to_vec(answer).unwrap_or_default();
    format!("{:x}", Sha256::digest(text))
}

fn post(body: Value) -> Post {
    Post {
        received_at: Timestamp::now(),
        body,
    }
}

fn bad_request(error: WireError) -> ApiError {
    ApiError::bad_request(error.to_string())
}
