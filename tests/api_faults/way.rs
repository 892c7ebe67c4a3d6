//! A party's way to the API server, on which something goes wrong at the party's n-th write.
//!
//! A proxy that understands HTTP: the party speaks plain HTTP to it, and it speaks to the API server as the tests do.
//! Counted are POST, PUT, PATCH and DELETE of everything but the operators' Lease (who leads is not what is published) and
//! Events (written behind everything else, and read by nobody). A write that was let through lands whatever becomes of the
//! party, as with a real network.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Answer = Response<UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>>;
type Call = Request<kube::client::Body>;

/// What happens at the n-th write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never gets there, and its connection is closed.
    Dropped,
    /// It gets there; its connection is closed before the answer.
    Unanswered,
    /// It gets there, and nothing after it: the party crashes between this write and the next.
    Last,
    /// It is on its way until [`Plan::release`]; for everything else the way ends here.
    Stranded,
    /// It is on its way until [`Plan::release`]; the party goes on once it has given up waiting.
    Late,
    /// From it on until [`Way::refresh`], watches show nothing.
    StaleWatches,
}

/// A way to the API server.
pub struct Way {
    /// Leads over it.
    pub config: Config,
    shared: Arc<Shared>,
}

struct Shared {
    server: Client,
    plan: Mutex<Arc<Plan>>,
    /// Nothing goes through any more.
    ended: CancellationToken,
    /// Watches show nothing for now.
    stale: watch::Sender<bool>,
    /// Paths that were written to, and answered.
    answered: watch::Sender<BTreeSet<String>>,
    /// Watches by the plural of their kind; one that is cancelled is silent for ever.
    watches: Mutex<Vec<(String, CancellationToken)>>,
}

/// A fault that waits for its write.
#[derive(Default)]
pub struct Plan {
    fault: Option<(Fault, usize)>,
    /// How many writes there were since the fault was planned.
    writes: AtomicUsize,
    /// The write at which it has struck.
    struck: watch::Sender<Option<Write>>,
    released: CancellationToken,
    /// A write that was on its way for long has been answered.
    landed: CancellationToken,
}

/// A write.
#[derive(Clone, Debug)]
pub struct Write {
    pub method: Method,
    pub path: String,
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
struct Closed;

impl Way {
    /// A way on which nothing goes wrong yet.
    pub async fn open(server: Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut config = Config::new(address.parse().unwrap());
        // Else the client reads all of the machine's, for nothing.
        config.root_cert = Some(Vec::new());
        let shared = Arc::new(Shared {
            server,
            plan: Mutex::default(),
            ended: CancellationToken::new(),
            stale: watch::Sender::default(),
            answered: watch::Sender::default(),
            watches: Mutex::default(),
        });
        tokio::spawn(listen(listener, shared.clone()));
        Self { config, shared }
    }

    /// Lets a fault strike at the n-th write from now, counted from 1.
    pub fn plan(&self, fault: Fault, nth: usize) -> Arc<Plan> {
        let plan = Arc::new(Plan { fault: Some((fault, nth)), ..Plan::default() });
        *self.shared.plan.lock().unwrap() = plan.clone();
        plan
    }

    /// Lets watches show what they have held back, and what comes.
    pub fn refresh(&self) {
        self.shared.stale.send_replace(false);
    }

    /// Waits until something of a kind (its plural) has been written, and answered.
    pub async fn has_written(&self, kind: &str) {
        let kind = format!("/{kind}/");
        let mut answered = self.shared.answered.subscribe();
        let _ = answered.wait_for(|paths| paths.iter().any(|path| path.contains(&kind))).await;
    }

