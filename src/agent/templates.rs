//! An operator's templates. An edit is tested as a whole, by rendering everything and by BIRD's
//! parser, before any of it is used; until then, and while it is refused, the last good templates
//! stay in use. Those are stored in the state directory, so that they stay in use across a restart.
//! The test runs in parallel to all other work, and its cost is bounded by [`Renderer`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::reload::blocking;
use super::{BuildError, Parts};
use crate::intervals::{TEMPLATES_POLL, TEMPLATES_QUIET, TEMPLATES_RETRY};
use crate::observed::bird::Tree;
use crate::ports::CommitError;
use crate::render::Renderer;
use crate::store::Store;
use crate::telemetry::chain;

/// Size limit of a template, in bytes; the built-in ones have up to 12 KB.
const MOST_BYTES: u64 = 256 * 1024;

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
pub(super) struct Templates {
    directory: Option<PathBuf>,
    state: Mutex<State>,
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

/// Templates that were not tested yet.
pub(super) struct Candidate {
    texts: Texts,
    pub(super) renderer: Arc<Renderer>,
}

/// Result of a test of templates.
pub(super) enum Verdict {
    /// The templates render to this tree.
    Renders(Tree),
    /// The templates do not render the desired state, with the reason.
    Refused(String),
    /// The templates could not be tested, with the reason.
    Unknown(String),
}

impl Templates {
    /// Opens the built-in templates, overlaid by those of a directory. If the texts on disk differ
    /// from the last good ones, the last good ones are used and those on disk are tested later.
    /// `writes`: whether an agent starts, which can test them; a reader judges those on disk.
    pub(super) fn open(directory: Option<&Path>, store: &Store, writes: bool) -> Self {
        let state = match directory {
            Some(directory) => State::begin(directory, store, writes),
            None => State::of(Renderer::new(&Texts::new()).map_err(|error| error.to_string())),
        };
        Self {
            directory: directory.map(Path::to_owned),
            state: Mutex::new(state),
        }
    }

    /// The templates in use, or why there are none.
    pub(super) fn in_use(&self) -> Result<Arc<Renderer>, String> {
        let state = self.state.lock();
        let problem = || state.trouble().unwrap_or_default();
        state.in_use.clone().ok_or_else(problem)
    }

    /// The problem of the templates on disk; the templates in use are older in that case.
    pub(super) fn problem(&self) -> Option<String> {
        self.state.lock().trouble()
    }

    /// Returns whether a directory of templates is configured.
    pub(super) fn is_configured(&self) -> bool {
        self.directory.is_some()
    }

