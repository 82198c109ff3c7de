//! Combines the inputs of a desired state: the listing, secrets, BIRD's features, classes, ROAs, templates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::bird::Checker;
use crate::config::LiveConfig;
use crate::controller::{GuardMemory, RefusedItems};
use crate::desired::{Desired, FeaturesError, Inputs, Material, Object, Reach, Same, SessionCache};
use crate::document::{BgpSessionSpec, Kind};
use crate::effective::Secrets;
use crate::model::ObjectKey;
use crate::observed::SharedOwnership;
use crate::observed::bird::{BirdState, Support, Tree, Version};
use crate::render::{Features, Renderer};
use crate::sources::{Rejection, Sources};
use crate::status::Acceptance;
use crate::store::{Snapshot, Store, StoreError};
use crate::telemetry::chain;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Makes desired states from the state directory, each only when its ingredients differ from those of the last one.
pub struct DesiredMaker {
    config: Arc<LiveConfig>,
    store: Arc<Store>,
    checker: Checker,
    ownership: SharedOwnership,
    sources: Arc<Sources>,
    /// The address clashes that were logged.
    clashes: Notices,
    version: Mutex<Option<Version>>,
    refused: Arc<RefusedItems>,
    pub(super) guard: Arc<GuardMemory>,
    /// Secrets that could not be read, with the reasons: logged once.
    unread: Notices,
    last: Mutex<Option<Made>>,
    sessions: SessionCache,
    builds: AtomicU64,
}

/// A desired state, and the ingredients it was made of.
struct Made {
    snapshot: Arc<Snapshot>,
    material: Material,
    desired: Arc<Desired>,
    /// The objects with documents in the last desired state of files at rest: only then the guard counts what came and went.
    counted: Arc<BTreeSet<ObjectKey>>,
}

fn documented(snapshot: &Snapshot) -> BTreeSet<ObjectKey> {
    let documents = snapshot.documents().map(|(place, _)| place);
    documents
        .filter(|place| !place.kind.is_single())
        .map(|place| place.kind.key(&place.name))
        .sorted_set()
}

/// Inputs of a desired state that programs and the kernel answer.
pub(crate) struct Asked {
    version: Result<Version, FeaturesError>,
    reach: Reach,
}

impl DesiredMaker {
    /// Returns a maker of desired states for this configuration.
    pub(crate) fn new(
        config: Arc<LiveConfig>,
        store: Arc<Store>,
        sources: Arc<Sources>,
        checker: Checker,
        (ownership, refused): (SharedOwnership, Arc<RefusedItems>),
    ) -> Self {
        let guard = Arc::new(GuardMemory::open(&store, Timestamp::now()));
        let (clashes, version, unread) = Default::default();
        let (last, sessions, builds) = Default::default();
        Self {
            config,
            store,
            checker,
            ownership,
            sources,
            clashes,
            version,
            refused,
            guard,
            unread,
            last,
            sessions,
            builds,
        }
    }

    /// Returns how often a desired state was built.
    pub fn builds(&self) -> u64 {
        self.builds.load(Ordering::Relaxed)
    }

    /// The desired state of an empty state directory, used before the first listing.
    pub fn empty(&self) -> Desired {
        let asked = Asked {
            version: Err(FeaturesError::Unread),
            reach: Reach::default(),
        };
        let nothing = Snapshot::default();
        let material = self.material(&nothing, &BirdState::default(), asked);
        self.desired(&nothing, &material)
    }

    /// Makes the desired state of a listing, or returns the last one if nothing that it was made of has changed. If BIRD does
    /// not answer, its program is asked for the version.
    pub async fn make(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        bird: &Arc<BirdState>,
    ) -> Arc<Desired> {
        let asked = self.ask(bird).await;
        let (maker, snapshot, bird) = (Arc::clone(self), Arc::clone(snapshot), Arc::clone(bird));
        // Reads files, and renders all texts.
        blocking(move || maker.desired_of(&snapshot, &bird, asked)).await
    }

