//! Comparing what is wanted with what is there. Pure: a plan is data.

pub mod action;
pub mod kernel_view;
