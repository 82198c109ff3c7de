//! An operator's templates. An edit is tested as a whole, by rendering everything and by BIRD's
//! parser, before any of it is used; until then, and while it is refused, the last good templates
//! stay in use. Those are stored in the state directory, so that they stay in use across a restart.
//! The test runs in parallel to all other work, and its cost is bounded by [`Renderer`]. The test itself renders the
//! desired state, so it is the caller's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::intervals::{TEMPLATES_POLL, TEMPLATES_QUIET, TEMPLATES_RETRY};
use crate::render::{RenderError, Renderer};
use crate::store::Store;
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;

/// Size limit of a template, in bytes; the built-in ones have up to 12 KB.
const MOST_BYTES: u64 = 256 * 1024;

/// Number of folders inside each other that are read; templates are one deep.
const DEPTH_MAX: usize = 4;

/// File with the last good templates, in the state directory; hidden, so that Git ignores it.
const KEPT: &str = ".templates.json";

type Texts = BTreeMap<String, String>;

/// The last good templates, as stored for the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Source of the texts; templates of another directory belong to another configuration.
    directory: PathBuf,
    texts: Texts,
}

/// The templates in use, and the problem of those on disk.
#[derive(Debug)]
pub(crate) struct Templates {
    directory: Option<PathBuf>,
    state: Mutex<State>,
    /// Signals other templates in use, or another problem of those on disk.
    changed: Notify,
}

/// A template, or a directory of templates, cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read templates in {path}", path = path.display())]
struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

#[derive(Debug)]
struct State {
    /// `None` until a usable template is found after the start: until then BIRD's files stay unchanged.
    in_use: Option<Arc<Renderer>>,
    /// The texts of the last verdict, accepted or refused; `None`: those in use at the start were not tested yet.
    judged: Option<Texts>,
    /// Whether those texts were refused.
    is_refused: bool,
    /// Different texts on disk, and the earliest time of their test.
    pending: Option<(Texts, Instant)>,
    /// Why the texts on disk are refused.
    problem: Option<String>,
    /// Why the directory cannot be read now.
    unread: Option<String>,
    /// The last texts that passed their test, and whether they are stored.
    good: Option<(Texts, bool)>,
}

/// The reason why templates are not used, and its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(String);

impl TemplateError {
    fn of(error: RenderError) -> Self {
        Self(error.to_string())
    }
}

/// Templates that were not tested yet.
struct Candidate {
    texts: Texts,
    renderer: Arc<Renderer>,
}

/// The reason why tested templates are not used.
pub(crate) enum Rejection {
    /// The templates do not render the desired state, or BIRD refuses the result.
    Refused(String),
    /// The templates could not be tested.
    Unknown(String),
}

