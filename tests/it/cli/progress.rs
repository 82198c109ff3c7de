//! Progress of long work: on a terminal, for people, and only while it lasts.

use std::process::{Command, Stdio};
use std::thread;

use super::{NAME, Router, call};

/// What a verb shows on a terminal.
fn shown(arguments: &str) -> String {
    let router = Router::new();
    let config = router.dir.path().join("config.yaml");
    let program = env!("CARGO_BIN_EXE_moenet-agent");
    let line = format!(
        "TERM=xterm {program} --config {} {arguments} || true",
        config.display()
    );
    let script = ["-qec", &line, "/dev/null"];
    call(Command::new("script").args(script).stdin(Stdio::null())).out
}

#[test]
fn progress_shows_on_a_terminal_until_the_verb_ends() {
    const SHOWN: &str = "… ";
    let wait = format!("wait {NAME} --timeout");
    let long = format!("{wait} 4s");
    let quiet = [
        format!("{wait} 1s"),
        format!("{wait} 3s -o json"),
        format!("{wait} 3s 2>&1 | cat"),
    ];
    let quiet: Vec<_> = quiet
        .into_iter()
        .map(|arguments| thread::spawn(move || shown(&arguments)))
        .collect();
    let text = shown(&long);
    let line = format!("\r\x1b[Kwaiting for sessions/{NAME}: Established … 2 s of 4 s");
    assert!(text.contains(&line), "{text:?}");
    let (_, end) = text.rsplit_once(SHOWN).unwrap();
    let (_, error) = end.split_once("\r\x1b[K").expect("the line is erased");
    assert!(error.contains("no agent answers"), "{text:?}");
    for thread in quiet {
        let text = thread.join().unwrap();
        assert!(text.contains("no agent answers"), "{text:?}");
        assert!(
            !text.contains(SHOWN) && !text.contains("\x1b[K"),
            "{text:?}"
        );
    }
}
