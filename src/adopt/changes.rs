//! The settings of adopted links that the first pass changes, because no document can hold them.

use std::collections::BTreeSet;

use super::report::{Finding, Outcome};
use super::tunnel_file::TunnelFile;
use crate::model::InterfaceName;
use crate::plan::action::KernelAction;
use crate::plan::{Drift, Mark, Plan};

/// Returns every setting of these links that a plan changes. Addresses are findings of the documents.
pub fn changes<'a>(
    plan: &'a Plan,
    links: &'a BTreeSet<InterfaceName>,
    files: &'a [TunnelFile],
) -> impl Iterator<Item = Finding> {
    plan.steps.iter().flat_map(move |step| {
        let interface = step.action.kernel().and_then(KernelAction::interface);
        let interface = interface.filter(|it| links.contains(*it));
        let drifts = step.because.each().iter();
        let drifts = drifts.filter(|it| it.mark() == Mark::Change);
        drifts.filter_map(move |drift| change(interface?, drift, files))
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
    use crate::plan::Step;
    use crate::plan::action::WireGuardPatch;

    #[test]
    fn each_changed_setting_is_a_finding_with_its_place() {
        let text = "[Peer]\nPersistentKeepalive = 5\nAllowedIPs = 10.0.0.0/8\n";
        let path = Path::new("/etc/wireguard/wg1.conf");
        let files = [TunnelFile::read(path, text).unwrap()];
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
        let plan = Plan { steps, waits: None };
        let found = |links: &BTreeSet<_>| {
            let all = changes(&plan, links, &files);
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
}
