use super::wanted::{ObjectObservation, WantedTunnel};
use super::{Plan, Refusal, address, link, wireguard};
use crate::model::Uid;
use crate::observed::kernel::KernelView;

/// Plans the steps from the observed tunnel to the wanted one.
///
/// # Errors
/// When a foreign object is in the way; then nothing is planned.
pub fn plan_tunnel(wanted: &WantedTunnel, view: &ObjectObservation<'_>) -> Result<Plan, Refusal> {
    if let Some(why) = link::unread(wanted, view) {
        return Ok(Plan::waiting(why));
    }
    let mut plan = Plan::default();
    let mut found = match link::find(wanted, view) {
        // One object of the cycle begins: once its old name is free, another one can continue.
        Err(refusal) if view.gives_way => {
            plan.extend(link::step_aside(wanted, view.kernel));
            return if plan.is_empty() {
                Err(refusal)
            } else {
                Ok(plan)
            };
        }
        found => found?,
    };
    wireguard::check_key(wanted, found.kept())?;
    plan.extend(link::remove_leftover(wanted, view));
    plan.extend(link::make(wanted, &mut found, view.kernel));
    plan.extend(link::prepare(wanted, &found));
    plan.extend(link::gre_ends(wanted, &found));
    plan.extend(wireguard::compare(wanted, found.kept(), view));
    let addresses = address::compare(wanted, found.kept());
    plan.extend(addresses.before_up);
    plan.extend(link::settle(wanted, &found, view.kernel));
    plan.extend(addresses.after_up);
    Ok(plan)
}

/// Plans the removal of every link that carries this mark.
pub fn plan_tunnel_removal(uid: &Uid, kernel: &KernelView) -> Plan {
    let mut plan = Plan::default();
    plan.extend(link::remove_all(uid, kernel));
    plan
}

/// Plans the removal of the link that this object was creating when the agent stopped, before it was marked.
pub fn plan_interrupted_removal(uid: &Uid, view: &ObjectObservation<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.extend(link::remove_half_created(uid, view));
    plan
}
