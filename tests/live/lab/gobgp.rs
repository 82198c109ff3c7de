//! GoBGP, for a neighbour that is neither BIRD nor FRR.

use super::namespace::{Namespace, Process};
use super::wait_until;
use std::path::Path;

pub(crate) struct GoBgp {
    _process: Process,
}

impl GoBgp {
    /// Starts it on this configuration and has it announce these prefixes.
    pub(crate) fn start(
        inside: &Namespace,
        folder: &Path,
        config: &str,
        prefixes: [&str; 2],
    ) -> Self {
        let program = Path::new("/usr/bin/gobgpd");
        assert!(
            program.exists(),
            "no GoBGP: tests/deps.sh tests installs it"
        );
        let file = folder.join("gobgp.toml");
        std::fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let arguments = ["-f", &file, "-p", "--pprof-disable"];
        let gobgp = Self {
            _process: inside.spawn(&folder.join("gobgp.log"), program, &arguments),
        };
        for (family, prefix) in ["ipv4", "ipv6"].into_iter().zip(prefixes) {
            wait_until("GoBGP takes what it is to announce", 20, || {
                gobgp
                    .ask(inside, &format!("global rib add -a {family} {prefix}"))
                    .map(drop)
            });
        }
        gobgp
    }

    pub(crate) fn ask(&self, inside: &Namespace, request: &str) -> Result<String, String> {
        inside.try_shell(&format!("gobgp {request}"))
    }
}
