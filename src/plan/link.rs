//! The link itself: existence, owner, kind and plain settings.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::action::{KernelAction, NewLink};
use super::wanted::{ObjectObservation, WantedTunnel};
use super::{Action, Drift, Refusal, Step};
use crate::model::{InterfaceName, Uid};
use crate::observed::Mark;
use crate::observed::kernel::{GreEnds, KernelView, Link, LinkKind};

/// The link of the wanted name, with its assessment.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// The link, when it stays.
    pub(super) keep: Option<Cow<'a, Link>>,
    /// A link of this object with another kind, which must be replaced.
    replace: Option<&'a Link>,
    /// Whether the link does not carry the agent's mark yet.
    unmarked: bool,
    /// Whether the link's mark must be rewritten.
    outdated: bool,
}

impl<'a> Found<'a> {
    /// Returns the link, when it stays.
    pub(super) fn kept(&self) -> Option<&Link> {
        self.keep.as_deref()
    }

    fn keeping(link: &'a Link) -> Self {
        Self {
            keep: Some(Cow::Borrowed(link)),
            ..Self::default()
        }
    }

    fn replacing(link: &'a Link) -> Self {
        Self {
            replace: Some(link),
            ..Self::default()
        }
    }
}

/// Assesses the link of the wanted name. Only a link with the agent's mark is the agent's; the exceptions are a link
/// whose creation was interrupted, and one that the operator allowed to adopt.
pub(super) fn find<'a>(
    wanted: &WantedTunnel,
    view: &ObjectObservation<'a>,
) -> Result<Found<'a>, Refusal> {
    let Some(link) = view.kernel.links.get(&wanted.interface) else {
        return Ok(Found::default());
    };
    let same = is_kind(link, &wanted.kind);
    if link.mark.is(&wanted.uid) {
        let outdated = matches!(link.mark, Mark::Earlier(_));
        let found = match same {
            true => Found::keeping(link),
            false => Found::replacing(link),
        };
        return Ok(Found { outdated, ..found });
    }
    if same && view.formerly.is_some_and(|uid| link.mark.is(uid)) {
        // The same peering under a new uuid: only its mark is rewritten.
        return Ok(Found {
            outdated: true,
            ..Found::keeping(link)
        });
    }
    let half_created =
        view.creating == Some(&wanted.interface) && is_tunnel(link) && is_blank(link);
    let adopted = wanted.adopt && link.wireguard.is_some();
    let found = match link.mark == Mark::None {
        true if same && (half_created || adopted) => Found::keeping(link),
        // Incompletely created, and meanwhile another kind is wanted, or the neighbour's name resolves to another
        // address.
        true if half_created => Found::replacing(link),
        _ => return Err(refusal(wanted, link)),
    };
    Ok(Found {
        unmarked: true,
        ..found
    })
}

/// Returns why nothing is planned now: the WireGuard configuration of a link of this object, or of one that it takes
/// over, could not be read. Any step without it may end a working tunnel.
pub(super) fn unread(wanted: &WantedTunnel, view: &ObjectObservation<'_>) -> Option<String> {
    let links = &view.kernel.links;
    let unmarked = links.get_key_value(&wanted.interface);
    let unmarked = unmarked.filter(|(_, link)| link.mark == Mark::None);
    let uids = [Some(&wanted.uid), view.formerly].into_iter().flatten();
    let mut concerned = uids.flat_map(|uid| links.owned_by(uid)).chain(unmarked);
    concerned.find_map(|(name, link)| {
        let why = &link.unread.as_ref()?.why;
        Some(format!(
            "the WireGuard configuration of {name} cannot be read, so the agent leaves the link unchanged: {why}; the next pass \
             reads it again, and `moenet-agent restart {name}` recreates the link and its WireGuard process"
        ))
    })
}

/// Returns whether it is a WireGuard link without peers, or a GRE or dummy link: the remains of a crash between
/// "create" and "mark".
fn is_blank(link: &Link) -> bool {
    link.wireguard
        .as_ref()
        .is_none_or(|wireguard| wireguard.peers.is_empty())
        && link.addresses.is_empty()
}

