use super::tunnel::{plan_interrupted_removal, plan_tunnel, plan_tunnel_removal};
use super::wanted::{ObjectObservation, WantedTunnel};
use super::{Plan, Refusal, bird};
use crate::model::{ObjectName, Uid};

/// Plans the steps for a session that is wanted: its tunnel, and its text for BIRD. Total, synchronous and pure: the
/// controller runs exactly these steps, and `moenet-agent plan` prints them.
///
/// # Errors
/// When a foreign object is in the way; then nothing is planned, and the applied state stays.
pub fn plan_session(
    name: &ObjectName,
    tunnel: &WantedTunnel,
    fragment: &str,
    observed: &ObjectObservation<'_>,
) -> Result<Plan, Refusal> {
    let mut plan = plan_tunnel(tunnel, observed)?;
    plan.extend(bird::fragment(name.as_str(), fragment, observed.fragment));
    Ok(plan)
}

/// Plans the steps for an object with a tunnel that is not wanted.
pub fn plan_removal(name: &ObjectName, uid: &Uid, observed: &ObjectObservation<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.extend(bird::removal(name.as_str(), observed.fragment));
    plan.extend(plan_tunnel_removal(uid, observed.kernel).steps);
    plan.extend(plan_interrupted_removal(uid, observed).steps);
    plan
}
