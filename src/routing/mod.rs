//! What a cluster's objects mean: pure. No I/O, no clock, no Kubernetes client.
//!
//! [`compile`] turns objects into one [`table::Table`] per gateway plus a verdict for each object; [`index`] keeps that up to
//! date while objects change; [`slice`] cuts a table
//! into content-addressed pieces and puts it together again; [`decide`] answers the two questions of a gateway: who
//! answers this call, and how does this transfer go? [`ack`] is what a gateway pod says about the table that it holds;
//! [`protocol`] is how a table gets to every gateway; [`owner`] is which pod of it keeps a trunk; [`locate`] is how DNS says where a host is.

pub mod ack;
pub mod compile;
pub mod decide;
pub mod index;
pub mod locate;
pub mod normalise;
pub mod owner;
pub mod protocol;
pub mod schedule;
pub mod slice;
pub mod table;
pub mod uri;
