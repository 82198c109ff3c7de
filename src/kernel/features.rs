//! Which WireGuard new links can use on this host, found out without creating one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::userspace::program_of_environment;
use crate::config::Backend;
use crate::util::file;
use crate::util::fs;

/// Largest list of modules that is read, in bytes.
const MODULES: u64 = 16 * 1024 * 1024;

/// The WireGuard of new links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WireGuard {
    Kernel,
    /// This program, in userspace.
    Userspace(PathBuf),
    Missing,
}

/// Looks at this host.
pub(crate) fn wireguard(backend: Backend) -> WireGuard {
    let program = program_of_environment();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    choose(backend, has_module(Path::new("/")), find(&program, &paths))
}

fn choose(backend: Backend, in_kernel: bool, program: Option<PathBuf>) -> WireGuard {
    match (backend, in_kernel, program) {
        (Backend::Auto | Backend::Kernel, true, _) => WireGuard::Kernel,
        (Backend::Auto | Backend::Userspace, _, Some(program)) => WireGuard::Userspace(program),
        _ => WireGuard::Missing,
    }
}

/// Returns whether the kernel has the module loaded or built in, or can load it.
fn has_module(root: &Path) -> bool {
    if fs::exists(root.join("sys/module/wireguard")) {
        return true;
    }
    let release = file::read_text(&root.join("proc/sys/kernel/osrelease"), MODULES);
    let modules = root
        .join("lib/modules")
        .join(release.unwrap_or_default().trim());
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        let text = file::read_text(&modules.join(list), MODULES);
        text.is_ok_and(|text| text.contains("/wireguard.ko"))
    })
}

/// Returns the path of a program.
fn find(program: &OsStr, paths: &OsStr) -> Option<PathBuf> {
    let program = Path::new(program);
    if program.components().count() > 1 {
        return fs::is_file(program).then(|| program.to_owned());
    }
    let mut candidates = std::env::split_paths(paths).map(|folder| folder.join(program));
    candidates.find(|path| fs::is_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_needs_its_own_wireguard() {
        let program = || Some(PathBuf::from("/usr/bin/wireguard-go"));
        let userspace = WireGuard::Userspace(program().unwrap());
        for (backend, in_kernel, program, found) in [
            (Backend::Auto, true, None, WireGuard::Kernel),
            (Backend::Auto, false, program(), userspace.clone()),
            (Backend::Auto, false, None, WireGuard::Missing),
            (Backend::Kernel, false, program(), WireGuard::Missing),
            (Backend::Userspace, true, None, WireGuard::Missing),
            (Backend::Userspace, true, program(), userspace),
        ] {
            let is = choose(backend, in_kernel, program);
            assert_eq!(is, found, "{backend:?} {in_kernel}");
        }
    }

    #[test]
    fn module_is_found_loaded_and_loadable() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0\n");
        write(
            "lib/modules/6.1.0/modules.dep",
            "kernel/net/ipv4/ip_gre.ko:\n",
        );
        assert!(!has_module(root.path()));
        write(
            "lib/modules/6.1.0/modules.dep",
            "kernel/drivers/net/wireguard/wireguard.ko: kernel/lib/x.ko\n",
        );
        assert!(has_module(root.path()));
    }

    #[test]
    fn program_is_looked_up_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wg");
        assert_eq!(find("wg".as_ref(), folder.path().as_os_str()), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(
            find("wg".as_ref(), folder.path().as_os_str()),
            Some(path.clone())
        );
        assert_eq!(find(path.as_os_str(), "".as_ref()), Some(path));
    }
}
