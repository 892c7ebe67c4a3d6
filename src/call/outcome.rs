//! How a transfer ended: one outcome each, and no success without its proof.

use std::time::Duration;

use crate::routing::decide::{PassedOver, TransferRefusal, TransferRoute};
use crate::routing::table::ObjectKey;
use crate::sip::event::{LegEvent, RefusedBy};

use super::attempt::Failure;

/// Proof that a caller was joined with a human: an accepted re-INVITE of the caller makes one, or a final 2xx that its trunk
/// tells of the call that it was asked to make. In a test, which has no caller, the human's own answer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined(());

impl Joined {
    /// From the caller's own acceptance, or its trunk's word.
    pub(super) fn by(event: &LegEvent) -> Option<Self> {
        let proven = matches!(
            event,
            LegEvent::ReofferAccepted { .. } | LegEvent::Referred { code: Some(200..300), .. }
        );
        proven.then_some(Self(()))
    }

    /// From the answer of a destination that is tested.
    pub(super) fn in_test(event: &LegEvent) -> Option<Self> {
        matches!(event, LegEvent::Answered { .. }).then_some(Self(()))
    }
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller talks with the human; in a test the human has answered.
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
            | TransferRefusal::Full { .. }
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
            (RefusedBy::Limit, _) => Self::NotAllowed,
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

/// What became of the message before a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The caller heard it to its end.
    Heard,
    /// It was not said, or not to its end; and why. The destination was dialled all the same, unless the call was over.
    NotHeard(String),
}

/// One destination of a transfer: dialled, or passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Its name, number or URI.
    pub destination: String,
    /// The trunk that carried it.
    pub trunk: Option<ObjectKey>,
    /// The host that was sent an INVITE; absent when it was passed over.
    pub host: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The last SIP status code; absent when there was none.
    pub sip_code: Option<u16>,
    /// In words.
    pub reason: String,
    /// From the first ringing to the end of ringing; zero when it never rang.
    pub ring_time: Duration,
    /// What became of the message before it; absent when there was none.
    pub message: Option<Message>,
}

impl Try {
    /// A destination that was dialled.
    pub(super) fn dialled(
        route: &TransferRoute,
        failure: Failure,
        ring_time: Duration,
        message: Option<Message>,
    ) -> Self {
        let Failure { outcome, code, reason } = failure;
        // No answer of anybody's is 'not allowed': that is said instead of sending.
        let sent = outcome != Outcome::NotAllowed;
        Self {
            destination: route.label.clone(),
            trunk: route.trunk.clone(),
            host: sent.then(|| route.target.host.clone()),
            outcome,
            sip_code: code,
            reason,
            ring_time,
            message,
        }
    }

    /// A destination that was to be dialled, but then the call was over.
    pub(super) fn not_dialled(route: &TransferRoute, failure: Failure, message: Option<Message>) -> Self {
        Self { host: None, ..Self::dialled(route, failure, Duration::ZERO, message) }
    }

    /// A destination that could not be dialled when its turn came.
    pub(super) fn passed_over(passed_over: PassedOver) -> Self {
        let PassedOver { label, refusal } = passed_over;
        Self {
            destination: label,
            trunk: None,
            host: None,
            outcome: Outcome::of_route(&refusal),
            sip_code: None,
            reason: refusal.to_string(),
            ring_time: Duration::ZERO,
            message: None,
        }
    }
}

/// The record of one transfer: the same in the API's answer, the event, the metric and the log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRecord {
    /// Who asked.
    pub asked_by: AskedBy,
    /// Destinations that came before the last one, in the order of their turns.
    pub before: Vec<Try>,
    /// The one that decided how the transfer ended.
    pub last: Try,
}

impl TransferRecord {
    /// From everything that was tried; `None` when that is nothing.
    pub(super) fn new(asked_by: AskedBy, mut tries: Vec<Try>) -> Option<Self> {
        let last = tries.pop()?;
        Some(Self { asked_by, before: tries, last })
    }

    /// What an agent is to know that the caller is with after a transfer that failed, and that doesn't know of it.
    pub(super) fn for_the_agent(&self) -> String {
        let Try { destination, outcome, reason, .. } = &self.last;
        format!(
            "The caller was to be transferred to {destination}, which did not work out ({}: {reason}). The caller is with you: say \
             so in one sentence, and go on helping.",
            outcome.as_str()
        )
    }

    /// Everything that was tried, in order.
    pub fn tries(&self) -> impl Iterator<Item = &Try> {
        self.before.iter().chain([&self.last])
    }

    /// INVITEs and REFERs that were sent, without those that repeat one or answer a challenge.
    pub fn attempts(&self) -> usize {
        self.tries().filter(|tried| tried.host.is_some()).count()
    }

    /// How long it rang, all together.
    pub fn ring_time(&self) -> Duration {
        self.tries().map(|tried| tried.ring_time).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What people read: outcome → the codes that lead to it, and the code of the last NOTIFY when there is no other one.
    fn documented() -> BTreeMap<&'static str, (Vec<u16>, u16)> {
        let page = include_str!("../../docs/transfers.md");
        let table = page.split_once("## Outcomes").unwrap().1.split_once("\n## ").unwrap().0;
        let codes = |cell: &str| -> Vec<u16> {
            cell.split(|c: char| !c.is_ascii_digit())
                .filter(|word| word.len() == 3)
                .map(|word| word.parse().unwrap())
                .collect()
        };
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        rows.map(|(outcome, rest)| {
            let (when, told) = rest.trim_end_matches(['|', ' ']).split_once('|').unwrap();
            (outcome, (codes(when), *codes(told).last().unwrap()))
        })
        .collect()
    }

    #[test]
    fn the_table_of_outcomes_is_what_happens() {
        let documented = documented();
        for code in 400..700 {
            let outcome = Outcome::of_refusal(code, &RefusedBy::Response);
            // The codes of `rejected` are examples: it is whatever is left.
            let named = documented
                .iter()
                .find(|(_, (codes, _))| codes.contains(&code))
                .map_or("rejected", |(name, _)| name);
            assert_eq!(outcome.as_str(), named, "{code}");
        }
        let all = [
            Outcome::Answered(Joined(())),
            Outcome::Busy,
            Outcome::NoAnswer,
            Outcome::Rejected,
            Outcome::Unreachable,
            Outcome::Closed,
            Outcome::NotAllowed,
            Outcome::CallerHungUp,
            Outcome::Unknown,
        ];
        assert_eq!(documented.len(), all.len());
        for outcome in all {
            let (_, told) = documented[outcome.as_str()];
            // Busy is 486 and not the 600 that comes last in its row: that is passed on.
            let code = if outcome == Outcome::Busy { 600 } else { 0 };
            assert_eq!(outcome.sipfrag(code).0, told, "{}", outcome.as_str());
        }
    }
}
