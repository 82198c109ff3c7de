//! The undo of an adoption that another process began.

use std::sync::Arc;

use tracing::warn;

use super::undo::Undo;
use super::{AdoptionError, Undone, record};
use crate::adopt::{Phase, Record};
use crate::config::Config;
use crate::store::Store;
use crate::util::task::blocking;

/// Undoes an adoption that was interrupted, before anything else uses the state directory. Returns whether there was one.
///
/// # Errors
/// When it cannot be undone, and when it may be another machine's; nothing may start then.
pub(crate) async fn undo_interrupted(config: &Config) -> Result<bool, AdoptionError> {
    let directory = config.state.directory.clone();
    let record = blocking(move || {
        // Only the operator undoes a kept adoption, so its machine does not matter here.
        let record = record::read(&directory)?.filter(|it| it.phase == Phase::Applying);
        let checked = record.as_ref().map(|it| {
            record::check_machine(&directory, it)?;
            match it.machine {
                Some(_) => Ok(()),
                None => Err(AdoptionError::UnknownMachine {
                    path: record::folder(&directory),
                }),
            }
        });
        checked.transpose().map(|_| record)
    });
    let Some(record) = record.await? else {
        return Ok(false);
    };
    warn!(begun = %record.begun, deadline = %record.deadline, "undoing an interrupted adoption");
    let directory = config.state.directory.clone();
    let store = Arc::new(blocking(move || Store::open(&directory)).await?);
    // Under the lock: the adoption may have been kept or undone meanwhile.
    match Undo::open(config, &store).await {
        Err(AdoptionError::NoRecord { .. }) => Ok(false),
        Ok(undo) if undo.phase() == Phase::Kept => Ok(false),
        undo => {
            let undone = undo?.run(config).await?;
            for kept in undone.kept {
                warn!(kept, "undo of the adoption did not restore this");
            }
            Ok(true)
        }
    }
}

/// Returns the changes of the undo of the recorded adoption that interrupt a tunnel or reset a session.
///
/// # Errors
/// When the record, the state directory or the kernel cannot be read.
pub(crate) async fn interruptions_of_undo(config: &Config) -> Result<Vec<String>, AdoptionError> {
    let directory = config.state.directory.clone();
    let store = blocking(move || Store::open_read_only(&directory)).await?;
    let undo = Undo::open(config, &Arc::new(store)).await?;
    undo.interruptions(config).await
}

/// Undoes the recorded adoption, if it is in the phase that the operator has seen.
///
/// # Errors
/// When none is recorded, another process uses the state directory, or something cannot be undone.
pub(crate) async fn undo_recorded(config: &Config, seen: Phase) -> Result<Undone, AdoptionError> {
    let directory = config.state.directory.clone();
    let store = blocking(move || Store::open(&directory)).await?;
    // Under the lock: only now does no other process change the record.
    let undo = Undo::open(config, &Arc::new(store)).await?;
    if undo.phase() != seen {
        return Err(AdoptionError::KeptMeanwhile);
    }
    undo.run(config).await
}

/// Returns the record of an adoption, if there is one.
///
/// # Errors
/// When it cannot be read, or is another machine's.
pub(crate) async fn recorded(config: &Config) -> Result<Option<Record>, AdoptionError> {
    let directory = config.state.directory.clone();
    blocking(move || {
        let record = record::read(&directory)?;
        let checked = record
            .as_ref()
            .map(|it| record::check_machine(&directory, it));
        checked.transpose().map(|_| record)
    })
    .await
}
