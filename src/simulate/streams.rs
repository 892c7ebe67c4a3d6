//! A phone's TCP connections: one a peer, opened when something is to be sent, kept until the peer closes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::sip::event::{Flow, Transport};
use crate::sip::front_door::{self, Verdict};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Messages that may wait for one peer.
const QUEUE: usize = 1024;

/// See the module.
pub struct Streams {
    listener: TcpListener,
    open: HashMap<SocketAddr, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
}

/// What comes from a connection: a message as the front door judges it, or `None` when it is over.
type Received = (Flow, Option<Verdict>);

impl Streams {
    /// Takes connections at `address`.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let (sender, received) = mpsc::channel(QUEUE);
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, open: HashMap::new(), tasks: JoinSet::new(), sender, received })
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
                    Ok((stream, peer)) => drop(self.start(Flow { transport: Transport::Tcp, peer }, Some(stream))),
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
        self.tasks.spawn(carry(flow, stream, queue, self.sender.clone()));
        outgoing
    }
}

/// Carries one connection until either side ends it.
async fn carry(
    flow: Flow,
    stream: Option<TcpStream>,
    mut queue: mpsc::Receiver<Bytes>,
    received: mpsc::Sender<Received>,
) {
    let connected = match stream {
        Some(stream) => Some(stream),
        None => tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(flow.peer))
            .await
            .ok()
            .and_then(Result::ok),
    };
    if let Some(stream) = connected {
        let (mut reader, mut writer) = stream.into_split();
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
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    }
    // The phone may be gone already.
    let _ = received.send((flow, None)).await;
}
