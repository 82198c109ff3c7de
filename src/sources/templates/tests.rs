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
    let problem = templates.in_use().unwrap_err().to_string();
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
    let problem = templates.problem().unwrap().to_string();
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
    let problem = templates.problem().unwrap().to_string();
    assert!(
        problem.starts_with("template moenet/babel.conf, line 2: "),
        "{problem}"
    );
    assert!(Arc::ptr_eq(&before, &templates.in_use().unwrap()));
    write(&folder, "# two\n");
    let candidate = settled(&templates).unwrap();
    templates.adopt(candidate);
    assert!(templates.problem().is_none() && !Arc::ptr_eq(&before, &templates.in_use().unwrap()));
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
            .to_string()
            .contains("read templates in ")
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
    let refused = templates.problem().unwrap().to_string();
    let pipe = folder.path().join("moenet/bgp.conf");
    std::os::unix::fs::symlink("/nowhere", &pipe).unwrap();
    assert!(settled(&templates).is_none());
    assert!(
        templates
            .problem()
            .unwrap()
            .to_string()
            .contains("read templates in ")
    );
    std::fs::remove_file(&pipe).unwrap();
    assert!(settled(&templates).is_none());
    assert_eq!(templates.problem().unwrap().to_string(), refused);
}

#[test]
fn pipe_and_huge_file_are_problems_and_not_read() {
    let folder = folder("# one\n");
    let templates = opened(folder.path());
    let path = folder.path().join("moenet/bgp.conf");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert!(settled(&templates).is_none());
    let problem = templates.problem().unwrap().to_string();
    assert!(problem.contains("regular file"), "{problem}");
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(settled(&templates).is_none());
    let problem = templates.problem().unwrap().to_string();
    assert!(problem.contains("at most 262144"), "{problem}");
    assert!(problem.contains("moenet/bgp.conf"), "{problem}");
}

#[test]
fn template_folder_and_link_loop_are_problems() {
    let folder = folder("# one\n");
    let templates = opened(folder.path());
    let path = folder.path().join("moenet/bgp.conf");
    std::fs::create_dir(&path).unwrap();
    assert!(settled(&templates).is_none());
    let problem = templates.problem().unwrap().to_string();
    assert!(
        problem.contains("moenet/bgp.conf: is a directory"),
        "{problem}"
    );
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("moenet/back")).unwrap();
    assert!(settled(&templates).is_none());
    let problem = templates.problem().unwrap().to_string();
    assert!(problem.contains("folders deep"), "{problem}");
}

#[test]
fn late_template_directory_is_used_when_it_appears() {
    let folder = folder("# one\n");
    let later = folder.path().join("later");
    let templates = opened(&later);
    let why = templates.in_use().unwrap_err().to_string();
    assert!(why.contains("read templates in "), "{why}");
    std::fs::create_dir(&later).unwrap();
    templates.adopt(settled(&templates).unwrap());
    assert!(templates.in_use().is_ok() && templates.problem().is_none());
}
