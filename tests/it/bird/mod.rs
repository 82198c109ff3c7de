//! Tests of `bird`.

mod foreign;
mod live;
mod main_files;
mod replies;
