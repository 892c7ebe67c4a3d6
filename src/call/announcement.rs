//! What the assistant says before a transfer: the caller hears it to its end, then the destination is dialled.
//!
//! The caller's transfer never depends on it. Where the assistant can't say it, where it takes too long, and where the agent
//! leaves over it, the destination is dialled without, and the record of the transfer says why the message wasn't heard. A
//! caller who hangs up meanwhile has nobody dialled.

use std::time::Duration;

use super::attempt::Failure;
use super::input::{Context, Effect, Record, TellId, Telling, Timer};
use super::machine::Call;
use super::outcome::{Message, Try};
use super::transfer::Transfer;

/// A message that is being said, and the transfer that waits for it.
#[derive(Debug)]
pub(super) struct Announcement {
    transfer: Box<Transfer>,
    message: TellId,
    within: Duration,
}

impl Call {
    /// Has the assistant say what is to be said, then dials.
    pub(super) fn announce(&mut self, mut transfer: Transfer, context: Context<'_>, out: &mut Vec<Effect>) {
        let Some(content) = transfer.message.take() else { return self.dial_destination(transfer, out) };
        match self.tell(Telling::Say { content, end_after: false }, context, out) {
            Ok((message, within)) => {
                out.push(Effect::SetTimer(Timer::Message, within));
                self.announcement = Some(Announcement { transfer: Box::new(transfer), message, within });
            }
            Err(why) => self.dial_announced(transfer, Message::NotHeard(why.to_string()), out),
        }
    }

    /// Whether this is what a transfer waits for.
    pub(super) fn is_announcing(&self, id: TellId) -> bool {
        self.announcement.as_ref().is_some_and(|announcement| announcement.message == id)
    }

    /// The message was heard to its end, or can't be.
    pub(super) fn was_announced(&mut self, heard: Result<(), String>, out: &mut Vec<Effect>) {
        self.announced(heard.map_or_else(Message::NotHeard, |()| Message::Heard), out);
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
}
