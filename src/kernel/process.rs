//! Processes of userspace WireGuard, known by their command line: `<program> <interface>`.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::model::InterfaceName;
use crate::util::fs;

/// Returns the processes of a link in this network namespace.
pub(super) fn of(program: &OsStr, interface: &InterfaceName) -> Vec<Pid> {
    let Some(here) = namespace(Path::new("/proc/self")) else {
        return Vec::new();
    };
    let pid = |entry: DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let process = entry.path();
        let command = fs::read(process.join("cmdline")).ok()?;
        let is_of_link = is_command(&command, program, interface)
            && namespace(&process).is_some_and(|namespace| namespace == here);
        is_of_link.then_some(pid)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(pid).collect()
}

/// Ends a process that answers no other signal. Returns whether it existed.
pub(super) fn kill(pid: Pid) -> bool {
    kill_process(pid, Signal::KILL).is_ok()
}

fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/net")).ok()
}

/// Returns whether a command line, as in `/proc`, starts this program for this interface.
fn is_command(command: &[u8], program: &OsStr, interface: &InterfaceName) -> bool {
    let mut words = command.split(|byte| *byte == 0);
    let started = words.next().and_then(|word| file_name(word));
    started == file_name(program.as_encoded_bytes())
        && words.next() == Some(interface.as_str().as_bytes())
        && words.all(<[u8]>::is_empty)
}

fn file_name(path: &[u8]) -> Option<&[u8]> {
    path.rsplit(|byte| *byte == b'/')
        .next()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_of_another_program_or_interface_is_not_the_links() {
        let interface: InterfaceName = "wg_1".parse().unwrap();
        let is =
            |command: &str| is_command(command.as_bytes(), OsStr::new("wireguard-go"), &interface);
        assert!(is("wireguard-go\0wg_1\0") && is("/usr/bin/wireguard-go\0wg_1\0"));
        for other in [
            "",
            "wireguard-go\0wg_10\0",
            "wireguard-go\0wg_1\0-x\0",
            "vim\0wg_1\0",
            "vim\0wireguard-go\0wg_1\0",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