fn refusal(wanted: &WantedTunnel, link: &Link) -> Refusal {
    let help = match (&link.mark, &link.wireguard) {
        (Mark::None, Some(_)) => "; to take it over, set tunnel.adopt: true",
        (Mark::Ours(_) | Mark::Earlier(_), _) => "",
        _ => "; give the session another interface",
    };
    Refusal {
        field: "spec.tunnel.interface",
        reason: format!("interface {} {}{help}", wanted.interface, link.mark),
    }
}

/// Returns whether a link has the wanted kind. A tun device with a WireGuard control socket is WireGuard in
/// userspace. The ends of a GRE tunnel can be changed, but not to another family.
fn is_kind(link: &Link, wanted: &NewLink) -> bool {
    match wanted {
        NewLink::WireGuard => {
            link.kind == LinkKind::WireGuard || (link.kind == LinkKind::Tun && link.is_wireguard())
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

/// Changes the ends of a GRE tunnel that stays.
pub(super) fn gre_ends(wanted: &WantedTunnel, found: &Found<'_>) -> Option<Step> {
    let NewLink::Gre { local, remote } = wanted.kind else {
        return None;
    };
    let have = found.kept()?.gre.unwrap_or(GreEnds {
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

/// Deletes the links of this object under another name: the interface was renamed, or the agent stopped
/// half-way. Keeps `but`.
pub(super) fn surplus(
    wanted: &WantedTunnel,
    kernel: &KernelView,
    but: Option<&InterfaceName>,
) -> Vec<Step> {
    let others = kernel
        .owned_by(&wanted.uid)
        .filter(|(name, _)| **name != wanted.interface && Some(*name) != but);
    others
        .map(|(name, _)| {
            let because = Drift::new("tunnel.interface", &wanted.interface, name);
            Step::kernel(delete(wanted, name), because)
        })
        .collect()
}

/// Frees the name of this object's link for another object. WireGuard in userspace cannot be renamed.
pub(super) fn step_aside(wanted: &WantedTunnel, kernel: &KernelView) -> Vec<Step> {
    let temporary = temporary(wanted);
    let others = kernel
        .owned_by(&wanted.uid)
        .filter(|(name, _)| **name != wanted.interface && **name != temporary);
    others
        .map(|(name, link)| {
            let because = Drift::new("tunnel.interface", &wanted.interface, name);
            let action = if link.kind == LinkKind::Tun || kernel.links.contains_key(&temporary) {
                delete(wanted, name)
            } else {
                KernelAction::RenameLink {
                    interface: name.clone(),
                    uid: wanted.uid.clone(),
                    to: temporary.clone(),
                }
            };
            Step::kernel(action, because)
        })
        .collect()
}

/// Creates the link and marks it. A working link of this object is deleted only after another one could be
/// created: a kernel without the driver, or a name that it rejects, costs no tunnel.
pub(super) fn make<'a>(
    wanted: &WantedTunnel,
    found: &mut Found<'a>,
    kernel: &'a KernelView,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if found.keep.is_some() {
        steps.extend(surplus(wanted, kernel, None));
        if found.unmarked {
            steps.push(mark(wanted, &wanted.interface));
        } else if found.outdated {
            steps.push(mark_again(wanted, kernel));
        }
        return steps;
    }
    if found.unmarked && found.replace.take().is_some() {
        // Incompletely created, so no working tunnel is lost. The agent never deletes a link without its mark.
        steps.push(mark(wanted, &wanted.interface));
        steps.push(delete_other_kind(wanted));
    }
    match (twin(wanted, kernel), found.replace) {
        (Some((name, link)), replace) => {
            steps.extend(replace.map(|_| delete_other_kind(wanted)));
            steps.extend(surplus(wanted, kernel, Some(name)));
            steps.push(rename(wanted, name));
            if let Mark::Earlier(_) = link.mark {
                steps.push(mark_again(wanted, kernel));
            }
            found.unmarked = false;
            found.keep = Some(Cow::Owned(renamed(link)));
        }
        (None, Some(_)) => steps.extend(replace_kind(wanted, kernel)),
        (None, None) => {
            steps.extend(create(wanted, &wanted.interface));
            steps.extend(surplus(wanted, kernel, None));
        }
    }
    steps
}

/// Replaces a link by one of another kind. WireGuard in userspace cannot be renamed, because its control socket
/// has the first name, so its creation is only tested; any other link is created and then renamed.
fn replace_kind(wanted: &WantedTunnel, kernel: &KernelView) -> Vec<Step> {
    let temporary = temporary(wanted);
    let mut steps = Vec::new();
    // A link of that name remains from an interrupted replacement.
    let left = kernel
        .links
        .get(&temporary)
        .filter(|link| link.mark.is(&wanted.uid));
    steps.extend(left.map(|_| {
        let because = Drift::new("tunnel.interface", &wanted.interface, &temporary);
        Step::kernel(delete(wanted, &temporary), because)
    }));
    if wanted.kind == NewLink::WireGuard {
        let action = KernelAction::TryLink {
            interface: temporary.clone(),
            kind: wanted.kind.clone(),
        };
        let because = Drift::new("tunnel.type", &wanted.kind, "another kind of link");
        steps.push(Step::kernel(action, because));
        steps.push(delete_other_kind(wanted));
        steps.extend(create(wanted, &wanted.interface));
    } else {
        steps.extend(create(wanted, &temporary));
        steps.push(delete_other_kind(wanted));
        steps.push(rename(wanted, &temporary));
    }
    steps.extend(surplus(wanted, kernel, Some(&temporary)));
    steps
}

/// Returns a link of this object under another name that only needs the new one: WireGuard of the kernel, or GRE with
/// exactly the wanted ends, which the kernel allows only once.
fn twin<'a>(
    wanted: &WantedTunnel,
    kernel: &'a KernelView,
) -> Option<(&'a InterfaceName, &'a Link)> {
    let fits = |link: &Link| match wanted.kind {
        NewLink::WireGuard => link.kind == LinkKind::WireGuard,
        NewLink::Gre { local, remote } => {
            let ends = GreEnds {
                local,
                remote: Some(remote),
            };
            is_kind(link, &wanted.kind) && link.gre == Some(ends)
        }
        NewLink::Dummy => false,
    };
    let mut owned = kernel.owned_by(&wanted.uid);
    owned.find(|(name, link)| **name != wanted.interface && fits(link))
}

/// Returns a link as it is after its renaming: one that was up goes down and loses its IPv6 addresses
/// (`addrconf_ifdown`).
fn renamed(link: &Link) -> Link {
    let mut link = link.clone();
    if std::mem::replace(&mut link.up, false) {
        link.routes.clear();
        link.addresses
            .retain(|address| address.local.addr().is_ipv4());
    }
    link
}

/// Returns the temporary name of a link. It is derived from the object, so that the link is found again after a crash.
fn temporary(wanted: &WantedTunnel) -> InterfaceName {
    InterfaceName::temporary(wanted.uid.as_str())
}

fn create(wanted: &WantedTunnel, interface: &InterfaceName) -> [Step; 2] {
    let action = KernelAction::CreateLink {
        interface: interface.clone(),
        kind: wanted.kind.clone(),
    };
    let because = Drift::missing("tunnel.interface", &wanted.interface);
    [Step::kernel(action, because), mark(wanted, interface)]
}

fn rename(wanted: &WantedTunnel, from: &InterfaceName) -> Step {
    let action = KernelAction::RenameLink {
        interface: from.clone(),
        uid: wanted.uid.clone(),
        to: wanted.interface.clone(),
    };
    Step::kernel(
        action,
        Drift::new("tunnel.interface", &wanted.interface, from),
    )
}

fn delete(wanted: &WantedTunnel, interface: &InterfaceName) -> KernelAction {
    KernelAction::DeleteLink {
        interface: interface.clone(),
        uid: wanted.uid.clone(),
    }
}

fn delete_other_kind(wanted: &WantedTunnel) -> Step {
    Step::kernel(
        delete(wanted, &wanted.interface),
        Drift::new("tunnel.type", &wanted.kind, "another kind of link"),
    )
}

fn mark(wanted: &WantedTunnel, interface: &InterfaceName) -> Step {
    let action = KernelAction::SetMark {
        interface: interface.clone(),
        uid: wanted.uid.clone(),
    };
    Step::kernel(action, Drift::missing("tunnel.mark", &wanted.uid))
}

/// Replaces the mark of an earlier build, or of a directory that this one succeeds, by the current mark. Nothing else
/// of
/// the link changes.
fn mark_again(wanted: &WantedTunnel, kernel: &KernelView) -> Step {
    let Step { action, .. } = mark(wanted, &wanted.interface);
    let there = kernel.links.get(&wanted.interface);
    let because = match there.map(|link| &link.mark) {
        Some(Mark::Ours(formerly)) => Drift::new("tunnel.mark", &wanted.uid, formerly),
        _ => Drift::new(
            "tunnel.mark",
            "the mark of this state directory",
            "an earlier mark",
        ),
    };
    Step { action, because }
}

/// Plans the settings that go with the mark in one message, and before every step that needs IPv6: the kernel has none on
/// a link below an MTU of 1280 (RFC 8200, section 5), and rejects every IPv6 setting.
pub(super) fn prepare(wanted: &WantedTunnel, found: &Found<'_>) -> Vec<Step> {
    let mut steps: Vec<_> = mtu(wanted, found.kept()).into_iter().collect();
    if !found.kept().is_some_and(|link| link.addrgen_none) {
        let action = KernelAction::DisableKernelAddresses {
            interface: wanted.interface.clone(),
        };
        steps.push(Step::kernel(
            action,
            Drift::new("tunnel.addrgenmode", "none", "kernel-made addresses"),
        ));
    }
    steps
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
            Drift::new(
                "tunnel.mtu",
                wanted.mtu,
                "the kernel's default for the new ends",
            ),
        )
    })
}

