//! Tests of `store`.

mod debounce;
mod disk;
mod files;
mod identity;
mod manual_edit;
mod moved;
mod parsed;
mod support;
mod unchanged;
mod watch;
