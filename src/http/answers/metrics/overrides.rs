//! Overridden fields, with both values.

use super::Registry;
use serde_json::Value;

use super::{gauges, real, signed};
use crate::controller::OverrideView;
use crate::redact::redact;

pub(super) fn overridden(
    overrides: &[OverrideView],
    registry: &Registry,
) -> prometheus::Result<()> {
    of_sessions(overrides, registry)?;
    of_fields(overrides, registry)
}

/// Returns the value of the label `session`: a session's name, and other objects with their kind.
fn series(one: &OverrideView) -> &str {
    one.object.strip_prefix("sessions/").unwrap_or(&one.object)
}

fn of_sessions(overrides: &[OverrideView], registry: &Registry) -> prometheus::Result<()> {
    let labels = ["session"];
    let help = "Fields of the session that an override sets";
    let name = "moenet_agent_session_overridden_fields";
    let count = gauges(registry, name, help, &labels)?;
    let help = "1 while an override pauses the session";
    let paused = gauges(registry, "moenet_agent_session_paused", help, &labels)?;
    let help = "When the override of the session expires";
    let name = "moenet_agent_session_override_expires_timestamp_seconds";
    let ends = gauges(registry, name, help, &labels)?;
    for one in overrides {
        let labels = [series(one)];
        let fields = signed(one.fields.len() as u64);
        count.with_label_values(&labels).set(fields);
        paused.with_label_values(&labels).set(i64::from(one.paused));
        if let Some(end) = one.expires_at {
            ends.with_label_values(&labels).set(end.as_second());
        }
    }
    Ok(())
}

/// Overridden fields by session, with both values: as numbers where possible, and as labels of a
/// series whose value is always 1, the Prometheus convention for text. One series for each field
/// and value in effect, so their number is bounded by the operator's own overrides.
fn of_fields(overrides: &[OverrideView], registry: &Registry) -> prometheus::Result<()> {
    let help = "1 for each field of the session that an override sets";
    let name = "moenet_agent_session_overridden";
    let set = gauges(registry, name, help, &["session", "field"])?;
    let help = "Values of overridden fields that are numbers: here, and as the document says";
    let name = "moenet_agent_session_overridden_value";
    let values = real(registry, name, help, &["session", "field", "source"])?;
    let help = "Always 1; the overridden field's value here, and as the document says";
    let name = "moenet_agent_session_overridden_info";
    let labels = ["session", "field", "here", "document"];
    let info = gauges(registry, name, help, &labels)?;
    for one in overrides {
        let session = series(one);
        for field in &one.fields {
            set.with_label_values(&[session, &field.field]).set(1);
            let (here, document) = (label(&field.value), label(&field.document));
            info.with_label_values(&[session, &field.field, &here, &document])
                .set(1);
            for (source, value) in [("here", &field.value), ("document", &field.document)] {
                if let Some(number) = number(value) {
                    values
                        .with_label_values(&[session, &field.field, source])
                        .set(number);
                }
            }
        }
    }
    Ok(())
}

/// Maximum length of a value in a label, in characters.
const LABEL: usize = 80;

/// Formats a value as a label.
fn label(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text_label(text),
        value => text_label(&value.to_string()),
    }
}

/// Formats a text as a label: one line of bounded length, without secrets.
pub(super) fn text_label(text: &str) -> String {
    let text = redact(text);
    let mut kept: String = text
        .chars()
        .take(LABEL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LABEL).is_some() {
        kept.push('…');
    }
    kept
}

/// Returns a value as a gauge; `None` for texts.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        value => value.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::OverriddenField;
    use serde_json::json;

    #[test]
    fn only_numbers_and_switches_are_gauges() {
        assert_eq!(number(&json!(1380)), Some(1380.0));
        assert_eq!(number(&json!(true)), Some(1.0));
        for text in [json!("1380"), json!(null), json!(["a"])] {
            assert_eq!(number(&text), None, "{text}");
        }
    }

    #[test]
    fn an_override_shows_both_values_as_numbers_and_as_labels() {
        let field = |field: &str, value, document| OverriddenField {
            field: field.into(),
            value,
            document,
        };
        let one = OverrideView {
            object: "sessions/wg_1".into(),
            reason: "a \"reason\"".into(),
            expires_at: "2027-01-31T00:00:00Z".parse().ok(),
            paused: false,
            fields: vec![
                field("spec.tunnel.mtu", json!(1380), json!(1420)),
                field("spec.tunnel.endpoint", json!("198.51.100.7:1"), json!(null)),
                field(
                    "spec.description",
                    json!(format!("\"a\nb\" {}", "c".repeat(500))),
                    json!("d"),
                ),
            ],
        };
        let registry = Registry::new();
        overridden(&[one], &registry).unwrap();
        let text = registry.text();
        for line in [
            r#"moenet_agent_session_overridden{field="spec.tunnel.mtu",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden{field="spec.tunnel.endpoint",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_value{field="spec.tunnel.mtu",session="wg_1",source="here"} 1380"#,
            r#"moenet_agent_session_overridden_value{field="spec.tunnel.mtu",session="wg_1",source="document"} 1420"#,
            r#"moenet_agent_session_overridden_info{document="1420",field="spec.tunnel.mtu",here="1380",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_info{document="",field="spec.tunnel.endpoint",here="198.51.100.7:1",session="wg_1"} 1"#,
            r#"moenet_agent_session_overridden_fields{session="wg_1"} 3"#,
            r#"moenet_agent_session_paused{session="wg_1"} 0"#,
            r#"moenet_agent_session_override_expires_timestamp_seconds{session="wg_1"} 1801353600"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(!text.contains("reason"), "{text}");
        assert!(
            text.contains(r#"here="\"a b\" ccc"#) && !text.contains(&"c".repeat(100)),
            "{text}"
        );
        assert_eq!(text.matches("overridden_value{").count(), 2, "{text}");
    }
}
