//! Transactions: what is repeated until somebody answers, and what is remembered so that a repetition does nothing twice
//! (RFC 3261 §17, RFC 6026).
//!
//! Client transactions live in their leg and are found by the leg and number in our branch. Server transactions live in
//! [`Servers`], found by a keyed digest of the peer's branch. Both hold encoded bytes only: a retransmission costs a copy
//! of a reference, and no parsed message outlives its handling.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::headers::BRANCH_MAGIC_COOKIE;
use sipx_sip::{Method, Via};

use super::event::{Body, Flow, LegId, RequestId};
use super::identity::Identity;
use super::read::Identified;
use super::time::Millis;
use super::wheel::Handle;
use super::wire::Lines;
use crate::memory::give_back;

/// Why a request was sent: decides what its response means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The INVITE that makes the leg.
    Invite,
    /// A re-INVITE with a new offer.
    Reinvite(OnGlare),
    /// A re-INVITE that changes nothing but refreshes the session (RFC 4028).
    Refresh,
    /// UPDATE that does so.
    Update,
    /// OPTIONS: is the peer still there?
    Probe,
    /// PRACK in the early dialog with this remote tag.
    Prack(Box<[u8]>),
    /// CANCEL of the INVITE.
    Cancel,
    /// BYE.
    Bye,
    /// NOTIFY for the REFER that this request was.
    Notify(RequestId),
    /// A request of the call machine's, by method.
    Request(RequestId, Box<str>),
}

/// What becomes of a re-INVITE of ours that meets one of the peer's (491).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGlare {
    /// It is sent again after a while (RFC 3261 §14.1).
    Retry,
    /// It is refused: whoever wanted it waits and tries again, or both sides would wait for each other.
    Refuse,
}

impl Purpose {
    /// The method on the wire.
    pub fn method(&self) -> &str {
        match self {
            Self::Invite | Self::Reinvite(_) | Self::Refresh => "INVITE",
            Self::Update => "UPDATE",
            Self::Probe => "OPTIONS",
            Self::Prack(_) => "PRACK",
            Self::Cancel => "CANCEL",
            Self::Bye => "BYE",
            Self::Notify(_) => "NOTIFY",
            Self::Request(_, method) => method,
        }
    }

    /// Whether the rules of INVITE client transactions hold.
    pub fn is_invite(&self) -> bool {
        matches!(self, Self::Invite | Self::Reinvite(_) | Self::Refresh)
    }

    /// Whether it makes or refreshes a session (RFC 4028 §3).
    pub fn refreshes(&self) -> bool {
        self.is_invite() || *self == Self::Update
    }
}

/// Where a client transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Sent, nothing came back: repeated over UDP.
    Trying,
    /// A provisional response came. An INVITE now waits as long as it takes.
    Proceeding,
    /// INVITE: a final response of 300 or more came; `bytes` is its ACK, sent again whenever the response is (Timer D).
    Acknowledged,
}

/// A request of ours that awaits its final response.
#[derive(Debug)]
pub struct Client {
    /// Number in the branch; a CANCEL has that of its INVITE.
    pub seq: u32,
    /// CSeq number.
    pub cseq: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it was sent.
    pub flow: Flow,
    /// It was too large for the datagram that it should have been.
    pub large: bool,
    /// The encoded request (or ACK, see [`ClientState::Acknowledged`]).
    pub bytes: Bytes,
    /// Where it stands.
    pub state: ClientState,
    /// Next retransmission interval.
    pub interval: Duration,
    /// When it is given up; an INVITE that proceeds has no such time unless it was cancelled.
    pub gives_up: Option<Millis>,
    /// Its pending timer.
    pub timer: Option<Handle>,
    /// The caller hung up: CANCEL is sent when a provisional response comes (RFC 3261 §9.1), with this Reason.
    pub cancel: Option<Cancel>,
    /// How often it was sent before, and refused with a challenge or 422.
    pub challenges: u8,
    /// What is needed to send it again with an answer to a challenge.
    pub again: Again,
    /// The authorisation that it carried; its ACK repeats it (RFC 3261 §22.1).
    pub authorization: Lines,
}

/// That an INVITE shall be cancelled.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    /// Value of the Reason header.
    pub reason: Option<Box<str>>,
    /// CANCEL was sent.
    pub sent: bool,
}

/// What is needed to send a request again.
#[derive(Clone, Debug)]
pub struct Again {
    /// Headers beyond those of the dialog.
    pub headers: Lines,
    /// Its body.
    pub body: Option<Body>,
    /// Its Max-Forwards.
    pub max_forwards: u8,
}

/// A peer's transaction: a keyed digest of what identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey([u64; 2]);

