//! Tests of `bird`.

mod live;
mod main_files;
mod replies;
