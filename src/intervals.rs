//! All intervals, gather windows and deadlines of the code, each with its unit and reason; `docs/architecture.md` has
//! them as a table. Those of the configuration have their defaults in `config`.

use std::time::Duration;

use jiff::SignedDuration;

// Controller
/// Time that a key waits for an observation of BIRD. After that it uses the last one, because the kernel's part
/// must not wait for a BIRD that is busy or hangs.
pub(crate) const BIRD_OBSERVATION_WAIT: Duration = Duration::from_millis(1500);
/// Time that a reconcile waits for BIRD: longer than a commit of many sessions takes on a small machine.
pub(crate) const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// The same limit while an operator waits for the result.
pub(crate) const COMMIT_WAIT_ATTENDED: Duration = Duration::from_secs(50);
/// Time between the kernel's steps of an object and the observation that reads them back: steps that end meanwhile
/// share it.
pub(crate) const PASS_GATHER: Duration = Duration::from_millis(20);
/// The next pass waits for the runs of the last one while one of them ends within this time.
pub(crate) const BATCH_QUIET: Duration = Duration::from_secs(1);
/// Longest time that it waits.
pub(crate) const BATCH_MAX: Duration = Duration::from_secs(5);
/// Added for each run: a thousand links take longer than a few.
pub(crate) const BATCH_PER_RUN: Duration = Duration::from_millis(20);
/// Time to gather links that the kernel announces as changed: those of about the same time are read together.
pub(crate) const GLANCE_GATHER: Duration = Duration::from_millis(20);
/// Longest time that an object's change for BIRD waits for those of the other objects of its pass.
pub(crate) const READY_MAX: Duration = Duration::from_secs(2);
/// Longest time that changes for BIRD are gathered into one commit while they keep coming.
pub(crate) const COMMIT_GATHER_MAX: Duration = Duration::from_secs(2);
/// While applied records, or statuses, keep coming in this time, they are gathered, to be written together.
pub(crate) const TOGETHER_GATHER: Duration = Duration::from_millis(10);
/// Longest time that they are gathered: no object waits longer for others.
pub(crate) const TOGETHER_GATHER_MAX: Duration = Duration::from_millis(500);
/// Longest time between two observations: an observation of many objects is followed by a rest of three times its
/// duration.
pub(crate) const PASS_REST_MAX: Duration = Duration::from_secs(1);
/// Shortest time between two enables of one protocol: an operator who disables it repeatedly must notice.
pub(crate) const ENABLE_PAUSE: Duration = Duration::from_secs(60);
/// Time that a pass waits for further tunnels before it observes: tunnels that arrive together go into one
/// transaction.
pub(crate) const FIREWALL_GATHER: Duration = Duration::from_millis(100);
/// Time that a sysctl that could not be set is left alone.
pub(crate) const SYSCTL_PAUSE: Duration = Duration::from_secs(60);
/// Interval of the regular look: no event announces WireGuard's changes. With more than 100 objects, everything is observed
/// once in up to six of them.
pub(crate) const RECONCILE_TICK: Duration = Duration::from_secs(10);
/// Interval for a settled object. The tick of all objects normally reconciles it earlier; this applies only if
/// there is no tick.
pub(crate) const SETTLED_OBJECT: Duration = Duration::from_secs(3600);
/// Interval for an object that is being configured.
pub(crate) const MOVING_OBJECT: Duration = Duration::from_secs(1);
/// The time after the agent's start in which a process that an earlier run forked may still become a userspace
/// WireGuard.
pub(crate) const LATE_LINKS: Duration = Duration::from_secs(10);
/// Longest time without a finished pass before the agent counts as failed.
pub(crate) const PASS_MAX: Duration = Duration::from_secs(60);
/// Backoff of a failing key: first and longest wait.
pub(crate) const KEY_RETRY: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(300));
/// Longer waits of failing keys end on a multiple of this, so that they share an observation.
pub(crate) const KEY_BEAT: Duration = Duration::from_secs(10);
/// Shortest interval between two builds of the desired state that are due at a time.
pub(crate) const BUILD_SOON: Duration = Duration::from_millis(50);

