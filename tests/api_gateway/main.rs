//! How a gateway keeps its table current, on a real API server: the tests play the operator and read the pod's Lease.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod operator;
mod process;
mod subscription;
#[path = "../support/mod.rs"]
mod support;