/// Plans sysctls and up.
pub(super) fn settle(wanted: &WantedTunnel, found: &Found<'_>, kernel: &KernelView) -> Vec<Step> {
    let interface = || wanted.interface.clone();
    let link = found.kept();
    let mut steps: Vec<_> = mtu_again(wanted, found).into_iter().collect();
    // The sysctls of a link are read once it carries the agent's mark; until then it is treated as a new one.
    let known = link.filter(|_| !found.unmarked);
    for (key, value) in WantedTunnel::sysctls(kernel) {
        // On an existing link, a sysctl that the kernel does not have cannot be set: a kernel without
        // IPv4 or IPv6 forwarding, or a container. On a new link all are set once.
        let have = known.map(|link| link.sysctls.get(&key).copied());
        if have.is_none() || have.flatten().is_some_and(|have| have != value) {
            let unread = match link {
                Some(_) => "an unknown value",
                None => "the kernel's default",
            };
            let shown = have
                .flatten()
                .map_or(unread.to_owned(), |have| have.to_string());
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

/// Deletes the links that a crash left between "create" and "mark": the one that `applied/` names, and the one
/// that was to take its name. Each is marked first, because the agent never deletes a link without its mark.
pub(super) fn remove_half_created(uid: &Uid, view: &ObjectObservation<'_>) -> Vec<Step> {
    let Some(creating) = view.creating else {
        return Vec::new();
    };
    let names = BTreeSet::from([creating.clone(), InterfaceName::temporary(uid.as_str())]);
    let half_made = |name: &InterfaceName| {
        let link = view.kernel.links.get(name);
        link.is_some_and(|link| link.mark == Mark::None && is_tunnel(link) && is_blank(link))
    };
    let remove = |interface: InterfaceName| {
        let (uid, because) = (uid.clone(), Drift::surplus("tunnel.interface", &interface));
        let mark = KernelAction::SetMark {
            interface: interface.clone(),
            uid: uid.clone(),
        };
        let missing = Drift::missing("tunnel.mark", &uid);
        let delete = KernelAction::DeleteLink { interface, uid };
        [Step::kernel(mark, missing), Step::kernel(delete, because)]
    };
    names
        .into_iter()
        .filter(half_made)
        .flat_map(remove)
        .collect()
}

/// Does the same for another name than the wanted one: the interface was renamed since, or a link of another kind
/// was being replaced.
pub(super) fn remove_leftover(wanted: &WantedTunnel, view: &ObjectObservation<'_>) -> Vec<Step> {
    let mut steps = remove_half_created(&wanted.uid, view);
    steps.retain(|step| match &step.action {
        Action::Kernel(action) => action.interface() != Some(&wanted.interface),
        _ => true,
    });
    steps
}

/// Returns whether a link is of a kind that the agent creates for tunnels.
fn is_tunnel(link: &Link) -> bool {
    match link.kind {
        LinkKind::WireGuard | LinkKind::Gre | LinkKind::Ip6Gre => true,
        LinkKind::Tun => link.is_wireguard(),
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
