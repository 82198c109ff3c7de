//! Every case below `tests/golden/render`: input and the files it becomes. `UPDATE_GOLDEN=1` writes
//! what is rendered now; look at the difference before committing it.

use std::collections::BTreeMap;
use std::path::Path;

use super::support::{Case, cases};

#[test]
fn every_case_renders_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for (name, folder) in cases() {
        let case = Case::read(&folder);
        let rendered = case
            .render(case.bird)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = folder.join("expected");
        if update {
            let _ = std::fs::remove_dir_all(&expected);
            for (path, text) in &rendered {
                let file = expected.join(path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
        }
        let mut wanted = BTreeMap::new();
        read(&expected, &expected, &mut wanted);
        assert_eq!(
            wanted.keys().collect::<Vec<_>>(),
            rendered.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (path, text) in &rendered {
            assert_eq!(&wanted[path], text, "{name}: {path}");
        }
        let again = case.render(case.bird).unwrap();
        assert_eq!(
            rendered, again,
            "{name}: the same input gives the same text"
        );
    }
}

fn read(root: &Path, folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, into);
        } else {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            into.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}
