//! SIP without our business: pure. No sockets, no clock, no randomness; time, seeds and bytes enter as values.
//!
//! ```text
//! datagram ─▶ front_door (RFC 4475 rules) ─▶ Endpoint::receive ─▶ transactions ─▶ dialogs (legs) ─▶ LegEvent
//!                                            Endpoint::invite / answer / reoffer / hang_up … ─▶ Output::Transmit
//! ```
//!
//! One [`endpoint::Endpoint`] per shard owns its legs, transactions and timers. It speaks [`event::LegEvent`] to the call
//! machine: what happened on a leg, in terms of offers, answers and codes, never of retransmissions, tags or branches.

pub mod challenger;
mod content;
pub mod copies;
mod dialog;
mod digest;
pub mod endpoint;
pub mod event;
pub mod front_door;
pub mod glance;
pub mod identity;
mod lately;
pub mod outside;
pub mod proxy;
pub mod rate;
pub mod read;
pub mod redact;
pub mod replaces;
pub mod session;
mod slab;
pub mod time;
mod timer;
mod transaction;
pub mod turnstile;
mod via;
mod wheel;
pub mod wire;
