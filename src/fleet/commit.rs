//! Reads the files of a fleet from a commit of its Git repository.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layout::MAX_BYTES;
use super::network::{FleetFiles, is_ignored};
use super::tree;
use crate::intervals::GIT_CALL;
use crate::util::exec::{ExecError, Run};
use crate::util::{file, text};

/// The exit code of `git rev-parse --verify` for an unknown commit.
const UNKNOWN: i32 = 1;

/// Limit of git's output, in bytes.
const MOST_OUTPUT: u64 = 256 * 1024 * 1024;

/// Limit of all files of a fleet, in bytes; git answers each with a line of its own.
const MOST_TEXT: u64 = MOST_OUTPUT / 2;

/// A failure to read a commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("git in {dir}: {source}; check that git is installed", dir = dir.display())]
    Git { dir: PathBuf, source: ExecError },
    /// No repository, or one of another user, which git does not trust.
    #[error("git cannot read a repository in {dir}: {reason}", dir = dir.display())]
    Repository { dir: PathBuf, reason: String },
    #[error("{dir} has no commit {commit}; `git log` lists the commits, and a shallow clone lacks most of them", dir = dir.display())]
    NoCommit { dir: PathBuf, commit: String },
    #[error("{dir} has no branch {reference}; `git branch -a` lists the branches, and refs/tags/NAME names a tag", dir = dir.display())]
    NoReference { dir: PathBuf, reference: String },
    /// An object that the repository lacks may come back.
    #[error("{path} of commit {commit}: {reason}")]
    Content {
        commit: String,
        path: String,
        reason: &'static str,
    },
    #[error("the fleet's files of commit {commit} have {bytes} bytes, more than {MOST_TEXT}")]
    Size { commit: String, bytes: u64 },
    #[error(
        "git prints more than {MOST_OUTPUT} bytes about commit {commit}; give the fleet a repository of its own"
    )]
    Output { commit: String },
}

impl CommitError {
    /// Returns whether the cause is in the commit, so that reading it again gives the same error.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Output { .. })
    }
}

/// A commit of a fleet's repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FleetCommit {
    /// Its id.
    pub(crate) id: String,
    /// Name and address of its author.
    pub(crate) author: String,
    /// When it was made.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub(crate) at: Option<Timestamp>,
    /// The first line of its message.
    pub(crate) subject: String,
}

/// Returns the fleet in a directory as a commit has it. The directory may be a part of the repository.
///
/// # Errors
/// Git does not run, the commit does not exist, or the repository is damaged.
pub(crate) async fn read(dir: &Path, commit: &str) -> Result<FleetFiles, CommitError> {
    files(dir, &resolve(dir, commit).await?.id).await
}

/// The commit to which a reference points.
pub(super) struct Head {
    /// Git's directory, relative to the fleet's if that is its top level.
    pub(super) repository: String,
    pub(super) id: String,
}

/// Returns the commit of a reference: a branch, a branch of a remote, or a full name. A tag has its full name only, so
/// that it cannot take the place of a branch.
///
/// # Errors
/// Git does not run, or the reference does not exist.
pub(super) async fn head(dir: &Path, reference: &str) -> Result<Head, CommitError> {
    for name in full_names(reference) {
        match resolve(dir, &name).await {
            Err(CommitError::NoCommit { .. }) => {}
            found => return found,
        }
    }
    Err(CommitError::NoReference {
        dir: dir.to_owned(),
        reference: reference.to_owned(),
    })
}

fn full_names(reference: &str) -> Vec<String> {
    let is_hex = reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_id = is_hex && matches!(reference.len(), 40 | 64);
    let is_full = matches!(reference.split_once('/'), Some(("refs", _)));
    if is_id || is_full || reference == "HEAD" {
        return vec![reference.to_owned()];
    }
    let full = |kind| format!("refs/{kind}/{reference}");
    ["heads", "remotes"].map(full).to_vec()
}

async fn resolve(dir: &Path, name: &str) -> Result<Head, CommitError> {
    let wanted = format!("{name}^{{commit}}");
    let verify = ["-q", "--git-dir", "--verify", "--end-of-options", &wanted];
    let verify = [&["rev-parse"], &verify[..]].concat();
    let lines = run(dir, name, &verify, Vec::new()).await?;
    let lines = String::from_utf8_lossy(&lines);
    let (repository, id) = lines.trim().rsplit_once('\n').unwrap_or_default();
    Ok(Head {
        repository: repository.to_owned(),
        id: id.to_owned(),
    })
}

