//! The sysctls of interfaces, through `/proc/sys/net`, which shows the network namespace of the reading
//! process. Paths are joined, so that a dot in an interface's name is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::model::InterfaceName;
use crate::observed::kernel::Sysctl;
use crate::util::fs;
use crate::util::sorted::Sorted as _;

fn path(interface: &str, key: Sysctl) -> PathBuf {
    let (family, key) = key.path();
    PathBuf::from("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(key)
}

/// Reads the sysctls of all links together; those that are missing (IPv6 turned off) are missing in the map.
pub(super) fn read_all() -> BTreeMap<Sysctl, i64> {
    read("all")
}

/// Reads the sysctls of one interface; those that are missing are missing in the map.
pub(super) fn read(interface: &str) -> BTreeMap<Sysctl, i64> {
    Sysctl::ALL
        .into_iter()
        .filter_map(|key| Some((key, read_one(&path(interface, key))?)))
        .sorted_map()
}

fn read_one(path: &Path) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A sysctl to set.
pub(super) struct Setting {
    /// The interface; `None` for `all`.
    pub(super) interface: Option<InterfaceName>,
    pub(super) key: Sysctl,
    pub(super) value: i64,
    /// The value that it has, if known.
    pub(super) have: Option<i64>,
}

impl Setting {
    /// Sets the sysctl. One that already has the value is not written: in a container `/proc/sys` is read-only, and its
    /// values were chosen when the container was started.
    pub(super) fn write(&self) -> io::Result<()> {
        let interface = self.interface.as_ref().map_or("all", |it| it.as_str());
        let path = path(interface, self.key);
        if self.have.or_else(|| read_one(&path)) == Some(self.value) {
            return Ok(());
        }
        // Not `fs::write`, which would try to create a missing file.
        let file = fs::open(&path, File::options().write(true))?;
        file.write_all_at(self.value.to_string().as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_an_interfaces_name_is_no_separator() {
        assert_eq!(
            path("eth0.100", Sysctl::RpFilter).to_str(),
            Some("/proc/sys/net/ipv4/conf/eth0.100/rp_filter")
        );
    }
}
