//! An operator's templates. Broken ones are refused at the start; while the agent runs, the last good ones
//! stay in use, and an edit is tried as a whole, by rendering everything and by BIRD's parser, before any
//! of it is used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BuildError, Parts};
use crate::render::Renderer;

/// How often the files are looked at; saving one is in force within about as long.
const LOOK: Duration = Duration::from_secs(1);

type Texts = BTreeMap<String, String>;

/// The templates in use, and what is wrong with those on disk.
#[derive(Debug)]
pub(super) struct Templates {
    directory: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_use: Arc<Renderer>,
    /// The texts that were judged last, for better or worse.
    judged: Texts,
    /// The texts that were seen last. Those that could not be judged yet are tried again in every world.
    seen: Texts,
    problem: Option<String>,
}

/// Templates that nobody has tried yet.
pub(super) struct Candidate {
    texts: Texts,
    pub(super) renderer: Arc<Renderer>,
}

impl Templates {
    /// The built-in templates, overlaid by those in a directory.
    pub(super) fn open(directory: Option<&Path>) -> Result<Self, BuildError> {
        let texts = directory.map(read).transpose()?.unwrap_or_default();
        let in_use = Arc::new(Renderer::new(&texts)?);
        let state = State {
            in_use,
            seen: texts.clone(),
            judged: texts,
            problem: None,
        };
        Ok(Self {
            directory: directory.map(Path::to_owned),
            state: Mutex::new(state),
        })
    }

    /// The templates in use.
    pub(super) fn in_use(&self) -> Arc<Renderer> {
        Arc::clone(&self.lock().in_use)
    }

    /// What is wrong with the templates on disk; those in use are older then.
    pub(super) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Whether an operator may have templates at all.
    pub(super) fn is_configured(&self) -> bool {
        self.directory.is_some()
    }

    /// What is on disk, if it is not what was judged last. What does not even parse is refused here.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        let texts = match read(self.directory.as_deref()?) {
            Ok(texts) => texts,
            Err(error) => {
                self.refuse(None, crate::telemetry::chain(&error));
                return None;
            }
        };
        if texts == self.lock().judged {
            return None;
        }
        self.lock().seen.clone_from(&texts);
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

    /// Uses what was tried.
    pub(super) fn adopt(&self, candidate: Candidate) {
        let mut state = self.lock();
        (state.in_use, state.judged, state.problem) = (candidate.renderer, candidate.texts, None);
        info!(
            templates = state.judged.len(),
            "the operator's templates are in use"
        );
    }

    /// Goes on with those in use.
    pub(super) fn reject(&self, candidate: Candidate, why: String) {
        self.refuse(Some(candidate.texts), why);
    }

    /// Goes on with those in use until these can be tried.
    pub(super) fn postpone(&self, why: String) {
        self.refuse(None, why);
    }

    fn refuse(&self, texts: Option<Texts>, why: String) {
        let mut state = self.lock();
        state.judged = texts.unwrap_or_else(|| std::mem::take(&mut state.judged));
        if state.problem.as_ref() != Some(&why) {
            warn!(
                error = why,
                "the operator's templates are refused; the last good ones stay in use"
            );
            state.problem = Some(why);
        }
    }

    fn is_news(&self) -> bool {
        let Some(directory) = &self.directory else {
            return false;
        };
        let state = self.lock();
        match read(directory) {
            Ok(texts) => texts != state.judged && texts != state.seen,
            Err(_) => state.problem.is_none(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a new world whenever the files are not those that were judged.
pub(super) async fn watch(parts: Arc<Parts>, stop: CancellationToken) {
    while parts.maker.templates.is_configured() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let looking = Arc::clone(&parts);
        let news = tokio::task::spawn_blocking(move || looking.maker.templates.is_news()).await;
        if news.unwrap_or(false) {
            parts.context.reports.reload();
        }
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
            found.insert(name, crate::disk::read_text(&path, crate::disk::DOCUMENT)?);
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
        std::fs::write(folder.path().join("moenet/babel.conf"), text).unwrap();
        folder
    }

    fn write(folder: &tempfile::TempDir, text: &str) {
        std::fs::write(folder.path().join("moenet/babel.conf"), text).unwrap();
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
    fn a_broken_edit_is_refused_once_and_the_last_good_stays() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
        assert!(templates.candidate().is_none());
        let before = templates.in_use();
        write(&folder, "\n{% if %}");
        assert!(templates.is_news() && templates.candidate().is_none());
        let problem = templates.problem().unwrap();
        assert!(
            problem.starts_with("template moenet/babel.conf, line 2: "),
            "{problem}"
        );
        assert!(!templates.is_news() && Arc::ptr_eq(&before, &templates.in_use()));
        write(&folder, "# two\n");
        let candidate = templates.candidate().unwrap();
        templates.adopt(candidate);
        assert!(templates.problem().is_none() && !Arc::ptr_eq(&before, &templates.in_use()));
    }

    #[test]
    fn going_back_to_what_is_in_use_is_no_problem_any_more() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
        write(&folder, "{{ nonsense }}");
        let candidate = templates.candidate().unwrap();
        templates.reject(candidate, "it does not render".to_owned());
        assert!(templates.problem().is_some() && templates.candidate().is_none());
        write(&folder, "# one\n");
        templates.adopt(templates.candidate().unwrap());
        assert!(templates.problem().is_none());
    }

    #[test]
    fn a_directory_that_is_gone_is_a_problem_and_takes_no_template_away() {
        let folder = folder("# one\n");
        let templates = Templates::open(Some(folder.path())).unwrap();
        std::fs::rename(folder.path().join("moenet"), folder.path().join("gone")).unwrap();
        std::fs::rename(folder.path().join("gone"), folder.path().join("moenet")).unwrap();
        assert!(!templates.is_news());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists() && templates.is_news() && templates.candidate().is_none());
        assert!(
            templates
                .problem()
                .unwrap()
                .contains("reading templates in ")
        );
        assert!(!templates.is_news());
    }
}