// Agent
/// Interval between two builds of the desired state without a hint: BIRD's version may have changed, and measured classes change.
pub(crate) const BUILD_TICK: Duration = Duration::from_secs(30);
/// Time after which a listing looks at every file of the state directory again, though no change of it was seen: of
/// `applied/`, `.synced/` and a network file system not every change is announced.
pub(crate) const LISTING_MAX: Duration = Duration::from_secs(300);
/// Interval between two builds while the state directory cannot be read or written: no event reports its recovery.
pub(crate) const BUILD_TROUBLED: Duration = Duration::from_secs(2);
/// The same interval while a file is being written.
pub(crate) const BUILD_UNSETTLED: Duration = Duration::from_millis(100);
/// Delay before a watch that ended is restarted.
pub(crate) const WATCH_RESTART: Duration = Duration::from_secs(1);
/// Limit of the wait for names, in a single pass or for an operator's command.
pub(crate) const NAMES_WAIT: Duration = Duration::from_secs(3);
/// Time to gather answers of peers that answer for the first time, or again.
pub(crate) const ANSWERS_GATHER: Duration = Duration::from_secs(2);
/// Minimum time between two changes of the classes of links. Each change is a reload of BIRD: a thousand peers that
/// answer in their first minute must not cause a thousand reloads. The first change waits until all peers were probed,
/// at most this long.
pub(crate) const CLASSES_APART: Duration = Duration::from_secs(60);
/// Time to gather entries: all changes that one desired state applied are one cause.
pub(crate) const STEPS_GATHER: Duration = Duration::from_millis(500);
/// How long steps that changed no file wait for the change they were taken for: a policy is applied
/// together with the texts of the sessions that follow from it, in any order.
pub(crate) const STEPS_AROUND: Duration = Duration::from_secs(2);
/// Limit of the wait for commits at a stop.
pub(crate) const STOP_COMMITS: Duration = Duration::from_secs(5);
/// Limit of the wait for commits after a single pass.
pub(crate) const ONCE_COMMITS: Duration = Duration::from_secs(15);
/// Limit of the wait for the first desired state at the start.
pub(crate) const START_FIRST_BUILD: Duration = Duration::from_secs(5);
/// Limit of the wait for the first lists of the Control Plane, at the first start of a router.
pub(crate) const START_FIRST_LISTS: Duration = Duration::from_secs(5);
/// Interval at which the service manager gets the counts, if they changed, and the watchdog is fed; a short
/// `WatchdogSec=` shortens it.
pub(crate) const SERVICE_STATUS: Duration = Duration::from_secs(5);
/// Interval at which the agent checks whether it is ready, for the service manager.
pub(crate) const SERVICE_READY_POLL: Duration = Duration::from_millis(100);
/// Limit of one message to the service manager.
pub(crate) const SERVICE_MESSAGE: Duration = Duration::from_secs(1);
/// Shortest interval between two reactions to changes of the agent's table in nftables.
pub(crate) const FIREWALL_QUIET: Duration = Duration::from_millis(500);
/// Interval at which a single pass without the daemon checks whether the state directory is quiet.
pub(crate) const ONCE_QUIET_POLL: Duration = Duration::from_millis(100);
/// Limit of the wait for steps in progress at a stop.
pub(crate) const STOP_DRAIN: Duration = Duration::from_secs(20);
/// Limit of the wait for steps in progress after a task ended early.
pub(crate) const STOP_QUICK: Duration = Duration::from_secs(1);
/// Limit of the wait for one answer of BIRD at a stop.
pub(crate) const STOP_BIRD_ANSWER: Duration = Duration::from_millis(1500);
/// Debounce time of files: a change counts after this time without events. Longer than an editor
/// needs between two steps of a save; with the work that follows still well below a second.
pub(crate) const FILES_QUIET: Duration = Duration::from_millis(250);
/// Polling interval of the key file.
pub(crate) const KEY_POLL: Duration = Duration::from_secs(1);
/// Polling interval of token files.
pub(crate) const TOKEN_POLL: Duration = Duration::from_secs(2);
/// Interval between two checks whether the state directory is back.
pub(crate) const LOST_DIRECTORY_POLL: Duration = Duration::from_secs(2);
/// Polling interval of template files.
pub(crate) const TEMPLATES_POLL: Duration = Duration::from_millis(500);
/// Debounce time of templates before they are tested: a shell redirect truncates first.
pub(crate) const TEMPLATES_QUIET: Duration = Duration::from_secs(1);
/// Retry interval of templates that could not be tested.
pub(crate) const TEMPLATES_RETRY: Duration = Duration::from_secs(10);
/// Minimum interval between two writes when ROAs were withdrawn: each is a reload of BIRD.
pub(crate) const ROA_WITHDRAWN: Duration = Duration::from_secs(60);
/// Minimum interval between two writes when there are only new ROAs: BIRD has them already, the write is for the next
/// start.
pub(crate) const ROA_ADDED: Duration = Duration::from_secs(900);
/// How long an RPKI server may be silent before its next address is tried: BIRD queries a silent server every 90 s.
pub(crate) const RPKI_SILENCE: Duration = Duration::from_secs(180);
/// The longest such time: it triples with each change of address.
pub(crate) const RPKI_SILENCE_MAX: Duration = Duration::from_secs(180 * 243);
/// Interval between two comparisons of facts for the log. Each comparison is in memory.
pub(crate) const EDGES_POLL: Duration = Duration::from_secs(1);
/// Longer than the edge detector holds any bad state back before it logs it.
pub(crate) const EDGES_HELD: SignedDuration = SignedDuration::from_mins(1);
/// Limit of the wait of `/maintenance` for BIRD.
pub(crate) const MAINTENANCE_WAIT: Duration = Duration::from_secs(5);
/// Polling interval of BIRD during that wait.
pub(crate) const MAINTENANCE_POLL: Duration = Duration::from_millis(200);
/// Limit of the wait of `/restart` until the interface and its BGP session are configured again.
pub(crate) const RESTART_WAIT: Duration = Duration::from_secs(60);
/// Backoff of the local API while its address is taken: first and longest wait.
pub(crate) const LISTEN_RETRY: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30));
/// The wait after a delivery that left reports; doubled each time.
pub(crate) const REPORTS_RETRY: Duration = Duration::from_secs(1);
/// The longest wait between two deliveries.
pub(crate) const REPORTS_RETRY_MAX: Duration = Duration::from_secs(60);
/// Interval at which a stop checks how long BIRD has not answered.
pub(crate) const STOP_BIRD_POLL: Duration = Duration::from_millis(50);
/// Delay of a fault that a test requests of a task, in debug builds only.
pub(crate) const TASK_FAULT: Duration = Duration::from_secs(1);
/// Longest duration in the configuration: a longer one is a mistake.
pub(crate) const CONFIGURED_MAX: Duration = Duration::from_secs(366 * 86400);

