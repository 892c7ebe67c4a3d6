//! A leg: its dialog, its own transactions, and what waits for its turn.

use std::collections::VecDeque;

use bytes::Bytes;

use super::keeping::Session;
use super::reliable::{Early, Reliable};
use crate::sip::dialog::Dialog;
use crate::sip::digest::Digest;
use crate::sip::event::{Body, Flow, LegId, RequestId};
use crate::sip::time::Millis;
use crate::sip::transaction::{Again, Client, ClientState, OnGlare, ServerKey};
use crate::sip::wheel::Handle;

/// Most branches of a fork that are told apart before one answers.
pub const MOST_BRANCHES: usize = 16;

/// The tags of an INVITE's branches, which no two share.
#[derive(Debug, Default)]
pub struct Branches(Vec<Box<[u8]>>);

/// How far a leg has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Our INVITE has no final response.
    Calling,
    /// The peer's INVITE has no final response.
    Ringing,
    /// Answered, but the ACK is outstanding: the peer's, or (after an INVITE without offer) the call machine's.
    Unacknowledged,
    /// Answered and acknowledged.
    Confirmed,
    /// Reported as over. What is left is work on the wire.
    Over,
}

/// See the module.
#[derive(Debug)]
pub struct Leg {
    /// Its id.
    pub id: LegId,
    /// We sent the INVITE, so the Call-ID is ours (decides the retry time after glare, RFC 3261 §14.1).
    pub caller: bool,
    /// How far it has come.
    pub phase: Phase,
    /// Its dialog; in part only while calling.
    pub dialog: Dialog,
    /// Number of the next client transaction.
    pub next_seq: u32,
    /// Our requests that are under way.
    pub clients: Vec<Client>,
    /// The peer's INVITE or re-INVITE that waits for our final response or, accepted, for its ACK; with its CSeq number.
    pub invite: Option<(ServerKey, u32)>,
    /// That one has no offer: our 2xx makes one, and its ACK brings the answer.
    pub ack_answers: bool,
    /// The peer's requests that wait for [`super::Endpoint::respond`].
    pub pending: Vec<Pending>,
    /// We hung up before the peer's ACK came: BYE follows it (RFC 3261 §15), with this Reason.
    pub bye_after_ack: Option<Option<Box<str>>>,
    /// The ACK of the last 2xx that we received.
    pub ack: Option<Ack>,
    /// Re-INVITEs that wait for another to end.
    pub offers: VecDeque<(Option<Body>, OnGlare)>,
    /// A re-INVITE that met 491 and is sent again later.
    pub retry: Option<Retry>,
    /// How often in a row it met 491.
    pub glares: u32,
    /// When a peer that hasn't answered our INVITE at all counts as gone.
    pub patience_ends: Option<Millis>,
    /// Our provisional responses to the peer's INVITE, if it acknowledges them.
    pub reliable: Option<Box<Reliable>>,
    /// Dialogs that our INVITE has made before it is answered: those whose peer wants an acknowledgement.
    pub early: Vec<Early>,
    /// All branches that have said something before our INVITE is answered.
    pub branches: Option<Box<Branches>>,
    /// Its session timer.
    pub session: Session,
    /// Digest credentials and what they have been used for.
    pub digest: Option<Box<Digest>>,
    /// Our REFER whose outcome the peer is telling.
    pub referral: Option<Box<Referral>>,
    /// We have sent the peer elsewhere before: its NOTIFYs about that are for nobody.
    pub referred: bool,
    /// REFERs of the peer whose outcome it is told.
    pub subscriptions: Vec<Subscription>,
    /// REFERs received.
    pub refers: u32,
    /// The leg exists only to end a forked dialog: its entry in the table of those.
    pub fork: Option<ServerKey>,
}

/// A request of the peer's that waits for our final response.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// What the call machine calls it.
    pub request: RequestId,
    /// Its transaction.
    pub key: ServerKey,
    /// What it is.
    pub kind: PendingKind,
}

/// Kinds of [`Pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingKind {
    /// A re-INVITE.
    Reinvite,
    /// An UPDATE with an offer.
    Update,
    /// A REFER with its CSeq number; whether its sender wants to hear the outcome (RFC 4488).
    Refer {
        /// CSeq number.
        cseq: u32,
        /// False for `Refer-Sub: false`.
        subscribed: bool,
    },
    /// INFO, MESSAGE, NOTIFY.
    Other,
}

