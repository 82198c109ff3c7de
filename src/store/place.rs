use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::document::Kind;
use crate::model::ObjectName;

/// The tree of the state directory that a document belongs to. All four trees have the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Desired objects: `sessions/x.yaml`.
    Documents,
    /// Overrides of an operator: `overrides/sessions/x.yaml`.
    Overrides,
    /// Observed state: `status/sessions/x.yaml`.
    Status,
    /// Applied records: `applied/sessions/x.yaml`.
    Applied,
}

impl Area {
    /// The folder of the tree; the documents themselves are at the top.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Documents => "",
            Self::Overrides => "overrides",
            Self::Status => "status",
            Self::Applied => "applied",
        }
    }
}

/// The place of one document in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub area: Area,
    /// The kind of the object. For an override: the kind of its target.
    pub kind: Kind,
    /// The name of the object. A kind with one document has the name of its file: `policy`.
    pub name: ObjectName,
}

/// The kinds that have a place; an override has the place of its target.
pub(super) const PLACED: [Kind; COUNT] = match Kind::ALL.first_chunk() {
    Some(placed) => *placed,
    None => [Kind::Override; COUNT],
};

/// Overrides are the last kind.
const COUNT: usize = Kind::ALL.len() - 1;

impl Place {
    /// Returns the place of an object in a tree. The name is ignored for a kind with one document.
    pub fn new(area: Area, kind: Kind, name: &ObjectName) -> Self {
        let name = if kind.is_single() {
            single_name(kind)
        } else {
            name.clone()
        };
        Self { area, kind, name }
    }

    pub fn document(kind: Kind, name: &ObjectName) -> Self {
        Self::new(Area::Documents, kind, name)
    }

    pub fn single(area: Area, kind: Kind) -> Self {
        Self {
            area,
            kind,
            name: single_name(kind),
        }
    }

    /// Returns the place of the same object in another tree.
    #[must_use]
    pub fn within(&self, area: Area) -> Self {
        Self {
            area,
            ..self.clone()
        }
    }

    /// The path below the state directory.
    pub fn relative(&self) -> PathBuf {
        folder(self.area, self.kind).join(self.file())
    }

    /// The name of the file.
    pub(super) fn file(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// Returns the place for a path below the state directory, if the path is one.
    pub fn parse(relative: &Path) -> Option<Self> {
        let parts = relative.components().map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        let parts: Vec<&str> = parts.collect::<Option<_>>()?;
        let (area, rest) = match parts.as_slice() {
            ["overrides", rest @ ..] => (Area::Overrides, rest),
            ["status", rest @ ..] => (Area::Status, rest),
            ["applied", rest @ ..] => (Area::Applied, rest),
            rest => (Area::Documents, rest),
        };
        let (file, folder) = rest.split_last()?;
        let stem = file.strip_suffix(".yaml")?;
        let kind = match folder {
            [] => PLACED
                .into_iter()
                .find(|kind| kind.is_single() && kind.folder() == stem)?,
            [folder] => PLACED
                .into_iter()
                .find(|kind| !kind.is_single() && kind.folder() == *folder)?,
            _ => return None,
        };
        Some(Self {
            area,
            kind,
            name: stem.parse().ok()?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.relative().display())
    }
}

/// The folder of a kind's documents in a tree.
pub(super) fn folder(area: Area, kind: Kind) -> PathBuf {
    let mut path = PathBuf::from(area.folder());
    if !kind.is_single() {
        path.push(kind.folder());
    }
    path
}

fn single_name(kind: Kind) -> ObjectName {
    // The folder names are valid object names, so no character is replaced here.
    ObjectName::sanitised(kind.folder())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_by_its_path() {
        let name: ObjectName = "wg_1.a".parse().unwrap();
        for area in [
            Area::Documents,
            Area::Overrides,
            Area::Status,
            Area::Applied,
        ] {
            for kind in PLACED {
                let place = Place::new(area, kind, &name);
                assert_eq!(Place::parse(&place.relative()), Some(place));
            }
        }
    }

    #[test]
    fn other_paths_have_no_place() {
        for path in [
            "",
            "x.yaml",
            "sessions/x",
            "sessions/.x.yaml",
            "../node.yaml",
            "sessions/a/b.yaml",
            ".git/x.yaml",
        ] {
            assert_eq!(Place::parse(Path::new(path)), None, "{path}");
        }
    }
}
