//! A transfer that the caller's trunk carries out: it is sent a REFER, and its NOTIFYs tell what becomes of it (RFC 3515,
//! RFC 5589 §6).
//!
//! Until a final 2xx is told nothing has changed: the caller is with whom it was with. Then the call is over for us, and
//! caller and agent get BYE; an agent that asked for it is told first. A subscription that ends without a final status, a caller who leaves first, and a trunk that
//! never says anything prove nothing: the outcome is unknown.

use std::time::Duration;

use crate::sip::event::{LegEvent, RefusedBy};
use crate::sip::time::Millis;

use super::attempt::{Failed, Failure};
use super::input::{Context, Effect, LegKey, Refer, Timer};
use super::machine::Call;
use super::outcome::{Joined, Outcome};
use super::transfer::Transfer;

/// A trunk may say so much later than the destination should have answered what became of it.
const NOTIFY_GRACE: Duration = Duration::from_secs(10);

/// A REFER whose outcome isn't known yet.
#[derive(Debug)]
pub(super) struct Referral {
    transfer: Box<Transfer>,
    /// When the destination began to ring.
    ringing: Option<Millis>,
}

impl Call {
    /// Whether somebody is dialled, or the caller's trunk is asked to, or will be once a message was heard; or whether
    /// somebody else becomes the caller.
    pub(super) fn is_under_way(&self) -> bool {
        self.attempt.is_some()
            || self.referral.is_some()
            || self.announcement.is_some()
            || self.newcomer.is_some()
    }

    /// Asks the caller's trunk to dial.
    pub(super) fn refer_away(&mut self, transfer: Transfer, target: String, out: &mut Vec<Effect>) {
        let ring = Duration::from_secs(u64::from(transfer.route.ring_timeout_seconds));
        let refer = Refer {
            target,
            referred_by: format!("<sip:{}@{{host}}>", self.number()),
            headers: transfer.route.headers.clone(),
            credential: transfer.route.credential.clone().map(|id| (id, transfer.route.realm.clone())),
        };
        out.push(Effect::SetTimer(Timer::Referral, ring + NOTIFY_GRACE));
        out.push(Effect::Refer(LegKey::Caller, Box::new(refer)));
        self.referral = Some(Referral { transfer: Box::new(transfer), ringing: None });
        self.owes_notify = true;
    }

    /// The caller's trunk answers the REFER, or tells how it goes.
    pub(super) fn referral_event(&mut self, event: LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        let is_last = matches!(
            event,
            LegEvent::Response { code: 300.., .. }
                | LegEvent::Referred { ended: true, .. }
                | LegEvent::Referred { code: Some(200..), .. }
        );
        if is_last {
            self.owes_notify = false;
        }
        let Some(referral) = &mut self.referral else { return };
        match event {
            // Any 2xx means that it tries (RFC 3515 §2.4.2), no more.
            LegEvent::Response { code, .. } if code < 300 => {}
            LegEvent::Response { code, .. } => {
                let (by, reason) = match code {
                    401 | 407 => (
                        RefusedBy::Unauthorized,
                        "the caller's trunk refused the credentials; check its Secret and realm".to_owned(),
                    ),
                    405 | 420 | 489 | 501 => (
                        RefusedBy::Response,
                        format!(
                            "the caller's trunk takes no REFER ({code}); set refer.supported: false on it"
                        ),
                    ),
                    _ => (RefusedBy::Response, format!("the caller's trunk refused the REFER with {code}")),
                };
                let failure = Failure { outcome: Outcome::of_refusal(code, &by), code: Some(code), reason };
                self.referral_failed(failure, true, context, out);
            }
            LegEvent::Referred { code: Some(180), ended: false, .. } if referral.ringing.is_none() => {
                referral.ringing = Some(context.now);
                if let Some(referral) = &self.referral {
                    self.transfer_rings(&referral.transfer, out);
                }
            }
            LegEvent::Referred { code: Some(code @ 300..), .. } => {
                let outcome = Outcome::of_refusal(code, &RefusedBy::Response);
                let reason = format!("the caller's trunk was told {code}");
                self.referral_failed(Failure { outcome, code: Some(code), reason }, true, context, out);
            }
            LegEvent::Referred { .. } => match Joined::by(&event) {
                Some(joined) => {
                    let reason = "the caller's trunk says that it was answered".into();
                    let answered = Failure { outcome: Outcome::Answered(joined), code: Some(200), reason };
                    let asker = referral.transfer.asker.refer().map(|(leg, _)| leg);
                    self.referral_ended(answered, out);
                    self.end_for_all_but(asker, "transferred", "SIP;cause=200;text=\"Transferred\"", out);
                }
                None if matches!(event, LegEvent::Referred { ended: true, .. }) => {
                    let reason = "the caller's trunk did not say what became of it".to_owned();
                    let unknown = Failure { outcome: Outcome::Unknown, code: None, reason };
                    self.referral_failed(unknown, false, context, out);
                }
                None => {}
            },
            _ => {}
        }
    }

    /// The caller's trunk has said nothing final for long.
    pub(super) fn referral_timed_out(&mut self, context: Context<'_>, out: &mut Vec<Effect>) {
        if self.referral.is_some() {
            let reason = "the caller's trunk did not say in time what became of it".to_owned();
            let unknown = Failure { outcome: Outcome::Unknown, code: None, reason };
            self.referral_failed(unknown, false, context, out);
        }
    }

    /// The transfer is over and the referral with it.
    pub(super) fn referral_ended(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        let Some(referral) = self.referral.take() else { return };
        out.push(Effect::ClearTimer(Timer::Referral));
        let rung = referral.ringing.map_or(Duration::ZERO, |since| self.now.since(since));
        self.transfer_ended(referral.transfer, failure, rung, out);
    }

    /// Nobody took the caller; where that is certain, the next destination is tried.
    fn referral_failed(
        &mut self,
        failure: Failure,
        unanswered: bool,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let Some(referral) = self.referral.take() else { return };
        out.push(Effect::ClearTimer(Timer::Referral));
        let rung = referral.ringing.map_or(Duration::ZERO, |since| context.now.since(since));
        let failed = Failed { failure, unanswered, by_the_host: false, rung };
        self.transfer_failed(referral.transfer, failed, context, out);
    }
}