/// Returns who made a commit, and why.
///
/// # Errors
/// Git does not run, or the repository is damaged.
pub(super) async fn about(dir: &Path, id: &str) -> Result<FleetCommit, CommitError> {
    let raw = run(dir, id, &["cat-file", "commit", id], Vec::new()).await?;
    Ok(parse(id, &String::from_utf8_lossy(&raw)))
}

/// Returns the files of the fleet in the tree of a commit. A file that cannot be used is a fault among the others.
///
/// # Errors
/// Git does not run, or the repository is damaged.
pub(super) async fn files(dir: &Path, id: &str) -> Result<FleetFiles, CommitError> {
    let listed = run(dir, id, &["ls-tree", "-r", "-l", "-z", id], Vec::new()).await?;
    let mut files = FleetFiles::default();
    let mut texts = Vec::new();
    for Entry { path, content } in entries(&listed) {
        match content {
            Ok(blob) => texts.push((path, blob)),
            Err(why) => files.fault(path, why),
        }
    }
    let bytes = texts.iter().map(|(_, blob)| blob.size).sum();
    if bytes > MOST_TEXT {
        let commit = id.to_owned();
        return Err(CommitError::Size { commit, bytes });
    }
    let ids: String = texts
        .iter()
        .map(|(_, blob)| format!("{}\n", blob.id))
        .collect();
    let blobs = run(dir, id, &["cat-file", "--batch"], ids.into_bytes()).await?;
    let mut rest = blobs.as_slice();
    for (path, _) in texts {
        let blob = next_blob(&mut rest).ok_or_else(|| CommitError::Content {
            commit: id.to_owned(),
            path: path.clone(),
            reason: "git did not answer its content; check the repository with `git fsck`",
        })?;
        match str::from_utf8(blob) {
            Ok(text) => files.insert(path, text),
            Err(_) => files.fault(path, "is no UTF-8 text"),
        }
    }
    Ok(files)
}

async fn run(
    dir: &Path,
    commit: &str,
    args: &[&str],
    input: Vec<u8>,
) -> Result<Vec<u8>, CommitError> {
    // A repository of another user may run that user's programs; the operator's own configuration says which to trust.
    let home = std::env::var_os("HOME").unwrap_or_default();
    let run = Run::new(Path::new("git"), GIT_CALL, MOST_OUTPUT)
        .env("HOME", home)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        // The content is that of the commit's id.
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .args(["-c", "core.fsmonitor=false"])
        .args(["-c", "protocol.allow=never"])
        .args(args)
        .dir(dir)
        .input(input);
    let failed = |source| match source {
        ExecError::Output(error) if error.kind() == ErrorKind::FileTooLarge => {
            let commit = commit.to_owned();
            CommitError::Output { commit }
        }
        source => CommitError::Git {
            dir: dir.to_owned(),
            source,
        },
    };
    let output = run.output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let dir = dir.to_owned();
    Err(match output.status.code() {
        Some(UNKNOWN) => CommitError::NoCommit {
            dir,
            commit: commit.to_owned(),
        },
        _ => CommitError::Repository {
            dir,
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        },
    })
}

/// A file of a commit.
struct Entry {
    path: String,
    /// The reason if it cannot be used.
    content: Result<Blob, &'static str>,
}

struct Blob {
    id: String,
    size: u64,
}

/// Parses the output of `git ls-tree -r -l -z`, `<mode> <type> <id> <size>TAB<path>NUL`, for the files of a fleet.
fn entries(listed: &[u8]) -> Vec<Entry> {
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let head = str::from_utf8(line.get(..tab)?).ok()?;
        let mut words = head.split_ascii_whitespace();
        let (mode, id, size) = (words.next()?, words.nth(1)?, words.next()?);
        let path = String::from_utf8_lossy(line.get(tab + 1..)?);
        let is_file = matches!(mode, "100644" | "100755");
        let is_wanted = match is_file {
            true => tree::is_of_fleet(&path),
            // What it points to may be a router's folder, which must not look like one that is gone.
            false => tree::is_of_fleet(&path) || !path.contains('/') && !is_ignored(&path),
        };
        let content = match size.parse() {
            _ if str::from_utf8(line).is_err() => Err("its name is not UTF-8; rename it"),
            Ok(size) if is_file && size <= limit(&path) => {
                let id = id.to_owned();
                Ok(Blob { id, size })
            }
            Ok(_) if is_file => Err("is too large for a file of a fleet"),
            _ => Err(
                "is a link or a submodule, whose content is not in the commit; commit its files",
            ),
        };
        let path = path.into_owned();
        is_wanted.then_some(Entry { path, content })
    };
    listed.split(|byte| *byte == 0).filter_map(entry).collect()
}

