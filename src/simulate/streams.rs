//! A phone's connections over TCP, or over TLS to those who connect to it: one a peer, kept until either side closes. Over TCP
//! one is opened when something is to be sent; whom one would find at the other end over TLS, a phone doesn't know.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use sipx_sip::Limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::sip::event::{Flow, TlsPeer, Transport};
use crate::sip::front_door::{self, Verdict};

/// How long a connection may take to come about, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Messages that may wait for one peer.
const QUEUE: usize = 1024;

/// See the module.
pub struct Streams {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    open: HashMap<SocketAddr, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
}

/// What comes from a connection: a message as the front door judges it, or `None` when it is over.
type Received = (Flow, Option<Verdict>);

impl Streams {
    /// Takes connections at `address`, secured if `tls` says how.
    pub async fn listen(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let (sender, received) = mpsc::channel(QUEUE);
        let listener = TcpListener::bind(address).await?;
        let tls = tls.map(TlsAcceptor::from);
        Ok(Self { listener, tls, open: HashMap::new(), tasks: JoinSet::new(), sender, received })
    }

    /// Where connections are taken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Closes the connection to a peer, once what was to be sent is written.
    pub fn close(&mut self, peer: SocketAddr) {
        self.open.remove(&peer);
    }

    /// Sends on the connection to the peer, which is opened if there is none. What can't be sent ends the connection.
    pub fn send(&mut self, flow: Flow, bytes: Bytes) {
        let sender = match self.open.get(&flow.peer) {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => self.start(flow, None),
        };
        if sender.try_send(bytes).is_err() {
            self.open.remove(&flow.peer);
        }
    }

    /// The next message of any peer. Whoever stops waiting loses nothing.
    pub async fn next(&mut self) -> Received {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let secured = Transport::Tls(TlsPeer::ANYBODY);
                        let transport = if self.tls.is_some() { secured } else { Transport::Tcp };
                        self.start(Flow { transport, peer }, Some(stream));
                    }
                    // Too many open files: those that there are must end first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                // There is always a sender: our own.
                Some(received) = self.received.recv() => return received,
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn start(&mut self, flow: Flow, stream: Option<TcpStream>) -> mpsc::Sender<Bytes> {
        let (outgoing, queue) = mpsc::channel(QUEUE);
        self.open.insert(flow.peer, outgoing.clone());
        self.tasks.spawn(carry(flow, stream, self.tls.clone(), queue, self.sender.clone()));
        outgoing
    }
}

/// Makes one connection and carries it until either side ends it.
async fn carry(
    flow: Flow,
    accepted: Option<TcpStream>,
    tls: Option<TlsAcceptor>,
    queue: mpsc::Receiver<Bytes>,
    received: mpsc::Sender<Received>,
) {
    match (accepted, tls) {
        (Some(stream), Some(tls)) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, tls.accept(stream)).await {
                exchange(flow, stream, queue, &received).await;
            }
        }
        (Some(stream), None) => exchange(flow, stream, queue, &received).await,
        (None, None) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(flow.peer)).await
            {
                exchange(flow, stream, queue, &received).await;
            }
        }
        (None, Some(_)) => {}
    }
    // The phone may be gone already.
    let _ = received.send((flow, None)).await;
}

/// Reads and writes until either side ends.
async fn exchange(
    flow: Flow,
    stream: impl AsyncRead + AsyncWrite,
    mut queue: mpsc::Receiver<Bytes>,
    received: &mpsc::Sender<Received>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = async {
        let mut stream = front_door::Stream::new(Limits::default());
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            // Nobody can tell where the next message begins in a stream that lost its framing.
            let Ok(verdicts) = stream.push(&buffer[..length], flow) else { return };
            for verdict in verdicts {
                if received.send((flow, Some(verdict))).await.is_err() {
                    return;
                }
            }
        }
    };
    let writing = async {
        while let Some(bytes) = queue.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
