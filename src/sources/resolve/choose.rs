//! Selection of the address to use from an answer. Pure.

use std::net::IpAddr;

use tokio::time::Instant;

use crate::intervals::ADDRESS_SILENCE;

/// Returns the usable addresses of an answer, in the order in which to try them.
///
/// The system's first choice stays first: glibc sorts by RFC 6724 and puts a family that has no route
/// last. After it the families alternate, so that the second attempt already distinguishes a broken family
/// from a dead peer.
pub fn candidates(answer: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut usable: Vec<IpAddr> = Vec::new();
    for address in answer {
        if is_usable(&address) && !usable.contains(&address) {
            usable.push(address);
        }
    }
    let first_is_v6 = usable.first().is_some_and(IpAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) =
        usable.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    interleave(one, other)
}

/// Returns whether it is a unicast address of another host. Other answers exist ("0.0.0.0" for a blocked name);
/// a link-local address from the DNS has no link.
fn is_usable(address: &IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !address.is_unspecified() && !address.is_multicast() && !link_local
}

fn interleave(one: Vec<IpAddr>, other: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// Returns the address to use: the current one while it is in the answer and the peer answers there (or has
/// not been silent for [`ADDRESS_SILENCE`]), otherwise the next one. For an address that left the answer, a
/// successor of the same family, which is known to work. `None` only when there are no candidates.
pub fn choose(
    candidates: &[IpAddr],
    current: Option<IpAddr>,
    stale_since: Option<Instant>,
    now: Instant,
) -> Option<IpAddr> {
    let stale =
        stale_since.is_some_and(|since| now.saturating_duration_since(since) >= ADDRESS_SILENCE);
    let first = candidates.first().copied();
    let Some(current) = current else { return first };
    match candidates
        .iter()
        .position(|candidate| *candidate == current)
    {
        Some(_) if !stale => Some(current),
        Some(position) => candidates.get((position + 1) % candidates.len()).copied(),
        None if stale => first,
        None => candidates
            .iter()
            .find(|c| c.is_ipv6() == current.is_ipv6())
            .copied()
            .or(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_alternate_after_the_systems_first_choice() {
        let answer = [
            "192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "192.0.2.1",
            "2001:db8::2",
        ];
        let wanted = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"];
        assert_eq!(candidates(addresses(&answer)), addresses(&wanted));
    }

    #[test]
    fn addresses_that_lead_nowhere_are_no_candidates() {
        assert!(
            candidates(addresses(&[
                "0.0.0.0",
                "::",
                "ff02::1",
                "224.0.0.1",
                "fe80::1"
            ]))
            .is_empty()
        );
    }

    #[test]
    fn address_in_use_stays_while_the_answer_has_it() {
        let list = addresses(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let now = Instant::now();
        assert_eq!(choose(&list, Some(list[2]), None, now), Some(list[2]));
        assert_eq!(
            choose(&list, Some(list[2]), Some(now), now + ADDRESS_SILENCE / 2),
            Some(list[2])
        );
    }

    #[test]
    fn silent_address_rotates_to_the_next_and_wraps_around() {
        let list = addresses(&["192.0.2.1", "2001:db8::1"]);
        let (since, now) = (Instant::now(), Instant::now() + ADDRESS_SILENCE);
        assert_eq!(
            choose(&list, Some(list[0]), Some(since), now),
            Some(list[1])
        );
        assert_eq!(
            choose(&list, Some(list[1]), Some(since), now),
            Some(list[0])
        );
        assert_eq!(
            choose(&list[..1], Some(list[0]), Some(since), now),
            Some(list[0])
        );
    }

    #[test]
    fn removed_address_is_replaced_within_its_family() {
        let list = addresses(&["192.0.2.1", "2001:db8::1"]);
        let gone = "2001:db8::9".parse().ok();
        let now = Instant::now();
        assert_eq!(choose(&list, gone, None, now), Some(list[1]));
        assert_eq!(choose(&list[..1], gone, None, now), Some(list[0]));
        assert_eq!(
            choose(&list, gone, Some(now), now + ADDRESS_SILENCE),
            Some(list[0])
        );
        assert_eq!(choose(&[], gone, None, now), None);
    }
}
