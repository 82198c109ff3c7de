//! What the host itself must have: permissions, WireGuard, a disk with room, git.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Line, Verdict};
use crate::config::Backend;
use crate::document::{ConditionStatus, ConditionType};
use crate::history::History;
use crate::kernel::{WireGuard, wireguard};
use crate::status::next_action;
use crate::telemetry::chain;
use crate::util::file;
use crate::util::fs;
use crate::util::task::blocking;

/// `CAP_NET_ADMIN`, as a bit of the capability sets (capabilities(7)).
const NET_ADMIN: u64 = 1 << 12;
/// Size limit of `/proc/self/status`, in bytes.
const PROC: u64 = 64 * 1024;
/// Free space that a state directory needs at least, in bytes: documents, their history, and room to rewrite both.
const ROOM: u64 = 64 * 1024 * 1024;

/// One sysctl of each address family that the agent sets.
const SYSCTLS: [&str; 2] = [
    "/proc/sys/net/ipv4/conf/all/forwarding",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// Returns the lines that need no other program.
pub(super) fn lines(
    directory: &Path,
    tokens: Vec<String>,
    backend: Backend,
    secrets: &[PathBuf],
) -> [Line; 5] {
    [
        permissions(tokens),
        of_secrets(directory, secrets),
        of_wireguard(wireguard(backend), backend),
        sysctls(),
        disk(directory),
    ]
}

fn permissions(tokens: Vec<String>) -> Line {
    let check = "permissions";
    // Absent where /proc is that of another namespace of processes.
    let status = file::read_text(Path::new("/proc/self/status"), PROC);
    let Some(capabilities) = status.ok().and_then(|status| effective(&status)) else {
        let message = "the capabilities of this process cannot be read: /proc/self/status";
        return Line::new(check, Verdict::Unknown, message);
    };
    if capabilities & NET_ADMIN == 0 {
        let message = "no CAP_NET_ADMIN, so links cannot be configured or read in full";
        return Line::failed(check, message, "run this as root, or as the agent's user");
    }
    match tokens.is_empty() {
        true => Line::ok(check, "may configure links; token files are readable"),
        false => Line::warning(
            check,
            tokens.join("; "),
            "correct the file, its path or owner",
        ),
    }
}

/// Checks that only the agent can read the files that hold secrets: their owner, and its own group, which owns the state
/// directory too.
fn of_secrets(directory: &Path, files: &[PathBuf]) -> Line {
    let check = "secrets";
    let own = [
        Some(rustix::process::getegid().as_raw()),
        fs::metadata(directory).ok().map(|found| found.gid()),
    ];
    let wide = files.iter().filter_map(|path| {
        let found = fs::metadata(path).ok()?;
        let (mode, group) = (found.mode() & 0o7777, found.gid());
        is_wide(mode, own.contains(&Some(group)))
            .then(|| (path.display().to_string(), format!("{mode:o}")))
    });
    let wide: Vec<_> = wide.collect();
    if wide.is_empty() {
        return Line::ok(check, "the files that hold them are the agent's alone");
    }
    let listed = wide
        .iter()
        .map(|(path, mode)| format!("{path} has mode {mode}"));
    let listed = listed.collect::<Vec<_>>().join("; ");
    let paths = wide.iter().map(|(path, _)| path.as_str());
    let paths = paths.collect::<Vec<_>>().join(" ");
    Line::warning(
        check,
        format!("others may read or change a file that holds one: {listed}"),
        format!("`chmod 600 {paths}`, and replace each secret that others may have read"),
    )
}

/// Returns whether a mode lets others than the owner and the agent's group read or write.
fn is_wide(mode: u32, is_own_group: bool) -> bool {
    let group = if is_own_group { 0 } else { 0o060 };
    mode & (0o006 | group) != 0
}

/// Returns the effective capabilities in `/proc/self/status`.
fn effective(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let text = lines.find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(text?.trim(), 16).ok()
}

fn of_wireguard(found: WireGuard, backend: Backend) -> Line {
    let check = "wireguard";
    match found {
        WireGuard::Kernel => Line::ok(check, "in the kernel"),
        WireGuard::Userspace(program) => {
            let message = format!("in userspace, {}", program.display());
            match backend {
                Backend::Userspace => Line::ok(check, message),
                Backend::Auto | Backend::Kernel => Line::warning(
                    check,
                    format!("{message}; it is slower than the kernel's"),
                    "use a kernel with the module wireguard (Linux 5.6)",
                ),
            }
        }
        WireGuard::Missing => Line::failed(
            check,
            "this host has none for wireguard.backend, so no tunnel can be created",
            "use a kernel with the module wireguard (Linux 5.6), or install wireguard-go and set wireguard.backend",
        ),
    }
}

/// Checks that the agent may set the sysctls of links and of forwarding.
fn sysctls() -> Line {
    let check = "sysctls";
    let denied = SYSCTLS.iter().find_map(|path| {
        let allowed = rustix::fs::access(*path, rustix::fs::Access::WRITE_OK);
        Some(format!("{path}: {}", allowed.err()?))
    });
    let action = next_action(ConditionType::SysctlsConfigured, ConditionStatus::False, "");
    match denied {
        Some(message) => Line::warning(check, message, action.unwrap_or_default()),
        None => Line::ok(check, "may be set"),
    }
}

/// Returns the directory, or the nearest one above it that exists.
fn existing(directory: &Path) -> &Path {
    let existing = directory.ancestors().find(|path| fs::exists(path));
    existing.unwrap_or(Path::new("/"))
}

fn disk(directory: &Path) -> Line {
    let check = "disk";
    let existing = existing(directory);
    let place = existing.display();
    match rustix::fs::statvfs(existing) {
        Err(error) => {
            let message = format!("the file system of {place} cannot be read: {error}");
            Line::failed(check, message, "check the mount and state.directory")
        }
        Ok(found) if found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => Line::failed(
            check,
            format!("{place} is read-only"),
            "remount it: `mount -o remount,rw`",
        ),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            room(
                &place.to_string(),
                free,
                found.f_files > 0 && found.f_favail == 0,
            )
        }
    }
}