// BIRD
/// Deadline of a command, from connect to the last byte, and of `bird -p`, both for a small configuration: `bird/pace.rs`
/// makes it longer for a large one and on a slow machine. The slowest measured took 3 s: 3000 protocols removed on 3.1.8,
/// and 1.5 million static routes parsed.
pub(crate) const BIRD_COMMAND: Duration = Duration::from_secs(10);
/// Added to the deadline of `bird -p` and of `configure` for each file: an emulated processor takes 10 ms for one.
pub(crate) const BIRD_PER_FILE: Duration = Duration::from_millis(30);
/// The longest deadline of a command and of `bird -p`.
pub(crate) const BIRD_DEADLINE_MAX: Duration = Duration::from_secs(300);
/// Backoff of a commit that did not end in time: first and longest wait.
pub(crate) const COMMIT_RETRY: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(60));
/// How old the details of protocols may be whose state has not changed, with more than 200 protocols.
pub(crate) const BIRD_DETAILS: Duration = Duration::from_secs(60);
/// How long a read waits for a reconfiguration in progress.
pub(crate) const BIRD_READ_WAIT: Duration = Duration::from_secs(2);
/// How long a load that failed is not tried again. It expires because another BIRD may be installed meanwhile.
pub(crate) const LOAD_REMEMBERED: Duration = Duration::from_secs(600);
/// The same after sessions went down for the first time, which may have been a coincidence.
pub(crate) const LOAD_COINCIDENCE: Duration = Duration::from_secs(30);
/// How long a foreign file is left alone after its last change, because it may be incomplete.
pub(crate) const FOREIGN_FILE_QUIET: Duration = Duration::from_secs(2);
/// Minimum time between two changes of the class of a link.
pub(crate) const CLASS_HOLD: SignedDuration = SignedDuration::from_hours(1);
/// Time in which a load must be confirmed, unless the configuration sets it. Half of it is for settling.
pub(crate) const BIRD_CONFIRM: Duration = Duration::from_secs(30);
/// Least time for settling, if the time to confirm is short.
pub(crate) const SETTLING_MIN: Duration = Duration::from_secs(1);
/// Interval of the polls whether BIRD has settled: first and longest.
pub(crate) const SETTLING_POLL: (Duration, Duration) =
    (Duration::from_millis(2), Duration::from_millis(100));
