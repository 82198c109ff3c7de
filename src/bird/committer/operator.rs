//! The operator's files, rewritten for the stage. Pure.

use std::path::{Path, PathBuf};

use super::main_file::{Source, is_tree};
use super::names::plain;

/// The main file that is checked if the operator's does not include the agent's tree.
pub(super) const GENERATED: &str = "include \"moenet/main.conf\";\n";

/// Returns the agent's main file for the stage, or `None` if it does not include the agent's tree.
pub(super) fn staged(text: &str, directory: &Path) -> Option<String> {
    let leads = |path: &Path| is_tree(directory, path);
    let mut ours = false;
    let text = rewritten(text, directory, |path| {
        ours |= leads(path);
        leads(path).then(|| inside(directory, path))
    });
    ours.then_some(text)
}

/// Returns the operator's files for the stage: path below it, and text. Includes of the agent's tree are redirected to
/// the staged tree; all others keep their target. Empty if the main file does not include the agent's tree.
pub(super) fn staged_sources(
    sources: &[Source],
    directory: &Path,
    stage: &Path,
    matches: impl Fn(&Path) -> Vec<PathBuf>,
) -> Vec<(PathBuf, String)> {
    if sources.first().is_none_or(|main| !main.leads) {
        return Vec::new();
    }
    let leads = |path: &Path| {
        sources
            .iter()
            .any(|source| source.leads && source.path == path)
    };
    let mut wanted: Vec<PathBuf> = sources
        .first()
        .map(|main| main.path.clone())
        .into_iter()
        .collect();
    let mut staged = Vec::new();
    let mut next = 0;
    while let Some(path) = wanted.get(next).cloned() {
        next += 1;
        let Some(source) = sources.iter().find(|source| source.path == path) else {
            continue;
        };
        let folder = path.parent().unwrap_or(directory);
        let text = rewritten(&source.text, folder, |pattern| {
            if is_tree(directory, pattern) {
                return Some(stage.join(inside(directory, pattern)));
            }
            let files = matches(pattern);
            let through = files.iter().any(|file| leads(file)) && pattern.starts_with(directory);
            if !through {
                return None;
            }
            wanted.extend(
                files
                    .into_iter()
                    .filter(|file| !wanted.contains(file))
                    .collect::<Vec<_>>(),
            );
            Some(stage.join(inside(directory, pattern)))
        });
        staged.push((inside(directory, &path), text));
    }
    staged
}

/// Returns a foreign file below the agent's tree, rewritten for the stage: its relative includes keep their target,
/// except that includes of the tree's configuration files are redirected to the staged ones.
pub(super) fn staged_foreign(text: &str, path: &str, directory: &Path, stage: &Path) -> String {
    let file = directory.join(path);
    let folder = file.parent().unwrap_or(directory);
    rewritten(text, folder, |pattern| {
        let is_staged =
            is_tree(directory, pattern) && pattern.extension().is_some_and(|it| it == "conf");
        is_staged.then(|| stage.join(inside(directory, pattern)))
    })
}

fn inside(directory: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(directory).unwrap_or(path).to_owned()
}

/// Rewrites the include paths of a text; those for which `to` returns `None` become absolute. An `include` must be
/// alone
/// on its line (measured), so the text can be read by lines.
fn rewritten(text: &str, folder: &Path, mut to: impl FnMut(&Path) -> Option<PathBuf>) -> String {
    let lines = text.lines().map(|line| {
        let Some((path, after)) = included(line) else {
            return line.to_owned();
        };
        let path = plain(&folder.join(path));
        let path = to(&path).unwrap_or(path);
        format!("include \"{}\"{after}", path.display())
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn included(line: &str) -> Option<(&str, &str)> {
    line.trim_start()
        .strip_prefix("include")?
        .trim_start()
        .strip_prefix('"')?
        .split_once('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRD: &str = "/etc/bird";

    fn source(path: &str, text: &str, leads: bool) -> Source {
        Source {
            path: Path::new(BIRD).join(path),
            text: text.to_owned(),
            leads,
        }
    }

    fn staged_files(sources: &[Source]) -> Vec<(String, String)> {
        let globs = |pattern: &Path| match pattern.ends_with("*.conf") {
            true => vec![
                pattern.with_file_name("a.conf"),
                pattern.with_file_name("b.conf"),
            ],
            false => vec![pattern.to_owned()],
        };
        let files = staged_sources(sources, Path::new(BIRD), Path::new("/stage"), globs);
        files
            .into_iter()
            .map(|(path, text)| (path.display().to_string(), text))
            .collect()
    }

    #[test]
    fn includes_of_a_foreign_file_lead_where_they_led() {
        let text = "include \"peer.inc\";\ninclude \"../../secrets.conf\";\nprotocol bgp a {}\n";
        let path = "moenet/sessions/mine.conf";
        let staged = staged_foreign(text, path, Path::new(BIRD), Path::new("/stage"));
        assert_eq!(
            staged,
            "include \"/etc/bird/moenet/sessions/peer.inc\";\ninclude \"/etc/bird/secrets.conf\";\nprotocol bgp a {}\n"
        );
    }

    #[test]
    fn only_our_tree_is_taken_from_the_stage() {
        let text = "log syslog all;\n  include \"peers/*.conf\";\ninclude \"./moenet/main.conf\"; # us\n\
                    include \"/etc/bird/moenet/x.conf\";\ninclude \"/opt/a.conf\";\n";
        let want = "log syslog all;\ninclude \"/etc/bird/peers/*.conf\";\ninclude \"moenet/main.conf\"; # us\n\
                    include \"moenet/x.conf\";\ninclude \"/opt/a.conf\";\n";
        assert_eq!(staged(text, Path::new(BIRD)).as_deref(), Some(want));
        let want = want.replace("\"moenet/", "\"/stage/moenet/");
        let files = staged_files(&[source("bird.conf", text, true)]);
        assert_eq!(files, [("bird.conf".to_owned(), want)]);
    }

    #[test]
    fn included_files_are_staged_with_their_siblings() {
        let sources = [
            source("bird.conf", "include \"conf.d/*.conf\";\n", true),
            source("conf.d/a.conf", "include \"/opt/x\";\n", false),
            source("conf.d/b.conf", "include \"../moenet/main.conf\";\n", true),
        ];
        let want = [
            ("bird.conf", "include \"/stage/conf.d/*.conf\";\n"),
            ("conf.d/a.conf", "include \"/opt/x\";\n"),
            ("conf.d/b.conf", "include \"/stage/moenet/main.conf\";\n"),
        ];
        let want = want.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(staged_files(&sources), want);
    }

    #[test]
    fn a_main_file_without_our_tree_is_found_out() {
        let text = "# include \"moenet/main.conf\";\ninclude \"moenet2/main.conf\";\n";
        assert_eq!(staged(text, Path::new(BIRD)), None);
        assert!(staged_files(&[source("bird.conf", text, false)]).is_empty());
    }
}
