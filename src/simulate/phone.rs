//! A phone without a user: one endpoint on one port, over UDP and TCP or over TLS, and the timers of whoever uses it.
//!
//! The driver is the caller's own task: [`Phone::next`] sends what is to be sent, receives, fires SIP's timers and returns
//! the next thing that happened. Nothing runs unless it is awaited.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ServerConfig;
use sipx_sip::{Limits, Message};
use tokio::net::UdpSocket;

use super::SimulateError;
use super::streams::Streams;
use crate::sip::endpoint::{Endpoint, EndpointConfig, LocalAddress, LocalAddresses, Output};
use crate::sip::event::{Flow, LegEvent, LegId, Transport};
use crate::sip::front_door::{self, Verdict};
use crate::sip::time::Millis;

/// The largest datagram that there can be.
const MAX_DATAGRAM: usize = 65_535;
/// How long the goodbyes of a phone that is put away are waited for.
const GOODBYE: Duration = Duration::from_secs(2);
/// Ports that the system may choose until one is free for UDP and TCP.
const PORTS_TO_TRY: u32 = 32;
/// First port that a session description names; no audio is sent.
const FIRST_MEDIA_PORT: u16 = 20_000;

/// Something that happened to a phone.
#[derive(Debug)]
pub enum Happening<T> {
    /// On a leg.
    Leg(LegId, LegEvent),
    /// A timer that was set with [`Phone::set_timer`].
    Timer(T),
}

/// See the module. `T` names the timers.
pub struct Phone<T> {
    /// For commands on legs; what they give rise to is sent by the next [`Phone::next`].
    pub endpoint: Endpoint,
    /// For datagrams; none over TLS.
    socket: Option<UdpSocket>,
    streams: Streams,
    local: LocalAddress,
    address: IpAddr,
    timers: BTreeMap<(Millis, u64), T>,
    serial: u64,
    hung_up: bool,
    guard: Option<Guard>,
    editor: Option<Editor>,
    buffer: Vec<u8>,
    limits: Limits,
    started: Instant,
}

/// Looks at each request before the endpoint does; what it returns is sent instead.
pub type Guard = Box<dyn FnMut(&Message) -> Option<Bytes> + Send>;

/// Looks at what the endpoint sends; what it returns is sent.
pub type Editor = Box<dyn FnMut(Bytes) -> Bytes + Send>;

impl<T> Phone<T> {
    /// Listens on `listen` (UDP and TCP; port 0: any) and tells peers to reach it at `advertise`, by default at the address
    /// that this machine uses towards `towards`.
    pub async fn listen(
        listen: SocketAddr,
        advertise: Option<String>,
        towards: Option<SocketAddr>,
    ) -> Result<Self, SimulateError> {
        let cannot = |error| SimulateError::Listen(listen, error);
        let (socket, streams) = sockets(listen).await.map_err(cannot)?;
        // Before the runtime knows that it is writable, whatever is sent at once would be lost.
        socket.writable().await.map_err(cannot)?;
        Self::at(listen, advertise, towards, Some(socket), streams).await
    }

    /// As [`Self::listen`], over TLS only. It can answer whoever connects to it, and call nobody.
    pub async fn listen_secured(
        listen: SocketAddr,
        advertise: Option<String>,
        tls: Arc<ServerConfig>,
    ) -> Result<Self, SimulateError> {
        let streams = Streams::listen(listen, Some(tls)).await;
        let streams = streams.map_err(|error| SimulateError::Listen(listen, error))?;
        Self::at(listen, advertise, None, None, streams).await
    }

    async fn at(
        listen: SocketAddr,
        advertise: Option<String>,
        towards: Option<SocketAddr>,
        socket: Option<UdpSocket>,
        streams: Streams,
    ) -> Result<Self, SimulateError> {
        let bound = streams.local_addr().map_err(|error| SimulateError::Listen(listen, error))?;
        let address = match advertise.as_deref().map(str::parse) {
            Some(Ok(address)) => address,
            _ if !listen.ip().is_unspecified() => listen.ip(),
            _ => own_address(towards, listen.is_ipv6()).await?,
        };
        let local =
            LocalAddress { host: advertise.unwrap_or_else(|| address.to_string()), port: bound.port() };
        let endpoint = Endpoint::new(EndpointConfig {
            instance: rand::random(),
            shard: 0,
            seed: rand::random(),
            local: LocalAddresses { udp: local.clone(), tcp: local.clone(), tls: local.clone() },
            user_agent: concat!("VoiceDock-simulate/", env!("CARGO_PKG_VERSION")).into(),
            max_legs: 100_000,
        });
        Ok(Self {
            endpoint,
            socket,
            streams,
            local,
            address,
            timers: BTreeMap::new(),
            serial: 0,
            hung_up: false,
            guard: None,
            editor: None,
            buffer: vec![0; MAX_DATAGRAM],
            limits: Limits::default(),
            started: Instant::now(),
        })
    }

    /// Has `guard` look at each message first.
    pub fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// Has `editor` change what is sent.
    pub fn set_editor(&mut self, editor: Editor) {
        self.editor = Some(editor);
    }

    /// Closes the connection to a peer; what is sent to it from now on is lost.
    pub fn close(&mut self, flow: Flow) {
        self.streams.close(flow.peer);
    }

    /// Where peers reach it.
    pub fn local(&self) -> &LocalAddress {
        &self.local
    }

    /// Its own address, for session descriptions.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// An even port for a session description, another one for each call.
    pub fn media_port(&mut self) -> u16 {
        self.serial += 1;
        let calls = u64::from((u16::MAX - FIRST_MEDIA_PORT) / 2);
        FIRST_MEDIA_PORT + 2 * u16::try_from(self.serial % calls).unwrap_or_default()
    }

