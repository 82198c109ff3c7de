//! The main file, as it must read inside the stage. Pure.

use std::path::{Component, Path, PathBuf};

use super::tree::TREE;

/// What is checked where no main file includes our tree.
pub(super) const GENERATED: &str = "include \"moenet/main.conf\";\n";

/// A main file whose includes of our tree lead to the staged tree beside it, and whose other includes
/// lead where they led before. `None` if it does not include our tree.
///
/// An `include` must be alone on its line (measured), so lines will do. Files that the operator
/// includes are not followed.
pub(super) fn staged(text: &str, directory: &Path) -> Option<String> {
    let mut ours = false;
    let lines = text.lines().map(|line| {
        let Some((path, after)) = included(line) else {
            return line.to_owned();
        };
        let path = plain(&directory.join(path));
        let inside = path
            .strip_prefix(directory)
            .ok()
            .filter(|path| path.starts_with(TREE));
        ours |= inside.is_some();
        format!("include \"{}\"{after}", inside.unwrap_or(&path).display())
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    ours.then_some(text)
}

fn included(line: &str) -> Option<(&str, &str)> {
    line.trim_start()
        .strip_prefix("include")?
        .trim_start()
        .strip_prefix('"')?
        .split_once('"')
}

/// Without `.` parts, so that `./moenet/x` is seen to be ours.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_tree_is_taken_from_the_stage() {
        let text = "log syslog all;\n  include \"peers/*.conf\";\ninclude \"./moenet/main.conf\"; # us\n\
                    include \"/etc/bird/moenet/x.conf\";\ninclude \"/opt/a.conf\";\n";
        let want = "log syslog all;\ninclude \"/etc/bird/peers/*.conf\";\ninclude \"moenet/main.conf\"; # us\n\
                    include \"moenet/x.conf\";\ninclude \"/opt/a.conf\";\n";
        assert_eq!(staged(text, Path::new("/etc/bird")).as_deref(), Some(want));
    }

    #[test]
    fn a_main_file_without_our_tree_is_found_out() {
        let text = "# include \"moenet/main.conf\";\ninclude \"moenet2/main.conf\";\n";
        assert_eq!(staged(text, Path::new("/etc/bird")), None);
    }
}
