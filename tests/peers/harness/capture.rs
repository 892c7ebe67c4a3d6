//! What goes over a test's network: every datagram, with who sent it to whom.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The protocol of IPv4 on a link (ETH_P_IP).
const IPV4: u16 = 0x0800;
/// That of UDP in IPv4.
const UDP: u8 = 17;

/// A capture that runs until it is dropped.
pub struct Capture(Arc<Mutex<Vec<Datagram>>>);

/// A datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// What.
    pub payload: Vec<u8>,
}

impl Capture {
    /// Begins to capture in the network of this thread.
    pub fn start() -> Self {
        let protocol = Protocol::from(i32::from(IPV4.to_be()));
        // What a link carries, without the link's own header.
        let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("root may capture");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("the time isn't zero");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::downgrade(&seen);
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Some(kept) = kept.upgrade() {
                let read = socket.read(&mut buffer).unwrap_or_default();
                if let Some(datagram) = datagram(&buffer[..read]) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(datagram);
                }
            }
        });
        Self(seen)
    }

    /// How many datagrams there are until now.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The datagrams like this, without the first `skipped` of all.
    pub fn since(&self, skipped: usize, wanted: impl Fn(&Datagram) -> bool) -> Vec<Datagram> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().skip(skipped).filter(|datagram| wanted(datagram)).cloned().collect()
    }
}

fn datagram(packet: &[u8]) -> Option<Datagram> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let (ip, udp) = (packet.get(..header)?, packet.get(header..)?);
    if *ip.get(9)? != UDP {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
    Some(Datagram {
        from: SocketAddrV4::new(address(12)?, number(0)?),
        to: SocketAddrV4::new(address(16)?, number(2)?),
        payload: udp.get(8..)?.to_vec(),
    })
}