impl Templates {
    /// Opens the built-in templates, overlaid by those of a directory. If the texts on disk differ
    /// from the last good ones, the last good ones are used and those on disk are tested later.
    /// `writes`: whether an agent starts, which can test them; a reader judges those on disk.
    pub(crate) fn open(directory: Option<&Path>, store: &Store, writes: bool) -> Self {
        let state = match directory {
            Some(directory) => State::begin(directory, store, writes),
            None => State::of(Renderer::new(&Texts::new()).map_err(TemplateError::of)),
        };
        Self {
            directory: directory.map(Path::to_owned),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// The templates in use, or why there are none.
    pub(crate) fn in_use(&self) -> Result<Arc<Renderer>, TemplateError> {
        let state = self.state.lock();
        let problem = || TemplateError(state.trouble().unwrap_or_default());
        let renderer = state.in_use.clone();
        renderer.ok_or_else(problem)
    }

    /// The problem of the templates on disk; the templates in use are older in that case.
    pub(crate) fn problem(&self) -> Option<TemplateError> {
        self.state.lock().trouble().map(TemplateError)
    }

    /// Waits until other templates are in use, or their problem changes. For one caller at a time; cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads the files. Returns texts that differ from the last judged ones and have been unchanged
    /// for the debounce time. Refuses files that do not parse.
    fn look(&self, now: Instant) -> Option<Candidate> {
        let texts = match read(self.directory.as_deref()?) {
            Ok(texts) => {
                self.set_unread(None);
                texts
            }
            Err(error) => {
                self.set_unread(Some(chain(&error)));
                return None;
            }
        };
        let texts = self.settled(texts, now)?;
        match Renderer::new(&texts) {
            Ok(renderer) => Some(Candidate {
                texts,
                renderer: Arc::new(renderer),
            }),
            Err(error) => {
                self.refuse(Some(texts), error.to_string());
                None
            }
        }
    }

    /// Records whether the directory can be read. The condition logs both edges.
    fn set_unread(&self, why: Option<String>) {
        self.state.lock().unread = why;
    }

    /// Returns the texts if they are new and their test is due.
    fn settled(&self, texts: Texts, now: Instant) -> Option<Texts> {
        let mut state = self.state.lock();
        if state.in_use.is_some() && state.judged.as_ref() == Some(&texts) {
            state.pending = None;
            if !state.is_refused {
                state.problem = None;
            }
            return None;
        }
        match &state.pending {
            Some((pending, due)) if *pending == texts => (now >= *due).then_some(texts),
            _ => {
                state.pending = Some((texts, now + TEMPLATES_QUIET));
                None
            }
        }
    }

    /// Uses the tested templates.
    fn adopt(&self, candidate: Candidate) {
        let mut state = self.state.lock();
        let templates = candidate.texts.len();
        state.good = Some((candidate.texts.clone(), false));
        (state.in_use, state.judged, state.problem) =
            (Some(candidate.renderer), Some(candidate.texts), None);
        state.is_refused = false;
        info!(templates, "using the operator's templates");
    }

    /// Returns the last good templates as text, unless they are stored already.
    fn to_keep(&self) -> Option<String> {
        let directory = self.directory.clone()?;
        let texts = match &self.state.lock().good {
            Some((texts, false)) => texts.clone(),
            _ => return None,
        };
        serde_json::to_string(&Kept { directory, texts }).ok()
    }

    /// Records whether the last good templates are stored.
    fn set_kept(&self, is_kept: bool) {
        if let Some((_, kept)) = &mut self.state.lock().good {
            *kept = is_kept;
        }
    }

    /// Keeps the templates in use, and tests these again later.
    fn postpone(&self, why: String, now: Instant) {
        if let Some((_, due)) = &mut self.state.lock().pending {
            *due = now + TEMPLATES_RETRY;
        }
        self.refuse(None, why);
    }

    /// Keeps the templates in use.
    fn refuse(&self, texts: Option<Texts>, why: String) {
        let mut state = self.state.lock();
        if let Some(texts) = texts {
            (state.judged, state.is_refused) = (Some(texts), true);
        }
        state.problem = Some(why);
    }
}

/// Returns why the templates on disk cannot be used, as far as that is known without rendering them.
pub(crate) fn problem(directory: &Path) -> Option<String> {
    let texts = match read(directory) {
        Ok(texts) => texts,
        Err(error) => return Some(chain(&error)),
    };
    Renderer::new(&texts).err().map(|error| error.to_string())
}

impl State {
    fn of(renderer: Result<Renderer, TemplateError>) -> Self {
        let (in_use, problem) = match renderer {
            Ok(renderer) => (Some(Arc::new(renderer)), None),
            Err(TemplateError(why)) => (None, Some(why)),
        };
        Self {
            in_use,
            judged: None,
            is_refused: false,
            pending: None,
            problem,
            unread: None,
            good: None,
        }
    }

    /// The problem of the templates on disk.
    fn trouble(&self) -> Option<String> {
        self.unread.clone().or_else(|| self.problem.clone())
    }

    /// The state at the start, from the templates on disk and the last good ones.
    fn begin(directory: &Path, store: &Store, writes: bool) -> Self {
        let texts = read(directory).map_err(|error| TemplateError(chain(&error)));
        let rendering = |texts: &Texts| Renderer::new(texts).map_err(TemplateError::of);
        let on_disk = texts.clone().and_then(|texts| rendering(&texts));
        let kept = kept(directory, store);
        let Some((kept, renderer)) =
            kept.and_then(|kept| Some((kept.clone(), rendering(&kept).ok()?)))
        else {
            let mut state = Self::of(on_disk);
            if texts.is_err() {
                state.unread = state.problem.take();
            }
            return state;
        };
        match on_disk {
            Ok(on_disk) if !writes => Self::of(Ok(on_disk)),
            on_disk => {
                if texts.as_ref() != Ok(&kept) {
                    info!(directory = %directory.display(), "templates changed while the agent was down; trying them");
                }
                Self {
                    judged: Some(kept.clone()),
                    good: Some((kept, true)),
                    problem: on_disk.err().filter(|_| texts.is_ok()).map(|it| it.0),
                    unread: texts.err().map(|it| it.0),
                    ..Self::of(Ok(renderer))
                }
            }
        }
    }
}

/// The last good templates of this directory.
fn kept(directory: &Path, store: &Store) -> Option<Texts> {
    let kept: Kept = serde_json::from_str(&store.kept(KEPT).ok()??).ok()?;
    (kept.directory == directory).then_some(kept.texts)
}

impl Templates {
    /// Tests new templates in parallel to all other work until the agent stops. `test` renders everything with them and
    /// runs BIRD's parser.
    pub(crate) async fn run<F: Future<Output = Result<(), Rejection>> + Send>(
        self: Arc<Self>,
        store: Arc<Store>,
        test: impl Fn(Arc<Renderer>) -> F,
        stop: CancellationToken,
    ) {
        if self.directory.is_none() {
            return stop.cancelled().await;
        }
        loop {
            let trial = async {
                tokio::time::sleep(TEMPLATES_POLL).await;
                let before = self.problem();
                let adopted = self.try_out(&test).await;
                self.keep(&store).await;
                if adopted || self.problem() != before {
                    self.changed.notify_one();
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = trial => {}
            }
        }
    }

    /// Uses the templates on disk if they pass their test. Returns whether they are now in use.
    async fn try_out<F: Future<Output = Result<(), Rejection>>>(
        self: &Arc<Self>,
        test: impl Fn(Arc<Renderer>) -> F,
    ) -> bool {
        let templates = Arc::clone(self);
        let Some(candidate) = blocking(move || templates.look(Instant::now())).await else {
            return false;
        };
        match test(Arc::clone(&candidate.renderer)).await {
            Ok(()) => {
                self.adopt(candidate);
                return true;
            }
            Err(Rejection::Refused(why)) => self.refuse(Some(candidate.texts), why),
            Err(Rejection::Unknown(why)) => self.postpone(
                format!("the templates cannot be checked yet: {why}"),
                Instant::now(),
            ),
        }
        false
    }

    /// Stores the last good templates, again if a tool removed the file.
    async fn keep(&self, store: &Arc<Store>) {
        let kept = store.dir().join(KEPT);
        if blocking(move || fs::symlink_metadata(kept)).await.is_err() {
            self.set_kept(false);
        }
        let Some(text) = self.to_keep() else {
            return;
        };
        let store = Arc::clone(store);
        match blocking(move || store.keep_private(KEPT, &text)).await {
            Ok(_) => self.set_kept(true),
            // An unavailable state directory is logged once, elsewhere; the next look retries.
            Err(error) => debug!(error = %chain(&error), "templates not kept for the next start"),
        }
    }
}

fn read(directory: &Path) -> Result<Texts, Unreadable> {
    let mut found = BTreeMap::new();
    collect(directory, directory, &mut found, DEPTH_MAX)?;
    Ok(found)
}

fn collect(
    root: &Path,
    directory: &Path,
    found: &mut Texts,
    depth: usize,
) -> Result<(), Unreadable> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| Unreadable { path, source }
    };
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            let name = path.strip_prefix(root).unwrap_or(&path);
            let name = name.to_string_lossy().into_owned();
            let text = crate::util::file::read_text(&path, MOST_BYTES);
            found.insert(name, text.map_err(unreadable(&path))?);
        } else if fs::is_dir(&path) {
            let deeper = depth.checked_sub(1).ok_or_else(|| {
                let deep = format!("is more than {DEPTH_MAX} folders deep; a link may lead back");
                unreadable(&path)(std::io::Error::other(deep))
            })?;
            collect(root, &path, found, deeper)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
