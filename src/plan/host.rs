//! The sysctls of all links together. They affect foreign links, so only those are set that the tunnels need
//! to forward.

use super::action::KernelAction;
use super::{Drift, Plan, Step};
use crate::observed::kernel::{KernelView, Sysctl};

/// Plans the sysctls that tunnels need to forward, once there are tunnels. They are never reset, because other
/// programs may depend on them by then.
///
/// - `ipv4 all.rp_filter` 0: the kernel takes the larger of it and the interface's own
///   (`IN_DEV_RPFILTER`), and paths in DN42 are asymmetric.
/// - `ipv6 all.forwarding` 1, where a kernel (before Linux 6.17) cannot forward from one interface
///   alone. Writing it sets `forwarding` of every interface; see [`forwarding_blocked`].
///
/// IPv4 forwards by the interface that a packet came in on (`IN_DEV_FORWARD` in `ip_route_input_slow`), so
/// `ip_forward` stays unchanged.
pub fn plan_host(kernel: &KernelView) -> Plan {
    let mut plan = Plan::default();
    plan.extend(change(kernel, Sysctl::RpFilter, 0));
    if forwarding_blocked(kernel).is_none() {
        plan.extend(forwarding(kernel));
    }
    plan
}

/// Plans IPv6 forwarding of all links, if it is needed.
fn forwarding(kernel: &KernelView) -> Option<Step> {
    if kernel.all.contains_key(&Sysctl::ForceForwarding) {
        return None;
    }
    change(kernel, Sysctl::Ipv6Forwarding, 1)
}

fn change(kernel: &KernelView, key: Sysctl, value: i64) -> Option<Step> {
    let have = kernel.all.get(&key).filter(|have| **have != value)?;
    let because = Drift::new(
        "node.sysctl",
        format!("all {key}={value}, for the tunnels to forward"),
        have,
    );
    Some(Step::kernel(
        KernelAction::SetSysctl {
            interface: None,
            key,
            value,
        },
        because,
    ))
}

/// Returns why IPv6 forwarding of all links is not turned on although it is needed: a foreign link depends on
/// router advertisements and would no longer accept them (`accept_ra` 1 means "while not forwarding", see
/// ip-sysctl in the kernel's documentation).
pub fn forwarding_blocked(kernel: &KernelView) -> Option<String> {
    forwarding(kernel)?;
    let learns = kernel.links.iter().find(|(_, link)| {
        let is = |key, value| link.sysctls.get(&key) == Some(&value);
        let foreign = !link.mark.is_ours();
        foreign && link.learnt && is(Sysctl::AcceptRa, 1) && is(Sysctl::Ipv6Forwarding, 0)
    });
    let (name, _) = learns?;
    Some(format!(
        "IPv6 is not forwarded: net.ipv6.conf.all.forwarding=1 would make {name} ignore the router \
         advertisements that it has an address or route from; set net.ipv6.conf.{name}.accept_ra=2, and the agent \
         does the rest"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::observed::Mark;
    use crate::observed::kernel::{Link, LinkKind};

    fn kernel(all: &[(Sysctl, i64)], uplink: &[(Sysctl, i64)]) -> KernelView {
        let link = Link {
            index: 2,
            kind: LinkKind::Other(String::new()),
            mtu: 1500,
            up: true,
            mark: Mark::None,
            addrgen_none: false,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            wireguard: None,
            gre: None,
            unread: None,
            learnt: !uplink.is_empty(),
            sysctls: uplink.iter().copied().collect(),
        };
        let links = [("eth0".parse().unwrap(), link)].into_iter().collect();
        KernelView {
            links,
            all: all.iter().copied().collect(),
        }
    }

    fn steps(kernel: &KernelView) -> Vec<String> {
        plan_host(kernel)
            .steps
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const OLD: [(Sysctl, i64); 2] = [(Sysctl::RpFilter, 2), (Sysctl::Ipv6Forwarding, 0)];

    #[test]
    fn an_old_kernel_needs_forwarding_of_all_links() {
        let want = [
            "set sysctl ipv4.rp_filter of all to 0 (node.sysctl: want all ipv4.rp_filter=0, for the tunnels to \
             forward, have 2)",
            "set sysctl ipv6.forwarding of all to 1 (node.sysctl: want all ipv6.forwarding=1, for the tunnels \
             to forward, have 0)",
        ];
        assert_eq!(steps(&kernel(&OLD, &[])), want);
        assert!(
            steps(&kernel(
                &[(Sysctl::RpFilter, 0), (Sysctl::Ipv6Forwarding, 1)],
                &[]
            ))
            .is_empty()
        );
    }

    #[test]
    fn forwarding_from_one_interface_alone_stays_unchanged() {
        let new = [
            (Sysctl::RpFilter, 0),
            (Sysctl::Ipv6Forwarding, 0),
            (Sysctl::ForceForwarding, 0),
        ];
        assert!(steps(&kernel(&new, &[])).is_empty());
    }

    #[test]
    fn a_link_that_lives_on_router_advertisements_keeps_them() {
        let host = [(Sysctl::AcceptRa, 1), (Sysctl::Ipv6Forwarding, 0)];
        let blocked = kernel(&OLD, &host);
        assert_eq!(steps(&blocked).len(), 1);
        assert!(
            forwarding_blocked(&blocked)
                .unwrap()
                .contains("net.ipv6.conf.eth0.accept_ra=2")
        );
        for safe in [
            [(Sysctl::AcceptRa, 2), (Sysctl::Ipv6Forwarding, 0)],
            [(Sysctl::AcceptRa, 1), (Sysctl::Ipv6Forwarding, 1)],
        ] {
            assert_eq!(forwarding_blocked(&kernel(&OLD, &safe)), None);
            assert_eq!(steps(&kernel(&OLD, &safe)).len(), 2);
        }
    }
}
