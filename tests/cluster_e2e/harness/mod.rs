//! What the tests stand on: a cluster with voicedock on it, parties that call each other, and bounded waiting.
//! What is at another path is shared with other tests.

pub mod api;
pub mod cluster;
pub mod control;
pub mod installation;
pub mod kamailio;
pub mod model;
pub mod office;
pub mod parties;
pub mod pods;
pub mod probe;
pub mod process;
pub mod receiver;
pub mod registrar;
pub mod scene;
pub mod sipp;
pub mod trunk;
pub mod wait;

#[path = "../../peers/harness/hook.rs"]
pub mod hook;
#[path = "../../support/realtime.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod realtime;
