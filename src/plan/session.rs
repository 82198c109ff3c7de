use std::fmt;

use super::tunnel::{plan_interrupted_removal, plan_tunnel, plan_tunnel_removal};
use super::wanted::{ObjectObservation, WantedTunnel};
use super::{Plan, Refusal, bird};
use crate::model::{ObjectName, Uid};

/// The wanted state of a session.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// The tunnel and the BGP session exist.
    Present {
        tunnel: &'a WantedTunnel,
        /// The text of the session for BIRD.
        fragment: &'a str,
    },
    /// Neither exists.
    Absent,
}

/// Omits the text, which may hold a password.
impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present { tunnel, .. } => f
                .debug_struct("Present")
                .field("tunnel", tunnel)
                .finish_non_exhaustive(),
            Self::Absent => f.write_str("Absent"),
        }
    }
}

/// Plans the steps for a session. Total, synchronous and pure: the controller runs exactly these steps, and
/// `moenet-agent plan` prints them.
///
/// # Errors
/// When a foreign object is in the way; then nothing is planned, and the applied state stays.
pub fn plan(
    name: &ObjectName,
    uid: &Uid,
    target: &Target<'_>,
    observed: &ObjectObservation<'_>,
) -> Result<Plan, Refusal> {
    match target {
        Target::Present { tunnel, fragment } => {
            let mut plan = plan_tunnel(tunnel, observed)?;
            plan.extend(bird::fragment(name.as_str(), fragment, observed.fragment));
            Ok(plan)
        }
        Target::Absent => Ok(removal(name, uid, observed)),
    }
}

fn removal(name: &ObjectName, uid: &Uid, observed: &ObjectObservation<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.extend(bird::removal(name.as_str(), observed.fragment));
    plan.extend(plan_tunnel_removal(uid, observed.kernel).steps);
    plan.extend(plan_interrupted_removal(uid, observed).steps);
    plan
}
