//! One of each mechanism: reading and writing files, running programs, waiting after failures.
//!
//! | file | holds |
//! |---|---|
//! | `backoff` | waits that grow after failures |

pub(crate) mod backoff;
