//! The last good table of ROAs: read from BIRD when the RPKI servers have news, stored on disk for
//! a start without them, and kept when the servers suddenly have nearly no ROAs.
//!
//! BIRD has the stored table in addition to the servers' ROAs, so a ROA is valid while either has
//! it. A ROA that the servers withdraw disappears only when the stored table is rewritten, which is
//! why that does not wait long.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::rpki::RpkiServers;
use crate::bird::Client;
use crate::document::RoutingPolicySpec;
use crate::intervals::{ROA_ADDED, ROA_WITHDRAWN};
use crate::model::RoaTable;
use crate::observed::bird::BirdState;
use crate::observed::bird::roa::Servers;
use crate::status::{RoaFacts, Roas as Count, Verdict};
use crate::store::Store;
use crate::telemetry::chain;
use crate::util::file::Stamp;
use crate::util::fs;
use crate::util::notices::Notices;
use crate::util::task::blocking;

/// File with the table, below the state directory.
const FILE: &str = "roa.conf";

/// Current and stored ROAs.
#[derive(Debug, Default)]
pub(crate) struct Roas {
    state: Mutex<State>,
    /// Signals another verdict or another table on disk.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<Arc<RoaTable>>,
    stamp: Option<Stamp>,
    /// Why the file cannot be read.
    unread: Notices,
    /// The state of the servers when `live` was read.
    read_at: Option<Servers>,
    live: RoaTable,
    answering: Option<usize>,
    written: Option<Instant>,
    failing: Notices,
    seen: Option<Verdict>,
    /// The policy in effect, and whether it rejects routes of unknown origin.
    policy: Option<(RoutingPolicySpec, bool)>,
}

impl Roas {
    /// Returns the table on disk. A deleted table is `None`; while the file cannot be read, the
    /// previous table stays in use.
    pub(crate) fn kept(&self, store: &Store) -> Option<Arc<RoaTable>> {
        let mut state = self.state.lock();
        let stamp = match fs::metadata(store.dir().join(FILE)) {
            Ok(found) => Some(Stamp::of(&found)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (state.kept, state.stamp) = (None, None);
                return None;
            }
            Err(_) => return state.kept.clone(),
        };
        if stamp.is_some() && stamp == state.stamp {
            return state.kept.clone();
        }
        match store.kept(FILE) {
            Ok(text) => {
                let (table, skipped) = RoaTable::parse(&text.unwrap_or_default());
                if skipped > 0 {
                    warn!(
                        file = FILE,
                        lines = skipped,
                        "ignoring lines that are not ROAs"
                    );
                }
                state.kept = Some(table).filter(|table| !table.is_empty()).map(Arc::new);
                state.stamp = stamp;
                state.unread.new_in([]);
            }
            Err(error) => {
                for error in state.unread.new_in([error.to_string()]) {
                    warn!(
                        file = FILE,
                        error, "saved ROA table not readable; using the last one"
                    );
                }
            }
        }
        state.kept.clone()
    }

    /// Returns the current facts about ROAs.
    pub(crate) fn facts(&self) -> RoaFacts {
        let state = self.state.lock();
        let kept = state.kept.as_deref();
        let collapsed = state.answering.is_some_and(|answering| answering > 0)
            && kept.is_some_and(|kept| state.live.collapsed_since(kept));
        RoaFacts {
            answering: state.answering,
            live: Count::of(&state.live),
            kept: kept.map(Count::of).unwrap_or_default(),
            collapsed,
        }
    }

    /// Returns whether the tables have to be read again.
    fn is_news(&self, servers: &Servers) -> bool {
        self.state.lock().read_at.as_ref() != Some(servers)
    }

    fn take(&self, servers: Servers, live: RoaTable) {
        let mut state = self.state.lock();
        (state.answering, state.read_at, state.live) =
            (Some(servers.answering()), Some(servers), live);
    }

    /// BIRD is down: it has no table, and its previous table is not valid for the next start.
    fn forget(&self) {
        let mut state = self.state.lock();
        (state.answering, state.read_at, state.live) = (None, None, RoaTable::default());
    }