/// Returns the size limit of a file, as in a directory.
fn limit(path: &str) -> u64 {
    match tree::is_in_folder(path) {
        true => MAX_BYTES,
        false => file::DOCUMENT,
    }
}

/// Parses the text of a commit: lines about it, an empty line, and its message.
fn parse(id: &str, raw: &str) -> FleetCommit {
    let (head, message) = raw.split_once("\n\n").unwrap_or((raw, ""));
    let person = |key: &str| {
        let mut lines = head.lines();
        let line = lines.find_map(|line| line.strip_prefix(key))?;
        // `Name <address> <seconds> <offset>`
        line.rsplit_once('>')
    };
    let seconds = person("committer ").and_then(|(_, at)| at.split_whitespace().next());
    let author = person("author ").map(|(who, _)| format!("{who}>"));
    FleetCommit {
        id: id.to_owned(),
        author: shown(&author.unwrap_or_default()),
        at: seconds.and_then(|at| Timestamp::from_second(at.parse().ok()?).ok()),
        subject: shown(message.lines().next().unwrap_or_default()),
    }
}

/// Returns a text of a commit without characters that would change a terminal or a log.
fn shown(raw: &str) -> String {
    let plain = |char: char| if char.is_control() { '?' } else { char };
    text::cut(&raw.chars().map(plain).collect::<String>())
}

/// Parses one answer of `git cat-file --batch`: `<id> blob <size>`, and the content.
fn next_blob<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let size = str::from_utf8(rest.get(..end)?).ok()?.rsplit(' ').next()?;
    let size: usize = size.parse().ok()?;
    let blob = rest.get(end + 1..end + 1 + size)?;
    *rest = rest.get(end + size + 2..).unwrap_or_default();
    Some(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_fleet_are_listed() {
        let listed = b"100644 blob aa       9\tnetwork.yaml\x00120000 blob bb       3\trouters/jp1.yaml\x00\
            100644 blob cc       1\tREADME.md\x00100755 blob dd  300000\tjp1/mesh.yaml\x00\
            100644 blob ee       1\t.github/ci.yaml\x00160000 commit ff       -\ttools\x00\
            160000 commit ff       -\tsessions/jp1\x00100644 blob aa  300000\trouters/hk1.yaml\x00\
            100644 blob aa       9\trouters\x00120000 blob bb       3\tREADME.md\x00\
            100644 blob aa       9\trouters/\xff.yaml\x00100644 blob aa       0\tjp1/maintenance\x00";
        let found = entries(listed);
        let paths: Vec<_> = found
            .iter()
            .map(|it| (it.path.as_str(), it.content.is_ok()))
            .collect();
        let wanted = [
            ("network.yaml", true),
            ("routers/jp1.yaml", false),
            ("jp1/mesh.yaml", true),
            ("tools", false),
            ("sessions/jp1", false),
            ("routers/hk1.yaml", false),
            ("routers", true),
            ("routers/\u{fffd}.yaml", false),
            ("jp1/maintenance", true),
        ];
        assert_eq!(paths, wanted);
    }

    #[test]
    fn commit_text_is_shown_without_control_characters() {
        let raw = "tree 1\nauthor A\u{1b}[2J <a@b> 5 +0100\ncommitter C <c@d> 7 +0000\ngpgsig x\n y\n\nAdd\tjp1\r\n\nauthor no";
        let commit = parse("1f", raw);
        assert_eq!(commit.author, "A?[2J <a@b>");
        assert_eq!(commit.at, Timestamp::from_second(7).ok());
        assert_eq!(commit.subject, "Add?jp1");
        for hostile in [
            "",
            "author",
            "author >",
            "\n\n",
            "author x> y\ncommitter > 99999999999999999999",
        ] {
            assert_eq!(parse("1f", hostile).at, None, "{hostile:?}");
        }
    }

    #[test]
    fn contents_follow_each_other_by_their_sizes() {
        let mut rest: &[u8] = b"aa blob 3\nx\ny\nbb missing\n";
        assert_eq!(next_blob(&mut rest), Some(&b"x\ny"[..]));
        assert_eq!(next_blob(&mut rest), None);
    }
}
