//! FRR's zebra and bgpd by hand, for a neighbour that is not BIRD.

use super::namespace::{Namespace, Process};
use std::path::{Path, PathBuf};

pub(crate) struct Frr {
    folder: PathBuf,
    _processes: Vec<Process>,
}

impl Frr {
    pub(crate) fn start(inside: &Namespace, folder: &Path, config: &str) -> Self {
        assert!(
            Path::new("/usr/lib/frr/bgpd").exists(),
            "no FRR: tests/deps.sh tests installs it"
        );
        std::fs::write(folder.join("zebra.conf"), "log stdout\n").unwrap();
        std::fs::write(folder.join("bgpd.conf"), config).unwrap();
        inside.shell(&format!(
            "chown -R frr:frr {0} && chmod 755 {0}",
            folder.display()
        ));
        let processes = ["zebra", "bgpd"].map(|name| daemon(inside, folder, name));
        Self {
            folder: folder.into(),
            _processes: processes.into(),
        }
    }

    pub(crate) fn ask(&self, inside: &Namespace, request: &str) -> Result<String, String> {
        inside.try_shell(&format!(
            "vtysh --vty_socket {} -c '{request}'",
            self.folder.display()
        ))
    }
}

fn daemon(inside: &Namespace, folder: &Path, name: &str) -> Process {
    let path = |file: &str| folder.join(file).display().to_string();
    let (pid, zserv, config) = (
        path(&format!("{name}.pid")),
        path("zserv"),
        path(&format!("{name}.conf")),
    );
    let sockets = folder.display().to_string();
    let arguments = [
        "-u",
        "frr",
        "-g",
        "frr",
        "--vty_socket",
        &sockets,
        "-z",
        &zserv,
        "-i",
        &pid,
        "-f",
        &config,
    ];
    let program = Path::new("/usr/lib/frr").join(name);
    inside.spawn(&folder.join(format!("{name}.log")), &program, &arguments)
}
