//! The settings of adopted links that the first pass changes, because no document can hold them.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Finding, Outcome};
use super::tunnel_file::TunnelFile;
use crate::model::InterfaceName;
use crate::plan::action::KernelAction;
use crate::plan::{Drift, Mark, Plan};

/// Returns every setting of these links that the plans change; the sysctls are one finding for all links with the same ones.
/// Addresses are findings of the documents.
pub fn changes(
    plans: &[Plan],
    links: &BTreeSet<InterfaceName>,
    files: &[TunnelFile],
) -> Vec<Finding> {
    let steps = plans.iter().flat_map(|plan| &plan.steps);
    let (mut found, mut sysctls) = (Vec::new(), BTreeMap::<_, Vec<&Drift>>::new());
    for step in steps {
        let Some(kernel) = step.action.kernel() else {
            continue;
        };
        let interface = kernel.interface().filter(|it| links.contains(*it));
        let Some(interface) = interface else { continue };
        let drifts = step.because.each().iter();
        let drifts = drifts.filter(|it| it.mark() == Mark::Change);
        match kernel {
            KernelAction::SetSysctl { .. } => sysctls.entry(interface).or_default().extend(drifts),
            _ => found.extend(drifts.filter_map(|drift| change(interface, drift, files))),
        }
    }
    found.extend(alike(&sysctls));
    found
}

/// Returns one finding for all links that get the same sysctls.
fn alike(sysctls: &BTreeMap<&InterfaceName, Vec<&Drift>>) -> impl Iterator<Item = Finding> {
    let mut same = BTreeMap::<String, Vec<&str>>::new();
    for (interface, drifts) in sysctls {
        let drifts = drifts.iter();
        let set = drifts.map(|it| format!("{} in place of {}", it.want, it.have));
        let set = set.collect::<Vec<_>>().join(", ");
        same.entry(set).or_default().push(interface.as_str());
    }
    same.into_iter().map(|(set, interfaces)| {
        let noun = if interfaces.len() == 1 {
            "interface"
        } else {
            "interfaces"
        };
        let subject = format!("{noun} {}", interfaces.join(", "));
        let reason = format!("sysctls: the first pass sets {set}");
        Finding::new(Outcome::Changed, subject, None, reason)
    })
}

fn change(interface: &InterfaceName, drift: &Drift, files: &[TunnelFile]) -> Option<Finding> {
    let setting = drift.field.rsplit('.').next()?;
    let place = TunnelFile::place_of(files, interface, setting, &drift.have);
    let reason = format!(
        "{setting}: the first pass sets {} in place of {}",
        drift.want, drift.have
    );
    let subject = format!("interface {interface}");
    Some(Finding::new(Outcome::Changed, subject, place, reason))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::observed::kernel::Sysctl;
    use crate::plan::Step;
    use crate::plan::action::WireGuardPatch;

    #[test]
    fn each_changed_setting_is_a_finding_with_its_place() {
        let text = "[Peer]\nPersistentKeepalive = 5\nAllowedIPs = 10.0.0.0/8\n";
        let path = Path::new("/etc/wireguard/wg1.conf");
        let files = [TunnelFile::read(path, text.as_bytes()).unwrap()];
        let interface: InterfaceName = "wg1".parse().unwrap();
        let drifts = vec![
            Drift::new("tunnel.persistentKeepalive", "25 s", "5 s"),
            Drift::new("tunnel.allowedIps", "0.0.0.0/0 ::/0", "10.0.0.0/8"),
            Drift::missing("tunnel.publicKey", "k"),
        ];
        let action = KernelAction::ConfigureWireGuard {
            interface: interface.clone(),
            patch: WireGuardPatch::default(),
        };
        let steps = vec![Step::kernel(
            action,
            Drift::joined("tunnel", drifts).unwrap(),
        )];
        let plan = [Plan { steps, waits: None }];
        let found = |links: &BTreeSet<_>| {
            let all = changes(&plan, links, &files).into_iter();
            let text = |it: Finding| format!("{}: {}", it.place.unwrap(), it.reason);
            all.map(text).collect::<Vec<_>>()
        };
        assert_eq!(
            found(&[interface].into()),
            [
                "/etc/wireguard/wg1.conf:2: persistentKeepalive: the first pass sets 25 s in place of 5 s",
                "/etc/wireguard/wg1.conf:3: allowedIps: the first pass sets 0.0.0.0/0 ::/0 in place of 10.0.0.0/8",
            ]
        );
        assert!(found(&BTreeSet::new()).is_empty());
    }

    #[test]
    fn links_with_the_same_sysctls_have_one_finding() {
        let step = |interface: &InterfaceName, key, have: &str| {
            let action = KernelAction::SetSysctl {
                interface: Some(interface.clone()),
                key,
                value: 1,
            };
            Step::kernel(
                action,
                Drift::new("tunnel.sysctl", format!("{key}=1"), have),
            )
        };
        let links: [InterfaceName; 3] = ["wg1", "wg2", "wg3"].map(|name| name.parse().unwrap());
        let plans = links.each_ref().map(|link| {
            let have = if link.as_str() == "wg3" { "2" } else { "0" };
            let steps = [Sysctl::Ipv4Forwarding, Sysctl::Ipv6Forwarding];
            Plan {
                steps: steps.map(|key| step(link, key, have)).to_vec(),
                waits: None,
            }
        });
        let found = changes(&plans, &links.into(), &[]);
        let found: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.subject.as_str(),
                    it.reason.matches("in place of").count(),
                )
            })
            .collect();
        assert_eq!(found, [("interfaces wg1, wg2", 2), ("interface wg3", 2)]);
    }
}
