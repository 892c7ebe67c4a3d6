//! How a transfer ended: one outcome each, and no success without its proof.

use std::time::Duration;

use crate::routing::decide::TransferRefusal;
use crate::routing::table::ObjectKey;
use crate::sip::event::{LegEvent, RefusedBy};

/// Proof that a caller was joined with a human: only an accepted re-INVITE of the caller makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined(());

impl Joined {
    /// From the caller's own acceptance.
    pub(super) fn by(event: &LegEvent) -> Option<Self> {
        matches!(event, LegEvent::ReofferAccepted { .. }).then_some(Self(()))
    }
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller talks with the human.
    Answered(Joined),
    /// The human is on another call.
    Busy,
    /// The human didn't answer in time.
    NoAnswer,
    /// The human, or a phone in between, refused.
    Rejected,
    /// The human's line can't be reached.
    Unreachable,
    /// It is outside of the destination's hours.
    Closed,
    /// The routing table doesn't allow it.
    NotAllowed,
    /// The caller hung up first.
    CallerHungUp,
    /// Nobody can say.
    Unknown,
}

impl Outcome {
    /// The outcome as it is written in answers, events and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
            Self::Closed => "closed",
            Self::NotAllowed => "not-allowed",
            Self::CallerHungUp => "caller-hung-up",
            Self::Unknown => "unknown",
        }
    }

    /// What a refusal of the routing table means for the one who asked for the transfer.
    pub(super) fn of_route(refusal: &TransferRefusal) -> Self {
        match refusal {
            TransferRefusal::UnknownDestination { .. }
            | TransferRefusal::NotAllowed { .. }
            | TransferRefusal::Loop(_) => Self::NotAllowed,
            TransferRefusal::Closed { .. } => Self::Closed,
            TransferRefusal::CredentialsMissing(_)
            | TransferRefusal::TransferTrunkUnusable(_)
            | TransferRefusal::NoRoute(_)
            | TransferRefusal::DestinationGone(_)
            | TransferRefusal::NumberGone(_) => Self::Unreachable,
        }
    }

    /// What a refused INVITE means for the one who asked for the transfer.
    pub(super) fn of_refusal(code: u16, by: &RefusedBy) -> Self {
        match (by, code) {
            (RefusedBy::Transport | RefusedBy::Unauthorized, _) => Self::Unreachable,
            (RefusedBy::Timeout, _) => Self::Unreachable,
            (_, 486 | 600) => Self::Busy,
            (_, 408 | 480 | 487) => Self::NoAnswer,
            (_, 404 | 410 | 484 | 502..=504 | 500 | 604) => Self::Unreachable,
            _ => Self::Rejected,
        }
    }

    /// Status line of the last NOTIFY to an agent that asked with REFER (RFC 3515 §2.4.5).
    pub(super) fn sipfrag(&self, code: u16) -> (u16, &'static str) {
        match self {
            Self::Answered(_) => (200, "OK"),
            Self::Busy => (if code == 600 { 600 } else { 486 }, "Busy Here"),
            Self::NoAnswer => (480, "Temporarily Unavailable"),
            Self::Rejected => (if (300..700).contains(&code) { code } else { 603 }, "Decline"),
            Self::Unreachable => (if (400..700).contains(&code) { code } else { 503 }, "Service Unavailable"),
            Self::Closed => (480, "Closed"),
            Self::NotAllowed => (403, "Forbidden"),
            Self::CallerHungUp => (487, "Request Terminated"),
            Self::Unknown => (500, "Server Internal Error"),
        }
    }
}

/// Who asked for a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// The assistant's agent, with REFER.
    Agent,
    /// The control API.
    Api,
}

/// The record of one transfer: the same in the API's answer, the event, the metric and the log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRecord {
    /// How it ended.
    pub outcome: Outcome,
    /// The last SIP status code; absent when nothing was dialled.
    pub sip_code: Option<u16>,
    /// In words.
    pub reason: String,
    /// The destination's name, number or URI.
    pub destination: String,
    /// The trunk that carried it.
    pub trunk: Option<ObjectKey>,
    /// Who asked.
    pub asked_by: AskedBy,
    /// INVITEs sent.
    pub attempts: u16,
    /// From the first ringing to the end of ringing; zero when it never rang.
    pub ring_time: Duration,
}
