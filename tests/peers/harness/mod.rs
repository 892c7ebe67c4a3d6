//! What the tests stand on: a network of their own, one gateway in it, and the programs that call each other through it.
//! What is at another path is shared with other tests.

pub mod baresip;
pub mod capture;
pub mod edge;
pub mod gateway;
pub mod hook;
pub mod network;
pub mod phone;
pub mod stage;

#[path = "../../cluster_e2e/harness/control.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod control;
#[path = "../../support/disk_copy.rs"]
pub mod disk_copy;
#[path = "../../cluster_e2e/harness/kamailio.rs"]
pub mod kamailio;
#[path = "../../cluster_e2e/harness/process.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod process;
#[path = "../../cluster_e2e/harness/sipp.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod sipp;
#[path = "../../support/tools.rs"]
#[allow(dead_code, reason = "shared with other tests")]
pub mod tools;
#[path = "../../cluster_e2e/harness/wait.rs"]
#[allow(dead_code, reason = "shared with the tests in a cluster")]
pub mod wait;