    /// Watches of a kind (its plural) that are open now are silent for ever; later ones work.
    pub fn silence(&self, kind: &str) {
        let watches = self.shared.watches.lock().unwrap();
        watches.iter().filter(|(known, _)| known == kind).for_each(|(_, silent)| silent.cancel());
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

impl Plan {
    /// Returns when the fault strikes.
    pub async fn strikes(&self) {
        let mut struck = self.struck.subscribe();
        let _ = struck.wait_for(Option::is_some).await;
    }

    /// The write at which the fault has struck.
    pub fn struck(&self) -> Option<Write> {
        self.struck.borrow().clone()
    }

    /// Lets the write go on that is on its way, and returns once it has been answered.
    pub async fn release(&self) {
        self.released.cancel();
        self.landed.cancelled().await;
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.ended.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            tokio::spawn(connection(stream, shared.clone()));
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, shared.clone()));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = shared.ended.cancelled() => {}
        _ = served => {}
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, Closed> {
    let (mut head, body) = request.into_parts();
    head.headers.remove(HOST);
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let (write, watch) = (as_write(&head), as_watch(&head));
    let call = Request::from_parts(head, body.into());
    if let Some(write) = write {
        return shared.write(write, call).await;
    }
    let answer = shared.server.send(call).await.map_err(|_| Closed)?;
    Ok(match watch {
        Some(kind) => shared.show(kind, answer),
        None => boxed(answer),
    })
}

/// The write, if it is one that counts.
fn as_write(head: &Parts) -> Option<Write> {
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&head.method);
    let path = head.uri.path();
    let election = path.ends_with("/leases") || path.ends_with("/leases/voicedock-operator");
    let counts = writes && !election && !path.contains("/events");
    counts.then(|| Write { method: head.method.clone(), path: path.to_owned() })
}

/// The plural of the kind, if it is a watch.
fn as_watch(head: &Parts) -> Option<String> {
    let watches = head.uri.query().is_some_and(|query| query.contains("watch=true"));
    watches.then(|| head.uri.path().rsplit('/').next().unwrap_or_default().to_owned())
}

fn boxed(answer: Response<kube::client::Body>) -> Answer {
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

impl Shared {
    async fn write(self: Arc<Self>, write: Write, call: Call) -> Result<Answer, Closed> {
        let plan = self.plan.lock().unwrap().clone();
        let number = plan.writes.fetch_add(1, Ordering::AcqRel) + 1;
        match plan.fault {
            Some((fault, at)) if at == number => self.strike(&plan, fault, write, call).await,
            Some((Fault::Last | Fault::Stranded, at)) if at < number => Err(Closed),
            _ => {
                let answer = self.forward(call).await?;
                self.answered.send_if_modified(|paths| paths.insert(write.path));
                Ok(answer)
            }
        }
    }

    async fn strike(
        &self,
        plan: &Arc<Plan>,
        fault: Fault,
        write: Write,
        call: Call,
    ) -> Result<Answer, Closed> {
        let land = |call| drop(tokio::spawn(plan.clone().land(self.server.clone(), call)));
        plan.struck.send_replace(Some(write));
        match fault {
            Fault::Dropped => {}
            Fault::Unanswered => drop(self.forward(call).await),
            Fault::Last => {
                plan.released.cancel();
                land(call);
                self.ended.cancel();
            }
            Fault::Stranded => {
                land(call);
                self.ended.cancel();
            }
            Fault::Late => {
                land(call);
                return pending().await;
            }
            Fault::StaleWatches => {
                self.stale.send_replace(true);
                return self.forward(call).await;
            }
        }
        Err(Closed)
    }

    /// Makes a call; it goes on if nobody waits for its answer any more.
    async fn forward(&self, call: Call) -> Result<Answer, Closed> {
        let server = self.server.clone();
        let sent = tokio::spawn(async move { server.send(call).await });
        let answer = sent.await.map_err(|_| Closed)?.map_err(|_| Closed)?;
        Ok(boxed(answer))
    }

    /// The answer to a watch, whose events can be held back.
    fn show(&self, kind: String, answer: Response<kube::client::Body>) -> Answer {
        let silent = CancellationToken::new();
        self.watches.lock().unwrap().push((kind, silent.clone()));
        let stale = self.stale.subscribe();
        answer.map(|body| {
            let events = stream::unfold((BodyStream::new(body), stale), move |(mut body, mut stale)| {
                let silent = silent.clone();
                async move {
                    let next = async {
                        let event = body.next().await?;
                        let _ = stale.wait_for(|stale| !stale).await;
                        Some(event)
                    };
                    let event = tokio::select! {
                        biased;
                        () = silent.cancelled() => pending().await,
                        event = next => event,
                    };
                    Some((event?.map_err(Into::into), (body, stale)))
                }
            });
            StreamBody::new(events).boxed_unsync()
        })
    }
}

impl Plan {
    /// Makes a call when it is released.
    async fn land(self: Arc<Self>, server: Client, call: Call) {
        self.released.cancelled().await;
        let _ = server.send(call).await;
        self.landed.cancel();
    }
}
