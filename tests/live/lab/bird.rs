//! A BIRD of a chosen version, with all its files in one folder.

use super::namespace::{Namespace, Process};
use super::wait_until;
use std::path::{Path, PathBuf};

/// Where a version's programs are: `system` is the installed one.
pub(crate) fn program(version: &str, name: &str) -> PathBuf {
    let path = if version == "system" {
        Path::new("/usr/sbin").join(name)
    } else {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let birds = std::env::var("MOENET_BIRDS").unwrap_or(format!("{home}/.cache/birds"));
        Path::new(&birds).join(version).join(name)
    };
    assert!(
        path.exists(),
        "no BIRD {version} at {}: run tests/lab/fetch-birds",
        path.display()
    );
    path
}

/// The version a test uses where any will do.
pub(crate) fn version() -> String {
    std::env::var("MOENET_BIRD").unwrap_or_else(|_| "2.17".into())
}

pub(crate) struct Bird {
    version: String,
    pub(crate) folder: PathBuf,
    process: Option<Process>,
}

impl Bird {
    pub(crate) fn new(version: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        Self {
            version: version.into(),
            folder: folder.into(),
            process: None,
        }
    }

    pub(crate) fn program(&self) -> PathBuf {
        program(&self.version, "bird")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("bird.ctl")
    }

    /// Starts it on `bird.conf` in its folder and waits for an answer on its socket.
    pub(crate) fn start(&mut self, inside: &Namespace) {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (config, socket, pid) = (path("bird.conf"), path("bird.ctl"), path("bird.pid"));
        let arguments = ["-f", "-c", &config, "-s", &socket, "-P", &pid];
        self.process =
            Some(inside.spawn(&self.folder.join("bird.log"), &self.program(), &arguments));
        wait_until("BIRD answers", 10, || {
            let log = || std::fs::read_to_string(self.folder.join("bird.log")).unwrap_or_default();
            self.try_ask(inside, "show status")
                .map(|_| ())
                .map_err(|error| format!("{error}\n{}", log()))
        });
    }

    pub(crate) fn kill(&mut self) {
        self.process.as_mut().expect("BIRD runs").end("-KILL");
    }

    /// Has it accept connections and answer none.
    pub(crate) fn hang(&self) {
        self.process.as_ref().expect("BIRD runs").signal("-STOP");
    }

    /// Has it go on after [`Bird::hang`].
    pub(crate) fn go_on(&self) {
        self.process.as_ref().expect("BIRD runs").resume();
    }

    pub(crate) fn try_ask(&self, inside: &Namespace, request: &str) -> Result<String, String> {
        let birdc = program(&self.version, "birdc");
        inside.try_shell(&format!(
            "timeout 20 {} -s {} '{request}'",
            birdc.display(),
            self.socket().display()
        ))
    }

    #[track_caller]
    pub(crate) fn ask(&self, inside: &Namespace, request: &str) -> String {
        self.try_ask(inside, request)
            .unwrap_or_else(|error| panic!("{error}"))
    }
}