    /// Returns the table that is due to be written now.
    fn due(&self, now: Instant) -> Option<RoaTable> {
        let state = self.state.lock();
        let good = state.answering.is_some_and(|answering| answering > 0) && !state.live.is_empty();
        let none = RoaTable::default();
        let kept = state.kept.as_deref().unwrap_or(&none);
        if !good || state.live == *kept || state.live.collapsed_since(kept) {
            return None;
        }
        let wait = if kept.entries.is_subset(&state.live.entries) {
            ROA_ADDED
        } else {
            ROA_WITHDRAWN
        };
        let due = kept.is_empty()
            || state
                .written
                .is_none_or(|at| now.duration_since(at) >= wait);
        due.then(|| state.live.clone())
    }

    /// Records the result of a write. Returns whether to log it.
    fn wrote(&self, now: Instant, well: bool) -> bool {
        let mut state = self.state.lock();
        state.written = if well { Some(now) } else { state.written };
        state.failing.edge(!well) == Some(true) || well
    }

    /// Returns whether a verdict differs from the last one.
    fn is_new(&self, verdict: Verdict) -> bool {
        self.state.lock().seen.replace(verdict) != Some(verdict)
    }
}

/// What the task needs besides the table.
pub(crate) struct RoaTask {
    pub(crate) rpki: Arc<RpkiServers>,
    pub(crate) store: Arc<Store>,
    pub(crate) client: Client,
    /// Every observation of BIRD by the controller: one every few seconds at rest.
    pub(crate) looks: watch::Receiver<Arc<BirdState>>,
}

impl Roas {
    /// Uses the servers of this policy from now on.
    pub(super) fn watch(&self, policy: &RoutingPolicySpec, rejects_unknown: bool) {
        self.state.lock().policy = Some((policy.clone(), rejects_unknown));
    }

    /// Waits until the verdict or the table on disk changes. For one caller at a time; cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Maintains the table until the agent stops.
    pub(crate) async fn run(self: Arc<Self>, mut task: RoaTask, stop: CancellationToken) {
        loop {
            let bird = Arc::clone(&task.looks.borrow_and_update());
            self.look(&task, &bird).await;
            tokio::select! {
                () = stop.cancelled() => return,
                look = task.looks.changed() => if look.is_err() { return },
            }
        }
    }

    async fn look(&self, task: &RoaTask, bird: &BirdState) {
        let Some((policy, rejects)) = self.state.lock().policy.clone() else {
            return;
        };
        if !bird.is_running() {
            self.forget();
        } else if !policy.rpki.servers.is_empty() {
            let servers = Servers::of(&bird.protocols);
            task.rpki.judge(&policy, &servers, Instant::now());
            self.read(&task.client, servers).await;
            self.keep(&task.store).await;
        }
        let origins = self.facts().under(policy.rpki.servers.len(), rejects);
        if self.is_new(origins.verdict()) {
            self.changed.notify_one();
        }
    }

    /// Reads BIRD's tables when the servers have news and are not syncing.
    async fn read(&self, client: &Client, servers: Servers) {
        if servers.are_syncing() || !self.is_news(&servers) {
            return;
        }
        match client.roas().await {
            Ok(live) => self.take(servers, live),
            // A `configure` came in between, or a template of the operator has no such table. The agent
            // asks again at the next look, and keeps the previous result.
            Err(error) => debug!(error = %chain(&error), "BIRD's ROA tables not readable"),
        }
    }

