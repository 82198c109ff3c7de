//! Groups of the system, from `/etc/group`.

use super::fs;

/// Returns the ID of a group, or `None` if there is no such group.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    group_in(&fs::read_to_string("/etc/group").ok()?, name)
}

fn group_in(file: &str, name: &str) -> Option<u32> {
    let fields = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    };
    file.lines().find_map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let file = "root:x:0:\nbirds:x:7:\nbird:x:115:a,b\n";
        assert_eq!(group_in(file, "bird"), Some(115));
        assert_eq!(group_in(file, "bir"), None);
    }
}
