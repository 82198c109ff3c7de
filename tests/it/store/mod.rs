//! Tests of `store`.

mod disk;
mod files;
mod inplace;
mod moved;
mod patience;
mod support;
mod watch;