/// Time to gather changes outside a pass before a load.
pub(crate) const COMMIT_GATHER: Duration = Duration::from_millis(100);
/// Interval between two attempts to connect while the backlog of BIRD is full.
pub(crate) const BIRD_BACKLOG_POLL: Duration = Duration::from_millis(10);
/// Time in which the weight of an old latency drops to a third.
pub(crate) const LATENCY_FADING: SignedDuration = SignedDuration::from_mins(30);
/// The same for losses: a few packets say little about a loss of one percent.
pub(crate) const LOSS_FADING: SignedDuration = SignedDuration::from_hours(6);

// Kernel
/// Timeout of one netlink request. Deleting a WireGuard link holds the kernel's lock for 0.1 s (measured, Linux 6.12), and
/// a thousand others may be queued first.
pub(crate) const NETLINK_REQUEST: Duration = Duration::from_secs(60);
/// Wait before a failed socket for the kernel's events is opened again.
pub(crate) const KERNEL_EVENTS_PAUSE: Duration = Duration::from_secs(1);
/// Wait before a failed socket for nftables' events is opened again.
pub(crate) const NFTABLES_EVENTS_PAUSE: Duration = Duration::from_secs(1);
/// Timeout of one exchange with the socket of a userspace WireGuard process.
pub(crate) const USERSPACE_EXCHANGE: Duration = Duration::from_secs(5);
/// A process of userspace WireGuard that answers within this time is asked without the runtime's event queue.
pub(crate) const USERSPACE_PROMPT: Duration = Duration::from_millis(100);
/// Timeout of starting and of ending such a process.
pub(crate) const USERSPACE_START: Duration = Duration::from_secs(5);
/// Timeout of the end of a userspace WireGuard process that hangs, after SIGKILL.
pub(crate) const USERSPACE_KILL: Duration = Duration::from_secs(2);
/// Polling interval of such a process meanwhile.
pub(crate) const USERSPACE_POLL: Duration = Duration::from_millis(20);
/// Time limit of one call of `nft`.
pub(crate) const NFT_CALL: Duration = Duration::from_secs(10);

// Names and probes
/// How long the peer may be silent at one address before the next is tried. WireGuard repeats a
/// handshake every 5 s (`REKEY_TIMEOUT` of its paper, section 6.1), so this is six attempts.
pub(crate) const ADDRESS_SILENCE: Duration = Duration::from_secs(30);
/// Minimum time between the last lookup of a name and one on demand.
pub(crate) const LOOKUP_PAUSE: Duration = Duration::from_secs(10);
/// The first retry after a failed lookup; doubled each time, up to the interval.
pub(crate) const LOOKUP_RETRY: Duration = Duration::from_secs(5);
/// Time without a failure after which an address counts as good again.
pub(crate) const ADDRESS_GOOD_AGAIN: Duration = Duration::from_secs(300);
/// How long a lookup blocks those that wait to start. Answers come within milliseconds; a slower lookup
/// continues in parallel with the others, so that a hundred hanging names delay a good one by
/// seconds instead of minutes.
pub(crate) const LOOKUP_GRACE: Duration = Duration::from_secs(1);
/// The time between the first probes of targets that were added together: a router that starts with a thousand
/// sessions probes them all within a minute, twenty a second.
pub(crate) const PROBE_STAGGER: Duration = Duration::from_millis(50);
/// The time between two echoes, so that they are not lost in the same burst.
pub(crate) const ECHO_SPACING: Duration = Duration::from_millis(500);
/// How long an answer is used before the next lookup of a name: `getaddrinfo` does not return its TTL.
pub(crate) const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);
/// Time limit of one lookup.
pub(crate) const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// Time between two probes of one target: a probe of a dead one takes 6.5 s, so a thousand dead ones fit.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(300);
/// Timeout of each echo.
pub(crate) const ECHO_TIMEOUT: Duration = Duration::from_secs(5);
/// One echo of the looking glass, for which a person waits.
pub(crate) const GLASS_ECHO: Duration = Duration::from_secs(2);
/// Time after which a question to a busy looking glass may be asked again.
pub(crate) const GLASS_BUSY: Duration = Duration::from_secs(1);

