//! What goes into the machine and what comes out: the words between a call and its driver.

use std::time::Duration;

use jiff::Timestamp;

use crate::routing::decide::{Index, Lines, Now, TransferRefusal, Wanted};
use crate::routing::table::{CredentialId, HookEntry, Limits, ObjectKey, SessionTimerEntry, SipTarget};
use crate::sip::event::{Body, LegEvent, Party, RequestId};
use crate::sip::session::SessionPolicy;
use crate::sip::time::Millis;

use super::outcome::{Message, TransferRecord};

/// A leg of the call, as the machine names it. The driver maps it to a leg of the SIP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegKey {
    /// Whoever called.
    Caller,
    /// The n-th party that this call dialled, agent or human, or that called to take the place of one.
    Dialled(u16),
}

/// What the machine may look at: the time, and the table as it is now.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Now, for timers and spans.
    pub now: Millis,
    /// Now on the clock that people read, for schedules.
    pub wall: Timestamp,
    /// A random number, for choices by weight.
    pub dice: u64,
    /// What trunks carry.
    pub lines: &'a dyn Lines,
    /// The routing table that new decisions are made by. A call in progress keeps what it decided earlier.
    pub index: &'a Index,
}

impl<'a> Context<'a> {
    /// What decisions are made by, besides the table.
    pub(super) fn moment(&self) -> Now<'a> {
        Now { at: self.wall, lines: self.lines }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// On a leg.
    Leg(LegKey, LegEvent),
    /// A timer that an effect set.
    Timer(Timer),
    /// Somebody asks for something; answered by exactly one [`Effect::Reply`].
    Command(Command),
    /// A leg called to come in the place of another one (RFC 3891), and may.
    Replaces {
        /// It, by the name that [`super::Call::new_leg`] gave it. Answered or refused like a caller's.
        new: LegKey,
        /// The one in whose place it comes.
        old: LegKey,
        /// Its offer.
        offer: Option<Body>,
    },
    /// What [`Effect::Say`] asked for: the caller heard it to its end, or why not.
    Said(Utterance, Result<(), String>),
}

/// Something that the agent was asked to say; a call never asks for two of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utterance(pub u32);

/// What the control API can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hand the caller to somebody.
    Transfer {
        /// To whom.
        wanted: Wanted,
        /// What the assistant says before, instead of the destination's own message.
        message: Option<String>,
    },
    /// End the call.
    End,
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// The call isn't answered yet, or is over.
    #[error("the call is not in progress")]
    NotActive,
    /// One transfer at a time.
    #[error("a transfer of this call is under way; wait for its outcome")]
    TransferUnderWay,
    /// The routing table says no.
    #[error(transparent)]
    Refused(#[from] TransferRefusal),
}

/// Timers of a call; setting one that is set replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When the message before a transfer should have been heard to its end.
    Message,
    /// When the party that is being dialled has rung long enough.
    Ring,
    /// When a hand-over has taken so long that it is undone.
    HandOver,
    /// When the caller's trunk should have said what became of a REFER.
    Referral,
    /// When an agent that asked for a transfer, and was told of its success, should have hung up by itself.
    ReleaseAgent,
}

