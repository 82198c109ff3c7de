//! Reads the files of a fleet from a commit of its Git repository.

use std::path::{Path, PathBuf};

use super::network::FleetFiles;
use super::tree;
use crate::intervals::GIT_CALL;
use crate::util::exec::{ExecError, Run};

/// The exit code of `git rev-parse --verify` for an unknown commit.
const UNKNOWN: i32 = 1;

/// Limit of git's output, in bytes.
const MOST_OUTPUT: u64 = 256 * 1024 * 1024;

/// A failure to read a commit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error("git in {dir}: {source}; install git, or compare with a directory", dir = dir.display())]
    Git { dir: PathBuf, source: ExecError },
    /// No repository, or one of another user, which git does not trust.
    #[error("git refuses to read the repository of {dir}: {reason}", dir = dir.display())]
    Repository { dir: PathBuf, reason: String },
    #[error("{dir} has no commit {commit}; `git log` lists the commits, and a shallow clone lacks most of them", dir = dir.display())]
    NoCommit { dir: PathBuf, commit: String },
    #[error("{path} of commit {commit}: {reason}")]
    Content {
        commit: String,
        path: String,
        reason: &'static str,
    },
}

/// Returns the fleet in a directory as a commit has it. The directory may be a part of the repository.
///
/// # Errors
/// Git does not run, the commit does not exist, or a file is no text.
pub(crate) async fn read(dir: &Path, commit: &str) -> Result<FleetFiles, CommitError> {
    let wanted = format!("{commit}^{{commit}}");
    let verify = ["rev-parse", "-q", "--verify", "--end-of-options", &wanted];
    let id = run(dir, commit, &verify, Vec::new()).await?;
    let id = String::from_utf8_lossy(&id).trim().to_owned();
    let listed = run(dir, commit, &["ls-tree", "-r", "-z", &id], Vec::new()).await?;
    let mut files = FleetFiles::default();
    let (listed, links): (Vec<_>, Vec<_>) = entries(&listed).into_iter().partition(|it| it.is_file);
    for link in links {
        files.fault(
            link.path,
            "a link, whose target is not in the commit's tree of the fleet",
        );
    }
    let ids: String = listed.iter().map(|it| format!("{}\n", it.id)).collect();
    let blobs = run(dir, commit, &["cat-file", "--batch"], ids.into_bytes()).await?;
    let mut rest = blobs.as_slice();
    for Entry { path, .. } in listed {
        let failed = |reason| CommitError::Content {
            commit: commit.to_owned(),
            path: path.clone(),
            reason,
        };
        let blob = next_blob(&mut rest).ok_or_else(|| failed("git did not answer its content"))?;
        let text = str::from_utf8(blob).map_err(|_| failed("is no UTF-8 text"))?;
        files.insert(path, text);
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
        .args(["-c", "core.fsmonitor=false"])
        .args(["-c", "protocol.allow=never"])
        .args(args)
        .dir(dir)
        .input(input);
    let failed = |source| CommitError::Git {
        dir: dir.to_owned(),
        source,
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
    id: String,
    path: String,
    /// Whether it is a regular file, and no link.
    is_file: bool,
}

/// Parses the output of `git ls-tree -r -z`, `<mode> <type> <id>TAB<path>NUL`, for the files of a fleet.
fn entries(listed: &[u8]) -> Vec<Entry> {
    let entry = |line: &[u8]| {
        let (head, path) = str::from_utf8(line).ok()?.split_once('\t')?;
        let mut words = head.split(' ');
        let (mode, id) = (words.next()?, words.nth(1)?);
        tree::is_of_fleet(path).then(|| Entry {
            id: id.to_owned(),
            path: path.to_owned(),
            is_file: matches!(mode, "100644" | "100755"),
        })
    };
    listed.split(|byte| *byte == 0).filter_map(entry).collect()
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
        let listed = b"100644 blob aa\tnetwork.yaml\x00120000 blob bb\trouters/jp1.yaml\x00100644 blob cc\tREADME.md\x00\
            100755 blob dd\tjp1/mesh.yaml\x00100644 blob ee\t.github/ci.yaml\x00";
        let found = entries(listed);
        let paths: Vec<_> = found
            .iter()
            .map(|it| (it.path.as_str(), it.is_file))
            .collect();
        let wanted = [
            ("network.yaml", true),
            ("routers/jp1.yaml", false),
            ("jp1/mesh.yaml", true),
        ];
        assert_eq!(paths, wanted);
    }

    #[test]
    fn contents_follow_each_other_by_their_sizes() {
        let mut rest: &[u8] = b"aa blob 3\nx\ny\nbb missing\n";
        assert_eq!(next_blob(&mut rest), Some(&b"x\ny"[..]));
        assert_eq!(next_blob(&mut rest), None);
    }
}
