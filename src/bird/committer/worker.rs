//! The task behind the handles: commits one batch at a time.

mod exclude;
mod install;
mod spared;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{self, timeout_at};

use install::Attempt;
use spared::Spared;

use super::batch::{self, Outcome, Request, Waiters, Wishes};
use super::blame::{Blame, Trial};
use super::changes::plan_commit;
use super::confirm::{self, Running};
use super::late::Late;
use super::loads::FailedLoads;
use super::promise::{self, Lack};
use super::stage::{self, Stage};
use super::trial::Trials;
use super::written::Written;
use super::{CommitterConfig, disk};
use crate::bird::check::Checker;
use crate::bird::client::Client;
use crate::intervals::{COMMIT_GATHER_MAX, LOAD_REMEMBERED};
use crate::observed::bird::main_file::Held;
use crate::observed::bird::tree::{MAIN, fragment_path};
use crate::observed::bird::{Diagnostic, LiveTree};
use crate::ports::{BaseError, CommitError, Committed, Fragment, FragmentError};
use crate::telemetry::chain;
use crate::util::group::group_id;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Known rejections, by the generation of the tree, name and text.
type Refusals = HashMap<(String, String, Arc<str>), (Instant, FragmentError)>;

pub(super) struct Worker {
    config: CommitterConfig,
    directory: PathBuf,
    group: Option<u32>,
    client: Client,
    checker: Checker,
    stage: Stage,
    refusals: Refusals,
    failed: FailedLoads,
    late: Late,
    /// Why the parser rejects the base files, while none of them is on disk.
    no_base: Option<Diagnostic>,
    written: Written,
    trials: Trials,
    /// The foreign files, as they were last judged.
    judged: BTreeMap<String, String>,
}