// State directory
/// Time to gather events of files before they become hints.
pub(crate) const EVENTS_GATHER: Duration = Duration::from_millis(50);
/// The watch announces a write of the agent itself within this time, on a slow machine too.
pub(crate) const OWN_WRITE_ANNOUNCED: Duration = Duration::from_secs(2);
/// Polling interval of files where the kernel reports no changes.
pub(crate) const SCAN_POLL: Duration = Duration::from_secs(1);
/// A continuously changing file counts as complete after this time.
pub(crate) const FILE_CHANGING_MAX: Duration = Duration::from_secs(5);
/// A file that is open for writing counts as complete if nothing was written for this time: the
/// process that holds it open has forgotten it.
pub(crate) const WRITER_FORGOTTEN: Duration = Duration::from_secs(30);
/// After this time the state directory is read even if Git still seems to change it.
pub(crate) const TREE_CHANGING_MAX: Duration = Duration::from_secs(5);
/// Interval between two checks whether another git still changes the tree.
pub(crate) const GIT_AT_WORK_CHECK: Duration = Duration::from_millis(20);
/// A lock of the index that is older than this belongs to a git that no longer runs, and is ignored.
pub(crate) const INDEX_LOCK_STALE: Duration = Duration::from_secs(10);
/// How long a start waits for the lock of the state directory. After an agent that was killed, a program that it was
/// about to start may hold the lock for a moment.
pub(crate) const STATE_LOCK_WAIT: Duration = Duration::from_secs(1);
/// How long one writer of the approvals waits for another.
pub(crate) const APPROVALS_WAIT: Duration = Duration::from_secs(2);
/// How long a command that changes documents, or a fleet, waits for another.
pub(crate) const CHANGES_WAIT: Duration = Duration::from_secs(10);
/// Interval at which one that waits for a lock checks.
pub(crate) const LOCK_POLL: Duration = Duration::from_millis(20);
/// Probable delay between the writes of the index and of HEAD by a git.
pub(crate) const HEAD_FOLLOWS: Duration = Duration::from_millis(50);
/// A file younger than this may change again within the same tick of the kernel's clock (at most 10 ms), and so with the same
/// stamp.
pub(crate) const FILE_SETTLED: Duration = Duration::from_millis(100);
/// The same on a file system that keeps whole seconds. The longest tick is that of FAT.
pub(crate) const FILE_SETTLED_COARSE: Duration = Duration::from_secs(2);
/// Interval at which the watch is checked, and requested again where it is not available.
pub(crate) const WATCH_CHECK: Duration = Duration::from_secs(30);

// History
/// Time limit of one call of git.
pub(crate) const GIT_CALL: Duration = Duration::from_secs(10);
/// Time limit of packing; nothing waits for it.
pub(crate) const GIT_PACKING: Duration = Duration::from_secs(600);
/// Maximum interval between two checks whether to pack the history.
pub(crate) const PACK_CHECK: Duration = Duration::from_secs(24 * 3600);
/// Limit of the wait for another git that holds the index.
pub(crate) const OTHER_GIT_WAIT: Duration = Duration::from_secs(1);
/// Maximum interval between two refreshes of an index that may be behind.
pub(crate) const INDEX_REFRESH_MAX: Duration = Duration::from_secs(30);
/// Time to gather causes: their commits become durable together.
pub(crate) const HISTORY_GATHER: Duration = Duration::from_secs(1);
/// The git that makes the commits ends when no commit came for this time.
pub(crate) const HISTORY_IDLE: Duration = Duration::from_secs(60);
/// Backoff after a failed commit of the history: first and longest wait.
pub(crate) const HISTORY_RETRY: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(300));
/// A lock of Git this old has no holder: no call of git takes as long.
pub(crate) const GIT_LOCK_STALE: Duration = Duration::from_secs(600);
/// A lock of Git without a running process is kept for this time: its process may just have started.
pub(crate) const GIT_LOCK_YOUNG: Duration = Duration::from_secs(5);