/// Something that the driver does. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Sends an INVITE. Failure to resolve or connect comes back as `LegEvent::Refused`.
    Dial(LegKey, Box<Dial>),
    /// Passes a provisional response on.
    Progress(LegKey, u16, Option<Body>),
    /// Answers the leg's INVITE with 200.
    Answer(LegKey, Option<Body>),
    /// Refuses the leg's INVITE; the text becomes a Reason header.
    Refuse(LegKey, u16, &'static str),
    /// Acknowledges a 2xx to an INVITE that had no offer.
    Ack(LegKey, Option<Body>),
    /// Sends a re-INVITE.
    Reoffer(LegKey, Option<Body>),
    /// Sends a re-INVITE for one of the other side's: 491 is the other side's to deal with.
    PassOn(LegKey, Option<Body>),
    /// Answers a request inside the leg.
    Respond(LegKey, RequestId, u16, Option<Body>),
    /// Refuses a request inside the leg, with a sentence for whoever sent it.
    Decline {
        /// Who sent the request.
        leg: LegKey,
        /// The request.
        request: RequestId,
        /// Status code.
        code: u16,
        /// Why (a Warning header, RFC 3261 §20.43).
        why: String,
        /// Seconds after which the same request can be granted, where that is known (a Retry-After header).
        retry_after: Option<u32>,
    },
    /// Tells the sender of a REFER how it goes; the last one ends the subscription.
    Notify {
        /// Who sent the REFER.
        leg: LegKey,
        /// The REFER.
        request: RequestId,
        /// Status code of the sipfrag.
        code: u16,
        /// Its reason phrase.
        reason: &'static str,
        /// Whether the subscription ends.
        last: bool,
    },
    /// Sends a request on `to`; its response answers `request` on `from`.
    Relay {
        /// Where the request came from.
        from: LegKey,
        /// The request.
        request: RequestId,
        /// Where it goes.
        to: LegKey,
        /// Its method.
        method: String,
        /// Its body.
        body: Option<Body>,
    },
    /// Has the agent say something; answered by one [`Input::Said`], if the call is still there.
    Say(Box<Say>),
    /// Sends the leg elsewhere with REFER. Credentials that are gone come back as a refusal with 401.
    Refer(LegKey, Box<Refer>),
    /// Ends a leg in whatever way its state asks for; the text becomes a Reason header.
    HangUp(LegKey, &'static str),
    /// Sets a timer.
    SetTimer(Timer, Duration),
    /// Clears a timer.
    ClearTimer(Timer),
    /// Answers the command.
    Reply(Result<(), CommandRefusal>),
    /// For the log, the metrics and the events.
    Record(Record),
}

/// An INVITE that is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Dial {
    /// Request-URI and where it is sent.
    pub target: SipTarget,
    /// From. An empty host stands for the gateway's own address.
    pub from: Party,
    /// Headers; a value may contain `{host}`, which the driver replaces with the gateway's own address.
    pub headers: Vec<(String, String)>,
    /// Max-Forwards.
    pub max_forwards: u8,
    /// The offer.
    pub offer: Option<Body>,
    /// The trunk's credentials and realm.
    pub credential: Option<(CredentialId, Option<String>)>,
    /// The trunk that carries it, and how much it may carry: the driver counts, and sends nothing that is too much
    /// (`RefusedBy::Limit`).
    pub line: Option<(ObjectKey, Limits)>,
    /// How long a host may say nothing at all before it counts as gone; absent when there is no other host.
    pub patience: Option<Duration>,
    /// Its session timer.
    pub session: SessionPolicy,
}

impl From<SessionTimerEntry> for SessionPolicy {
    fn from(timer: SessionTimerEntry) -> Self {
        Self { min: timer.min_seconds, ask: Some(timer.seconds) }
    }
}

/// Something that the agent is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// Its number.
    pub utterance: Utterance,
    /// Where the agent is told.
    pub hook: HookEntry,
    /// The words.
    pub content: String,
    /// How long it may take until they are heard.
    pub within: Duration,
}

/// A REFER that is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Refer {
    /// Where to: a URI.
    pub target: String,
    /// Referred-By; `{host}` stands for the gateway's own address.
    pub referred_by: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The trunk's credentials and realm.
    pub credential: Option<(CredentialId, Option<String>)>,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Somebody answered the caller: the call is in progress.
    Answered,
    /// A transfer was asked for: its message is said and then it is dialled.
    TransferStarted {
        /// The destination's label.
        destination: String,
    },
    /// What became of the message before a transfer; its destination is dialled now, unless the call is over.
    Message(Message),
    /// The transfer's destination could not be had, and the next one follows.
    TransferForwarded {
        /// The next destination's label.
        destination: String,
    },
    /// A host of the trunk doesn't take the call, and the next one is tried.
    NextHost {
        /// The trunk.
        trunk: Option<ObjectKey>,
    },
    /// Another phone came in the place of the human that the caller talks with, or wanted to.
    Replaced {
        /// The caller talks with it.
        joined: bool,
    },
    /// A transfer rings.
    TransferRinging,
    /// A transfer ended, one way or the other.
    TransferEnded(Box<TransferRecord>),
    /// An address of the assistant's agent could not be reached, and the next one, the fallback or a refusal follows.
    AgentUnavailable {
        /// Status code.
        code: u16,
    },
    /// The assistant can't be reached, and neither can the fallback be dialled.
    FallbackRefused(TransferRefusal),
    /// The call is over; its legs may still be saying goodbye.
    Ended {
        /// Why, in the product's words: `caller-hung-up`, `assistant-ended`, `human-hung-up`, …
        reason: &'static str,
    },
}