impl Worker {
    pub(super) fn new(
        config: CommitterConfig,
        client: Client,
        checker: Checker,
        trials: Trials,
    ) -> Self {
        // BIRD reports file names as given; blame needs absolute ones.
        let directory =
            std::path::absolute(&config.directory).unwrap_or_else(|_| config.directory.clone());
        let group = config.file_group.as_deref().and_then(group_id);
        let stage = Stage::new(
            directory.clone(),
            stage::OF_COMMITS,
            config.stage_elsewhere,
            group,
        );
        Self {
            config,
            directory,
            group,
            client,
            checker,
            stage,
            refusals: HashMap::new(),
            failed: FailedLoads::default(),
            late: Late::default(),
            no_base: None,
            written: Written::default(),
            trials,
            judged: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        while let Some(request) = inbox.recv().await {
            let (mut wishes, mut waiters) = Default::default();
            if !self.take(request, &mut wishes, &mut waiters).await {
                continue;
            }
            // While changes keep coming: those of several passes, and of operators.
            let (mut gather, begun) = (self.config.gather, time::Instant::now());
            let last = begun + COMMIT_GATHER_MAX.max(gather);
            let mut until = begun + gather;
            while let Ok(Some(request)) = timeout_at(until, inbox.recv()).await {
                if matches!(request, Request::AllRequested) {
                    // Those that have come meanwhile come along.
                    (gather, until) = (Duration::ZERO, time::Instant::now());
                }
                if self.take(request, &mut wishes, &mut waiters).await {
                    until = last.min(time::Instant::now() + gather);
                }
            }
            // Foreign files are checked even without any other change.
            let judge_only = waiters.is_empty();
            let outcome = match self.late.waits(time::Instant::now()) {
                Some(error) => Outcome::failed(error),
                None => {
                    let outcome = self.settle(wishes, judge_only).await;
                    let error = outcome.rest.as_ref().err();
                    self.late.ended(error, time::Instant::now());
                    outcome
                }
            };
            waiters.answer(&outcome);
        }
    }

    /// Adds a request to the batch, or answers it at once. Returns whether the batch has to be committed.
    async fn take(&mut self, request: Request, wishes: &mut Wishes, waiters: &mut Waiters) -> bool {
        match request {
            Request::Live { reply } => {
                let live = self.read().await;
                if let Ok(live) = &live {
                    self.stage.sweep(live).await;
                }
                let is_news = live.as_ref().is_ok_and(|live| {
                    self.written.learn(live);
                    !self.config.stage_elsewhere && self.is_news(live)
                });
                let _ = reply.send(live.map_err(Arc::new));
                is_news
            }
            Request::AllRequested => false,
            request => {
                batch::add(request, wishes, waiters);
                true
            }
        }
    }

    /// Returns the time in which a load must be confirmed: longer than configured on a slow machine.
    fn confirm_timeout(&self) -> Duration {
        self.client.patience(self.config.confirm_timeout)
    }

    async fn read(&self) -> Result<Arc<LiveTree>, CommitError> {
        let mut live = self.trials.read().await?;
        if let Some(held) = self.held(&live).await {
            Arc::make_mut(&mut live).main.hold(held);
        }
        Ok(live)
    }

    /// Returns why a main file that the agent may write is left to the operator: BIRD may run an earlier one.
    async fn held(&self, live: &LiveTree) -> Option<Held> {
        let file = live.main.unmarked.filter(|_| live.in_use().is_none())?;
        match self.client.protocol_rows().await {
            Ok(running) => {
                let ownership = self.config.ownership.get();
                let ours = self.written.tree(live, &ownership.paused).protocols();
                Held::of(file, &running, &ours)
            }
            Err(error) if error.is_not_running() => None,
            Err(error) => Some(Held::unknown(file, chain(&error))),
        }
    }

    /// Commits the requested changes. Each attempt excludes more changes that are to blame, so the loop ends.
    async fn settle(&mut self, wishes: Wishes, judge_only: bool) -> Outcome {
        let mut batch = match self.begin(wishes, judge_only).await {
            Ok(batch) => batch,
            Err(error) => return Outcome::failed(error.into()),
        };
        let requests_base = batch.wishes.base.is_some();
        batch.outcome.rest = loop {
            if let Some(what) = self.rejected_base(&batch, requests_base) {
                break Err(CommitError::Tree(what).into());
            }
            batch.progress.displaced = batch.left.keys().cloned().sorted_set();
            let attempt = self.attempt(&batch.live, &batch.wishes, &batch.progress);
            match attempt.await {
                Ok(committed) => break Ok(committed),
                Err(blame) => {
                    if let Err(error) = self.exclude(&mut batch, blame).await {
                        break Err(error);
                    }
                }
            }
        };
        if requests_base {
            self.no_base = refused_base(&batch.outcome, true, None);
        }
        self.remember(batch.tried, &batch.outcome);
        report(&batch.outcome);
        batch.outcome
    }

    /// Returns why there is no base on disk and in this batch: without it every fragment would be rejected, for a wrong
    /// reason.
    fn rejected_base(&self, batch: &Settling, is_requested: bool) -> Option<Diagnostic> {
        let is_missing = batch.wishes.base.is_none() && batch.live.generation.is_none();
        let why = || refused_base(&batch.outcome, is_requested, self.no_base.as_ref());
        is_missing.then(why)?
    }

    /// Reads the live files, and leaves out the changes that are known to fail.
    async fn begin(
        &mut self,
        mut wishes: Wishes,
        judge_only: bool,
    ) -> Result<Settling, CommitError> {
        let mut live = self.read().await?;
        if let Some(files) = wishes.base.as_mut().filter(|_| !live.main.is_agents()) {
            files.remove(MAIN);
        }
        if let Some(blocked) = live.in_use() {
            return Err(CommitError::Blocked(blocked));
        }
        if !live.unusable.is_empty() {
            self.quarantine_unusable(Arc::make_mut(&mut live)).await?;
        }
        let ownership = self.config.ownership.get();
        self.judged.clone_from(&live.tree.foreign);
        self.written.learn(&live);
        // Shared files affect every session; if they do not change, the sessions can be verified one by one.
        if wishes.base.as_ref() == Some(&self.written.tree(&live, &ownership.paused).base) {
            wishes.base = None;
        }
        self.failed.expire(Instant::now());
        let mut outcome = Outcome {
            fragments: self.failed.recall(&mut wishes.fragments),
            base: None,
            rest: Err(CommitError::Gone.into()),
        };
        let refused = self.recall(&live, &mut wishes);
        outcome.fragments.extend(refused);
        let left = self.leave_foreign(&live, &mut wishes, &mut outcome);
        Ok(Settling {
            live,
            wishes,
            outcome,
            left,
            tried: HashMap::new(),
            progress: Progress {
                judge_only,
                ..Progress::default()
            },
        })
    }

    /// Removes the requested changes that a foreign file blocks. Returns the fragments.
    fn leave_foreign(
        &self,
        live: &LiveTree,
        wishes: &mut Wishes,
        outcome: &mut Outcome,
    ) -> BTreeMap<String, Fragment> {
        let foreign = |path: &str| {
            let file = self.directory.join(path);
            match live.others.get(path) {
                Some(whose) => CommitError::OtherAgent(file, whose.clone()),
                None => CommitError::Foreign(file),
            }
        };
        let in_the_way = wishes.base.as_ref().map(|files| live.in_the_way(files));
        if let Some(path) = in_the_way.and_then(|paths| paths.first().copied()) {
            outcome.base = Some(foreign(path).into());
            wishes.base = None;
        }
        let is_left = |name: &String, fragment: &mut Option<Fragment>| {
            fragment.is_some() && live.tree.foreign.contains_key(&fragment_path(name))
        };
        let mut left = BTreeMap::new();
        for (name, fragment) in wishes.fragments.extract_if(.., is_left) {
            let error = foreign(&fragment_path(&name));
            outcome.fragments.insert(name.clone(), error.into());
            left.extend(fragment.map(|fragment| (name, fragment)));
        }
        left
    }

    /// Returns whether there are foreign files that were not judged yet.
    fn is_news(&self, live: &LiveTree) -> bool {
        let foreign = &live.tree.foreign;
        !live.unusable.is_empty() || !foreign.is_empty() && *foreign != self.judged
    }

    /// Renames unreadable entries among the session files, because BIRD's glob would match them.
    async fn quarantine_unusable(&self, live: &mut LiveTree) -> Result<(), CommitError> {
        for path in std::mem::take(&mut live.unusable) {
            self.quarantine(path).await?;
        }
        Ok(())
    }

    /// Renames a foreign session file that BIRD rejects, so that BIRD's glob does not match it.
    async fn quarantine(&self, path: String) -> Result<(), CommitError> {
        let file = self.directory.join(path);
        blocking(move || disk::quarantine(&file)).await
    }

    /// Removes the requested changes that were rejected before and would be rejected again.
    fn recall(&mut self, live: &LiveTree, wishes: &mut Wishes) -> BTreeMap<String, FragmentError> {
        self.refusals
            .retain(|_, (since, _)| since.elapsed() < LOAD_REMEMBERED);
        if wishes.base.is_some() || self.refusals.is_empty() {
            return BTreeMap::new();
        }
        let generation = live.tree.generation();
        let known = |name: &String, fragment: &Option<Fragment>| {
            let key = (
                generation.clone(),
                name.clone(),
                fragment.as_ref()?.text.clone(),
            );
            self.refusals
                .get(&key)
                .map(|(_, error)| (name.clone(), error.clone()))
        };
        // The rejection of a fragment may depend on another one, so all fragments of the batch must be known too.
        let refused: BTreeMap<_, _> = wishes
            .fragments
            .iter()
            .filter_map(|(name, text)| known(name, text))
            .sorted_map();
        if refused.len() != wishes.fragments.len() {
            return BTreeMap::new();
        }
        wishes.fragments.clear();
        refused
    }

    /// Remembers what the parser rejected, together with the current live tree.
    fn remember(&mut self, tried: HashMap<String, Fragment>, outcome: &Outcome) {
        let Ok(committed) = &outcome.rest else { return };
        for (name, fragment) in tried {
            if let Some(error @ FragmentError::Refused { .. }) = outcome.fragments.get(&name) {
                let key = (committed.generation.clone(), name, fragment.text);
                self.refusals.insert(key, (Instant::now(), error.clone()));
            }
        }
    }

    /// One attempt: does nothing, or checks, installs, loads and verifies.
    async fn attempt(
        &mut self,
        live: &LiveTree,
        wishes: &Wishes,
        progress: &Progress,
    ) -> Result<Committed, Blame> {
        let ownership = self.config.ownership.get();
        let before = self.written.tree(live, &ownership.paused);
        let wanted = wishes.applied_to(&before, &progress.stale);
        let generation = wanted.generation();
        let attempt = Attempt {
            live,
            wishes,
            progress,
            changes: plan_commit(live, &wanted, &generation, ownership.identity.as_ref()),
            generation,
            ownership,
            before,
            wanted,
        };
        let changes = &attempt.changes;
        if attempt.wanted.is_blank() && changes.is_empty() {
            return Ok(attempt.committed(false, false, Vec::new()));
        }
        let running = confirm::running(&self.client, self.confirm_timeout()).await?;
        if let Some(held) = live.main.on_hold() {
            return Err(CommitError::Blocked(held).into());
        }
        let is_loaded = running == Running::Loaded(Some(attempt.generation.clone()));
        let at_rest = changes.is_empty() && (is_loaded || running == Running::Not);
        if at_rest && live.tree.foreign.is_empty() {
            return Ok(attempt.committed(is_loaded, false, Vec::new()));
        }
        let blocked = live.blocked([].into_iter());
        if let Some(blocked) = blocked.as_ref().filter(|_| changes.is_empty() && !at_rest) {
            return Err(CommitError::Blocked(blocked.clone()).into());
        }
        if running != Running::Not
            && !at_rest
            && let Some(error) = self.failed.of_tree(&attempt.generation, Instant::now())
        {
            return Err(error.into());
        }
        let warnings = self.check(&attempt, &running).await?;
        if at_rest || progress.judge_only {
            return Ok(attempt.committed(is_loaded, false, warnings));
        }
        if let Some(lack) = promise::lack(&attempt.wanted, wishes, &self.directory) {
            return Err(blame_lack(lack, wishes));
        }
        let blocked = blocked.map(CommitError::Blocked);
        self.install(&attempt, &running, blocked, warnings).await
    }

    /// Checks the wanted files with BIRD's parser. Returns its warnings.
    async fn check(
        &self,
        attempt: &Attempt<'_>,
        running: &Running,
    ) -> Result<Vec<Diagnostic>, Blame> {
        let trial = Trial {
            stage: &self.stage,
            checker: &self.checker,
            live: attempt.live,
            before: &attempt.before,
            wishes: attempt.wishes,
        };
        let blame = match trial.check(&attempt.wanted).await {
            Ok(warnings) => return Ok(warnings),
            Err(blame) => blame,
        };
        let spared = Spared {
            is_whole: attempt.is_of(running),
            foreign: &attempt.live.tree.foreign,
            displaced: &attempt.progress.displaced,
            written: &self.written,
        };
        Err(self.explained(blame, running, &spared).await)
    }
}

/// A batch, from which the changes to blame are excluded one after another.
struct Settling {
    live: Arc<LiveTree>,
    wishes: Wishes,
    outcome: Outcome,
    /// The fragments that a foreign file blocks.
    left: BTreeMap<String, Fragment>,
    /// The fragments that the parser rejected.
    tried: HashMap<String, Fragment>,
    progress: Progress,
}

impl Worker {
    /// Blames a parser of another version, instead of a fragment, for its rejection.
    async fn explained(&self, blame: Blame, running: &Running, spared: &Spared<'_>) -> Blame {
        let what = match &blame {
            Blame::Fragments(faulty) => match faulty.values().next() {
                Some(FragmentError::Refused { what, .. }) => what.clone(),
                _ => return blame,
            },
            Blame::Base(BaseError::Refused { what })
            | Blame::Stale(_, what)
            | Blame::All(CommitError::Tree(what)) => what.clone(),
            _ => return blame,
        };
        if *running == Running::Not {
            return blame;
        }
        match self.trials.other_version(what).await {
            Ok(error) => Blame::All(error),
            Err(_) => spared.spare(blame),
        }
    }
}

/// The findings of the attempts to commit a batch.
#[derive(Default)]
struct Progress {
    /// Whether files are checked and nothing is loaded.
    judge_only: bool,
    /// Whether the commit has waited for another program to finish a file.
    waited: bool,
    /// The agent's fragments that are left out.
    stale: BTreeSet<String>,
    /// The fragments whose path is taken by a foreign file.
    displaced: BTreeSet<String>,
    /// The fragments and files that were blamed; each is blamed at most once.
    blamed: BTreeSet<String>,
}

/// Returns why the parser rejects the base: in this commit if it was requested, otherwise `before`.
fn refused_base(
    outcome: &Outcome,
    is_requested: bool,
    before: Option<&Diagnostic>,
) -> Option<Diagnostic> {
    match &outcome.base {
        Some(BaseError::Refused { what }) => Some(what.clone()),
        _ if is_requested => None,
        _ => before.cloned(),
    }
}

/// Returns the changes to blame when a tree lacks something. Files that no include reaches are the base's fault; if the
/// base does not change, the tree on disk already had the fault.
fn blame_lack(lack: Lack, wishes: &Wishes) -> Blame {
    match lack {
        Lack::Protocols(lacking) => {
            let undefined = lacking.into_iter().map(|(name, missing)| {
                let error = FragmentError::Undefined {
                    name: name.clone(),
                    missing,
                };
                (name, error)
            });
            Blame::Fragments(undefined.sorted_map())
        }
        Lack::Files(missing) if wishes.base.is_some() => {
            Blame::Base(BaseError::Incomplete { missing })
        }
        Lack::Files(missing) => CommitError::NotReached(missing).into(),
    }
}

/// Logs one line per commit; no line when nothing changed.
fn report(outcome: &Outcome) {
    let refused = outcome.fragments.len();
    match &outcome.rest {
        Ok(done) if done.changed => tracing::info!(
            generation = done.generation,
            loaded = done.loaded,
            refused,
            base_refused = outcome.base.is_some(),
            warnings = done.warnings.len(),
            "BIRD files committed"
        ),
        Ok(_) => {}
        Err(error) => {
            // The conditions of node and sessions hold the error, and every attempt would log a line.
            tracing::debug!(
                error = error.as_ref() as &dyn std::error::Error,
                refused,
                "BIRD files not committed"
            )
        }
    }
}
