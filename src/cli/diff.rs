//! `diff`: the effective specification compared with the Control Plane's.

use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use serde::Serialize;
use serde_json::Value;

use super::offline::Wanted;
use super::{Arguments, Outcome, block_on, complete, objects, output};
use crate::desired::Object;
use crate::document::PackedSpec;

/// Show the fields that an override changes.
#[derive(Debug, Args)]
pub struct Diff {
    /// The object
    #[arg(add = ArgValueCompleter::new(complete::names))]
    name: String,
}

/// One field that differs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    field: String,
    control_plane: Value,
    effective: Value,
}

impl Diff {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let wanted = block_on(Wanted::read(config))?;
        let object = objects::find(&wanted.desired, &wanted.snapshot, &self.name)?;
        let differences = differences(&object);
        if !output::value(arguments.output, &differences)? {
            print(&object, &differences);
        }
        Ok(if differences.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(2)
        })
    }
}

fn differences(object: &Object) -> Vec<Difference> {
    let spec = object.spec.as_ref().map(PackedSpec::value);
    let ours = |field: &str| value_at(spec.as_ref(), field);
    let all = object.overridden.iter().map(|(field, theirs)| Difference {
        field: field.clone(),
        control_plane: theirs.clone(),
        effective: ours(field),
    });
    all.filter(|difference| difference.control_plane != difference.effective)
        .collect()
}

/// Returns the value at `spec.tunnel.mtu`.
pub(crate) fn value_at(spec: Option<&Value>, field: &str) -> Value {
    let path = field.strip_prefix("spec.").unwrap_or(field);
    let pointer = format!("/{}", path.replace('.', "/"));
    spec.and_then(|spec| spec.pointer(&pointer))
        .cloned()
        .unwrap_or_default()
}

fn print(object: &Object, differences: &[Difference]) {
    if differences.is_empty() {
        return output::line(format_args!(
            "No differences: {} is as in its document.",
            object.path()
        ));
    }
    let theirs = if object.operator_owned {
        "DOCUMENT"
    } else {
        "CONTROL PLANE"
    };
    let rows = differences.iter().map(|difference| {
        vec![
            difference.field.clone(),
            shown(&difference.control_plane),
            shown(&difference.effective),
        ]
    });
    output::line(output::table(&["FIELD", theirs, "HERE"], rows));
    let reason = object.reason.as_deref().unwrap_or("no reason given");
    let end = object
        .expires_at
        .map(|end| format!("; it ends {end}"))
        .unwrap_or_default();
    output::line(format_args!("Override: {reason}{end}"));
}

/// Formats a value for people.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
