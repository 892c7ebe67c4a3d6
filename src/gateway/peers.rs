//! The other pods of the same gateway: where a SIP request or an HTTP request about one of their calls is sent.
//!
//! Known from their Leases (the acknowledgements, see `routing::ack`), watched by label. Fail-static: a lost watch leaves
//! the peers as they were last seen. A pod that is draining is a peer like any other: it has calls.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::call_id::Instance;

/// The other pods of this gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub HashMap<Instance, Peer>);

/// Another pod of this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The pod's name, for logs and warnings.
    pub pod: String,
    /// Where it takes SIP: on the same ports as this pod.
    pub sip: IpAddr,
    /// Where it takes HTTP.
    pub http: SocketAddr,
}

impl Peers {
    /// The pod that has this instance.
    pub fn get(&self, instance: Instance) -> Option<&Peer> {
        self.0.get(&instance)
    }
}
