//! One of each mechanism: reading and writing files, running programs, waiting after failures.
//!
//! | file | holds |
//! |---|---|
//! | `exec` | runs a program with a closed environment, a deadline and bounded output |
//! | `backoff` | waits that grow after failures |

pub(crate) mod backoff;
pub(crate) mod exec;
