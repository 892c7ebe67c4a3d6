//! Requests that are too large for a datagram go over TCP (RFC 3261 §18.1.1): a datagram that IP has to cut in pieces is
//! lost with any of them, and many firewalls let no pieces through.
//!
//! Peers that take no TCP get such a request over UDP after all, and are remembered, so that the next call doesn't wait for
//! a connection that never comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sip::event::{Flow, Transport};
use crate::sip::time::Millis;

/// Most bytes of a request over UDP where the path's MTU isn't known.
const MOST: usize = 1_300;
/// For how long a peer is taken not to speak TCP.
const MEMORY: Duration = Duration::from_secs(600);
/// Most peers that are remembered; beyond, all are asked anew.
const MOST_PEERS: usize = 1_024;

/// Peers that take no TCP, and until when that is believed.
#[derive(Debug, Default)]
pub struct DatagramPeers(HashMap<SocketAddr, Millis>);

impl DatagramPeers {
    /// The way that a request of `length` bytes goes instead of `flow`, if it is too large for that.
    pub fn instead(&self, flow: Flow, length: usize, now: Millis) -> Option<Flow> {
        let known = || self.0.get(&flow.peer).is_some_and(|until| *until > now);
        (flow.transport == Transport::Udp && length > MOST && !known())
            .then_some(Flow { transport: Transport::Tcp, ..flow })
    }

    /// No connection to this peer could be made.
    pub fn add(&mut self, peer: SocketAddr, now: Millis) {
        if self.0.len() >= MOST_PEERS {
            self.0.retain(|_, until| *until > now);
        }
        if self.0.len() >= MOST_PEERS {
            self.0.clear();
        }
        self.0.insert(peer, now + MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_request_over_udp_goes_another_way_and_only_to_a_peer_that_may_take_it() {
        let way = |transport| Flow { transport, peer: "192.0.2.1:5060".parse().unwrap() };
        let (mut peers, now) = (DatagramPeers::default(), Millis(1));
        assert_eq!(peers.instead(way(Transport::Udp), MOST, now), None);
        assert_eq!(peers.instead(way(Transport::Udp), MOST + 1, now), Some(way(Transport::Tcp)));
        assert_eq!(peers.instead(way(Transport::Tcp), MOST + 1, now), None);
        peers.add(way(Transport::Udp).peer, now);
        assert_eq!(peers.instead(way(Transport::Udp), MOST + 1, now), None);
        let later = now + MEMORY;
        assert_eq!(peers.instead(way(Transport::Udp), MOST + 1, later), Some(way(Transport::Tcp)));
    }

    #[test]
    fn a_flood_of_peers_does_not_stay_in_memory() {
        let mut peers = DatagramPeers::default();
        for port in 1..=5_000 {
            peers.add(([192, 0, 2, 1], port).into(), Millis(0));
        }
        assert!(peers.0.len() <= MOST_PEERS);
    }
}
