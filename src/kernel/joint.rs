//! Which changes of a link go to the kernel in one message.

use crate::model::InterfaceName;
use crate::plan::action::KernelAction;

/// Returns the interface of a setting of a link: settings of one link that follow each other go in one message.
pub(super) fn setting_of(action: &KernelAction) -> Option<&InterfaceName> {
    match action {
        KernelAction::SetMark { interface, .. }
        | KernelAction::DisableKernelAddresses { interface }
        | KernelAction::AllowKernelAddresses { interface }
        | KernelAction::SetMtu { interface, .. }
        | KernelAction::SetUp { interface } => Some(interface),
        _ => None,
    }
}

/// Returns how many of the first actions are made together: at least one, if there is any.
pub(super) fn joint(actions: &[&KernelAction]) -> usize {
    let Some(first) = actions.first() else {
        return 0;
    };
    let is_sysctl = |action: &KernelAction| matches!(action, KernelAction::SetSysctl { .. });
    let belongs = |action: &KernelAction| match setting_of(first) {
        Some(interface) => setting_of(action) == Some(interface),
        None => is_sysctl(first) && is_sysctl(action),
    };
    // In one message the kernel brings a link up before it sets the mode of its addresses (`do_setlink`; measured, Linux
    // 6.18), and would make an address.
    let is_mode =
        |action: &&KernelAction| matches!(action, KernelAction::DisableKernelAddresses { .. });
    let is_up = |action: &KernelAction| matches!(action, KernelAction::SetUp { .. });
    let others = actions.iter().skip(1).take_while(|action| belongs(action));
    let count = 1 + others.count();
    let joined = &actions[..count];
    let up = joined.iter().position(|action| is_up(action));
    match up {
        Some(at) if at > 0 && joined.iter().any(is_mode) => at,
        _ => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mtu;
    use crate::observed::kernel::Sysctl;
    use crate::plan::action::NewLink;

    #[test]
    fn settings_and_sysctls_that_follow_each_other_are_joined() {
        let interface: InterfaceName = "wg_1".parse().unwrap();
        let create = KernelAction::CreateLink {
            interface: interface.clone(),
            kind: NewLink::WireGuard,
        };
        let mark = KernelAction::SetMark {
            interface: interface.clone(),
            uid: "a".parse().unwrap(),
        };
        let mode = KernelAction::DisableKernelAddresses {
            interface: interface.clone(),
        };
        let mtu = KernelAction::SetMtu {
            interface: interface.clone(),
            mtu: Mtu::try_from(1400).unwrap(),
        };
        let up = KernelAction::SetUp {
            interface: interface.clone(),
        };
        let sysctl = KernelAction::SetSysctl {
            interface: Some(interface),
            key: Sysctl::RpFilter,
            value: 0,
        };
        assert_eq!(joint(&[]), 0);
        assert_eq!(joint(&[&create, &create]), 1);
        assert_eq!(joint(&[&mark, &mode, &create]), 2);
        assert_eq!(joint(&[&mtu, &up, &sysctl, &sysctl]), 2);
        assert_eq!(joint(&[&sysctl, &sysctl, &up]), 2);
        // The mode of addresses must be set before the link is up.
        assert_eq!(joint(&[&mode, &mtu, &up]), 2);
        assert_eq!(joint(&[&up, &mode]), 2);
    }
}
