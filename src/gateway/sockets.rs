//! The sockets: datagrams and streams in, through the front door, to the shard that has the call; bytes out.
//!
//! Every queue is bounded. A shard that can't keep up loses requests, which their senders repeat; sending never waits. What
//! passes between this pod and the others is in `neighbours`.

mod neighbours;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use sipx_sip::Limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::call_id::Instance;
use super::config::Listener;
use super::guard::Guard;
use super::intake::Intake;
use super::peers::Peers;
use super::plane_metrics::PlaneMetrics;
use super::questions::Questions;
use super::shard::ShardInput;
use super::tls::{ListenerCertificate, TlsPeers};
use crate::sip::copies::Copies;
use crate::sip::endpoint::Opening;
use crate::sip::event::{Flow, TlsPeer, Transport};
use crate::sip::front_door::{self, Stream, Verdict};
use crate::sip::time::Millis;
use crate::sip::turnstile::{Turn, Turnstile};
use crate::sip::{identity, proxy};

/// Messages that may wait for one shard.
pub(super) const SHARD_QUEUE: usize = 4096;
/// Messages that may wait for one stream's peer to read.
const STREAM_QUEUE: usize = 256;
/// A peer that doesn't accept a connection within this time, TLS included, counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream on which nothing was read for this long is closed; peers keep theirs open with CRLF (RFC 5626) or requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(900);
/// Size of the kernel's buffers for datagrams: rides out a burst of about 5,000 messages.
const UDP_BUFFER: usize = 4 << 20;
/// The largest datagram that IP can carry.
const MAX_DATAGRAM: usize = 65_535;

/// A socket for datagrams, and which kind of address it is bound to.
struct Datagrams {
    udp: Arc<UdpSocket>,
    v6: bool,
}

/// The sockets of the process.
pub(super) struct Sockets {
    udp: Vec<Datagrams>,
    streams: Mutex<HashMap<Flow, mpsc::Sender<Bytes>>>,
    tls: Arc<TlsPeers>,
    shards: Vec<mpsc::Sender<ShardInput>>,
    /// Who sends requests outside of dialogs and waits for their responses.
    keeper: mpsc::Sender<ShardInput>,
    metrics: PlaneMetrics,
    guard: Guard,
    intake: Arc<Intake>,
    turnstile: Mutex<Turnstile>,
    started: Instant,
    closing: CancellationToken,
    instance: Instance,
    /// The pod's own address.
    ip: IpAddr,
    /// Who gets the requests of dialogs that are not ours.
    peers: Arc<ArcSwap<Peers>>,
    /// What is written into requests that go on to their owner.
    our_via: proxy::OurVia,
    questions: Questions,
    copies: Mutex<Copies>,
    /// The other pods have to be told of a call.
    untold: Notify,
    /// Port on which every pod of the gateway hears datagrams.
    udp_port: Option<u16>,
    /// For outgoing connections and readers, which hold the sockets themselves.
    this: std::sync::Weak<Sockets>,
}

/// Sockets that are bound but not yet read from.
pub(super) struct Bound {
    udp: Vec<Datagrams>,
    /// With how they are secured, if they are.
    tcp: Vec<(TcpListener, Option<TlsAcceptor>)>,
}

/// Who this pod is, and who its neighbours are.
pub(super) struct PodAddress {
    /// The pod's own address: forwarded requests are answered to it.
    pub(super) ip: IpAddr,
    pub(super) instance: Instance,
    pub(super) peers: Arc<ArcSwap<Peers>>,
    /// To whom connections over TLS are made.
    pub(super) tls: Arc<TlsPeers>,
    /// How much each source may send.
    pub(super) guard: Guard,
    /// Whether there is room for another call.
    pub(super) intake: Arc<Intake>,
}

