use std::path::{Path, PathBuf};

use super::atomic::create_below;
use super::place::{Area, PLACED, folder};
use super::{HELD, OUTBOX, SECRETS, SYNCED, StoreError, names};
use crate::util::fs;

/// The folders that hold documents: if one of them is missing, documents may be missing.
pub(super) fn document_folders() -> impl Iterator<Item = PathBuf> {
    let many = || PLACED.into_iter().filter(|kind| !kind.is_single());
    let areas = [Area::Documents, Area::Overrides, Area::Applied];
    areas
        .into_iter()
        .flat_map(move |area| many().map(move |kind| folder(area, kind)))
}

/// All folders, parents first.
pub(super) fn folders() -> Vec<PathBuf> {
    let kinds = || PLACED.into_iter().filter(|kind| !kind.is_single());
    let mut folders: Vec<PathBuf> = document_folders().collect();
    folders.extend(kinds().map(|kind| folder(Area::Status, kind)));
    folders.extend(kinds().map(|kind| Path::new(SYNCED).join(kind.folder())));
    for tree in [Area::Overrides, Area::Applied, Area::Status]
        .map(Area::folder)
        .into_iter()
        .chain([SYNCED])
    {
        folders.insert(0, tree.into());
    }
    folders
}

pub(super) fn missing_folder(dir: &Path) -> bool {
    document_folders().any(|folder| !fs::is_dir(dir.join(folder)))
}

pub(super) fn has_documents(dir: &Path) -> bool {
    let one_of = |folder: PathBuf| {
        let entries = fs::read_dir(dir.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        entries.into_iter().any(|entry| {
            names::is_document(Path::new(&entry.file_name())) && entry.file_name() != HELD
        })
    };
    one_of(PathBuf::new()) || document_folders().any(one_of)
}

pub(super) fn create_layout(dir: &Path) -> Result<(), StoreError> {
    for folder in folders() {
        create_below(dir, &dir.join(folder), 0o755)?;
    }
    for folder in [SECRETS, OUTBOX] {
        create_below(dir, &dir.join(folder), 0o700)?;
    }
    Ok(())
}
