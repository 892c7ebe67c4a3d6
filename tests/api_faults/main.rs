//! The protocol's promises on a real API server, with a fault at every write: dropped, unanswered, the last one before a
//! crash, stranded while another operator takes over, late; and with watches that are stale or silent.
//!
//! Each run plays one scenario in a namespace of its own with two gateway pods whose control side is the real one, and a
//! fault at its n-th write. Runs go on, n by n, until the scenario has no n-th write any more.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(dead_code, reason = "the stage is shared with tests/api_operator.rs")]

mod history;
mod logs;
mod operators;
mod promises;
mod scenario;
#[path = "../operator/stage.rs"]
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod way;
mod world;
