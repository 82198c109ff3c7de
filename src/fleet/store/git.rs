//! The store that follows a reference of a Git repository: it serves the files of the newest commit without an error.
//! What routers post is beside the tree, as in a directory.

mod kept;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

pub(crate) use self::kept::GitView;

use super::directory::{Directory, commit_path};
use super::held::{ChangedFile, HeldFiles};
use super::{Change, Door, PostedKeys, Store};
use crate::fleet::audit::AuditEntry;
use crate::fleet::commit::{self, CommitError, FleetCommit, Head};
use crate::fleet::good::{Good, Written};
use crate::fleet::history::ServedList;
use crate::fleet::layout::parse_router;
use crate::fleet::network::{FleetFiles, TokenFields};
use crate::fleet::posts::{Posts, Statuses};
use crate::fleet::rollout::FleetRecord;
use crate::fleet::version::{Revisions, Version, version};
use crate::fleet::{FleetError, tree, validate};
use crate::http::ApiError;
use crate::intervals::FLEET_GIT_POLL;
use crate::model::{ObjectName, Uid};
use crate::util::notices::Notices;
use crate::util::task::blocking;
use crate::util::text::bounded;
use crate::wire::Call;

/// A fleet in a Git repository.
pub(in crate::fleet) struct Git {
    root: PathBuf,
    held: HeldFiles,
    posts: Directory,
    view: Mutex<GitView>,
    /// Held during a look.
    last: tokio::sync::Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// The newest commit, if it has errors, and these.
    refused: Option<(FleetCommit, Vec<String>)>,
    /// Git's directory with the served commit.
    repository: Option<String>,
    /// The view that the verbs of the command line have.
    shown: GitView,
    errors: Notices,
}

/// Why the newest commit is not served.
#[derive(Debug, thiserror::Error)]
enum LookError {
    /// The commit has these errors, and will always have them.
    #[error("commit {} has an error", .0.id)]
    Refused(FleetCommit, Vec<String>),
    /// Git looks for a repository in all folders above.
    #[error(
        "the Git repository of {root} was {followed}, and is now {repository}; restore it, or remove {file} and restart \
         the server to follow the other one", root = root.display(), file = commit_path(root).display()
    )]
    Repository {
        root: PathBuf,
        followed: String,
        repository: String,
    },
    #[error("reading the Git repository panicked; please report the panic in the log")]
    Panic,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("{path}: {source}; the commit is served once it is kept", path = path.display())]
    Kept { path: PathBuf, source: io::Error },
}

impl LookError {
    fn of(commit: FleetCommit, error: CommitError) -> Self {
        match error.is_permanent() {
            true => Self::Refused(commit, vec![error.to_string()]),
            false => Self::Commit(error),
        }
    }
}

impl Git {
    /// Opens the store of a server, with the commit that was served last. Blocks.
    ///
    /// # Errors
    /// Another server serves the directory, or the last commit cannot be read.
    pub(in crate::fleet) fn open(root: PathBuf, reference: String) -> Result<Self, FleetError> {
        let Some(posts) = Directory::journaled(root.clone(), true) else {
            return Err(FleetError::Served(root));
        };
        let git = Self::with(root, posts, reference)?;
        show(&git.root, &git.view());
        Ok(git)
    }

    /// Opens the store of a directory that a server follows, for a verb of the command line. Blocks.
    ///
    /// # Errors
    /// The files of the last commit cannot be read.
    pub(in crate::fleet) fn of_server(root: PathBuf) -> Result<Self, FleetError> {
        let view = kept::read_view(&root)?;
        let git = Self::with(root.clone(), Directory::new(root), String::new())?;
        *git.view.lock() = view;
        Ok(git)
    }

    fn with(root: PathBuf, posts: Directory, reference: String) -> Result<Self, FleetError> {
        let (served, repository) = match kept::read(&root)? {
            Some(kept) => (Some((kept.commit, kept.files)), kept.repository),
            None => (None, None),
        };
        let git = Self {
            root,
            held: HeldFiles::default(),
            posts,
            view: Mutex::new(GitView {
                git_ref: reference,
                ..GitView::default()
            }),
            last: tokio::sync::Mutex::new(Last {
                repository,
                ..Last::default()
            }),
        };
        if let Some((commit, files)) = served {
            git.serve(commit, &files.into_iter().collect());
        }
        Ok(git)
    }

