//! What goes into the machine and what comes out: the words between a call and its driver.

use std::time::Duration;

use jiff::Timestamp;

use crate::routing::decide::{Index, Lines, Now, TransferRefusal, Wanted};
use crate::routing::table::{CredentialId, HookEntry, Limits, ObjectKey, SessionTimerEntry, SipTarget};
use crate::sip::event::{Body, IncomingCall, LegEvent, Party, RequestId};
use crate::sip::session::SessionPolicy;
use crate::sip::time::Millis;

use super::outcome::{Message, TransferRecord};

/// A leg of the call, as the machine names it. The driver maps it to a leg of the SIP endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegKey {
    /// Whoever called, or came in the place of who did ([`Effect::BecomesCaller`]).
    Caller,
    /// The n-th party that this call dialled, agent or human, or that called to take somebody's place.
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
        /// Its INVITE.
        incoming: Box<IncomingCall>,
    },
    /// What became of what [`Effect::Tell`] asked for: it is done, or why not.
    Told(TellId, Result<(), String>),
    /// The agent asks for something by other means than SIP, for example by a tool.
    Asked {
        /// The agent's leg.
        leg: LegKey,
        /// The request, by the driver's number.
        ask: AskId,
        /// What it asks for.
        wish: Wish,
    },
    /// The agent on this leg can't serve the caller, or not any longer, whatever SIP says: the driver knows it by other means.
    AgentFailed {
        /// The agent's leg.
        leg: LegKey,
        /// Why, as a sentence.
        why: String,
    },
}

/// Something that the agent is told; a call never uses a number twice, and counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TellId(pub u32);

/// Something that the agent asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u32);

/// What an agent can ask for by other means than SIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hand the caller to one of the assistant's destinations; answered by one [`Effect::Conclude`], as long as the agent's
    /// leg is there.
    Transfer {
        /// To whom.
        wanted: Wanted,
        /// What is said before, instead of the destination's own message.
        message: Option<String>,
    },
    /// End the call, now: whatever was to be said has been heard.
    End,
}

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
    /// Have the assistant say something.
    Say {
        /// The words.
        content: String,
        /// Whether the call ends when they were heard.
        end_after: bool,
    },
    /// Let the assistant know something that the caller doesn't hear.
    Inject {
        /// What it should know.
        content: String,
        /// Whether it should say something about it at once.
        trigger_response: bool,
    },
    /// End the call.
    End {
        /// What the assistant says before, where it can: the end doesn't depend on it.
        message: Option<String>,
    },
}

impl Command {
    /// The product's word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transfer { .. } => "transfer",
            Self::Say { .. } => "say",
            Self::Inject { .. } => "inject-context",
            Self::End { .. } => "end-call",
        }
    }
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
    /// The assistant is saying goodbye.
    #[error("the call ends as soon as the assistant has said goodbye")]
    Ending,
    /// The agent can't be told anything now.
    #[error(transparent)]
    Untold(#[from] Untold),
    /// The routing table says no.
    #[error(transparent)]
    Refused(#[from] TransferRefusal),
}

/// Why an agent can't be told anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// Nobody has to.
    #[error("the caller talks with a human")]
    Human,
    /// It hung up while its caller is transferred.
    #[error("the agent has left the call")]
    Gone,
    /// There is no way to tell it.
    #[error("the agent of Assistant {0} has no hook; set agent.sip.hook")]
    NoHook(ObjectKey),
    /// It hasn't got round to what it was told before.
    #[error("the agent has {0} things to do already; wait until it has said them")]
    Busy(usize),
}

/// Timers of a call; setting one that is set replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When the message before a transfer should have been heard to its end.
    Message,
    /// When what the assistant says before the call ends should have been heard to its end.
    Farewell,
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
    /// Tells the agent something; answered by one [`Input::Told`], if the call is still there. What it is told is done in the
    /// order of the numbers.
    Tell(Box<Tell>),
    /// The caller hears this agent's leg from now on.
    Joined {
        /// The agent's leg.
        leg: LegKey,
        /// The caller has talked with its assistant before in this call, over another leg.
        again: bool,
    },
    /// Tells the agent what became of the transfer that it asked for with [`Input::Asked`].
    Conclude {
        /// The agent's leg.
        leg: LegKey,
        /// The request.
        ask: AskId,
        /// What became of it.
        conclusion: Conclusion,
    },
    /// Sends the leg elsewhere with REFER. Credentials that are gone come back as a refusal with 401.
    Refer(LegKey, Box<Refer>),
    /// This leg and the caller's exchange their names: from now on [`LegKey::Caller`] is the leg that came in the caller's place,
    /// and this is the name of the one whose place it took, if that is still there.
    BecomesCaller(LegKey),
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
    /// The assistant whose agent it is, if the driver runs that one's conversation.
    pub assistant: Option<ObjectKey>,
}

impl From<SessionTimerEntry> for SessionPolicy {
    fn from(timer: SessionTimerEntry) -> Self {
        Self { min: timer.min_seconds, ask: Some(timer.seconds) }
    }
}

/// Something that the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    /// Its number.
    pub id: TellId,
    /// The agent's leg.
    pub leg: LegKey,
    /// How it is told.
    pub channel: Channel,
    /// What.
    pub what: Telling,
    /// How long it may take until it is done, with all that the agent was told before.
    pub within: Duration,
}

/// How an agent is told something.
#[derive(Clone, Debug, PartialEq)]
pub enum Channel {
    /// With signed HTTP.
    Hook(HookEntry),
    /// In the session that the driver has with it.
    Session,
}

/// What an agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Telling {
    /// To say something: done once the caller has heard it to its end.
    Say {
        /// The words.
        content: String,
        /// Whether the call ends then.
        end_after: bool,
    },
    /// Something to know: done once the agent has it.
    Context {
        /// What it should know.
        content: String,
        /// Whether it should say something about it at once.
        trigger_response: bool,
    },
}

/// What became of a transfer that an agent asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Conclusion {
    /// It didn't begin.
    Refused(CommandRefusal),
    /// It began, and ended so.
    Ended(Box<TransferRecord>),
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

/// In whose place somebody came (RFC 3891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The caller's.
    Caller,
    /// That of the human that the caller talks with.
    Human,
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
    /// The test of a destination is over, with this outcome.
    Tested(Box<TransferRecord>),
    /// The transfer's destination is dialled, or the caller's trunk is asked to; again for each further host.
    TransferDialling {
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
    /// Somebody came in the place of the caller, or of the human that the caller talks with, or wanted to.
    Replaced {
        /// In whose.
        place: Place,
        /// It has it.
        joined: bool,
    },
    /// Another phone took the call that rang at a human's.
    PickedUp,
    /// A transfer rings.
    TransferRinging,
    /// A transfer ended, one way or the other.
    TransferEnded(Box<TransferRecord>),
    /// The agent did not do what it was told, or not to its end; and why. The call goes on, or ends as it was about to.
    NotTold(String),
    /// The driver gave the agent up; and why. What follows is as if its leg had failed.
    AgentFailed(String),
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
