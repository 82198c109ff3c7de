//! Tests of `bird`.

mod live;
mod replies;
