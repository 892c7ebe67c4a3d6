//! What the tests stand on: a cluster with voicedock on it, parties that call each other, and bounded waiting.

pub mod cluster;
pub mod control;
pub mod installation;
pub mod kamailio;
pub mod office;
pub mod parties;
pub mod pods;
pub mod probe;
pub mod process;
pub mod scene;
pub mod sipp;
pub mod trunk;
pub mod wait;
