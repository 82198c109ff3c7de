//! Causes in the documents of an object.

use jiff::Timestamp;
use serde_json::Value;

use super::{Cause, Reason};
use crate::cli::diff::shown;

/// Facts from the documents of one object.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Documents {
    /// The object, as `sessions/wg_1`.
    pub(in crate::cli::describe) object: String,
    /// Why they are invalid.
    pub(in crate::cli::describe) invalid: Option<String>,
    /// Whether the object has an applied state, according to `applied/`.
    pub(in crate::cli::describe) in_force: bool,
    /// The object that already has a claimed resource.
    pub(in crate::cli::describe) clash: Option<String>,
    /// The missing prerequisite.
    pub(in crate::cli::describe) waiting: Option<String>,
    /// The reason of the override that pauses it.
    pub(in crate::cli::describe) paused: Option<String>,
    /// Why its removal is held.
    pub(in crate::cli::describe) held: Option<String>,
    /// Why it is not wanted.
    pub(in crate::cli::describe) off: Option<Off>,
    /// Whether the document is operator-owned.
    pub(in crate::cli::describe) operator_owned: bool,
    /// The override in effect.
    pub(in crate::cli::describe) exception: Option<Exception>,
    /// Whether the router is in maintenance, and since when.
    pub(in crate::cli::describe) maintenance: Option<Option<Timestamp>>,
    /// Whether only this session is drained.
    pub(in crate::cli::describe) drained_alone: bool,
    /// Whether maintenance has closed it.
    pub(in crate::cli::describe) closed_by_maintenance: bool,
}

/// Reason why an object is not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::describe) enum Off {
    /// `adminState: Disabled`
    Disabled,
    /// `adminState: Pending`
    Pending,
    /// `adminState: Absent`, or no document.
    Absent,
    /// `mesh.enabled: false` in the configuration.
    MeshDisabled,
    /// The peer is this router.
    Ourselves,
}

/// An override in effect.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Exception {
    /// The operator's reason.
    pub(in crate::cli::describe) reason: String,
    /// When it expires.
    pub(in crate::cli::describe) until: Option<Timestamp>,
    /// The fields it sets.
    pub(in crate::cli::describe) fields: Vec<Overridden>,
}

/// One field that an override sets.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Overridden {
    /// The field, as `spec.tunnel.mtu`.
    pub(in crate::cli::describe) field: String,
    /// Its value here.
    pub(in crate::cli::describe) here: Value,
    /// Its value in the document.
    pub(in crate::cli::describe) document: Value,
}

const CLAIMS: &[&str] = &[
    "spec.tunnel.interface",
    "spec.tunnel.listenPort",
    "spec.interface",
    "spec.listenPort",
];

impl Documents {
    /// Returns the causes in the documents.
    pub(super) fn causes(&self) -> Vec<Cause> {
        let invalid = self.invalid.as_ref().map(|why| self.invalid(why));
        let waiting = self
            .waiting
            .as_ref()
            .map(|why| Cause::new(Reason::Waiting, format!("It cannot be made yet: {why}")));
        let clash = self.clash.as_ref().map(|why| self.clash(why));
        let paused = self.paused.as_ref().map(|why| self.paused(why));
        let held = self.held.as_ref().map(|why| {
            let object = &self.object;
            Cause::new(Reason::RemovalHeld, format!("A change waits for approval: {why}."))
                .action(format!("run `moenet-agent approve {object}` to let it happen, or `moenet-agent approve --list` to see all that is held"))
        });
        let off = self.off.map(|off| self.off(off));
        [invalid, waiting, clash, paused, held, off]
            .into_iter()
            .flatten()
            .collect()
    }

    fn override_file(&self) -> String {
        format!("overrides/{}.yaml", self.object)
    }

