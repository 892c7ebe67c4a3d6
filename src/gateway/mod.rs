//! A gateway pod: the effects of the data plane and what keeps its table current.

pub mod acknowledge;
mod assistant_metrics;
pub mod call_id;
mod call_spans;
pub mod calls;
pub mod config;
pub mod control;
pub mod disk;
mod events;
mod guard;
mod hook;
mod intake;
mod lines;
pub mod metrics;
pub mod openai;
mod openai_metrics;
pub mod peers;
pub mod plane;
mod plane_metrics;
pub mod process;
mod questions;
pub mod resolve;
mod session;
mod shard;
mod signing;
pub mod snapshot;
mod sockets;
pub mod table;
pub(crate) mod tls;
pub mod trace;
mod trunks;
mod view;

pub use config::Args;
pub use guard::Rates;
pub use process::run;
