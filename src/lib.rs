//! VoiceDock: who answers a phone number, and which humans a caller may be handed to, as Kubernetes resources.
//!
//! Read it in the order in which a configuration and then a call flow through it: [`resources`] (what people write),
//! [`routing`] (what it means: a table), [`operator`] (publishes the table and runs the gateways), [`sip`] and [`call`]
//! (the protocol and one call's state machine, both pure), [`gateway`] (sockets and drivers), [`http`] (call control), [`api`] (the product's
//! REST API over all of a cluster), [`cli`] (what people ask beside it), [`command_line`].
//!
//! Floors: `resources ← routing ← operator`; `routing::{table, decide} ← gateway`; `sip ← call ← gateway`; `http` and `api` on top.
//! `routing`, `call` and `sip` do no I/O, read no clock and throw no dice: `tests/floors.rs` holds that.

pub mod agent;
pub mod api;
pub mod call;
pub mod cli;
pub mod command_line;
pub mod gateway;
pub mod http;
mod memory;
pub mod metrics;
pub mod operator;
pub mod resources;
pub mod routing;
pub mod simulate;
pub mod sip;
pub mod spans;
pub mod telemetry;
