//! A call without a caller: a destination is dialled as a transfer of a call to a number would dial it, to see whether it answers.
//!
//! All that a transfer obeys holds: opening hours, the trunk rule, what the trunk lets out, its limits, its other hosts, the caller
//! id. Whoever follows in `onFailure` is not tried, no message is said, and a destination that transfers reach by REFER is dialled:
//! there is nobody to be referred. A destination that answers is hung up on at once.

use std::time::Duration;

use crate::routing::decide::{Authority, TransferRefusal, TransferRoute, Wanted};
use crate::sip::event::LegEvent;

use super::attempt::{Attempt, Failed, Failure, Purpose, next_host};
use super::identity::Retarget;
use super::input::{Context, Effect, Record, Timer};
use super::machine::{Call, CallStart, CallerPhase, NORMAL, Status};
use super::outcome::{AskedBy, Joined, Outcome, TransferRecord, Try};

/// Why a test ends.
const TESTED: &str = "tested";

impl Call {
    /// Dials what the assistant of the number lists as `destination`, or what the number falls back to under this name. `start`
    /// is what a call to the number would bring: its caller's number is the one that a destination sees that preserves it.
    ///
    /// # Errors
    /// When a transfer would be refused before anything is dialled.
    pub fn test(
        start: CallStart,
        destination: &str,
        context: Context<'_>,
    ) -> Result<(Self, Vec<Effect>), TransferRefusal> {
        let mut call = Self::new(start, CallerPhase::Absent, context);
        let route = call.route_to_test(destination, context)?;
        let mut effects = Vec::new();
        call.dial_to_test(route, Vec::new(), &mut effects);
        Ok((call, effects))
    }

    /// Whether nobody called: a destination is tested.
    pub fn is_test(&self) -> bool {
        self.caller.phase == CallerPhase::Absent
    }

    fn route_to_test(
        &self,
        destination: &str,
        context: Context<'_>,
    ) -> Result<TransferRoute, TransferRefusal> {
        let (facts, wanted) = (self.facts(false), Wanted::Name(destination.to_owned()));
        let moment = context.moment();
        let listed = context.index.transfer(&facts, self.assistant(), &wanted, Authority::Assistant, moment);
        let fallback = self.start.answer.fallback().filter(|fallback| fallback.name == destination);
        let plan = match (listed, fallback) {
            (Err(TransferRefusal::UnknownDestination { .. }), Some(fallback)) => {
                context.index.fallback(&facts, fallback, context.moment())?
            }
            (plan, _) => plan?,
        };
        // Who would be dialled in its place is not what is tested.
        match plan.passed_over.into_iter().next() {
            Some(first) => Err(first.refusal),
            None => Ok(plan.route),
        }
    }

    fn dial_to_test(&mut self, route: TransferRoute, tries: Vec<Try>, out: &mut Vec<Effect>) {
        let dial = self.dial_for(&route, Retarget::Transfer { by_refer: false });
        let ring = Duration::from_secs(u64::from(route.ring_timeout_seconds));
        self.dial(Purpose::Test(Box::new(route), tries), dial, ring, out);
    }

    /// It answers, which is all that was to be known.
    pub(super) fn test_answered(&mut self, event: &LegEvent, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(proof) = Joined::in_test(event) else { return };
        let Some(mut attempt) = self.attempt.take() else { return };
        attempt.stop_ringing(context.now);
        out.push(Effect::ClearTimer(Timer::Ring));
        let Attempt { purpose: Purpose::Test(route, mut tries), rung, .. } = *attempt else { return };
        let answered =
            Failure { outcome: Outcome::Answered(proof), code: Some(200), reason: "answered".into() };
        tries.push(Try::dialled(&route, answered, rung, None));
        self.status = Status::InProgress;
        self.test_ended(tries, out);
    }

    /// It doesn't answer: the trunk's next host is tried, if that may help and there is one.
    pub(super) fn test_failed(
        &mut self,
        route: TransferRoute,
        mut tries: Vec<Try>,
        failed: Failed,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let mut next = route.clone();
        let goes_on = next_host(&mut next, &failed, context, out);
        tries.push(Try::dialled(&route, failed.failure, failed.rung, None));
        if goes_on { self.dial_to_test(next, tries, out) } else { self.test_ended(tries, out) }
    }

    fn test_ended(&mut self, tries: Vec<Try>, out: &mut Vec<Effect>) {
        self.report_test(tries, out);
        self.end(TESTED, NORMAL, out);
    }

    /// The one record of a test.
    pub(super) fn report_test(&self, tries: Vec<Try>, out: &mut Vec<Effect>) {
        let record = TransferRecord::new(AskedBy::Api, tries);
        out.extend(record.map(|record| Effect::Record(Record::Tested(Box::new(record)))));
    }
}
