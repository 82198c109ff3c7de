//! The link itself: whether it is there, whose it is, what it is, and its plain settings.

use std::net::IpAddr;

use super::action::{KernelAction, NewLink};
use super::kernel_view::{GreEnds, KernelView, Link, LinkKind, Mark};
use super::tunnel::{TunnelView, WantedTunnel};
use super::{Drift, Refusal, Step};
use crate::model::Uid;

/// The link of the wanted name, judged.
pub(super) struct Found<'a> {
    /// The link, when it stays.
    pub(super) keep: Option<&'a Link>,
    /// A link of ours that is of another kind and must go first.
    pub(super) replace: Option<&'a Link>,
    /// Whether the link does not carry our mark yet.
    pub(super) unmarked: bool,
}

/// Judges the link of the wanted name. Only a link that carries our mark is ours; the exceptions are one
/// we were creating when we were interrupted, and one the operator told us to adopt.
pub(super) fn find<'a>(wanted: &WantedTunnel, view: &TunnelView<'a>) -> Result<Found<'a>, Refusal> {
    let Some(link) = view.kernel.links.get(&wanted.interface) else {
        return Ok(Found {
            keep: None,
            replace: None,
            unmarked: false,
        });
    };
    if link.mark.is(&wanted.uid) {
        let same = is_kind(link, &wanted.kind);
        return Ok(Found {
            keep: same.then_some(link),
            replace: (!same).then_some(link),
            unmarked: false,
        });
    }
    let half_created =
        view.creating == Some(&wanted.interface) && is_tunnel(link) && is_blank(link);
    let adopted = wanted.adopt && link.wireguard.is_some();
    if link.mark == Mark::None && is_kind(link, &wanted.kind) && (half_created || adopted) {
        return Ok(Found {
            keep: Some(link),
            replace: None,
            unmarked: true,
        });
    }
    // Half made, and meanwhile another kind is wanted, or the neighbour's name resolves to another place.
    if link.mark == Mark::None && half_created {
        return Ok(Found {
            keep: None,
            replace: Some(link),
            unmarked: true,
        });
    }
    Err(refusal(wanted, link))
}

/// A WireGuard link without peers, or a GRE or dummy link: what a crash between "create" and "mark"
/// leaves behind.
fn is_blank(link: &Link) -> bool {
    link.wireguard
        .as_ref()
        .is_none_or(|wireguard| wireguard.peers.is_empty())
        && link.addresses.is_empty()
}

fn refusal(wanted: &WantedTunnel, link: &Link) -> Refusal {
    let whose = match &link.mark {
        Mark::Ours(uid) => {
            format!("belongs to another object of ours ({uid}), which must go first")
        }
        Mark::Foreign(alias) => {
            format!("is somebody else's (alias {})", crate::model::shown(alias))
        }
        Mark::None => "exists and does not carry our mark".to_owned(),
    };
    let help = match (&link.mark, &link.wireguard) {
        (Mark::None, Some(_)) => "; to take it over, set tunnel.adopt: true",
        (Mark::Ours(_), _) => "",
        _ => "; give the session another interface",
    };
    Refusal {
        field: "spec.tunnel.interface",
        reason: format!("interface {} {whose}{help}", wanted.interface),
    }
}

/// Whether a link is what is wanted. A tun device with a WireGuard control socket is WireGuard in
/// userspace. The ends of a GRE tunnel can be changed, but not to another family.
fn is_kind(link: &Link, wanted: &NewLink) -> bool {
    match wanted {
        NewLink::WireGuard => {
            link.kind == LinkKind::WireGuard
                || (link.kind == LinkKind::Tun && link.wireguard.is_some())
        }
        NewLink::Gre { remote, .. } => {
            link.kind
                == if remote.is_ipv4() {
                    LinkKind::Gre
                } else {
                    LinkKind::Ip6Gre
                }
        }
        NewLink::Dummy => link.kind == LinkKind::Dummy,
    }
}

