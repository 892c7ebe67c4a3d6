//! What the assistant says before the call ends: the caller hears it to its end, then every leg is hung up.
//!
//! The end never depends on it. Where the assistant can't say it, where it takes too long, and where the agent leaves over it,
//! the call ends without. Until then nothing new begins, and a transfer that is under way is given up.

use super::attempt::{Failure, Phase};
use super::input::{CommandRefusal, Context, Effect, Record, TellId, Telling, Timer, Untold};
use super::machine::{Call, NORMAL, Status};
use super::outcome::Outcome;

/// Why a call ended that the control API ended.
const ENDED_BY_API: &str = "ended-by-api";

/// What is being said before the end.
#[derive(Debug)]
pub(super) struct Farewell(TellId);

impl Call {
    /// The control API ends the call; after a message, where somebody can say it.
    pub(super) fn end_by_api(
        &mut self,
        message: Option<String>,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), CommandRefusal> {
        if let Some(content) = message {
            if self.farewell.is_some() {
                return Err(CommandRefusal::Ending);
            }
            if self.status == Status::InProgress && !self.is_moving() {
                match self.take_leave(content, context, out) {
                    Ok(()) => return Ok(()),
                    Err(why) => out.push(Effect::Record(Record::NotTold(why.to_string()))),
                }
            }
        }
        self.end(ENDED_BY_API, NORMAL, out);
        Ok(())
    }

    /// The control API has something said, and ends the call when it was heard. Unlike a message before the end this is
    /// refused where nobody can say it, and doesn't give up a transfer.
    pub(super) fn say_and_end(
        &mut self,
        content: String,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), CommandRefusal> {
        self.may_begin()?;
        if self.is_under_way() {
            return Err(CommandRefusal::TransferUnderWay);
        }
        self.take_leave(content, context, out)?;
        Ok(())
    }

    /// Whether this is what is said before the end.
    pub(super) fn is_farewell(&self, id: TellId) -> bool {
        self.farewell.as_ref().is_some_and(|farewell| farewell.0 == id)
    }

    /// Everything was said, or can't be any more.
    pub(super) fn end_after_farewell(&mut self, out: &mut Vec<Effect>) {
        if self.farewell.is_some() {
            self.end(ENDED_BY_API, NORMAL, out);
        }
    }

    fn take_leave(
        &mut self,
        content: String,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Untold> {
        let (id, within) = self.tell(Telling::Say { content, end_after: true }, context, out)?;
        let reason = format!("the call ended: {ENDED_BY_API}");
        self.give_up_transfer(Failure { outcome: Outcome::Unknown, code: None, reason }, NORMAL, out);
        out.push(Effect::SetTimer(Timer::Farewell, within));
        self.farewell = Some(Farewell(id));
        Ok(())
    }

    /// Whether the caller moves, or its trunk was asked to move it: what is said now may be heard by nobody.
    fn is_moving(&self) -> bool {
        let here = |phase: &Phase| matches!(phase, Phase::Dialling | Phase::AwaitingCaller);
        self.referral.is_some() || self.attempt.as_ref().is_some_and(|attempt| !here(&attempt.phase))
    }
}
