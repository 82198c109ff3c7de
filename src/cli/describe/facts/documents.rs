//! Facts from the documents.

use serde_json::Value;

use super::condition;
use crate::cli::describe::why::{Documents, Exception, Off, Overridden};
use crate::cli::diff::value_at;
use crate::cli::offline::Offline;
use crate::controller::world::Object;
use crate::document::{ConditionType, Kind, StatusBody};
use crate::model::AdminState;
use crate::status::Acceptance;

pub(super) fn documents(
    offline: &Offline,
    object: &Object,
    status: Option<&StatusBody>,
    agent_runs: bool,
) -> Documents {
    let maintenance = offline.world.maintenance;
    let external = object.kind == Kind::BgpSession;
    let mut found = Documents {
        object: object.path(),
        in_force: offline
            .applied(object.kind, &object.name)
            .is_some_and(|applied| applied.applied.spec.is_some()),
        paused: object.paused.clone(),
        held: object
            .held
            .as_ref()
            .and_then(|held| held.approval().map(str::to_owned)),
        // A held object does not change, even if its document is absent.
        off: off(offline, object).filter(|_| object.held.is_none()),
        operator_owned: object.operator_owned,
        exception: exception(object),
        maintenance: maintenance
            .enabled
            .then_some(maintenance.since)
            .filter(|_| object.kind != Kind::MeshPeer),
        drained_alone: object
            .spec
            .as_ref()
            .and_then(|spec| spec.pointer("/bgp/drained"))
            == Some(&Value::Bool(true)),
        closed_by_maintenance: external && maintenance.ebgp_disabled,
        ..Documents::default()
    };
    match &object.acceptance {
        // Objects that the Control Plane lists but that do not decode exist only in the daemon's memory and in the
        // status.
        Acceptance::Valid if agent_runs => {
            found.invalid = condition(status, ConditionType::Accepted, "Invalid");
        }
        Acceptance::Valid => {}
        Acceptance::Invalid(why) => found.invalid = Some(why.clone()),
        Acceptance::Clash(why) => found.clash = Some(why.clone()),
        Acceptance::Waiting(why) => found.waiting = Some(why.clone()),
    }
    found
}

fn off(offline: &Offline, object: &Object) -> Option<Off> {
    let said = object
        .spec
        .as_ref()
        .and_then(|spec| serde_json::from_value(spec.get("adminState")?.clone()).ok());
    match (said, object.admin_state) {
        (_, AdminState::Absent) | (Some(AdminState::Absent), _) => Some(Off::Absent),
        (Some(AdminState::Pending), _) | (None, AdminState::Pending) => Some(Off::Pending),
        (Some(AdminState::Disabled), _) | (None, AdminState::Disabled) => Some(Off::Disabled),
        // The backbone can be off for two further reasons; see the world's `peers`.
        (Some(AdminState::Enabled), AdminState::Disabled)
            if object.kind == Kind::MeshPeer && !offline.parts.config.mesh.enabled =>
        {
            Some(Off::MeshDisabled)
        }
        (Some(AdminState::Enabled), AdminState::Disabled | AdminState::Pending) => {
            Some(Off::Ourselves)
        }
        (_, AdminState::Enabled) => None,
    }
}

fn exception(object: &Object) -> Option<Exception> {
    let fields = object
        .overridden
        .iter()
        .map(|(field, document)| Overridden {
            field: field.clone(),
            here: value_at(object.spec.as_ref(), field),
            document: document.clone(),
        });
    let reason = object.reason.clone()?;
    Some(Exception {
        reason,
        until: object.expires_at,
        fields: fields.collect(),
    })
}