    /// Follows the reference, and never ends.
    pub(in crate::fleet) async fn follow(self: Arc<Self>) {
        loop {
            self.look().await;
            tokio::time::sleep(FLEET_GIT_POLL).await;
        }
    }

    /// Looks once, and serves the newest commit if it has no error.
    pub(in crate::fleet) async fn look(self: &Arc<Self>) -> GitView {
        let git = Arc::clone(self);
        // A task of its own, which does not end with a request, and whose panic costs this look only.
        let look = tokio::spawn(async move {
            let mut last = git.last.lock().await;
            let taken = git.take(&mut last).await;
            git.conclude(&mut last, taken).await
        });
        match look.await {
            Ok(view) => view,
            Err(_) => {
                let mut last = self.last.lock().await;
                self.conclude(&mut last, Err(LookError::Panic)).await
            }
        }
    }

    /// Logs and shows the result of a look.
    async fn conclude(&self, last: &mut Last, taken: Result<(), LookError>) -> GitView {
        let (refused, errors) = match taken {
            Ok(()) => (None, Vec::new()),
            Err(LookError::Refused(commit, errors)) => (Some((commit, errors.clone())), errors),
            Err(error) => (None, vec![error.to_string()]),
        };
        last.refused = refused;
        let news = last.errors.news(errors.iter().cloned());
        for error in bounded(news.new.iter().cloned(), "errors") {
            tracing::warn!(error, "newest commit of the fleet is not served");
        }
        if news.is_over {
            tracing::info!("newest commit of the fleet is served again");
        }
        let view = GitView {
            refused: last.refused.as_ref().map(|(commit, _)| commit.clone()),
            errors: bounded(errors, "errors"),
            ..self.view()
        };
        self.view.lock().clone_from(&view);
        if view != last.shown {
            last.shown.clone_from(&view);
            let root = self.root.clone();
            blocking(move || show(&root, &view)).await;
        }
        last.shown.clone()
    }

    async fn take(&self, last: &mut Last) -> Result<(), LookError> {
        let view = self.view();
        let Head { repository, id } = commit::head(&self.root, &view.git_ref).await?;
        if let Some(followed) = last.repository.clone().filter(|it| *it != repository) {
            let root = self.root.clone();
            return Err(LookError::Repository {
                root,
                followed,
                repository,
            });
        }
        if view.commit.is_some_and(|served| served.id == id) {
            return Ok(());
        }
        if let Some((commit, errors)) = last.refused.take_if(|(commit, _)| commit.id == id) {
            return Err(LookError::Refused(commit, errors));
        }
        let refused = |commit: &FleetCommit, error| LookError::of(commit.clone(), error);
        let unread = FleetCommit {
            id: id.clone(),
            ..FleetCommit::default()
        };
        let about = commit::about(&self.root, &id).await;
        let commit = about.map_err(|error| refused(&unread, error))?;
        let files = commit::files(&self.root, &id).await;
        let files = files.map_err(|error| refused(&commit, error))?;
        let root = self.root.clone();
        let keep = move || keep(&root, commit, repository, files);
        let (commit, repository, files) = blocking(keep).await?;
        tracing::info!(commit = %commit.id, author = %commit.author, subject = %commit.subject, "commit of the fleet is served");
        self.serve(commit, &files);
        last.repository = Some(repository);
        Ok(())
    }

    fn serve(&self, commit: FleetCommit, files: &FleetFiles) {
        let before = self.held.all();
        let gone = before.keys().filter(|path| !files.has(path));
        let gone = gone.map(|path| (path.clone(), None));
        let new = files
            .iter()
            .filter(|(path, text)| before.get(*path) != Some(*text))
            .map(|(path, text)| (path.to_owned(), Some(Arc::clone(text))));
        let changed = |(path, text): (String, Option<Arc<str>>)| ChangedFile {
            path,
            // The same for the same content, also after a restart and a revert.
            revision: version(&text).cast_signed(),
            text,
        };
        let changes = gone.chain(new).map(changed).collect();
        let next = self.held.revision().map_or(0, |revision| revision + 1);
        self.held.apply(next, changes);
        self.view.lock().commit = Some(commit);
    }

    /// Returns what is served, and why the newest commit is not.
    pub(in crate::fleet) fn view(&self) -> GitView {
        self.view.lock().clone()
    }

