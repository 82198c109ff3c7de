//! Tests of `history`.

mod disk;
mod git;