    /// Reads the files. Returns texts that differ from the last judged ones and have been unchanged
    /// for the debounce time. Refuses files that do not parse.
    pub(super) fn look(&self, now: Instant) -> Option<Candidate> {
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
pub(super) fn problem(directory: &Path) -> Option<String> {
    let texts = match read(directory) {
        Ok(texts) => texts,
        Err(error) => return Some(chain(&error)),
    };
    Renderer::new(&texts).err().map(|error| error.to_string())
}

impl State {
    fn of(renderer: Result<Renderer, String>) -> Self {
        let (in_use, problem) = match renderer {
            Ok(renderer) => (Some(Arc::new(renderer)), None),
            Err(why) => (None, Some(why)),
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
        let texts = read(directory).map_err(|error| chain(&error));
        let rendering = |texts: &Texts| Renderer::new(texts).map_err(|error| error.to_string());
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
                    problem: on_disk.err().filter(|_| texts.is_ok()),
                    unread: texts.err(),
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

/// Tests new templates in parallel to the agent's work, and triggers a new world when it uses or refuses them.
pub(super) async fn watch(parts: Arc<Parts>, stop: CancellationToken) {
    if !parts.maker.templates.is_configured() {
        return stop.cancelled().await;
    }
    loop {
        let trial = async {
            tokio::time::sleep(TEMPLATES_POLL).await;
            let before = parts.maker.templates.problem();
            let tried = try_out(&parts).await;
            keep(&parts).await;
            if tried || parts.maker.templates.problem() != before {
                parts.context.reports.reload();
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = trial => {}
        }
    }
}

/// Stores the last good templates, again if a tool removed the file.
async fn keep(parts: &Arc<Parts>) {
    let templates = &parts.maker.templates;
    if std::fs::symlink_metadata(parts.context.store.dir().join(KEPT)).is_err() {
        templates.set_kept(false);
    }
    let Some(text) = templates.to_keep() else {
        return;
    };
    let kept = parts
        .context
        .disk(move |store| store.keep_private(KEPT, &text))
        .await;
    match kept {
        Ok(_) => templates.set_kept(true),
        // An unavailable state directory is logged once, elsewhere; the next look retries.
        Err(error) => debug!(error = %chain(&error), "templates not kept for the next start"),
    }
}

/// Uses the templates on disk if everything renders with them and BIRD's parser accepts the result.
/// Returns whether they are now in use.
async fn try_out(parts: &Arc<Parts>) -> bool {
    let looking = Arc::clone(parts);
    let look = move || looking.maker.templates.look(Instant::now());
    let Some(candidate) = blocking(look).await else {
        return false;
    };
    let templates = &parts.maker.templates;
    match judge(parts, &candidate).await {
        Ok(()) => {
            templates.adopt(candidate);
            return true;
        }
        Err(Verdict::Refused(why)) => templates.refuse(Some(candidate.texts), why),
        Err(Verdict::Unknown(why)) => templates.postpone(
            format!("the templates cannot be checked yet: {why}"),
            Instant::now(),
        ),
        Err(Verdict::Renders(_)) => {}
    }
    false
}

/// Renders everything and runs BIRD's parser.
async fn judge(parts: &Arc<Parts>, candidate: &Candidate) -> Result<(), Verdict> {
    let unknown = |error: &dyn std::error::Error| Verdict::Unknown(chain(error));
    let snapshot = {
        let _writing = parts.syncing.lock().await;
        parts.context.disk(Store::load).await
    };
    let snapshot = snapshot.map_err(|error| unknown(&error))?;
    let bird = parts
        .context
        .observer
        .bird(tokio::time::Instant::now())
        .await;
    let material = parts.maker.material(&snapshot, &bird).await;
    // A template may take long to render, and must not delay other work.
    let (rendering, renderer) = (Arc::clone(parts), Arc::clone(&candidate.renderer));
    let render = move || rendering.maker.render_with(&snapshot, &material, &renderer);
    let tree = match tokio::task::spawn_blocking(render).await {
        Ok(Verdict::Renders(tree)) => tree,
        Ok(verdict) => return Err(verdict),
        Err(error) => return Err(unknown(&error)),
    };
    match parts.committer.check(tree).await {
        Ok(()) => Ok(()),
        Err(CommitError::Tree(what)) => Err(Verdict::Refused(format!(
            "BIRD refuses the rendered templates: {what}"
        ))),
        Err(error @ CommitError::NotReached(_)) => Err(Verdict::Refused(chain(&error))),
        Err(error) => Err(unknown(&error)),
    }
}

fn read(directory: &Path) -> Result<Texts, BuildError> {
    let mut found = BTreeMap::new();
    collect(directory, directory, &mut found).map_err(|source| BuildError::Templates {
        path: directory.to_owned(),
        source,
    })?;
    Ok(found)
}

fn collect(root: &Path, directory: &Path, found: &mut Texts) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            found.insert(name, crate::util::file::read_text(&path, MOST_BYTES)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("moenet")).unwrap();
        write(&folder, text);
        folder
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    /// The templates of a directory whose texts passed their test, without stored templates.
    fn opened(folder: &Path) -> Templates {
        let (_dir, store) = store();
        let templates = Templates::open(Some(folder), &store, true);
        if let Some(candidate) = settled(&templates) {
            templates.adopt(candidate);
        }
        templates
    }

    fn write(folder: &tempfile::TempDir, text: &str) {
        std::fs::write(folder.path().join("moenet/babel.conf"), text).unwrap();
    }

    /// Polls until the files have been quiet for the debounce time.
    fn settled(templates: &Templates) -> Option<Candidate> {
        let now = Instant::now();
        assert!(templates.look(now).is_none(), "not quiet yet");
        templates.look(now + TEMPLATES_QUIET)
    }

    #[test]
    fn broken_template_at_the_start_is_named_and_stops_nothing() {
        let folder = folder("{% if %}");
        let templates = opened(folder.path());
        let problem = templates.in_use().unwrap_err();
        assert!(
            problem.starts_with("template moenet/babel.conf, line 1: "),
            "{problem}"
        );
        write(
            &folder, "# one
",
        );
        templates.adopt(settled(&templates).unwrap());
        assert!(templates.in_use().is_ok() && templates.problem().is_none());
    }

    #[test]
    fn restart_goes_on_with_the_last_good_templates() {
        let (folder, (dir, store)) = (
            folder(
                "# one
",
            ),
            store(),
        );
        let text = opened(folder.path()).to_keep().unwrap();
        store.keep_private(KEPT, &text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join(KEPT))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        write(&folder, "{% if %}");
        let templates = Templates::open(Some(folder.path()), &store, true);
        assert!(templates.in_use().is_ok());
        let problem = templates.problem().unwrap();
        assert!(problem.contains("moenet/babel.conf, line 1"), "{problem}");
        assert_eq!(templates.to_keep(), None, "they are written down");

        // Templates that parse are tested before they are used.
        write(&folder, "");
        let templates = Templates::open(Some(folder.path()), &store, true);
        templates.refuse(Some(settled(&templates).unwrap().texts), "empty".to_owned());
        assert!(templates.in_use().is_ok() && templates.problem().is_some());

        // Templates of another directory belong to another configuration.
        let other = self::folder("{% if %}");
        assert!(
            Templates::open(Some(other.path()), &store, true)
                .in_use()
                .is_err()
        );
        std::fs::write(dir.path().join(KEPT), "nonsense").unwrap();
        write(&folder, "{% if %}");
        assert!(
            Templates::open(Some(folder.path()), &store, true)
                .in_use()
                .is_err()
        );
    }

    #[test]
    fn broken_edit_is_refused_and_the_last_good_stays() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        assert!(settled(&templates).is_none());
        let before = templates.in_use().unwrap();
        write(&folder, "\n{% if %}");
        assert!(settled(&templates).is_none());
        let problem = templates.problem().unwrap();
        assert!(
            problem.starts_with("template moenet/babel.conf, line 2: "),
            "{problem}"
        );
        assert!(Arc::ptr_eq(&before, &templates.in_use().unwrap()));
        write(&folder, "# two\n");
        let candidate = settled(&templates).unwrap();
        templates.adopt(candidate);
        assert!(
            templates.problem().is_none() && !Arc::ptr_eq(&before, &templates.in_use().unwrap())
        );
    }

    #[test]
    fn template_is_tried_only_when_quiet() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        let start = Instant::now();
        // Truncated, partly written, complete.
        for (step, text) in ["", "# t", "# two\n"].into_iter().enumerate() {
            write(&folder, text);
            let now = start + TEMPLATES_QUIET * u32::try_from(step).unwrap();
            assert!(templates.look(now).is_none(), "{text:?}");
        }
        assert!(templates.look(start + TEMPLATES_QUIET * 3).is_some());
    }

    #[test]
    fn reverting_to_the_templates_in_use_clears_the_problem() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        write(&folder, "{{ nonsense }}");
        let candidate = settled(&templates).unwrap();
        templates.refuse(Some(candidate.texts), "it does not render".to_owned());
        assert!(templates.problem().is_some() && settled(&templates).is_none());
        write(&folder, "# one\n");
        templates.adopt(settled(&templates).unwrap());
        assert!(templates.problem().is_none());
    }

    #[test]
    fn templates_that_cannot_be_tried_are_tried_later() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        write(&folder, "# two\n");
        let now = Instant::now();
        assert!(settled(&templates).is_some());
        templates.postpone("no BIRD".to_owned(), now);
        assert!(templates.look(now + TEMPLATES_QUIET).is_none());
        assert!(templates.look(now + TEMPLATES_RETRY).is_some());
    }

    #[test]
    fn missing_template_directory_keeps_the_templates() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists() && settled(&templates).is_none());
        assert!(
            templates
                .problem()
                .unwrap()
                .contains("reading templates in ")
        );
        std::fs::create_dir_all(path.join("moenet")).unwrap();
        std::fs::write(path.join("moenet/babel.conf"), "# one\n").unwrap();
        assert!(settled(&templates).is_none() && templates.problem().is_none());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn unreadable_directory_does_not_replace_the_reason_of_a_refusal() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        write(&folder, "{% if %}");
        assert!(settled(&templates).is_none());
        let refused = templates.problem().unwrap();
        let pipe = folder.path().join("moenet/bgp.conf");
        std::fs::create_dir(&pipe).unwrap();
        std::os::unix::fs::symlink("/nowhere", pipe.join("x.conf")).unwrap();
        assert!(settled(&templates).is_none());
        assert!(
            templates
                .problem()
                .unwrap()
                .contains("reading templates in ")
        );
        std::fs::remove_dir_all(&pipe).unwrap();
        assert!(settled(&templates).is_none());
        assert_eq!(templates.problem().unwrap(), refused);
    }

    #[test]
    fn pipe_and_huge_file_are_problems_and_not_read() {
        let folder = folder("# one\n");
        let templates = opened(folder.path());
        let path = folder.path().join("moenet/bgp.conf");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        assert!(settled(&templates).is_none());
        let problem = templates.problem().unwrap();
        assert!(problem.contains("regular file"), "{problem}");
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path)
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert!(settled(&templates).is_none());
        let problem = templates.problem().unwrap();
        assert!(problem.contains("at most 262144"), "{problem}");
    }

    #[test]
    fn late_template_directory_is_used_when_it_appears() {
        let folder = folder("# one\n");
        let later = folder.path().join("later");
        let templates = opened(&later);
        let why = templates.in_use().unwrap_err();
        assert!(why.contains("reading templates in "), "{why}");
        std::fs::create_dir(&later).unwrap();
        templates.adopt(settled(&templates).unwrap());
        assert!(templates.in_use().is_ok() && templates.problem().is_none());
    }
}