    /// Returns the desired state of these inputs. Blocks.
    fn desired_of(&self, snapshot: &Arc<Snapshot>, bird: &BirdState, asked: Asked) -> Arc<Desired> {
        if let Some(known) = self.store.identity() {
            self.ownership.set_succession(known.succeeds);
        }
        let material = self.material(snapshot, bird, asked);
        let mut last = self.last.lock();
        let has_listing = |made: &Made| Arc::ptr_eq(&made.snapshot, snapshot);
        if !last.as_ref().is_some_and(has_listing) {
            self.ownership.set_applied(
                snapshot.applied_links(),
                snapshot.applied_firewall(),
                snapshot.applied_in_bird(),
            );
        }
        let counted = match &*last {
            Some(made) if has_listing(made) || !snapshot.settled => Arc::clone(&made.counted),
            _ if snapshot.settled => Arc::new(documented(snapshot)),
            _ => Arc::default(),
        };
        if let Some(made) = &mut *last {
            match self.outdated(made, (snapshot, &counted), &material) {
                None => {
                    made.snapshot = Arc::clone(snapshot);
                    return Arc::clone(&made.desired);
                }
                Some(because) => debug!(because, "building the desired state"),
            }
        }
        self.builds.fetch_add(1, Ordering::Relaxed);
        let desired = Arc::new(self.desired(snapshot, &material));
        *last = Some(Made {
            snapshot: Arc::clone(snapshot),
            material,
            desired: Arc::clone(&desired),
            counted,
        });
        let sessions = desired.of_kind(Kind::BgpSession);
        let paused = sessions.filter(|session| session.may_be_paused());
        self.ownership
            .set_paused(paused.map(|session| session.name.clone()).sorted_set());
        self.log_clashes(&desired);
        desired
    }

    /// Asks programs and the kernel for inputs of a desired state.
    pub(crate) async fn ask(&self, bird: &BirdState) -> Asked {
        Asked {
            version: self.version(bird.running).await,
            reach: self.sources.host.look(&self.config.get()).await.into(),
        }
    }

    /// Collects the inputs of a desired state besides the listing and the templates. Blocks.
    pub(crate) fn material(
        &self,
        snapshot: &Snapshot,
        bird: &BirdState,
        Asked { version, reach }: Asked,
    ) -> Material {
        let secrets = self.secrets(snapshot);
        let sources = &self.sources;
        Material {
            config: Same(self.config.get()),
            key: sources.key.current(),
            renderer: sources.templates.in_use().map(Same),
            templates_refused: sources.templates.problem(),
            roas: sources.roas.facts(),
            approved: self.store.approved(),
            refused: self.refused.all(),
            secrets,
            bird: version.as_ref().ok().copied(),
            features: version.and_then(features),
            fragments: bird.live.tree.fragments.keys().cloned().sorted_set(),
            main: bird.live.main.clone(),
            classes: sources.classes.published(),
            roa: sources.roas.kept(&self.store),
            rpki: sources.rpki.names(),
            reach,
        }
    }