    /// Time since the phone was made.
    pub fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Has [`Phone::next`] return `timer` once `after` has passed.
    pub fn set_timer(&mut self, after: Duration, timer: T) {
        self.serial += 1;
        self.timers.insert((self.now() + after, self.serial), timer);
    }

    /// The next thing that happens. Whoever stops waiting loses nothing.
    pub async fn next(&mut self) -> Result<Happening<T>, SimulateError> {
        loop {
            if let Some(event) = self.send_all() {
                return Ok(event);
            }
            let now = self.now();
            if let Some(first) = self.timers.first_entry()
                && first.key().0 <= now
            {
                return Ok(Happening::Timer(first.remove()));
            }
            self.wait().await?;
        }
    }

    /// Sends what the endpoint wants sent, up to the next event.
    fn send_all(&mut self) -> Option<Happening<T>> {
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Transmit { flow, bytes } => {
                    let bytes = match &mut self.editor {
                        Some(edit) => edit(bytes),
                        None => bytes,
                    };
                    self.send(flow, bytes);
                }
                Output::Leg(leg, event) => return Some(Happening::Leg(leg, event)),
                // A phone never drains.
                Output::TurnedAway => {}
                Output::Elsewhere { request, flow } => self.endpoint.turn_away(*request, flow),
            }
        }
        None
    }

    /// Waits for a message or a timer, SIP's or the user's.
    async fn wait(&mut self) -> Result<(), SimulateError> {
        let timer = self.timers.first_key_value().map(|((at, _), _)| *at);
        let due = [self.endpoint.next_timeout(), timer].into_iter().flatten().min();
        let sleep = due.map_or(Duration::from_secs(3600), |at| at.since(self.now()));
        tokio::select! {
            received = datagram(self.socket.as_ref(), &mut self.buffer) => match received {
                Ok((length, peer)) => {
                    let datagram = Bytes::copy_from_slice(&self.buffer[..length]);
                    let flow = Flow { transport: Transport::Udp, peer };
                    self.receive(front_door::admit(datagram, flow, &self.limits), flow);
                }
                // The answer of a peer that isn't there (ICMP) surfaces here; SIP's timers deal with it.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(SimulateError::Receive(error)),
            },
            (flow, verdict) = self.streams.next() => match verdict {
                Some(verdict) => self.receive(verdict, flow),
                None => self.endpoint.transport_failed(flow, self.now()),
            },
            () = tokio::time::sleep(sleep) => {}
        }
        let now = self.now();
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        Ok(())
    }

    /// Ends a leg.
    pub fn hang_up(&mut self, leg: LegId) {
        let now = self.now();
        self.endpoint.hang_up(leg, None, now);
        self.hung_up = true;
    }

    /// Says goodbye on every leg in `legs` and waits, for a bounded time, until nothing is owed to those that were hung up on.
    pub async fn put_away(mut self, legs: impl IntoIterator<Item = LegId>) -> Result<(), SimulateError> {
        for leg in legs {
            self.hang_up(leg);
        }
        self.timers.clear();
        let goodbyes = async {
            loop {
                // Nobody is interested in events any more.
                while self.send_all().is_some() {}
                if !self.hung_up || self.endpoint.is_idle() {
                    return Ok(());
                }
                self.wait().await?;
            }
        };
        tokio::time::timeout(GOODBYE, goodbyes).await.unwrap_or(Ok(()))
    }

    fn receive(&mut self, verdict: Verdict, flow: Flow) {
        let now = self.now();
        match verdict {
            Verdict::Message(message) => match self.guard.as_mut().and_then(|guard| guard(&message)) {
                Some(bytes) => self.send(flow, bytes),
                None => self.endpoint.receive(*message, flow, now),
            },
            Verdict::Reply { flow, bytes } => self.send(flow, bytes),
            Verdict::Nothing | Verdict::Drop(_) => {}
        }
    }

    fn send(&mut self, flow: Flow, bytes: Bytes) {
        match flow.transport {
            // A datagram that can't be sent is a lost one: SIP repeats it.
            Transport::Udp => {
                let _ = self.socket.as_ref().map(|socket| socket.try_send_to(&bytes, flow.peer));
            }
            Transport::Tcp | Transport::Tls(_) => self.streams.send(flow, bytes),
        }
    }
}

/// The next datagram; never one without a socket for them.
async fn datagram(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

/// A UDP and a TCP socket with one port. The port that the system chooses for the one may be taken for the other, then it
/// chooses again.
async fn sockets(listen: SocketAddr) -> io::Result<(UdpSocket, Streams)> {
    let mut choices = if listen.port() == 0 { PORTS_TO_TRY } else { 1 };
    loop {
        choices -= 1;
        let socket = UdpSocket::bind(listen).await?;
        match Streams::listen(socket.local_addr()?, None).await {
            Err(error) if choices > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            streams => return Ok((socket, streams?)),
        }
    }
}

/// The address that this machine uses towards a peer; nothing is sent.
async fn own_address(towards: Option<SocketAddr>, v6: bool) -> Result<IpAddr, SimulateError> {
    let (any, public): (IpAddr, IpAddr) = if towards.map_or(v6, |peer| peer.is_ipv6()) {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    };
    let looked_up = async {
        let probe = UdpSocket::bind((any, 0)).await?;
        probe.connect(towards.unwrap_or_else(|| SocketAddr::new(public, 5060))).await?;
        Ok(probe.local_addr()?.ip())
    };
    looked_up.await.map_err(SimulateError::OwnAddress)
}