/// The ACK of a 2xx.
#[derive(Debug)]
pub struct Ack {
    /// CSeq number of the INVITE.
    pub cseq: u32,
    /// The encoded ACK; `None` while the call machine's answer is awaited.
    pub sent: Option<(Flow, Bytes)>,
    /// Forgets it when no copy of the 2xx can come any more.
    pub timer: Option<Handle>,
}

/// A re-INVITE that is sent again after glare.
#[derive(Debug)]
pub struct Retry {
    /// Its offer.
    pub offer: Option<Body>,
    /// When.
    pub timer: Option<Handle>,
}

/// A REFER of ours.
#[derive(Debug)]
pub struct Referral {
    /// What the call machine calls it.
    pub request: RequestId,
    /// CSeq numbers with which it was sent: more than one after a challenge. The `id` of the peer's Event is one of them.
    pub sent: Vec<u32>,
    /// It is to be sent once the peer has acknowledged our answer.
    pub waits: Option<Again>,
}

/// An accepted REFER.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// What the call machine calls the REFER.
    pub request: RequestId,
    /// The `id` of its Event: the REFER's CSeq number, from the second REFER on (RFC 3515 §2.4.6).
    pub id: Option<u32>,
}

impl Leg {
    /// A leg at its beginning.
    pub fn new(id: LegId, caller: bool, phase: Phase, dialog: Dialog) -> Self {
        Self {
            id,
            caller,
            phase,
            dialog,
            next_seq: 1,
            clients: Vec::new(),
            invite: None,
            ack_answers: false,
            pending: Vec::new(),
            bye_after_ack: None,
            ack: None,
            offers: VecDeque::new(),
            retry: None,
            glares: 0,
            patience_ends: None,
            reliable: None,
            early: Vec::new(),
            branches: None,
            session: Session::default(),
            digest: None,
            referral: None,
            referred: false,
            subscriptions: Vec::new(),
            refers: 0,
            fork: None,
        }
    }

    /// Notes that a branch of our INVITE has said something.
    pub fn note_branch(&mut self, tag: Vec<u8>) {
        let Branches(tags) = &mut **self.branches.get_or_insert_default();
        if !tag.is_empty() && tags.len() < MOST_BRANCHES && !tags.iter().any(|known| **known == *tag) {
            tags.push(tag.into_boxed_slice());
        }
    }

    /// Whether one of its dialogs, answered or not, is with the peer of this tag.
    pub fn has_dialog(&self, call_id: &[u8], peer_tag: &[u8]) -> bool {
        let branches = self.branches.iter().flat_map(|branches| &branches.0);
        let early = *self.dialog.call_id == *call_id && branches.into_iter().any(|tag| **tag == *peer_tag);
        early || self.dialog.is_with(call_id, peer_tag)
    }

    /// Gives back the room for what a held call doesn't have: transactions come in bursts, hours apart.
    pub fn shrink(&mut self) {
        if self.clients.is_empty() && self.clients.capacity() > 0 {
            self.clients = Vec::new();
        }
        if self.pending.is_empty() && self.pending.capacity() > 0 {
            self.pending = Vec::new();
        }
    }

    /// Whether it is over for the call machine.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether nothing is left of it on the wire either.
    pub fn is_done(&self) -> bool {
        self.is_over() && self.clients.is_empty() && self.bye_after_ack.is_none()
    }

    /// Whether an INVITE of ours has no final response, or one whose ACK the call machine owes.
    pub fn offers_itself(&self) -> bool {
        self.clients.iter().any(|c| c.purpose.is_invite() && c.state != ClientState::Acknowledged)
            || self.owes_ack()
    }

    /// Whether the call machine owes the ACK of a 2xx.
    pub fn owes_ack(&self) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.sent.is_none())
    }

    /// Whether a re-INVITE can be sent now (RFC 3261 §14.1, RFC 3311 §5.1).
    pub fn may_offer(&self) -> bool {
        self.phase == Phase::Confirmed
            && self.invite.is_none()
            && self.retry.is_none()
            && !self.offers_itself()
            && !self.pending.iter().any(|p| p.kind == PendingKind::Update)
    }
}
