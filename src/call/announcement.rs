//! What the assistant says before a transfer: the caller hears it to its end, then the destination is dialled.
//!
//! The caller's transfer never depends on it. Where the assistant can't say it, where it takes too long, and where the agent
//! leaves over it, the destination is dialled without, and the record of the transfer says why the message wasn't heard. A
//! caller who hangs up meanwhile has nobody dialled.

use std::time::Duration;

use crate::routing::table::HookEntry;

use super::attempt::Failure;
use super::input::{Context, Effect, Record, Say, Timer, Utterance};
use super::machine::{Call, PeerKind};
use super::outcome::{Message, Try};
use super::transfer::Transfer;

/// How long the shortest message may take, its way to the agent included.
const TIME_TO_SPEAK: Duration = Duration::from_secs(10);
/// A message may take a second more for so many bytes of it, which is slower than people speak: 12 to 15 letters a second in
/// Latin script, and about 5 characters of 3 bytes each in Chinese.
const BYTES_A_SECOND: usize = 10;

/// A message that is being said, and the transfer that waits for it.
#[derive(Debug)]
pub(super) struct Announcement {
    transfer: Box<Transfer>,
    utterance: Utterance,
    within: Duration,
}

impl Call {
    /// Has the assistant say what is to be said, then dials.
    pub(super) fn announce(&mut self, mut transfer: Transfer, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(content) = transfer.message.take() else { return self.dial_destination(transfer, out) };
        let hook = match self.who_says_it(context) {
            Ok(hook) => hook,
            Err(why) => return self.dial_announced(transfer, Message::NotHeard(why), out),
        };
        let utterance = self.next_utterance();
        let within = time_to_say(&content);
        out.push(Effect::SetTimer(Timer::Message, within));
        out.push(Effect::Say(Box::new(Say { utterance, hook, content, within })));
        self.announcement = Some(Announcement { transfer: Box::new(transfer), utterance, within });
    }

    /// Something was heard to its end, or can't be.
    pub(super) fn was_said(
        &mut self,
        utterance: Utterance,
        heard: Result<(), String>,
        out: &mut Vec<Effect>,
    ) {
        if self.announcement.as_ref().is_some_and(|announcement| announcement.utterance == utterance) {
            self.announced(heard.map_or_else(Message::NotHeard, |()| Message::Heard), out);
        }
    }

    /// It takes so long that nobody can still be saying it.
    pub(super) fn message_timed_out(&mut self, out: &mut Vec<Effect>) {
        if let Some(announcement) = &self.announcement {
            let seconds = announcement.within.as_secs();
            let why = format!("the agent did not say within {seconds} s that it was heard");
            self.announced(Message::NotHeard(why), out);
        }
    }

    /// The agent left: what it was saying isn't heard any more.
    pub(super) fn message_broke_off(&mut self, out: &mut Vec<Effect>) {
        self.announced(Message::NotHeard("the agent hung up".to_owned()), out);
    }

    /// The call ended first: nobody is dialled.
    pub(super) fn announcement_ended(&mut self, failure: Failure, out: &mut Vec<Effect>) {
        let Some(Announcement { transfer, .. }) = self.announcement.take() else { return };
        out.push(Effect::ClearTimer(Timer::Message));
        let message = Message::NotHeard(failure.reason.clone());
        out.push(Effect::Record(Record::Message(message.clone())));
        let tried = Try::not_dialled(&transfer.route, failure, Some(message));
        self.report(*transfer, tried, out);
    }

    fn announced(&mut self, message: Message, out: &mut Vec<Effect>) {
        let Some(Announcement { transfer, .. }) = self.announcement.take() else { return };
        out.push(Effect::ClearTimer(Timer::Message));
        self.dial_announced(*transfer, message, out);
    }

    fn dial_announced(&mut self, mut transfer: Transfer, message: Message, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::Message(message.clone())));
        transfer.announced = Some(message);
        self.dial_destination(transfer, out);
    }

    /// Where the agent that the caller talks with is told what to say; or why nobody can say anything.
    fn who_says_it(&self, context: Context<'_>) -> Result<HookEntry, String> {
        match &self.peer {
            Some(peer) if peer.kind == PeerKind::Agent => {}
            Some(_) => return Err("the caller talks with a human".to_owned()),
            None => return Err("the agent has left the call".to_owned()),
        }
        // As the table is now: a secret that was revoked is not used again.
        let assistant = self.assistant().ok_or("the call has no assistant")?;
        let hook = context.index.hook(assistant);
        hook.cloned().ok_or_else(|| format!("the agent of Assistant {assistant} has no hook"))
    }

    fn next_utterance(&mut self) -> Utterance {
        self.utterances += 1;
        Utterance(self.utterances)
    }
}

/// How long the assistant may take to say something.
fn time_to_say(content: &str) -> Duration {
    TIME_TO_SPEAK + Duration::from_secs(content.len().div_ceil(BYTES_A_SECOND) as u64)
}