/// A connection that was made.
enum Connected {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Binds every listener. The certificate of a TLS listener is in the directory of `certificates` that is named after its port.
pub(super) async fn bind(listeners: &[Listener], certificates: &Path) -> io::Result<Bound> {
    let mut bound = Bound { udp: Vec::new(), tcp: Vec::new() };
    for listener in listeners {
        match listener.transport {
            Transport::Udp => {
                let domain = socket2::Domain::for_address(listener.bind);
                let socket =
                    socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
                // A kernel that allows less gives less: that is no reason not to answer calls.
                let _ = socket.set_recv_buffer_size(UDP_BUFFER);
                let _ = socket.set_send_buffer_size(UDP_BUFFER);
                socket.set_nonblocking(true)?;
                socket.bind(&listener.bind.into())?;
                let udp = Arc::new(UdpSocket::from_std(socket.into())?);
                bound.udp.push(Datagrams { udp, v6: listener.bind.is_ipv6() });
            }
            Transport::Tcp => bound.tcp.push((TcpListener::bind(listener.bind).await?, None)),
            Transport::Tls(_) => {
                let directory = certificates.join(listener.bind.port().to_string());
                let config = ListenerCertificate::follow(directory).map_err(io::Error::other)?;
                bound.tcp.push((TcpListener::bind(listener.bind).await?, Some(TlsAcceptor::from(config))));
            }
        }
    }
    Ok(bound)
}

impl Sockets {
    /// Starts reading.
    pub(super) fn start(
        bound: Bound,
        shards: Vec<mpsc::Sender<ShardInput>>,
        keeper: mpsc::Sender<ShardInput>,
        metrics: PlaneMetrics,
        pod: PodAddress,
        closing: CancellationToken,
    ) -> Arc<Self> {
        let udp_port = bound.udp.first().and_then(|socket| Some(socket.udp.local_addr().ok()?.port()));
        let sent_by = SocketAddr::new(pod.ip, udp_port.unwrap_or(0)).to_string();
        let our_via = proxy::OurVia { sent_by, transport: Transport::Udp, key: rand::random() };
        let sockets = Arc::new_cyclic(|this| Self {
            udp: bound.udp,
            streams: Mutex::default(),
            tls: pod.tls,
            shards,
            keeper,
            metrics,
            guard: pod.guard,
            intake: pod.intake,
            turnstile: Mutex::new(Turnstile::new(rand::random())),
            started: Instant::now(),
            closing,
            instance: pod.instance,
            ip: pod.ip,
            peers: pod.peers,
            our_via,
            questions: Questions::default(),
            copies: Mutex::new(Copies::new(pod.instance.0)),
            untold: Notify::new(),
            udp_port,
            this: this.clone(),
        });
        for socket in &sockets.udp {
            tokio::spawn(Arc::clone(&sockets).read_datagrams(Arc::clone(&socket.udp)));
        }
        for (listener, tls) in bound.tcp {
            tokio::spawn(Arc::clone(&sockets).accept(listener, tls));
        }
        tokio::spawn(Arc::clone(&sockets).tell_peers());
        sockets
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Sends one message; over streams on the peer's connection, which is opened if there is none.
    pub(super) fn send(&self, flow: Flow, bytes: Bytes) {
        match flow.transport {
            Transport::Udp => {
                let v6 = flow.peer.is_ipv6();
                let socket = self.udp.iter().find(|socket| socket.v6 == v6).or(self.udp.first());
                let sent = socket.map(|socket| socket.udp.try_send_to(&bytes, flow.peer));
                match sent {
                    Some(Ok(_)) => {}
                    // A full socket buffer is a lost datagram: SIP repeats it.
                    Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.metrics.drop("socket-full")
                    }
                    Some(Err(_)) | None => self.failed(flow),
                }
            }
            Transport::Tcp | Transport::Tls(_) => {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                let sender = streams.entry(flow).or_insert_with(|| {
                    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
                    if let Some(sockets) = self.this.upgrade() {
                        tokio::spawn(sockets.connect(flow, sender.clone(), receiver));
                    }
                    sender
                });
                if sender.try_send(bytes).is_err() {
                    drop(streams);
                    self.metrics.drop("stream-full");
                    self.failed(flow);
                }
            }
        }
    }

    fn failed(&self, flow: Flow) {
        for shard in self.shards.iter().chain([&self.keeper]) {
            if shard.try_send(ShardInput::TransportFailed(flow)).is_err() {
                self.metrics.drop("shard-full");
            }
        }
    }

    async fn read_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let limits = Limits::datagram();
        let mut buffer = BytesMut::with_capacity(MAX_DATAGRAM);
        loop {
            // One allocation a datagram, of its own size: SIP messages are slices of it for as long as they live.
            buffer.clear();
            buffer.reserve(MAX_DATAGRAM);
            let received = tokio::select! {
                () = self.closing.cancelled() => return,
                received = socket.recv_buf_from(&mut buffer) => received,
            };
            match received {
                Ok((_, peer)) => {
                    if !self.guard.admits(&buffer, peer) {
                        continue;
                    }
                    let flow = Flow { transport: Transport::Udp, peer };
                    if self.is_notice(&buffer, flow) || self.turns_away(&buffer, flow) {
                        continue;
                    }
                    self.enter(front_door::admit(Bytes::copy_from_slice(&buffer), flow, &limits), flow);
                }
                // ICMP errors of earlier sends surface here; the socket itself is sound.
                Err(error) => tracing::debug!("receiving a datagram failed: {error}"),
            }
        }
    }