fn room(place: &str, free: u64, no_inodes: bool) -> Line {
    let check = "disk";
    let action = "free space, or move state.directory";
    let mebibytes = free / 1024 / 1024;
    match free < ROOM {
        _ if no_inodes => Line::failed(check, format!("no inode is free at {place}"), action),
        true => Line::failed(check, format!("{mebibytes} MiB free at {place}"), action),
        false => Line::ok(check, format!("{mebibytes} MiB free at {place}")),
    }
}

pub(super) async fn git(directory: &Path) -> Line {
    let check = "git";
    let directory = directory.to_owned();
    let directory = blocking(move || existing(&directory).to_owned()).await;
    match History::new(&directory).version().await {
        Ok(version) => Line::ok(check, version),
        Err(error) => Line::warning(
            check,
            chain(&error),
            "install git: without it there is no history and no rollback",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wireguard_that_is_missing_or_slow_has_advice() {
        let userspace = || WireGuard::Userspace("/usr/bin/wireguard-go".into());
        for (found, backend, verdict) in [
            (WireGuard::Kernel, Backend::Auto, Verdict::Ok),
            (userspace(), Backend::Userspace, Verdict::Ok),
            (userspace(), Backend::Auto, Verdict::Warning),
            (WireGuard::Missing, Backend::Kernel, Verdict::Failed),
        ] {
            let line = of_wireguard(found, backend);
            assert_eq!(line.status, verdict, "{line:?}");
            assert_eq!(line.next_action.is_some(), verdict != Verdict::Ok);
        }
    }

    #[test]
    fn disk_without_room_or_inodes_fails() {
        assert_eq!(room("/x", ROOM, false).status, Verdict::Ok);
        assert_eq!(room("/x", ROOM - 1, false).status, Verdict::Failed);
        assert_eq!(room("/x", ROOM, true).status, Verdict::Failed);
    }

    #[test]
    fn secrets_are_wide_for_all_but_owner_and_own_group() {
        for (mode, is_own_group, is_wide_mode) in [
            (0o600, false, false),
            (0o640, true, false),
            (0o640, false, true),
            (0o620, false, true),
            (0o604, true, true),
            (0o602, true, true),
        ] {
            assert_eq!(is_wide(mode, is_own_group), is_wide_mode, "{mode:o}");
        }
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        assert_eq!(
            effective("CapPrm:\tffff\nCapEff:\t0000000000001000\n"),
            Some(NET_ADMIN)
        );
        assert_eq!(effective("CapPrm:\tffff\n"), None);
    }
}
