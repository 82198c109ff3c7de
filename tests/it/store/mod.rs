//! Tests of `store`.

mod disk;
mod files;
mod inplace;
mod patience;
mod support;
mod watch;
