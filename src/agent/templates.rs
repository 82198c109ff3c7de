//! An operator's templates. Broken ones are refused at the start; while the agent runs, the last good ones
//! stay in use, and an edit is tried as a whole, by rendering everything and by BIRD's parser, before any
//! of it is used. The trial runs beside everything else, and costs as much as [`Renderer`] allows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::reload::blocking;
use super::{BuildError, Parts};
use crate::bird::CommitError;
use crate::bird::committer::Tree;
use crate::render::Renderer;
use crate::store::Store;
use crate::telemetry::chain;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the files have to be unchanged before they are tried: a redirect of a shell truncates first.
const QUIET: Duration = Duration::from_secs(1);
/// How long templates wait that could not be tried.
const RETRY: Duration = Duration::from_secs(10);
/// The largest template; the built-in ones have up to 12 KB.
const MOST_BYTES: u64 = 256 * 1024;

type Texts = BTreeMap<String, String>;

/// The templates in use, and what is wrong with those on disk.
#[derive(Debug)]
pub(super) struct Templates {
    directory: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// None while the directory could not be read since the start: then BIRD's files stay as they are.
    in_use: Option<Arc<Renderer>>,
    /// The texts that were judged last, for better or worse.
    judged: Texts,
    /// Whether those are refused.
    is_refused: bool,
    /// Other texts that are on disk, and from when on they may be tried.
    pending: Option<(Texts, Instant)>,
    problem: Option<String>,
}

/// Templates that were not tried yet.
pub(super) struct Candidate {
    texts: Texts,
    pub(super) renderer: Arc<Renderer>,
}

/// What a trial of templates found.
pub(super) enum Verdict {
    /// They render to this.
    Renders(Tree),
    /// They do not render what is wanted: why.
    Refused(String),
    /// They could not be tried: why.
    Unknown(String),
}

impl Templates {
    /// The built-in templates, overlaid by those in a directory.
    pub(super) fn open(directory: Option<&Path>) -> Result<Self, BuildError> {
        let (in_use, judged, problem) = match directory.map(read).transpose() {
            Ok(texts) => {
                let texts = texts.unwrap_or_default();
                (Some(Arc::new(Renderer::new(&texts)?)), texts, None)
            }
            // The built-in ones would be another configuration than the operator's.
            Err(error) => (None, Texts::new(), Some(chain(&error))),
        };
        let state = State {
            in_use,
            judged,
            is_refused: false,
            pending: None,
            problem,
        };
        Ok(Self {
            directory: directory.map(Path::to_owned),
            state: Mutex::new(state),
        })
    }

    /// The templates in use, or why there are none.
    pub(super) fn in_use(&self) -> Result<Arc<Renderer>, String> {
        let state = self.lock();
        let problem = || state.problem.clone().unwrap_or_default();
        state.in_use.clone().ok_or_else(problem)
    }

    /// What is wrong with the templates on disk; those in use are older then.
    pub(super) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Whether an operator may have templates at all.
    pub(super) fn is_configured(&self) -> bool {
        self.directory.is_some()
    }