impl ServerKey {
    /// The key of a request whose sender wrote `via` (RFC 3261 §17.2.3); an ACK has that of the INVITE that it may belong to.
    pub fn of(identity: &Identity, via: &Via, request: &Identified, method: &Method) -> Self {
        let method = if *method == Method::Ack { &Method::Invite } else { method };
        let host = via.host.to_bytes().to_ascii_lowercase();
        let port = via.port.unwrap_or(0).to_be_bytes();
        let method = method.as_bytes();
        match via.branch() {
            Some(branch) if via.has_rfc3261_branch() && branch.len() > BRANCH_MAGIC_COOKIE.len() => {
                Self(identity.digest(&[b"3261", branch, &host, &port, method]))
            }
            // RFC 2543 peers, and those that send the bare cookie: the To tag is left out, because an INVITE lacks it and its ACK has it.
            branch => {
                let (cseq, branch) = (request.cseq.to_be_bytes(), branch.unwrap_or_default());
                let parts: [&[u8]; 8] =
                    [b"2543", &request.call_id, request.sender_tag(), &cseq, branch, &host, &port, method];
                Self(identity.digest(&parts))
            }
        }
    }

    /// The key that the same INVITE has by whatever path it comes (RFC 3261 §8.2.2.2).
    pub fn merged(identity: &Identity, request: &Identified) -> Self {
        Self(identity.digest(&[
            b"merged",
            &request.call_id,
            request.sender_tag(),
            &request.cseq.to_be_bytes(),
        ]))
    }

    /// The key of a forked dialog that a 2xx to an INVITE of ours makes.
    pub fn fork(identity: &Identity, answer: &Identified) -> Self {
        Self(identity.digest(&[b"fork", &answer.call_id, answer.to.tag().unwrap_or_default()]))
    }
}

/// What a response copies from its request.
#[derive(Clone, Debug)]
pub struct ReplyHead {
    /// Via, From, Call-ID and CSeq lines.
    pub lines: Lines,
    /// Record-Route lines, for responses that make a dialog.
    pub record_route: Lines,
    /// To as received.
    pub to: Box<[u8]>,
    /// Whether that To has a tag.
    pub tagged: bool,
}

/// Where a server transaction stands.
#[derive(Clone, Debug)]
pub enum ServerState {
    /// No final response yet: what a response copies, and the last provisional one.
    Waiting(Box<ReplyHead>, Option<Bytes>),
    /// A final response to a non-INVITE request, repeated on demand (Timer J).
    Answered(Bytes),
    /// An INVITE refused: repeated until its ACK comes (Timers G, H).
    Refused(Bytes),
    /// An INVITE accepted: the 2xx is repeated until its ACK comes (RFC 3261 §13.3.1.4).
    Accepted(Bytes),
    /// An INVITE acknowledged: a late copy of it does nothing (Timer I; after a 2xx 64 × T1, RFC 6026's Timer L).
    Done,
}

/// A request of a peer's.
#[derive(Debug)]
pub struct Server {
    /// Where responses go.
    pub flow: Flow,
    /// Its leg.
    pub leg: LegId,
    /// Where it stands.
    pub state: ServerState,
    /// Next retransmission interval.
    pub interval: Duration,
    /// When it is forgotten or given up.
    pub ends: Millis,
    /// Its pending timer.
    pub timer: Option<Handle>,
    /// Its entry in the table of merged requests.
    pub merged: Option<ServerKey>,
}

impl Server {
    /// Whether responses go over a stream.
    pub fn reliable(&self) -> bool {
        self.flow.transport.is_reliable()
    }

    /// Whether no final response was sent.
    pub fn waiting(&self) -> bool {
        matches!(self.state, ServerState::Waiting(..))
    }
}

/// The server transactions of one shard.
#[derive(Debug, Default)]
pub struct Servers {
    table: HashMap<ServerKey, Server>,
    merged: HashMap<ServerKey, ServerKey>,
}

impl Servers {
    /// Adds one.
    pub fn insert(&mut self, key: ServerKey, server: Server) {
        if let Some(merged) = server.merged {
            self.merged.insert(merged, key);
        }
        self.table.insert(key, server);
    }

    /// One by its key.
    pub fn get_mut(&mut self, key: ServerKey) -> Option<&mut Server> {
        self.table.get_mut(&key)
    }

    /// Whether an INVITE with this merged key is known under another key.
    pub fn is_merged(&self, merged: ServerKey, key: ServerKey) -> bool {
        self.merged.get(&merged).is_some_and(|known| *known != key)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: ServerKey) -> Option<Server> {
        let server = self.table.remove(&key)?;
        give_back(&mut self.table);
        if let Some(merged) = server.merged {
            self.merged.remove(&merged);
            give_back(&mut self.merged);
        }
        Some(server)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }
}
