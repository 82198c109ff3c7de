//! Documents that an operator writes: of a file, of a stream of several, or of an editor.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::given::Given;
use super::{Because, Draft, towards};
use crate::document::{
    self, ApiVersion, DocumentError, Kind, Metadata, OverrideSpec, Problems, Spec, with_spec,
};
use crate::model::{ObjectName, Uid};
use crate::store::{Area, Place, text_problems};
use crate::util::file;

/// Size limit of a stream, in bytes: a hundred documents of the largest size.
pub(crate) const STREAM: u64 = 100 * file::DOCUMENT;

/// Splits a stream into its documents. Each begins with as many empty lines as there are before it, so that the
/// locations in errors are those of the stream.
pub(crate) fn split(stream: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in stream.lines().enumerate() {
        // A line that begins with three dashes separates documents, also within a block of text (YAML 1.2, 9.1.2).
        if line == "---" || line.starts_with("--- ") || line == "..." {
            documents.push("\n".repeat(number + 1));
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let has_content = |text: &String| {
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    };
    documents.retain(has_content);
    documents
}

/// Returns the text of a document, as `get -o yaml` prints it and `apply` reads it.
///
/// # Errors
/// It has no form in YAML.
pub(crate) fn text(kind: Kind, metadata: &Metadata, spec: &Value) -> anyhow::Result<String> {
    let version = ApiVersion::default();
    let document = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
    Ok(document::to_yaml(&document)?)
}

/// Adds a document to a draft: the operator's own as it is, what differs from the Control Plane's as an override.
///
/// # Errors
/// The document has problems, or belongs to no object of this router.
pub(crate) fn add(
    draft: &mut Draft,
    file: &Path,
    text: &str,
    because: &Because,
) -> anyhow::Result<()> {
    let (kind, name) = subject(file, text)?;
    draft.give(Given::new(file, text));
    if kind == Kind::Override {
        return add_override(draft, file, text, &name);
    }
    let place = Place::document(kind, &name);
    let name = place.name.clone();
    Problems::refuse(text_problems(file, &place, text))?;
    let given = with_spec!(kind, S => parsed::<S>(text))?;
    let existing = match draft.document(kind, &name) {
        // An own file that is invalid is replaced; the Control Plane's is restored by the agent.
        Err(error) if draft.is_broken_sync(kind, &name) => return Err(error),
        existing => existing.ok().flatten(),
    };
    if let Some(existing) = existing.filter(super::Present::is_synced) {
        if given.uid.is_some() && given.uid != existing.metadata.uid {
            return Err(at(file, text, "metadata.uid", "is that of another object").into());
        }
        let before = draft.override_(kind, &name)?;
        let wanted = towards(&existing.spec, &given.spec, before.as_ref(), because)?;
        return draft.put_override(kind, &name, wanted);
    }
    if given.uid.is_some() {
        let why = "is set by the Control Plane; remove it from a document of your own";
        return Err(at(file, text, "metadata.uid", why).into());
    }
    let same = draft.document(kind, &name).ok().flatten();
    match same.is_some_and(|existing| existing.spec == given.spec) {
        true => draft.unchanged(&place),
        false => draft.put_document(&place, text.trim_start_matches('\n')),
    }
    Ok(())
}

/// Adds an override of the object that has its name, and the kind that it says. One that says the kind may wait for its object.
fn add_override(
    draft: &mut Draft,
    file: &Path,
    text: &str,
    name: &ObjectName,
) -> anyhow::Result<()> {
    let parsed = document::parse::<OverrideSpec>(text);
    let target = parsed.as_ref().ok().and_then(|it| it.spec.target_kind);
    let (kind, name) = match target {
        Some(kind) => (kind, Place::document(kind, name).name),
        None => draft.named(name.as_str())?,
    };
    let place = Place::new(Area::Overrides, kind, &name);
    Problems::refuse(text_problems(file, &place, text))?;
    // An invalid one is never replaced.
    draft.override_(kind, &name)?;
    draft.put_override(kind, &name, parsed?.spec)
}

struct Read {
    uid: Option<Uid>,
    spec: Value,
}

fn parsed<S: Spec>(text: &str) -> anyhow::Result<Read> {
    let document = document::parse::<S>(text)?;
    Ok(Read {
        uid: document.metadata.uid,
        spec: serde_json::to_value(&document.spec)?,
    })
}

/// Returns the kind and the name in a document.
pub(crate) fn subject(file: &Path, text: &str) -> Result<(Kind, ObjectName), DocumentError> {
    let value: Map<String, Value> =
        document::parse_value(text).map_err(|error| error.in_file(file))?;
    let value = Value::Object(value);
    let word = value.get("kind").and_then(Value::as_str);
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| word == Some(&kind.to_string()));
    let known = || Kind::ALL.map(|kind| kind.to_string()).join(", ");
    let kind = kind.ok_or_else(|| at(file, text, "kind", &format!("use one of {}", known())))?;
    let name = value.pointer("/metadata/name").and_then(Value::as_str);
    let name = name.unwrap_or_default().parse();
    let name = name.map_err(|error| at(file, text, "metadata.name", &format!("{error}")))?;
    Ok((kind, name))
}

/// Returns an error about a field.
fn at(file: &Path, text: &str, field: &str, why: &str) -> DocumentError {
    let path: Vec<_> = field.split('.').collect();
    DocumentError {
        file: Some(file.to_owned()),
        location: document::locate(text, &path),
        field: field.to_owned(),
        message: format!("{field}: {why}"),
        is_denied: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_keep_the_lines_of_their_documents() {
        let stream = "# head\n---\na: 1\n---\n# none\n--- # two\nb: 2\n...\n";
        assert_eq!(split(stream), ["\n\na: 1\n", "\n\n\n\n\n\nb: 2\n"]);
        assert_eq!(split("a: 1"), ["a: 1\n"]);
        assert!(split("---\n# only a comment\n").is_empty());
    }
}
