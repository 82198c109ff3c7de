//! Inputs of the desired state that change on their own: each has its last state and a notification.

pub mod probe;
pub mod resolve;
