use super::tunnel::{TunnelView, WantedTunnel, plan_interrupted_removal, plan_tunnel, plan_tunnel_removal};
use super::{Plan, Refusal, bird};
use crate::model::{ObjectName, Uid};

/// What is wanted of a session.
#[derive(Debug, Clone, Copy)]
pub enum Desired<'a> {
    /// The tunnel and the BGP session are there.
    Present {
        /// The tunnel.
        tunnel: &'a WantedTunnel,
        /// The text of the session for BIRD.
        fragment: &'a str,
    },
    /// Neither is.
    Absent,
}

/// What BIRD's directory holds for a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct BirdView<'a> {
    /// The session's file.
    pub fragment: Option<&'a str>,
}

/// What the plan of a session looks at.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The kernel.
    pub tunnel: TunnelView<'a>,
    /// BIRD's directory.
    pub bird: BirdView<'a>,
}

/// What the controller would do for a session now. Total, synchronous and pure: the controller runs these
/// very steps, and `moenet-agent plan` prints them.
///
/// # Errors
/// When something that is not ours is in the way; then nothing at all is planned, and what is in force
/// stays.
pub fn plan(
    name: &ObjectName,
    uid: &Uid,
    desired: &Desired<'_>,
    observed: &Observed<'_>,
) -> Result<Plan, Refusal> {
    match desired {
        Desired::Present { tunnel, fragment } => {
            let mut plan = plan_tunnel(tunnel, &observed.tunnel)?;
            plan.extend(bird::fragment(name.as_str(), fragment, observed.bird.fragment));
            Ok(plan)
        }
        Desired::Absent => Ok(removal(name, uid, observed)),
    }
}

fn removal(name: &ObjectName, uid: &Uid, observed: &Observed<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.extend(bird::removal(name.as_str(), observed.bird.fragment));
    plan.extend(plan_tunnel_removal(uid, observed.tunnel.kernel).steps);
    plan.extend(plan_interrupted_removal(uid, &observed.tunnel).steps);
    plan
}
