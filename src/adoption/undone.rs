use serde::Serialize;

/// The steps of an undo, and everything that it left alone because someone else has changed it since.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Undone {
    pub(crate) done: Vec<String>,
    pub(crate) kept: Vec<String>,
}
