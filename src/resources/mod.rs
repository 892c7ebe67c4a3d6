//! The custom resources of `voicedock.dev/v1alpha1` as people write them: one file a kind. Types and schemas only.
//!
//! People write five kinds; [`RoutingTable`] and [`RoutingSlice`] are written by the operator and only read by people.
//! No field of a spec has a schema default: what is left out is decided in `routing`, documented at the field, and shown
//! as an effective value in the status. Everything that a schema or a CEL rule can refuse is refused at `kubectl apply`.
#![allow(clippy::duplicated_attributes, reason = "printer columns repeat the keys of their attributes")]

pub mod assistant;
pub mod conditions;
pub mod crds;
pub mod phone_number;
pub mod reference;
pub mod references;
pub mod routing_slice;
pub mod routing_table;
pub mod rules;
pub mod sip_gateway;
pub mod sip_trunk;
pub mod transfer_destination;

pub use assistant::Assistant;
pub use phone_number::PhoneNumber;
pub use routing_slice::RoutingSlice;
pub use routing_table::RoutingTable;
pub use sip_gateway::SipGateway;
pub use sip_trunk::SipTrunk;
pub use transfer_destination::TransferDestination;

/// API group of every kind.
pub const GROUP: &str = "voicedock.dev";
/// API version of every kind.
pub const VERSION: &str = "v1alpha1";