// Control Plane
/// How long the breaker stays open before one call may probe.
pub(crate) const BREAKER_COOLDOWN: Duration = Duration::from_secs(30);
/// How long a list waits for the previous one in the order to probe.
pub(crate) const BREAKER_PROBE_STEP: Duration = Duration::from_secs(2);
/// The longest wait within one call, and so the longest `Retry-After` that is waited for in it.
pub(crate) const CALL_WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is respected: one wrong header must not stop a call for a day.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);
/// The wait after a 429 without `Retry-After`.
pub(crate) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(10);
/// The upper bound of the wait after the first failed call, which has repeated its request already; doubled each time.
pub(crate) const CALL_RETRY: Duration = Duration::from_secs(5);
/// The shortest wait after a failure that an operator has to act on.
pub(crate) const OPERATOR_RETRY: Duration = Duration::from_secs(300);
/// The first wait before a report is repeated that the Control Plane refuses, or acknowledges without effect; doubled
/// each time.
pub(crate) const REFUSED_REPORT_RETRY: Duration = Duration::from_secs(60);
/// The longest wait between tries of one report.
pub(crate) const REFUSED_REPORT_RETRY_MAX: Duration = Duration::from_secs(3600);
/// Wait of a call while another call probes; its answer takes no longer than a request.
pub(crate) const BREAKER_PROBING: Duration = Duration::from_secs(1);

// HTTP servers and log
/// Time limit for the head of an HTTP request, including the wait for the first or next one.
pub(crate) const HTTP_HEAD: Duration = Duration::from_secs(10);
/// How long a connection accepts further requests.
pub(crate) const HTTP_CONNECTION: Duration = Duration::from_secs(60);
/// Time limit of the last call of a connection: longer than the slowest call, which is `/restart`,
/// and short enough that a client that does not read its answer is disconnected.
pub(crate) const HTTP_LAST_CALL: Duration = Duration::from_secs(90);
/// Time limit for calls in progress after the shutdown.
pub(crate) const HTTP_SHUTDOWN: Duration = Duration::from_secs(5);
/// Time limit for the rest of an answer that has begun, after the shutdown.
pub(crate) const HTTP_STREAM_END: Duration = Duration::from_millis(500);
/// Interval at which a full server looks for a connection that it may close.
pub(crate) const HTTP_FULL_POLL: Duration = Duration::from_millis(100);
/// Time limit for a client to send its body.
pub(crate) const HTTP_BODY: Duration = Duration::from_secs(10);
/// Time limit for a verb that runs for a member of the read group.
pub(crate) const READ_ANSWER: Duration = Duration::from_secs(600);
/// Interval of the comments that keep an idle stream of events open.
pub(crate) const EVENTS_ALIVE: Duration = Duration::from_secs(15);
/// The shortest time between two comparisons for one stream of events.
pub(crate) const EVENTS_APART: Duration = Duration::from_millis(200);
/// Time limit for a router to send its report.
pub(crate) const FLEET_BODY: Duration = Duration::from_secs(20);
/// The longest wait of a request for the revision of a router's lists; proxies commonly end silent requests after it.
pub(crate) const LONG_POLL_MAX: Duration = Duration::from_secs(60);
/// The shortest time between two requests for a revision.
pub(crate) const LONG_POLL_APART: Duration = Duration::from_secs(1);
/// Polling interval of a fleet's files.
pub(crate) const FLEET_POLL: Duration = Duration::from_millis(200);
/// Time for which one look at the posts of the whole fleet serves all views.
pub(crate) const FLEET_VIEW: Duration = Duration::from_secs(2);
/// Interval at which the Control Plane reads its certificate and the operators' tokens again.
pub(crate) const FLEET_SECRETS: Duration = Duration::from_secs(30);
/// A file that was written less than this ago may be incomplete: `cp`, `git checkout` and some
/// editors write into the file itself, and an incomplete list of sessions is read as a list with
/// fewer sessions. A busy disk delays a writer by a quarter of a second and more between two writes
/// (observed next to a process that syncs).
pub(crate) const FLEET_FILE_QUIET: Duration = Duration::from_secs(1);
/// Limit of the wait until a fleet's file is quiet.
pub(crate) const FLEET_FILE_WAIT: Duration = Duration::from_secs(5);
/// A fleet whose files cannot be read for so long has an error; a shorter time is that of a writer or of a start.
pub(crate) const FLEET_UNREAD: Duration = Duration::from_secs(10);
/// Polling interval of the Git reference that a fleet follows.
pub(crate) const FLEET_GIT_POLL: Duration = Duration::from_secs(5);
/// Interval at which an instance looks for changes in the store that were not announced to it.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_STORE_POLL: Duration = Duration::from_secs(1);
/// Pause before an instance connects to an unavailable store again.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_STORE_RETRY: Duration = Duration::from_secs(1);
/// Time limit for a connection to the store.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_STORE_CONNECT: Duration = Duration::from_secs(5);
/// Time limit for the commit of a post, after which the router gets 503.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_STORE_WRITE: Duration = Duration::from_secs(15);
/// How long the store keeps who changed files.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_AUDIT_KEPT: Duration = Duration::from_secs(31_536_000);
/// How long the store keeps heartbeats and reports; the newest of each router stay.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_POSTS_KEPT: Duration = Duration::from_secs(86400);
/// Interval at which an instance creates and drops the partitions of posts; each is for an hour.
#[cfg(feature = "postgres")]
pub(crate) const FLEET_POSTS_UPKEEP: Duration = Duration::from_secs(300);
/// Interval at which the embedded Control Plane decides on the next step of a change.
pub(crate) const FLEET_ROLLOUT_POLL: Duration = Duration::from_secs(2);
/// A router without a post for this time is silent: it is out of service, and its reports decide nothing.
pub(crate) const FLEET_SILENT: SignedDuration = SignedDuration::from_mins(5);
/// After a change was rolled back, how long its routers are compared with what they had before it.
pub(crate) const FLEET_RECOVERY: SignedDuration = SignedDuration::from_hours(1);
/// How long a router that may drain counts as drained without a heartbeat that says so.
pub(crate) const FLEET_DRAIN_KEPT: SignedDuration = SignedDuration::from_mins(5);
/// How long the end of the process waits for lines to be written.
pub(crate) const LOG_FLUSH: Duration = Duration::from_secs(1);