    /// Returns why the last desired state is not the one of these ingredients, if it is not: something is due by time, a held
    /// change may have waited long enough, or an ingredient differs.
    fn outdated(
        &self,
        made: &Made,
        (snapshot, counted): (&Arc<Snapshot>, &Arc<BTreeSet<ObjectKey>>),
        material: &Material,
    ) -> Option<&'static str> {
        let desired = &made.desired;
        let is_due = desired.changes_at.is_some_and(|at| at <= Timestamp::now());
        let waits = !desired.held().is_empty() || !desired.settling().is_empty();
        let of_others = [
            (is_due, "time"),
            (waits, "held changes"),
            (!self.guard.remembers(&desired.ledger), "the guard's record"),
            (made.material != *material, "inputs besides documents"),
        ];
        let mut of_others = of_others.into_iter();
        let of_others = of_others.find_map(|(differs, what)| differs.then_some(what));
        if of_others.is_some() || Arc::ptr_eq(&made.snapshot, snapshot) {
            return of_others;
        }
        // A file that is being written is listed as it was before.
        let mut listed = Snapshot::clone(snapshot);
        listed.settled = made.snapshot.settled;
        let foreseen = desired.foresaw(&made.snapshot.applied, &snapshot.applied);
        if foreseen {
            listed.applied.clone_from(&made.snapshot.applied);
        }
        [
            (!foreseen, "applied records"),
            (
                made.counted != *counted,
                "objects that came or went while files changed",
            ),
            (*made.snapshot != listed, "documents"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }

    /// Logs each address clash of an applied object once.
    fn log_clashes(&self, desired: &Desired) {
        for clash in self.clashes.new_in(desired.clashes()) {
            warn!(
                clash,
                "applied address clashes with an address that the router needs; keeping the applied object"
            );
        }
    }

    /// Reads the secrets that documents name. Logs each unreadable secret once.
    fn secrets(&self, snapshot: &Snapshot) -> Secrets {
        let (found, unread) = secrets(&self.store, snapshot);
        let unread = unread.into_iter();
        let unread = unread.map(|(file, error)| format!("{file}: {error}"));
        for error in self.unread.new_in(unread) {
            warn!(error, "secret not readable");
        }
        found
    }

    /// Renders with other templates. May take long, and does no IO.
    pub(crate) fn render_with(
        &self,
        snapshot: &Snapshot,
        material: &Material,
        renderer: &Arc<Renderer>,
    ) -> Result<Tree, Rejection> {
        let before = self.desired(snapshot, material);
        let renderer = Ok(Same(Arc::clone(renderer)));
        let material = Material {
            renderer,
            ..material.clone()
        };
        let after = self.desired(snapshot, &material);
        if let Err(error) = &after.router {
            return Err(Rejection::Unknown(error.to_string()));
        }
        if let Some(why) = not_rendered(&before, &after) {
            return Err(Rejection::Refused(why));
        }
        Ok(Tree {
            fragments: after.texts(),
            base: after.base.unwrap_or_default(),
            ..Tree::default()
        })
    }

    fn desired(&self, snapshot: &Snapshot, material: &Material) -> Desired {
        self.guard.recall(|guard| {
            Desired::build(&Inputs {
                snapshot,
                material,
                guard: *guard,
                sessions: &self.sessions,
                now: Timestamp::now(),
            })
        })
    }

    /// Returns the version of BIRD: of the running daemon, else of the last one that answered, else
    /// of the installed program.
    async fn version(&self, running: Option<Version>) -> Result<Version, FeaturesError> {
        let before = *self.version.lock();
        let version = match running.or(before) {
            Some(version) => version,
            None => self
                .checker
                .version()
                .await
                .map_err(|error| FeaturesError::Program(Arc::new(error)))?,
        };
        *self.version.lock() = Some(version);
        Ok(version)
    }
}

/// Returns the features of a version; an error if it cannot read the templates.
fn features(version: Version) -> Result<Features, FeaturesError> {
    match version.support() {
        Support::TooOld => Err(FeaturesError::TooOld(version)),
        _ => Ok(Features::of(
            u32::from(version.major),
            u32::from(version.minor),
        )),
    }
}

/// Returns why new templates do not render the desired state.
fn not_rendered(before: &Desired, after: &Desired) -> Option<String> {
    if let Err(error) = &after.base {
        return Some(chain(error));
    }
    let lost = |session: &Object| {
        let was_there = before.objects.get(&session.key())?.wanted().is_some();
        match &session.acceptance {
            Acceptance::Waiting(why) if was_there && session.text().is_none() => {
                Some(format!("session {}: {why}", session.name))
            }
            _ => None,
        }
    };
    after.of_kind(Kind::BgpSession).find_map(lost)
}

/// Returns the secrets that documents, overrides and applied records name, and the unreadable ones
/// with the reason. The session that names an unreadable secret reports it.
fn secrets(store: &Store, snapshot: &Snapshot) -> (Secrets, BTreeMap<String, String>) {
    let (mut found, mut unread) = (Secrets::new(), BTreeMap::new());
    for file in named_secrets(snapshot) {
        match store.read_secret(&file) {
            Ok(Some(secret)) => drop(found.insert(file, secret)),
            // The session that names it reports it; an invalid file name may be the secret itself.
            Ok(None) | Err(StoreError::SecretName) => {}
            Err(error) => drop(unread.insert(file, chain(&error))),
        }
    }
    (found, unread)
}

fn named_secrets(snapshot: &Snapshot) -> BTreeSet<String> {
    let of_spec = |spec: &BgpSessionSpec| {
        [
            spec.tunnel.preshared_key_file.clone(),
            spec.bgp.password_file.clone(),
        ]
    };
    let documents = snapshot
        .sessions
        .values()
        .filter_map(|slot| slot.as_ref().ok())
        .map(|s| of_spec(&s.document.spec));
    let in_effect = snapshot.applied.values().filter_map(|stored| {
        let spec = stored.document.applied.spec.as_ref()?;
        let fields = ["/tunnel/presharedKeyFile", "/bgp/passwordFile"];
        Some(fields.map(|field| spec.text_at(field)))
    });
    let overrides = snapshot
        .overrides
        .values()
        .filter_map(|slot| slot.as_ref().ok())
        .map(|stored| {
            let set = &stored.document.spec.set;
            let at = |section: &str, field: &str| {
                set.get(section)?.get(field)?.as_str().map(str::to_owned)
            };
            [at("tunnel", "presharedKeyFile"), at("bgp", "passwordFile")]
        });
    documents
        .chain(in_effect)
        .chain(overrides)
        .flatten()
        .flatten()
        .sorted_set()
}