    /// Reads the files. Returns those that are not the ones judged last and that have been unchanged for a moment.
    /// Files that do not even parse are refused here.
    pub(super) fn look(&self, now: Instant) -> Option<Candidate> {
        let texts = match read(self.directory.as_deref()?) {
            Ok(texts) => texts,
            Err(error) => {
                self.refuse(None, chain(&error));
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

    /// The texts, if they are news and may be tried by now.
    fn settled(&self, texts: Texts, now: Instant) -> Option<Texts> {
        let mut state = self.lock();
        if state.in_use.is_some() && texts == state.judged {
            state.pending = None;
            if !state.is_refused {
                state.problem = None;
            }
            return None;
        }
        match &state.pending {
            Some((pending, due)) if *pending == texts => (now >= *due).then_some(texts),
            _ => {
                state.pending = Some((texts, now + QUIET));
                None
            }
        }
    }

    /// Uses what was tried.
    fn adopt(&self, candidate: Candidate) {
        let mut state = self.lock();
        (state.in_use, state.judged, state.problem) =
            (Some(candidate.renderer), candidate.texts, None);
        state.is_refused = false;
        info!(
            templates = state.judged.len(),
            "the operator's templates are in use"
        );
    }

    /// Goes on with the templates in use, and tries these again later.
    fn postpone(&self, why: String, now: Instant) {
        if let Some((_, due)) = &mut self.lock().pending {
            *due = now + RETRY;
        }
        self.refuse(None, why);
    }

    /// Goes on with the templates in use.
    fn refuse(&self, texts: Option<Texts>, why: String) {
        let mut state = self.lock();
        if let Some(texts) = texts {
            (state.judged, state.is_refused) = (texts, true);
        }
        state.problem = Some(why);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries new templates beside the agent's work, and has a new world made when it uses or refuses them.
pub(super) async fn watch(parts: Arc<Parts>, stop: CancellationToken) {
    if !parts.maker.templates.is_configured() {
        return stop.cancelled().await;
    }
    loop {
        let trial = async {
            tokio::time::sleep(LOOK).await;
            let before = parts.maker.templates.problem();
            let tried = try_out(&parts).await;
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

/// Uses the templates on disk if everything renders with them and BIRD's parser takes it. Returns whether they
/// came into use.
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
            format!("the templates cannot be tried yet: {why}"),
            Instant::now(),
        ),
        Err(Verdict::Renders(_)) => {}
    }
    false
}

/// Renders everything and asks BIRD's parser.
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
    // A template may take long to render, and nothing else is to wait for it.
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
            found.insert(name, crate::disk::read_text(&path, MOST_BYTES)?);
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

    fn write(folder: &tempfile::TempDir, text: &str) {
        std::fs::write(folder.path().join("moenet/babel.conf"), text).unwrap();
    }

    /// Looks until the files have been quiet for long enough.
    fn settled(templates: &Templates) -> Option<Candidate> {
        let now = Instant::now();
        assert!(templates.look(now).is_none(), "not quiet yet");
        templates.look(now + QUIET)
    }

    #[test]
    fn a_broken_template_is_refused_at_the_start() {
        let folder = folder("{% if %}");
        let error = Templates::open(Some(folder.path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("template moenet/babel.conf, line 1: "),
            "{error}"
        );
    }

    #[test]
    fn broken_edit_is_refused_and_the_last_good_stays() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
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
        let templates = Templates::open(Some(folder.path())).unwrap();
        let start = Instant::now();
        // Truncated, half written, whole.
        for (step, text) in ["", "# t", "# two\n"].into_iter().enumerate() {
            write(&folder, text);
            let now = start + QUIET * u32::try_from(step).unwrap();
            assert!(templates.look(now).is_none(), "{text:?}");
        }
        assert!(templates.look(start + QUIET * 3).is_some());
    }

    #[test]
    fn going_back_to_what_is_in_use_is_no_problem_any_more() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
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
        let templates = Templates::open(Some(folder.path())).unwrap();
        write(&folder, "# two\n");
        let now = Instant::now();
        assert!(settled(&templates).is_some());
        templates.postpone("no BIRD".to_owned(), now);
        assert!(templates.look(now + QUIET).is_none());
        assert!(templates.look(now + RETRY).is_some());
    }

    #[test]
    fn a_directory_that_is_gone_is_a_problem_and_takes_no_template_away() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
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
    fn pipe_and_huge_file_are_problems_and_not_read() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
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
    fn a_directory_missing_at_the_start_is_taken_when_it_comes() {
        let folder = folder("# one\n");
        let later = folder.path().join("later");
        let templates = Templates::open(Some(&later)).unwrap();
        let why = templates.in_use().unwrap_err();
        assert!(why.contains("reading templates in "), "{why}");
        std::fs::create_dir(&later).unwrap();
        templates.adopt(settled(&templates).unwrap());
        assert!(templates.in_use().is_ok() && templates.problem().is_none());
    }
}