    /// Writes the last good table when it changed.
    async fn keep(&self, store: &Arc<Store>) {
        let now = Instant::now();
        let Some(table) = self.due(now) else { return };
        let (count, text) = (Count::of(&table), table.to_file());
        let store = Arc::clone(store);
        let done = blocking(move || store.keep(FILE, &text)).await;
        let worth_a_line = self.wrote(now, done.is_ok());
        match done {
            Ok(_) => {
                info!(
                    file = FILE,
                    ipv4 = count.ipv4,
                    ipv6 = count.ipv6,
                    "ROA table saved"
                );
                self.changed.notify_one();
            }
            Err(error) if worth_a_line => {
                warn!(file = FILE, error = %chain(&error), "ROA table not saved; keeping the old one");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn table(range: std::ops::Range<u8>) -> RoaTable {
        let line =
            |i: u8| format!("route 10.{i}.0.0/16 max 24 as 1;\nroute fd00:{i}::/32 max 64 as 1;\n");
        RoaTable::parse(&range.map(line).collect::<String>()).0
    }

    fn answering() -> Servers {
        let text =
            "1002-moe_rpki_a_1 RPKI --- up 1 Established\n1006-  Status: Established\n0000 \n";
        let reply = crate::observed::bird::framing::Decoder::new()
            .push(text.as_bytes())
            .unwrap()
            .unwrap();
        Servers::of(&crate::observed::bird::protocols::parse(&reply))
    }

    struct Bench {
        roas: Roas,
        store: Store,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self {
                roas: Roas::default(),
                store: Store::open(folder.path()).unwrap(),
                _folder: folder,
            }
        }

        /// Simulates an answer of the servers; writes the table if it is due at that time.
        fn says(&self, live: RoaTable, now: Instant) -> bool {
            self.roas.kept(&self.store);
            self.roas.take(answering(), live);
            let due = self.roas.due(now);
            if let Some(table) = &due {
                self.store.keep(FILE, &table.to_file()).unwrap();
                self.roas.wrote(now, true);
                self.roas.kept(&self.store);
            }
            due.is_some()
        }

        fn verdict(&self) -> Verdict {
            self.roas.facts().under(1, true).verdict()
        }
    }

    #[test]
    fn roa_table_is_written_only_when_changed() {
        let (bench, start) = (Bench::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(bench.says(table(0..30), at(0)), "the first one at once");
        assert!(!bench.says(table(0..30), at(5000)), "the same one never");
        assert!(
            !bench.says(table(0..31), at(800)),
            "new ones are in BIRD already"
        );
        assert!(bench.says(table(0..31), at(901)));
        assert!(!bench.says(table(1..31), at(920)));
        assert!(
            bench.says(table(1..31), at(970)),
            "one that was taken back must go from disk"
        );
        assert_eq!(
            bench.roas.kept(&bench.store).as_deref(),
            Some(&table(1..31))
        );
    }

    #[test]
    fn roa_collapse_keeps_the_last_good_table_until_recovery() {
        let (bench, start) = (Bench::new(), Instant::now());
        let late = start + Duration::from_secs(100_000);
        assert!(bench.says(table(0..100), start));
        for left in [0, 10, 49] {
            assert!(!bench.says(table(0..left), late), "{left}");
            assert_eq!(bench.verdict(), Verdict::Collapsed);
            assert_eq!(
                bench.roas.kept(&bench.store).as_deref(),
                Some(&table(0..100))
            );
        }
        bench.says(table(0..100), late);
        assert_eq!(bench.verdict(), Verdict::Live);
        assert!(bench.says(table(0..60), late), "that many may go");
    }

    #[test]
    fn removing_the_file_takes_what_the_servers_say() {
        let (bench, start) = (Bench::new(), Instant::now());
        bench.says(table(0..100), start);
        assert!(!bench.says(table(0..3), start));
        std::fs::remove_file(bench.store.dir().join(FILE)).unwrap();
        assert!(bench.says(table(0..3), start));
        assert_eq!(bench.verdict(), Verdict::Live);
    }

    #[test]
    fn an_empty_table_is_never_written() {
        let bench = Bench::new();
        assert!(!bench.says(RoaTable::default(), Instant::now()));
        assert_eq!(bench.verdict(), Verdict::NoRoas);
        assert_eq!(bench.roas.kept(&bench.store), None);
    }

    #[test]
    fn unreadable_roa_table_keeps_its_last_content() {
        let bench = Bench::new();
        bench.says(table(0..3), Instant::now());
        let path = bench.store.dir().join(FILE);
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(bench.roas.kept(&bench.store).as_deref(), Some(&table(0..3)));
    }
}