    /// Returns the author of the document.
    fn author(&self) -> &'static str {
        if self.operator_owned {
            "its document"
        } else {
            "the Control Plane"
        }
    }

    fn invalid(&self, why: &str) -> Cause {
        let stays = match self.in_force {
            true => "the previous configuration stays active",
            false => "it is not configured",
        };
        Cause::new(
            Reason::DocumentInvalid,
            format!("Its documents are not valid, so {stays}: {why}"),
        )
        .action("fix the file; it is reloaded on save")
    }

    fn clash(&self, why: &str) -> Cause {
        let stays = if self.in_force {
            "its previous configuration stays active"
        } else {
            "it is not configured"
        };
        Cause::new(
            Reason::Clash,
            format!("It clashes with another object, so {stays}: {why}"),
        )
        .action("`moenet-agent get` shows both; change or remove one of them")
        .of_fields(CLAIMS)
    }

    fn paused(&self, why: &str) -> Cause {
        Cause::new(
            Reason::Paused,
            format!("It is paused, so the agent looks and writes nothing: {why}"),
        )
        .action(format!(
            "set paused: false in {0}, or delete the file",
            self.override_file()
        ))
    }

    fn off(&self, off: Off) -> Cause {
        let cause = match off {
            Off::Disabled => Cause::new(
                Reason::Disabled,
                "It is disabled: its adminState is Disabled.",
            )
            .action(format!(
                "{} can set adminState: Enabled, and so can an override",
                self.author()
            )),
            Off::Pending => Cause::new(
                Reason::PendingReview,
                "It waits for review: its adminState is Pending.",
            )
            .action(format!(
                "approve it: {} sets adminState: Enabled then",
                self.author()
            )),
            Off::Absent => Cause::new(
                Reason::ToBeGone,
                "It is to be removed: its document says so, or does not exist.",
            ),
            Off::MeshDisabled => Cause::new(
                Reason::Disabled,
                "The configuration says mesh.enabled: false, so no tunnel of the mesh is made.",
            ),
            Off::Ourselves => Cause::new(
                Reason::Disabled,
                "Its node id is this router's own, so there is nothing to connect to.",
            ),
        };
        cause.of_fields(&["spec.adminState", "spec.nodeId"])
    }

    /// Returns that its routes are drained, which closes no session.
    pub(super) fn drained(&self, in_force: bool) -> Option<Cause> {
        let are = if in_force { "Drained" } else { "To be drained" };
        let message = match (self.maintenance, self.drained_alone) {
            (Some(since), _) => {
                let since = since
                    .map(|since| format!(" since {since}"))
                    .unwrap_or_default();
                format!("{are} (graceful shutdown, RFC 8326): the router is in maintenance{since}.")
            }
            (None, true) => {
                format!("{are} (graceful shutdown, RFC 8326): its bgp.drained is true.")
            }
            (None, false) => return None,
        };
        let action = match self.maintenance {
            Some(_) => "`moenet-agent maintenance stop` ends it",
            None => "set bgp.drained: false to end it",
        };
        let fields: &[&str] = if self.maintenance.is_none() {
            &["spec.bgp.drained"]
        } else {
            &[]
        };
        (!self.closed_by_maintenance).then(|| {
            Cause::new(Reason::Drained, message)
                .action(action)
                .of_fields(fields)
        })
    }

    /// Inserts each override of a field before the first cause that follows from the field.
    pub(super) fn with_overrides(&self, chain: Vec<Cause>) -> Vec<Cause> {
        let Some(exception) = &self.exception else {
            return chain;
        };
        let mut left: Vec<&Overridden> = exception.fields.iter().collect();
        let mut found = Vec::new();
        for cause in chain {
            let (these, rest) = left
                .into_iter()
                .partition(|field| cause.follows_from(&field.field));
            left = rest;
            found.extend(self.overridden(exception, these));
            found.push(cause);
        }
        found
    }

    fn overridden(&self, exception: &Exception, fields: Vec<&Overridden>) -> Option<Cause> {
        if fields.is_empty() {
            return None;
        }
        let each = fields.iter().map(|field| {
            let theirs = match &field.document {
                Value::Null => format!("{} says nothing of it", self.author()),
                value => format!("{} says {}", self.author(), shown(value)),
            };
            format!("{} to {} ({theirs})", field.field, shown(&field.here))
        });
        let each = each.collect::<Vec<_>>().join(", ");
        let end = exception
            .until
            .map(|end| format!(", until {end}"))
            .unwrap_or_default();
        let message = format!("An override sets {each}: {}{end}.", exception.reason);
        Some(
            Cause::new(Reason::Overridden, message)
                .action(format!("delete {} to end it", self.override_file())),
        )
    }
}

/// Returns that maintenance has lasted longer than `maintenance.disableAfter`.
pub(super) fn closed_by_maintenance() -> Cause {
    Cause::new(
        Reason::ClosedByMaintenance,
        "The router is in maintenance for longer than maintenance.disableAfter, so external sessions are closed.",
    )
    .action("`moenet-agent maintenance stop` opens them")
}
