//! The sysctls of interfaces, through `/proc/sys/net`, which shows the network namespace of the reading
//! process. Paths are joined, so that a dot in an interface's name is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::model::InterfaceName;
use crate::observed::kernel::Sysctl;
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// Size limit of a value, in bytes.
const LONGEST: u64 = 32;

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
    let value = |key| {
        fs::read_to_string(path(interface, key))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    Sysctl::ALL
        .into_iter()
        .filter_map(|key| Some((key, value(key)?)))
        .sorted_map()
}

/// Sets one sysctl, of an interface or of `all`. A sysctl that already has the value is not written: in a container
/// `/proc/sys` is read-only, and its values were chosen when the container was started.
pub(super) fn write(interface: Option<&InterfaceName>, key: Sysctl, value: i64) -> io::Result<()> {
    let path = path(interface.map_or("all", InterfaceName::as_str), key);
    let value = value.to_string();
    // Not `fs::write`, which would try to create a missing file.
    let opened = fs::open(&path, File::options().read(true).write(true));
    let have = match &opened {
        Ok(file) => io::read_to_string(file.take(LONGEST)),
        Err(_) => fs::read_to_string(&path),
    };
    match (opened, have) {
        (_, Ok(have)) if have.trim() == value => Ok(()),
        (opened, _) => opened?.write_all_at(value.as_bytes(), 0),
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
