//! Tests of `store`.

mod disk;
mod files;
mod identity;
mod inplace;
mod moved;
mod patience;
mod support;
mod watch;
