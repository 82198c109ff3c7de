//! The process behind a userspace WireGuard link.
//!
//! It outlives the agent, so that a restart or an upgrade does not touch a tunnel. Three things could
//! end it together with the agent: a signal to the agent's process group (it gets its own group), a closed pipe (it has
//! none), and systemd, which at stop ends every process of the unit's control group: the packaged
//! unit therefore sets `KillMode=process`.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::error::Fault;
use super::keys::LastKey;
use super::{process, uapi};
use crate::intervals::{USERSPACE_KILL, USERSPACE_POLL, USERSPACE_START};
use crate::model::InterfaceName;
use crate::util::exec::command;
use crate::util::fs;
use crate::util::task::blocking;

/// The program, and the directory of its sockets.
#[derive(Debug, Clone)]
pub(super) struct Userspace {
    pub(super) program: Option<OsString>,
    pub(super) socket_dir: PathBuf,
    pub(super) last_key: Arc<LastKey>,
}

impl Userspace {
    /// Returns the control socket of a link.
    pub(super) fn socket(&self, interface: &InterfaceName) -> PathBuf {
        self.socket_dir.join(format!("{interface}.sock"))
    }

    /// Starts the process of a link and waits until it answers at its socket. Its link then
    /// exists: it creates the tun device first (wireguard-go's `main`, boringtun's `DeviceHandle::new`).
    pub(super) async fn start(&self, interface: &InterfaceName) -> Result<(), Fault> {
        let socket = self.socket(interface);
        refuse_another_process(&socket).await?;
        let program = self.program();
        let exit = self.run(&program, interface).await?;
        let deadline = Instant::now() + USERSPACE_START;
        while !uapi::answers(&socket).await {
            if exit.is_some_and(|status| !status.success()) || Instant::now() > deadline {
                return Err(Fault::said(diagnose(&program, interface, exit).await));
            }
            sleep(USERSPACE_POLL).await;
        }
        Ok(())
    }

    fn program(&self) -> OsString {
        self.program.clone().unwrap_or_else(program_of_environment)
    }

