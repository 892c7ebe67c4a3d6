//! Sentences that have to be heard to their ends: one after the other, interrupted by nobody.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Act, Conversation, GRACE, TO_FINISH, Task, Timer};
use crate::agent::openai::events::{self, Ending};

/// A sentence that has to be heard to its end, from when it is asked for.
#[derive(Debug)]
pub(super) struct Saying {
    pub(super) number: u32,
    /// The response that says it, once that has begun.
    pub(super) response: Option<String>,
    pub(super) made: bool,
    pub(super) played: bool,
}

impl Conversation {
    pub(super) fn sentence_made(&mut self, ending: &Ending, is_heard: bool, out: &mut Vec<Act>) {
        match ending {
            Ending::Completed if is_heard => {
                let Some(saying) = &mut self.saying else { return };
                saying.made = true;
                if saying.played {
                    out.push(Act::Set(Timer::Heard, GRACE));
                }
            }
            Ending::Completed => self.not_said("the model said nothing", out),
            Ending::Cancelled => self.not_said("the caller interrupted it", out),
            Ending::Incomplete => self.not_said("the model broke off", out),
            Ending::Failed(code) => self.not_said(&format!("the model failed: {code}"), out),
        }
    }

    pub(super) fn say(&mut self, number: u32, words: String, within: Duration, out: &mut Vec<Act>) {
        // Until it is open the first time it is about to be.
        if !self.open && self.was_open {
            let why = "there is no connection to the session now".to_owned();
            return out.push(Act::Done(number, Err(why)));
        }
        if self.listens {
            self.listen(false, out);
        }
        if self.saying.is_none() && (self.running.is_some() || self.playing.is_some()) {
            out.push(Act::Set(Timer::Finish, TO_FINISH));
        }
        // Before anything that can wait: somebody is waiting for it.
        let before = self.tasks.iter().filter(|task| matches!(task, Task::Say(..))).count();
        self.tasks.insert(before, Task::Say(number, words, within));
    }

    /// The sentence that is being said can't be heard to its end any more.
    pub(super) fn not_said(&mut self, why: &str, out: &mut Vec<Act>) {
        if let Some(saying) = self.saying.take() {
            self.said(saying.number, Err(why.to_owned()), out);
        }
    }

    pub(super) fn said(&mut self, number: u32, result: Result<(), String>, out: &mut Vec<Act>) {
        out.extend([Act::Clear(Timer::Say), Act::Done(number, result)]);
        let more = self.tasks.iter().any(|task| matches!(task, Task::Say(..)));
        if !more && !self.listens {
            self.listen(true, out);
        }
    }

    pub(super) fn refuse_sentences(&mut self, why: &str, out: &mut Vec<Act>) {
        let (sentences, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.tasks).into_iter().partition(|task| matches!(task, Task::Say(..)));
        self.tasks = rest;
        for task in Vec::from(sentences) {
            if let Task::Say(number, ..) = task {
                self.said(number, Err(why.to_owned()), out);
            }
        }
    }

    pub(super) fn is_saying(&self, id: &str) -> bool {
        self.saying.as_ref().is_some_and(|saying| saying.response.as_deref() == Some(id))
    }

    fn listen(&mut self, listens: bool, out: &mut Vec<Act>) {
        (self.listens, self.told_to_listen) = (listens, true);
        if self.open {
            out.push(Act::Send(events::listen(listens)));
        }
    }
}