// Command line
/// Timeout of a call of the local API. A restart waits until tunnel and session are configured again.
pub(crate) const API_CALL: Duration = Duration::from_secs(120);
/// Timeout of the connection to it. A daemon on this machine answers at once or not at all.
pub(crate) const API_CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the result of a sync: a fetch with its retries.
pub(crate) const SYNC_WAIT: Duration = Duration::from_secs(120);
/// Time between two polls of that result.
pub(crate) const SYNC_POLL: Duration = Duration::from_millis(200);
/// Interval at which `wait` and `get --watch` look at the status files.
pub(crate) const VERB_POLL: Duration = Duration::from_millis(500);
/// `get --watch` reads all files at this interval while the agent tells of changes.
pub(crate) const WATCH_POLL: Duration = Duration::from_secs(10);
/// Wait before it connects to the agent again.
pub(crate) const WATCH_RETRY: Duration = Duration::from_secs(2);
/// A verb shows its progress on a terminal once it has taken this time.
pub(crate) const PROGRESS_AFTER: Duration = Duration::from_secs(2);
/// Interval at which the shown time changes.
pub(crate) const PROGRESS_TICK: Duration = Duration::from_secs(1);
/// Timeout of the check whether the daemon runs.
pub(crate) const DAEMON_CHECK: Duration = Duration::from_secs(2);
/// Time for which `adopt` watches the sessions, unless `--watch` says otherwise.
pub(crate) const ADOPT_WATCH: Duration = Duration::from_secs(60);
/// Time for which nothing may come through an adopted tunnel although an echo goes in with each look: WireGuard itself
/// answers a packet after 10 s.
pub(crate) const ADOPT_SILENCE: Duration = Duration::from_secs(20);
/// Interval at which `adopt` looks at the sessions meanwhile: a session that was reset is down for longer.
pub(crate) const ADOPT_LOOK: Duration = Duration::from_secs(1);
/// One call of `systemctl`.
pub(crate) const SYSTEMCTL_CALL: Duration = Duration::from_secs(30);
/// Timeout of an answer of the network to `describe`.
pub(crate) const REACH_ANSWER: Duration = Duration::from_millis(700);
/// Timeout for resolving the names of endpoints without the daemon.
pub(crate) const OFFLINE_NAMES: Duration = Duration::from_secs(3);
/// Limit of the wait for blocked threads at the end of a command: a lookup that hangs must not delay it.
pub(crate) const EXIT_WAIT: Duration = Duration::from_secs(1);
