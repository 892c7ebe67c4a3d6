//! What passes between a call and its agent beside SIP: what the agent is told, and what it asks for.
//!
//! An agent that is reached over SIP is told with signed HTTP, and asks with REFER (`transfer`); one that the driver has a
//! session with asks by its tools. What it is told is done in order, each within the time that it and all before it may take.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::sip::time::Millis;

use super::input::{
    AskId, Channel, CommandRefusal, Conclusion, Context, Effect, LegKey, Record, Tell, TellId, Telling,
    Untold, Wish,
};
use super::machine::{Call, NORMAL, PeerKind, Status};
use super::transfer::Asker;

/// What an agent may have been told and not done yet.
const AT_A_TIME: usize = 8;
/// How long the least thing may take, its way to the agent included.
const TIME_TO_TELL: Duration = Duration::from_secs(10);
/// Words may take a second more for so many bytes of them, which is slower than people speak: 12 to 15 letters a second in
/// Latin script, and about 5 characters of 3 bytes each in Chinese.
const BYTES_A_SECOND: usize = 10;

/// What the agent was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How much so far, by whichever agent.
    count: u32,
    /// What is not done yet, and whose that is.
    open: BTreeSet<(LegKey, TellId)>,
    /// When the last of this should be done.
    until: Millis,
}

impl Call {
    /// Tells the agent something, and how long that may take; or says why that is not possible.
    pub(super) fn tell(
        &mut self,
        what: Telling,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(TellId, Duration), Untold> {
        let (leg, channel) = self.agent_channel(context)?;
        // What another agent left undone is nobody's any more.
        self.told.open.retain(|(whose, _)| *whose == leg);
        if self.told.open.len() >= AT_A_TIME {
            return Err(Untold::Busy(AT_A_TIME));
        }
        let before =
            if self.told.open.is_empty() { Duration::ZERO } else { self.told.until.since(context.now) };
        let within = before + time_for(&what);
        self.told.until = context.now + within;
        self.told.count += 1;
        let id = TellId(self.told.count);
        self.told.open.insert((leg, id));
        out.push(Effect::Tell(Box::new(Tell { id, leg, channel, what, within })));
        Ok((id, within))
    }

    /// Whether anything new may begin in the call.
    pub(super) fn may_begin(&self) -> Result<(), CommandRefusal> {
        match self.status {
            Status::InProgress if self.farewell.is_some() => Err(CommandRefusal::Ending),
            Status::InProgress => Ok(()),
            _ => Err(CommandRefusal::NotActive),
        }
    }

    /// The control API wants the agent to be told something.
    pub(super) fn tell_by_api(
        &mut self,
        what: Telling,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), CommandRefusal> {
        self.may_begin()?;
        self.tell(what, context, out)?;
        Ok(())
    }

    /// Has the agent know what happened, so that it can tell the caller. One that can't be told goes on as it did.
    pub(super) fn let_know(&mut self, content: String, context: Context<'_>, out: &mut Vec<Effect>) {
        let _ = self.tell(Telling::Context { content, trigger_response: true }, context, out);
    }

    /// The agent did what it was told, or not.
    pub(super) fn was_told(&mut self, id: TellId, done: Result<(), String>, out: &mut Vec<Effect>) {
        let before = self.told.open.len();
        self.told.open.retain(|(_, open)| *open != id);
        if before == self.told.open.len() || self.end_reason().is_some() {
            return;
        }
        if self.is_announcing(id) {
            return self.was_announced(done, out);
        }
        if let Err(why) = done {
            out.push(Effect::Record(Record::NotTold(why)));
        }
        if self.is_farewell(id) {
            self.end_after_farewell(out);
        }
    }

    /// An agent asks for something by its session. Only the one that the caller talks with may.
    pub(super) fn asked(
        &mut self,
        leg: LegKey,
        ask: AskId,
        wish: Wish,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let may = self.end_reason().is_none() && self.is_agent(leg);
        match wish {
            Wish::End if may => self.end("assistant-ended", NORMAL, out),
            Wish::End => {}
            Wish::Transfer { wanted, message } => {
                let asker = Asker::Tool(leg, ask);
                let begun = if may {
                    self.transfer(asker, &wanted, message, context, out)
                } else {
                    Err(CommandRefusal::NotActive)
                };
                if let Err(refusal) = begun {
                    self.conclude(leg, ask, Conclusion::Refused(refusal), out);
                }
            }
        }
    }

    /// Tells an agent what became of what it asked for, if it is still there.
    pub(super) fn conclude(&self, leg: LegKey, ask: AskId, conclusion: Conclusion, out: &mut Vec<Effect>) {
        if self.live.contains(&leg) {
            out.push(Effect::Conclude { leg, ask, conclusion });
        }
    }

    /// The driver gave an agent up: as if its leg had failed.
    pub(super) fn agent_failed(
        &mut self,
        leg: LegKey,
        why: String,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let dialled = self.attempt.as_ref().is_some_and(|attempt| attempt.is_agent_on(leg));
        if self.end_reason().is_some() || !(dialled || self.is_agent(leg)) {
            return;
        }
        out.push(Effect::Record(Record::AgentFailed(why)));
        self.hang_up(leg, "SIP;cause=480;text=\"Agent unavailable\"", out);
        if dialled {
            self.party_left(true, context, out);
        } else {
            self.peer_left(true, context, out);
        }
    }

    /// Whether the caller talks with the agent on this leg.
    fn is_agent(&self, leg: LegKey) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.leg == leg && peer.kind == PeerKind::Agent)
    }

    /// How the agent that the caller talks with is told something.
    fn agent_channel(&self, context: Context<'_>) -> Result<(LegKey, Channel), Untold> {
        let peer = self.peer.as_ref().ok_or(Untold::Gone)?;
        let assistant = self.assistant().filter(|_| peer.kind == PeerKind::Agent).ok_or(Untold::Human)?;
        if self.start.answer.assistant().is_some_and(|(_, agent)| agent.openai().is_some()) {
            return Ok((peer.leg, Channel::Session));
        }
        // As the table is now: a secret that was revoked is not used again.
        let hook = context.index.hook(assistant);
        let hook = hook.cloned().ok_or_else(|| Untold::NoHook(assistant.clone()))?;
        Ok((peer.leg, Channel::Hook(hook)))
    }
}

/// How long something may take that an agent is told.
fn time_for(what: &Telling) -> Duration {
    let spoken = match what {
        Telling::Say { content, .. } => content.len(),
        Telling::Context { .. } => 0,
    };
    TIME_TO_TELL + Duration::from_secs(spoken.div_ceil(BYTES_A_SECOND) as u64)
}