    /// Whether a datagram ends here: a call for which there is no room, or the ACK of such a refusal.
    fn turns_away(&self, datagram: &[u8], flow: Flow) -> bool {
        // What another pod passes on was judged there.
        if self.is_peer(flow) {
            return false;
        }
        let full = self.intake.opening() == Opening::Full;
        let now = self.now();
        let elsewhere = |invite| self.taker(invite).is_some();
        let mut turnstile = self.turnstile.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turnstile.turn(datagram, flow, full, elsewhere, now);
        drop(turnstile);
        match turn {
            Turn::On => return false,
            Turn::Nothing => {}
            Turn::Refused { flow, bytes } => {
                self.metrics.refuse("overload");
                self.send(flow, bytes);
            }
        }
        true
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((_, peer)) if !self.guard.admits_connection(peer) => {}
                Ok((stream, peer)) => {
                    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
                    let transport =
                        if tls.is_some() { Transport::Tls(TlsPeer::ANYBODY) } else { Transport::Tcp };
                    let flow = Flow { transport, peer };
                    self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(flow, sender.clone());
                    tokio::spawn(Arc::clone(&self).accepted(stream, tls.clone(), flow, sender, receiver));
                }
                Err(error) => {
                    tracing::warn!(
                        "accepting a SIP connection failed: {error}; are there too many open files?"
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accepted(
        self: Arc<Self>,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        flow: Flow,
        sender: mpsc::Sender<Bytes>,
        receiver: mpsc::Receiver<Bytes>,
    ) {
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.run_stream(stream, true, flow, sender, receiver).await };
        match tokio::time::timeout(CONNECT_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.run_stream(stream, true, flow, sender, receiver).await,
            Ok(Err(_)) | Err(_) => {
                self.metrics.drop("tls-handshake");
                self.forget_stream(flow, &sender);
            }
        }
    }

    async fn connect(
        self: Arc<Self>,
        flow: Flow,
        sender: mpsc::Sender<Bytes>,
        receiver: mpsc::Receiver<Bytes>,
    ) {
        let connecting = async {
            let stream = self.stream_from_here(flow.peer).await?;
            let _ = stream.set_nodelay(true);
            let Transport::Tls(peer) = flow.transport else { return Ok(Connected::Plain(stream)) };
            // Whoever connected to us is gone: we know no name by which to find them.
            let client = self.tls.client(peer).ok_or_else(|| io::Error::other("the connection is gone"))?;
            let secured = TlsConnector::from(client.config).connect(client.name, stream).await?;
            Ok::<_, io::Error>(Connected::Tls(Box::new(secured)))
        };
        let failed = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(Connected::Plain(stream))) => {
                return self.run_stream(stream, false, flow, sender, receiver).await;
            }
            Ok(Ok(Connected::Tls(stream))) => {
                return self.run_stream(stream, false, flow, sender, receiver).await;
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "nobody accepted in time"),
        };
        let transport = flow.transport.name();
        tracing::warn!("no connection to {} over {transport}: {failed}", flow.peer);
        self.forget_stream(flow, &sender);
        self.failed(flow);
    }

    /// Connects from the pod's own address, as datagrams come from it: peers may let in no other.
    async fn stream_from_here(&self, peer: SocketAddr) -> io::Result<TcpStream> {
        let socket = if peer.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        if self.ip.is_ipv6() == peer.is_ipv6() {
            socket.bind(SocketAddr::new(self.ip, 0))?;
        }
        socket.connect(peer).await
    }

    /// Reads and writes until the stream ends. One that was accepted is read as fast as its source may send.
    async fn run_stream(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        accepted: bool,
        flow: Flow,
        sender: mpsc::Sender<Bytes>,
        mut receiver: mpsc::Receiver<Bytes>,
    ) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let reading = async {
            let mut door = Stream::new(Limits::stream());
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(Ok(read)) = tokio::time::timeout(IDLE_TIMEOUT, reader.read(&mut buffer)).await {
                if read == 0 {
                    break;
                }
                match door.push(&buffer[..read], flow) {
                    Ok(verdicts) => {
                        for verdict in verdicts {
                            if accepted {
                                self.guard.pace(&verdict, flow.peer).await;
                            }
                            self.enter(verdict, flow);
                        }
                    }
                    // Nobody can tell where the next message begins in a stream that lost its framing.
                    Err(error) => {
                        tracing::info!("{error}");
                        break;
                    }
                }
            }
        };
        let writing = async {
            while let Some(bytes) = receiver.recv().await {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
            () = self.closing.cancelled() => {}
        }
        self.forget_stream(flow, &sender);
        self.failed(flow);
    }

    fn forget_stream(&self, flow: Flow, sender: &mpsc::Sender<Bytes>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.get(&flow).is_some_and(|current| current.same_channel(sender)) {
            streams.remove(&flow);
        }
    }

    fn enter(&self, verdict: Verdict, flow: Flow) {
        match verdict {
            Verdict::Message(message) => {
                if self.is_forwarded(&message, flow) {
                    return;
                }
                let source = self.source_of(&message, flow);
                let shard = identity::shard_of(&message, self.shards.len());
                let shard = shard.map_or(&self.keeper, |shard| &self.shards[shard]);
                if shard.try_send(ShardInput::Message { source, message, flow }).is_err() {
                    self.metrics.drop("shard-full");
                }
            }
            Verdict::Reply { flow, bytes } => {
                self.metrics.drop("malformed-answered");
                self.send(flow, bytes);
            }
            Verdict::Drop(_) => self.metrics.drop("malformed"),
            Verdict::Nothing => {}
        }
    }
}