    pub(in crate::fleet) async fn close(&self) {
        self.posts.close().await;
    }
}

/// Writes the view for the verbs of the command line. Blocks.
fn show(root: &Path, view: &GitView) {
    if let Err(error) = kept::write_view(root, view) {
        tracing::warn!(%error, "state of the followed reference cannot be written for `fleet get`");
    }
}

/// Makes a commit without an error the one that a restart serves. Blocks.
fn keep(
    root: &Path,
    commit: FleetCommit,
    repository: String,
    files: FleetFiles,
) -> Result<(FleetCommit, String, FleetFiles), LookError> {
    let errors = errors(&files);
    if !errors.is_empty() {
        return Err(LookError::Refused(commit, errors));
    }
    match kept::write(root, &commit, &repository, &files) {
        Ok(()) => Ok((commit, repository, files)),
        Err((path, source)) if source.kind() == io::ErrorKind::FileTooLarge => {
            let error = format!(
                "{}: {source}; make the fleet's files smaller",
                path.display()
            );
            Err(LookError::Refused(commit, vec![error]))
        }
        Err((path, source)) => Err(LookError::Kept { path, source }),
    }
}

/// Returns everything that keeps files from being served.
fn errors(files: &FleetFiles) -> Vec<String> {
    let found = validate::findings(files);
    let mut errors: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    let described = files.routers().filter_map(|(path, text, _)| {
        let fields = TokenFields::read(text)?;
        fields.token_file.map(|_| path.to_owned())
    });
    let folders = tree::folders(files).into_iter().filter_map(|router| {
        let path = format!("{router}/router.yaml");
        let file = parse_router(&router, files.text(&path)?).ok()?;
        file.token_file.map(|_| path)
    });
    errors.extend(described.chain(folders).map(|path| {
        format!(
            "{path}: tokenFile: a commit has no files with secrets; write tokenHashes, as `moenet-agent fleet token new` does"
        )
    }));
    errors
}

#[async_trait]
impl Store for Git {
    async fn network(&self) -> Result<Option<Arc<FleetFiles>>, ApiError> {
        self.held.network()
    }

    async fn file(&self, path: &Path) -> io::Result<Option<Arc<str>>> {
        Ok(self.held.file_at(path))
    }

    async fn mesh_keys(&self) -> Result<Arc<PostedKeys>, ApiError> {
        self.posts.mesh_keys().await
    }

    async fn revisions(&self) -> Revisions {
        self.held.revisions()
    }

    async fn door(&self, router: &ObjectName) -> Result<Option<Door>, ApiError> {
        self.held.door(router)
    }

    async fn version(&self, router: &ObjectName, call: Call) -> Option<Version> {
        self.held.version(router, call)
    }

    async fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError> {
        self.held.written(router, call)
    }

    async fn text(&self, router: &ObjectName, call: Call) -> String {
        self.held.text(router, call)
    }

    async fn good(&self, router: &ObjectName, call: Call) -> Result<Good, ApiError> {
        self.posts.good(router, call).await
    }

    async fn statuses(&self, router: &ObjectName) -> Result<Statuses, ApiError> {
        self.posts.statuses(router).await
    }

    async fn status(&self, router: &ObjectName, uuid: &Uid) -> Result<Statuses, ApiError> {
        self.posts.status(router, uuid).await
    }

    async fn posts(&self, router: &ObjectName) -> Result<Posts, ApiError> {
        self.posts.posts(router).await
    }

    async fn posts_of(&self, routers: &[ObjectName]) -> Vec<Result<Posts, ApiError>> {
        self.posts.posts_of(routers).await
    }

    async fn served(&self, router: &ObjectName) -> Result<Vec<ServedList>, ApiError> {
        self.posts.served(router).await
    }

    fn commit(&self) -> Option<FleetCommit> {
        self.view().commit
    }

    async fn record(&self) -> Result<FleetRecord, ApiError> {
        self.posts.record().await
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>, ApiError> {
        self.posts.audit().await
    }

    async fn set_record(
        &self,
        record: &FleetRecord,
        decided: Option<AuditEntry>,
    ) -> Result<bool, ApiError> {
        self.posts.set_record(record, decided).await
    }

    async fn write(&self, router: &ObjectName, changes: Vec<Change>) -> Result<(), ApiError> {
        self.posts.write(router, changes).await
    }
}
