//! What the tests stand on: a network of their own, one gateway in it, and the programs that call each other through it.
//! What is not below is the cluster tests' own.

pub mod gateway;
pub mod network;
pub mod stage;

#[path = "../../cluster_e2e/harness/control.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod control;
#[path = "../../cluster_e2e/harness/process.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod process;
#[path = "../../cluster_e2e/harness/sipp.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod sipp;
#[path = "../../cluster_e2e/harness/wait.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod wait;
