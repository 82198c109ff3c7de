//! Tests of `wire`.

mod other_lists;
mod sessions;