/// Moves the ends of a GRE tunnel that stays.
pub(super) fn gre_ends(wanted: &WantedTunnel, found: &Found<'_>) -> Option<Step> {
    let NewLink::Gre { local, remote } = wanted.kind else {
        return None;
    };
    let have = found.keep?.gre.unwrap_or(GreEnds {
        local: None,
        remote: None,
    });
    let want = GreEnds {
        local,
        remote: Some(remote),
    };
    if have == want {
        return None;
    }
    let interface = wanted.interface.clone();
    Some(Step::kernel(
        KernelAction::SetGreEnds {
            interface,
            local,
            remote,
        },
        Drift::new("tunnel.endpoint", want, have),
    ))
}

/// Links of this object under another name: the interface was renamed, or the agent stopped half-way.
pub(super) fn surplus(wanted: &WantedTunnel, kernel: &KernelView) -> Vec<Step> {
    let others = kernel
        .owned_by(&wanted.uid)
        .filter(|(name, _)| **name != wanted.interface);
    others
        .map(|(name, _)| {
            let action = KernelAction::DeleteLink {
                interface: name.clone(),
                uid: wanted.uid.clone(),
            };
            Step::kernel(
                action,
                Drift::new("tunnel.interface", &wanted.interface, name),
            )
        })
        .collect()
}

/// Makes the link and marks it.
pub(super) fn create(wanted: &WantedTunnel, found: &Found<'_>) -> Vec<Step> {
    let interface = || wanted.interface.clone();
    let mut steps = Vec::new();
    if found.replace.is_some() {
        // Nothing is ever deleted that does not carry our mark.
        steps.extend(found.unmarked.then(|| mark(wanted)));
        let action = KernelAction::DeleteLink {
            interface: interface(),
            uid: wanted.uid.clone(),
        };
        steps.push(Step::kernel(
            action,
            Drift::new("tunnel.type", &wanted.kind, "another kind of link"),
        ));
    }
    if found.keep.is_none() {
        let action = KernelAction::CreateLink {
            interface: interface(),
            kind: wanted.kind.clone(),
        };
        steps.push(Step::kernel(
            action,
            Drift::missing("tunnel.interface", &wanted.interface),
        ));
    }
    if found.keep.is_none() || found.unmarked {
        steps.push(mark(wanted));
    }
    if lacks_ipv6(found.keep) {
        steps.extend(mtu(wanted, found.keep));
    }
    if !found.keep.is_some_and(|link| link.addrgen_none) {
        let action = KernelAction::DisableKernelAddresses {
            interface: interface(),
        };
        steps.push(Step::kernel(
            action,
            Drift::new("tunnel.addrgenmode", "none", "kernel-made addresses"),
        ));
    }
    steps
}

fn mark(wanted: &WantedTunnel) -> Step {
    let action = KernelAction::SetMark {
        interface: wanted.interface.clone(),
        uid: wanted.uid.clone(),
    };
    Step::kernel(action, Drift::missing("tunnel.mark", &wanted.uid))
}

/// Below this MTU the kernel has no IPv6 on a link (RFC 8200, section 5) and refuses whatever has to do
/// with it, so there the MTU has to come first.
const IPV6_MIN_MTU: u32 = 1280;

fn lacks_ipv6(link: Option<&Link>) -> bool {
    link.is_some_and(|link| link.mtu < IPV6_MIN_MTU)
}

fn mtu(wanted: &WantedTunnel, link: Option<&Link>) -> Option<Step> {
    let have = link.map(|link| link.mtu);
    if have == Some(u32::from(wanted.mtu.get())) {
        return None;
    }
    let have = have.map_or("unset".to_owned(), |mtu| mtu.to_string());
    let action = KernelAction::SetMtu {
        interface: wanted.interface.clone(),
        mtu: wanted.mtu,
    };
    Some(Step::kernel(
        action,
        Drift::new("tunnel.mtu", wanted.mtu, have),
    ))
}

