//! What passes between this pod and the others of its gateway: any of them may get any packet, and it finds its way to the pod
//! that has the call.

use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher24;
use sipx_sip::{HeaderName, Message, Request};
use tokio::sync::mpsc;

use super::Sockets;
use crate::gateway::call_id::Instance;
use crate::gateway::questions::{ANSWER_TIME, Asked};
use crate::gateway::shard::ShardInput;
use crate::sip::copies::{self, Copies, InviteName};
use crate::sip::event::{Flow, Transport};
use crate::sip::{front_door, identity, proxy};

/// Pods that are asked about one CANCEL, at most.
const MOST_ASKED: usize = 64;
/// How often the other pods are told of the calls that were taken, as long as there are new ones.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Sockets {
    /// Who sent a message: what another pod says of the requests that it passes on, else whoever they came from.
    pub(super) fn source_of(&self, message: &Message, flow: Flow) -> Flow {
        match message {
            Message::Request(request) => {
                proxy::source_of(request).filter(|_| self.is_peer(flow)).unwrap_or(flow)
            }
            Message::Response(_) => flow,
        }
    }

    /// Whether a datagram came from the socket of another pod. Its address alone says nothing where pods share it with
    /// others, as on the nodes' own network.
    pub(super) fn is_peer(&self, flow: Flow) -> bool {
        flow.transport == Transport::Udp
            && Some(flow.peer.port()) == self.udp_port
            && self.peers.load().has(flow.peer.ip().to_canonical())
    }

    /// Behind a load balancer a message inside a dialog can reach any pod: it goes on to the one that owns the dialog.
    pub(super) fn is_forwarded(&self, message: &Message, flow: Flow) -> bool {
        match message {
            Message::Request(request) => {
                let owner = self.other(identity::owner_of(request));
                let Some(owner) = owner.or_else(|| self.taken_elsewhere(request, flow)) else { return false };
                // An owner that is gone can't be asked: the endpoint here answers 481.
                let Some(to) = self.flow_to(owner) else { return false };
                self.forward(request, flow, to);
                true
            }
            Message::Response(response) if proxy::is_for_proxy(response) => {
                match proxy::forward_response(response, &self.our_via) {
                    Some((to, bytes)) => {
                        if let Some(branch) = proxy::branch_of_cancel(response) {
                            self.questions.close(&branch);
                        }
                        self.send(to, bytes);
                    }
                    None => self.metrics.drop("forged-response"),
                }
                true
            }
            // To a request of another pod, from a peer that answers to the address that all pods share.
            Message::Response(response) => {
                let Some(owner) = self.other(identity::owner_of_response(response)) else { return false };
                let Some(to) = self.flow_to(owner) else { return false };
                // What came from a pod is not passed on again: that pod knew the owner no better.
                if self.is_peer(flow) {
                    self.metrics.drop("forward-loop");
                } else {
                    self.send(to, message.to_bytes());
                }
                true
            }
        }
    }

    fn other(&self, owner: Option<identity::Owner>) -> Option<Instance> {
        owner.map(|owner| Instance(owner.instance)).filter(|owner| *owner != self.instance)
    }

    /// Where the other pods take SIP.
    fn others(&self) -> Vec<Flow> {
        self.peers.load().0.keys().filter_map(|pod| self.flow_to(*pod)).collect()
    }

    fn flow_to(&self, pod: Instance) -> Option<Flow> {
        let ip = self.peers.load().get(pod)?.sip;
        Some(Flow { transport: Transport::Udp, peer: SocketAddr::new(ip, self.udp_port?) })
    }

    /// Passes a request that begins something new on to a pod that doesn't drain: always the same for one Call-ID, so
    /// that an INVITE, its repetitions and its CANCEL meet. False if there is none, or if another pod passed it on
    /// already.
    pub(in crate::gateway) fn hand_on(&self, request: &Request, flow: Flow) -> bool {
        let call_id = request.headers.value(&HeaderName::CallId).unwrap_or_default();
        let peers = self.peers.load();
        let taker = peers.0.iter().filter(|(_, peer)| !peer.draining).max_by_key(|(instance, _)| {
            let mut hasher = SipHasher24::new();
            hasher.write(&call_id);
            hasher.write_u32(instance.0);
            hasher.finish()
        });
        match taker.and_then(|(instance, _)| self.flow_to(*instance)) {
            Some(to) if !self.is_peer(flow) => {
                self.forward(request, flow, to);
                true
            }
            _ => false,
        }
    }

    /// Asks the other pods whether one of them has the INVITE that a CANCEL is about. The one that has it answers through
    /// this pod; if none does in time, `asker` gets the CANCEL back. Gives it back at once if nobody can be asked.
    ///
    /// A CANCEL carries nothing that names its pod, for the INVITE that it repeats was not answered yet. The same five-tuple
    /// leads both to the same pod nearly always, but not when that pod has just left the load balancer.
    pub(in crate::gateway) fn ask_around(
        &self,
        cancel: Box<Request>,
        flow: Flow,
        asker: &mpsc::Sender<ShardInput>,
    ) -> Result<(), Box<Request>> {
        // Of the pods that were asked only the one that knows says so.
        if self.is_peer(flow) {
            return Ok(());
        }
        let others = self.others();
        let Some(question) = proxy::forward_request(&cancel, flow, &self.our_via) else { return Err(cancel) };
        let Some(branch) = proxy::branch_for(&cancel, flow, &self.our_via) else { return Err(cancel) };
        let asked = if others.is_empty() { Asked::TooMany } else { self.questions.ask(branch.as_bytes()) };
        if asked == Asked::TooMany {
            return Err(cancel);
        }
        for other in others.into_iter().take(MOST_ASKED) {
            self.send(other, question.clone());
        }
        if let (Asked::Now, Some(sockets)) = (asked, self.this.upgrade()) {
            let asker = asker.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANSWER_TIME).await;
                if sockets.questions.close(branch.as_bytes()) {
                    let _ = asker.send(ShardInput::Unclaimed { request: cancel, flow }).await;
                }
            });
        }
        Ok(())
    }

    fn forward(&self, request: &Request, flow: Flow, to: Flow) {
        match proxy::forward_request(request, flow, &self.our_via) {
            Some(bytes) => self.send(to, bytes),
            None => {
                self.metrics.drop("forward-loop");
                self.send(flow, front_door::reply_stateless(request, 483, "Too Many Hops", &[]));
            }
        }
    }

    /// A call was taken whose INVITE has this name: a copy of it that reaches another pod comes here.
    pub(in crate::gateway) fn took(&self, invite: InviteName) {
        if self.peers.load().0.is_empty() {
            return;
        }
        let now = self.now();
        self.copies().take(invite, now);
        self.untold.notify_one();
    }

    /// Tells the other pods of the calls that were taken.
    pub(super) async fn tell_peers(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.untold.notified() => {}
            }
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                let notices = self.copies().notices();
                if notices.is_empty() {
                    break;
                }
                for other in self.others() {
                    notices.iter().for_each(|notice| self.send(other, notice.clone()));
                }
            }
        }
    }

    /// The pod that took the INVITE of which this request is a copy. Over a stream there are none.
    pub(in crate::gateway) fn taken_elsewhere(&self, request: &Request, flow: Flow) -> Option<Instance> {
        // What a pod passes on was looked up there.
        if flow.transport != Transport::Udp || self.is_peer(flow) || self.peers.load().0.is_empty() {
            return None;
        }
        self.taker(InviteName::of(request)?)
    }

    /// The other pod that took the INVITE with this name.
    pub(super) fn taker(&self, invite: InviteName) -> Option<Instance> {
        let now = self.now();
        let taker = Instance(self.copies().taker(invite, now)?);
        (taker != self.instance).then_some(taker)
    }

    /// Whether a datagram ends here because it was meant for this pod itself.
    pub(super) fn is_notice(&self, datagram: &[u8], flow: Flow) -> bool {
        if !copies::is_notice(datagram) || !self.is_peer(flow) {
            return false;
        }
        let now = self.now();
        self.copies().hear(datagram, now);
        true
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