    /// Runs the program until its first process ends, which happens once the daemon has detached. A program
    /// that stays in the foreground is left running, and no status is returned.
    async fn run(
        &self,
        program: &OsString,
        interface: &InterfaceName,
    ) -> Result<Option<ExitStatus>, Fault> {
        let mut command = command(Path::new(program));
        command
            .arg(interface.as_str())
            .current_dir("/")
            .process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // The program must not see a token in the agent's environment.
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| passes_on(name)));
        let mut child = command.spawn().map_err(|error| missing(program, error))?;
        match timeout(USERSPACE_START, child.wait()).await {
            Ok(status) => Ok(Some(status?)),
            Err(_) => Ok(None),
        }
    }

    /// Returns whether a process of this link runs.
    pub(super) async fn is_running(&self, interface: &InterfaceName) -> bool {
        !self.processes(interface).await.is_empty()
    }

    /// Returns the processes of this link.
    async fn processes(&self, interface: &InterfaceName) -> Vec<Pid> {
        let (program, interface) = (self.program(), interface.clone());
        blocking(move || process::of(&program, &interface)).await
    }

    /// Waits until the process of a deleted link has ended, and removes a socket on which no process
    /// listens. wireguard-go ends when its device disappears, and removes its socket.
    pub(super) async fn wait_for_end(&self, interface: &InterfaceName) -> Result<(), Fault> {
        let socket = self.socket(interface);
        if !ends_within(USERSPACE_START, &socket).await {
            // A hung process does not notice that its device is gone.
            for pid in self.processes(interface).await {
                let killed = process::kill(pid);
                warn!(%interface, pid = pid.as_raw_nonzero(), killed, "userspace WireGuard of a deleted link hangs, sent SIGKILL");
            }
            if !ends_within(USERSPACE_KILL, &socket).await {
                let socket = socket.display();
                return Err(Fault::said(format!(
                    "the link is gone, but its WireGuard process still answers at {socket}; end that process"
                )));
            }
        }
        match blocking(move || fs::remove_file(socket)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Returns the program of userspace WireGuard that the environment names, else the usual one.
pub(super) fn program_of_environment() -> OsString {
    std::env::var_os("WG_USERSPACE_IMPLEMENTATION")
        .filter(|program| !program.is_empty())
        .unwrap_or_else(|| "wireguard-go".into())
}

/// Returns whether no process listens at the socket any more.
async fn ends_within(limit: Duration, socket: &Path) -> bool {
    let deadline = Instant::now() + limit;
    while uapi::answers(socket).await {
        if Instant::now() > deadline {
            return false;
        }
        sleep(USERSPACE_POLL).await;
    }
    true
}

async fn refuse_another_process(socket: &Path) -> Result<(), Fault> {
    if uapi::answers(socket).await {
        let socket = socket.display();
        return Err(Fault::said(format!(
            "another WireGuard process answers at {socket}, perhaps of another network namespace; \
             end it or give the tunnel another interface name"
        )));
    }
    Ok(())
}

/// Returns whether the process may see this environment variable: the path and its own settings, except the one that
/// would keep it in the foreground.
fn passes_on(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name == "PATH"
        || name == "LOG_LEVEL"
        || (name.starts_with("WG_") && name != "WG_PROCESS_FOREGROUND")
}

fn missing(program: &OsString, error: io::Error) -> Fault {
    if error.kind() != io::ErrorKind::NotFound {
        return Fault::Io(error);
    }
    let program = program.to_string_lossy();
    Fault::Unsupported(format!(
        "the kernel has no WireGuard, or it is disabled, and the program {program} does not \
         exist; install Debian's package wireguard-go, name another one in \
         WG_USERSPACE_IMPLEMENTATION, or load the kernel's module with `modprobe wireguard`"
    ))
}

async fn diagnose(
    program: &OsString,
    interface: &InterfaceName,
    exit: Option<ExitStatus>,
) -> String {
    let program = program.to_string_lossy();
    if !blocking(|| fs::exists("/dev/net/tun")).await {
        return format!("{program} needs /dev/net/tun, which is missing; run `modprobe tun`");
    }
    match exit {
        Some(status) if !status.success() => {
            format!(
                "{program} failed ({status}); see why with `{program} --foreground {interface}`"
            )
        }
        _ => format!(
            "{program} did not open its control socket within {} s",
            USERSPACE_START.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn userspace(program: &str, folder: &Path) -> Userspace {
        Userspace {
            program: Some(program.into()),
            socket_dir: folder.to_owned(),
            last_key: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_missing_program_names_its_package() {
        let folder = tempfile::tempdir().unwrap();
        let wg = "wg_1".parse().unwrap();
        let fault = userspace("no-such-wireguard", folder.path())
            .start(&wg)
            .await
            .unwrap_err();
        let text = fault
            .at("create WireGuard link wg_1".to_owned())
            .to_string();
        assert!(
            text.contains("package wireguard-go") && text.contains("no-such-wireguard"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_program_that_fails_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let wg = "wg_1".parse().unwrap();
        let started = Instant::now();
        let fault = userspace("false", folder.path())
            .start(&wg)
            .await
            .unwrap_err();
        assert!(
            fault
                .at(String::new())
                .to_string()
                .contains("false failed (exit status: 1)")
        );
        assert!(started.elapsed() < USERSPACE_START);
    }

    #[test]
    fn only_settings_of_wireguard_pass_on() {
        let reaches = |name: &str| passes_on(&name.into());
        assert!(reaches("PATH") && reaches("WG_THREADS"));
        assert!(
            !reaches("MOENET_AGENT_TOKEN")
                && !reaches("WG_PROCESS_FOREGROUND")
                && !reaches("LISTEN_FDS")
        );
    }
}