/// With new ends an `ip6gre` link gets the MTU of its new route (`ip6gre_tnl_link_config_route`; measured,
/// Linux 6.12: 1400 became 1456).
fn mtu_again(wanted: &WantedTunnel, found: &Found<'_>) -> Option<Step> {
    gre_ends(wanted, found)?;
    let v6 = matches!(
        wanted.kind,
        NewLink::Gre {
            remote: IpAddr::V6(_),
            ..
        }
    );
    let action = KernelAction::SetMtu {
        interface: wanted.interface.clone(),
        mtu: wanted.mtu,
    };
    v6.then(|| {
        Step::kernel(
            action,
            Drift::new("tunnel.mtu", wanted.mtu, "the kernel's, with the new ends"),
        )
    })
}

/// MTU, sysctls, and up.
pub(super) fn settle(wanted: &WantedTunnel, found: &Found<'_>, kernel: &KernelView) -> Vec<Step> {
    let interface = || wanted.interface.clone();
    let link = found.keep;
    let mut steps = Vec::new();
    if !lacks_ipv6(link) {
        steps.extend(mtu(wanted, link).or_else(|| mtu_again(wanted, found)));
    }
    // The sysctls of a link are read once it carries our mark; until then it is treated as a new one.
    let known = link.filter(|_| !found.unmarked);
    for (key, value) in WantedTunnel::sysctls(kernel) {
        // On a link that is there, a sysctl that the kernel does not have cannot be set: a kernel without
        // IPv4 or IPv6 forwarding, or a container. On a new one all are set, once.
        let have = known.map(|link| link.sysctls.get(&key).copied());
        if have.is_none() || have.flatten().is_some_and(|have| have != value) {
            let shown = have
                .flatten()
                .map_or("the kernel's default".to_owned(), |have| have.to_string());
            let action = KernelAction::SetSysctl {
                interface: Some(interface()),
                key,
                value,
            };
            steps.push(Step::kernel(
                action,
                Drift::new("tunnel.sysctl", format!("{key}={value}"), shown),
            ));
        }
    }
    if !link.is_some_and(|link| link.up) {
        let action = KernelAction::SetUp {
            interface: interface(),
        };
        steps.push(Step::kernel(
            action,
            Drift::new("tunnel.state", "up", "down"),
        ));
    }
    steps
}

/// Deletes the link that a crash left between "create" and "mark". It is marked first, so that nothing is
/// ever deleted that does not carry our mark.
pub(super) fn remove_half_created(uid: &Uid, view: &TunnelView<'_>) -> Vec<Step> {
    let link = view
        .creating
        .and_then(|name| Some((name, view.kernel.links.get(name)?)));
    let Some((name, _)) =
        link.filter(|(_, link)| link.mark == Mark::None && is_tunnel(link) && is_blank(link))
    else {
        return Vec::new();
    };
    let mark = KernelAction::SetMark {
        interface: name.clone(),
        uid: uid.clone(),
    };
    let delete = KernelAction::DeleteLink {
        interface: name.clone(),
        uid: uid.clone(),
    };
    vec![
        Step::kernel(mark, Drift::missing("tunnel.mark", uid)),
        Step::kernel(delete, Drift::surplus("tunnel.interface", name)),
    ]
}

/// Whether a link is of a kind that we make for tunnels.
fn is_tunnel(link: &Link) -> bool {
    match link.kind {
        LinkKind::WireGuard | LinkKind::Gre | LinkKind::Ip6Gre => true,
        LinkKind::Tun => link.wireguard.is_some(),
        LinkKind::Dummy | LinkKind::Loopback | LinkKind::Other(_) => false,
    }
}

/// Deletes every link that carries this mark.
pub(super) fn remove_all(uid: &Uid, kernel: &KernelView) -> Vec<Step> {
    let delete = |(name, _): (&_, &Link)| {
        let action = KernelAction::DeleteLink {
            interface: Clone::clone(name),
            uid: uid.clone(),
        };
        Step::kernel(action, Drift::surplus("tunnel.interface", name))
    };
    kernel.owned_by(uid).map(delete).collect()
}
