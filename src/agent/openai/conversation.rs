//! The conversation of one session: pure. What happens goes in, what is to be done comes out.
//!
//! The model speaks with the caller by itself; this sees to the rest: the first message, sentences that have to be heard to
//! their end, tools and their results. What holds, whatever comes in whichever order:
//! - everything that the agent is told is answered exactly once: done, or why not;
//! - a tool is acted on once, when the response that calls it is whole and what it says has been heard;
//! - a tool's result is given once, and spoken about as soon as nothing else is being said;
//! - what was lost with a socket is made up for over the next one: results and words of ours, and tools that were called;
//! - while a sentence has to be heard to its end, the caller doesn't interrupt it;
//! - a model that gives no answer three times in a row is given up, so that nobody is left in silence.

mod items;
mod saying;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use self::items::Items;
use self::saying::Saying;
use super::events::{self, Call, Ending, Response, Speaker, Told};
use super::script;

/// Between the end of the server's buffer and the caller's ear.
const GRACE: Duration = Duration::from_millis(400);
/// How long the assistant may go on with what it is saying when something else has to be said.
const TO_FINISH: Duration = Duration::from_secs(4);
/// How long what a response says may take to be heard, before its tools are acted on.
const TO_BE_HEARD: Duration = Duration::from_secs(20);
/// How long a response may take to begin.
const TO_BEGIN: Duration = Duration::from_secs(10);
/// After a failure, times the number of failures in a row.
const RETRY: Duration = Duration::from_millis(500);
/// Failures in a row after which there is no use.
const MOST_FAILURES: u8 = 3;
/// Errors after which the session is of no use.
const FATAL: [&str; 4] = ["session_expired", "invalid_model", "invalid_api_key", "model_not_found"];

/// What becomes of a sentence over which the socket is lost.
const LOST: &str = "the connection to the session was lost over it";

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// The socket is open, again perhaps.
    Opened,
    /// The socket is gone; what it was told last may be lost.
    Closed,
    /// The caller hears the agent from now on; again, if another session of its assistant was in the call before.
    Joined(Again),
    /// The server told something.
    Told(Told),
    /// The caller is to hear these words to their end; how long that may take.
    Say(u32, String, Duration),
    /// The model is to know something, and speak about it at once perhaps.
    Know(u32, String, bool),
    /// What became of a tool: see [`Act::Asked`].
    Concluded(u32, Value),
    /// A timer that was set.
    Due(Timer),
}

/// Whether a caller who is joined with the agent has talked with its assistant before in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is greeted.
    No,
    /// It is back: whoever joined them says what the agent is to know, and that it is to speak.
    Yes,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Sends an event.
    Send(Value),
    /// What became of what the agent was told.
    Done(u32, Result<(), String>),
    /// The model wants something; answered with [`Happened::Concluded`] unless the call ends over it.
    Asked(u32, Wish),
    /// The session is of no use, and why.
    GiveUp(String),
    /// Sets a timer; replaces one that is set.
    Set(Timer, Duration),
    /// Clears a timer.
    Clear(Timer),
}

/// What a model can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Hand the caller to this destination.
    Transfer(String),
    /// End the call.
    End,
}

/// Timers of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// When a response that was asked for should have begun.
    Begin,
    /// When what was played has been heard.
    Heard,
    /// When what is being said is cut off for something else.
    Finish,
    /// When what the model said before a tool should have been heard.
    Tools,
    /// When a sentence should have been heard.
    Say,
    /// When a response is asked for again.
    Retry,
}

/// Something that is to be said.
#[derive(Clone, Debug, PartialEq)]
enum Task {
    /// The first words of the call.
    Greet,
    /// Whatever the model has to say now.
    Speak,
    /// A sentence that has to be heard to its end.
    Say(u32, String, Duration),
}

/// A response that is being made.
#[derive(Debug)]
struct Running {
    id: String,
    /// Absent when the model speaks by itself.
    task: Option<Task>,
}

/// Tools that wait until what was said with them is heard.
#[derive(Debug)]
struct Held {
    response: String,
    asks: Vec<(u32, Wish)>,
}

/// See the module.
#[derive(Debug)]
pub struct Conversation {
    first_message: Option<String>,
    items: Items,
    open: bool,
    /// There was a socket before.
    was_open: bool,
    joined: bool,
    greeted: bool,
    /// The caller interrupts, and is answered.
    listens: bool,
    /// The session was told so once; before that it does as it likes.
    told_to_listen: bool,
    tasks: VecDeque<Task>,
    /// Asked for, and not begun.
    requested: Option<(u32, Task)>,
    running: Option<Running>,
    /// What the caller hears.
    playing: Option<String>,
    saying: Option<Saying>,
    held: Option<Held>,
    /// Asks that are acted on once the last words have reached the caller's ear.
    ready: Vec<(u32, Wish)>,
    /// Tool calls that were acted on.
    seen: HashSet<String>,
    /// Our numbers of those without a result.
    asks: HashMap<u32, String>,
    last: u32,
    failures: u8,
    /// Nothing is asked for before [`Timer::Retry`].
    waits: bool,
    over: bool,
}

impl Conversation {
    /// One that has not begun. `turns` are what it is to take for the conversation so far.
    pub fn new(first_message: Option<String>, turns: Vec<Value>) -> Self {
        let mut items = Items::default();
        turns.into_iter().for_each(|turn| drop(items.add(turn)));
        Self {
            first_message,
            items,
            open: false,
            was_open: false,
            joined: false,
            greeted: false,
            listens: true,
            told_to_listen: false,
            tasks: VecDeque::new(),
            requested: None,
            running: None,
            playing: None,
            saying: None,
            held: None,
            ready: Vec::new(),
            seen: HashSet::new(),
            asks: HashMap::new(),
            last: 0,
            failures: 0,
            waits: false,
            over: false,
        }
    }

    /// What is to be done now.
    pub fn step(&mut self, happened: Happened) -> Vec<Act> {
        let mut out = Vec::new();
        if self.over {
            return out;
        }
        match happened {
            Happened::Opened => self.opened(&mut out),
            Happened::Closed => self.closed(&mut out),
            Happened::Joined(again) => {
                self.joined = true;
                self.greeted |= again == Again::Yes;
            }
            Happened::Told(told) => self.told(told, &mut out),
            Happened::Say(number, words, within) => self.say(number, words, within, &mut out),
            Happened::Know(number, text, speak) => {
                self.add(events::turn(Speaker::System, &text), &mut out);
                out.push(Act::Done(number, Ok(())));
                if speak {
                    self.speak();
                }
            }
            Happened::Concluded(number, result) => {
                if let Some(call) = self.asks.remove(&number) {
                    self.add(events::result(&call, &result), &mut out);
                    self.speak();
                }
            }
            Happened::Due(timer) => self.due(timer, &mut out),
        }
        self.greet();
        self.advance(&mut out);
        out
    }

    fn opened(&mut self, out: &mut Vec<Act>) {
        self.open = true;
        let again = std::mem::replace(&mut self.was_open, true);
        out.extend(self.items.opened(again).into_iter().map(Act::Send));
        if self.told_to_listen {
            out.push(Act::Send(events::listen(self.listens)));
        }
    }

    /// The server tells nothing again: what was being said counts as lost, what was asked for is acted on.
    fn closed(&mut self, out: &mut Vec<Act>) {
        self.open = false;
        self.running = None;
        self.playing = None;
        if let Some((_, task)) = self.requested.take() {
            out.push(Act::Clear(Timer::Begin));
            match task {
                Task::Say(..) => {}
                task => self.tasks.push_front(task),
            }
        }
        self.not_said(LOST, out);
        self.refuse_sentences(LOST, out);
        self.act_on_tools(out);
    }

    fn told(&mut self, told: Told, out: &mut Vec<Act>) {
        match told {
            Told::Begun { id, tag } => {
                let ours = self.requested.take_if(|(number, _)| Some(*number) == tag);
                let task = ours.map(|(_, task)| {
                    out.push(Act::Clear(Timer::Begin));
                    task
                });
                if let (Some(Task::Say(..)), Some(saying)) = (&task, &mut self.saying) {
                    saying.response = Some(id.clone());
                }
                self.running = Some(Running { id, task });
            }
            Told::Done(response) => self.made(response, out),
            Told::Playing(id) => self.playing = Some(id),
            Told::Played(id) => self.played(&id, out),
            Told::CutOff(id) => self.cut_off(&id, out),
            Told::Item { id, before } => {
                if let Some(last) = self.items.shown(&id, before) {
                    out.push(Act::Send(events::retrieve(&last)));
                }
            }
            // What was said with it has been heard, or can't be waited for.
            Told::Found(call) => {
                let ask = self.ask(call, out);
                out.extend(ask.map(|(number, wish)| Act::Asked(number, wish)));
            }
            Told::Error { code, message, tag } => self.error(&code, &message, tag, out),
            Told::Other => {}
        }
    }

    /// A response was made; the caller may still be hearing it.
    fn made(&mut self, response: Response, out: &mut Vec<Act>) {
        let Response { id, ending, speaks, calls } = response;
        let running = self.running.take_if(|running| running.id == id);
        let task = running.and_then(|running| running.task);
        let is_heard = speaks || self.playing.as_ref() == Some(&id);
        if self.is_saying(&id) {
            self.sentence_made(&ending, is_heard, out);
        }
        match ending {
            Ending::Failed(code) => return self.failed(&code, task, out),
            Ending::Completed => self.failures = 0,
            Ending::Cancelled | Ending::Incomplete => {}
        }
        let asks: Vec<_> = calls.into_iter().filter_map(|call| self.ask(call, out)).collect();
        if asks.is_empty() {
            return;
        }
        if is_heard {
            // One that was played before it was made whole is none: the buffer ends after the response does.
            self.act_on_tools(out);
            self.held = Some(Held { response: id, asks });
            out.push(Act::Set(Timer::Tools, TO_BE_HEARD));
        } else {
            out.extend(asks.into_iter().map(|(number, wish)| Act::Asked(number, wish)));
        }
    }

    /// What a tool call asks for; a wrong one is answered at once.
    fn ask(&mut self, call: Call, out: &mut Vec<Act>) -> Option<(u32, Wish)> {
        if !self.seen.insert(call.id.clone()) {
            return None;
        }
        let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        let wish = match call.name.as_str() {
            script::END => Ok(Wish::End),
            script::TRANSFER => match arguments.get("destination").and_then(Value::as_str) {
                Some(destination) => Ok(Wish::Transfer(destination.to_owned())),
                None => Err(
                    "the argument 'destination' is missing; give one of the names in the tool's description"
                        .to_owned(),
                ),
            },
            other => Err(format!("there is no tool '{other}'")),
        };
        match wish {
            Ok(wish) => {
                let number = self.number();
                self.asks.insert(number, call.id);
                Some((number, wish))
            }
            Err(why) => {
                self.add(events::result(&call.id, &json!({ "outcome": "refused", "reason": why })), out);
                self.speak();
                None
            }
        }
    }

    fn played(&mut self, id: &str, out: &mut Vec<Act>) {
        self.playing.take_if(|playing| playing == id);
        if self.is_saying(id)
            && let Some(saying) = &mut self.saying
        {
            saying.played = true;
            if saying.made {
                out.push(Act::Set(Timer::Heard, GRACE));
            }
        }
        if let Some(held) = self.held.take_if(|held| held.response == id) {
            out.push(Act::Clear(Timer::Tools));
            self.ready.extend(held.asks);
            out.push(Act::Set(Timer::Heard, GRACE));
        }
    }

    fn cut_off(&mut self, id: &str, out: &mut Vec<Act>) {
        self.playing.take_if(|playing| playing == id);
        if self.is_saying(id) {
            self.not_said("the caller interrupted it", out);
        }
        // The model had decided before it was interrupted.
        if self.held.as_ref().is_some_and(|held| held.response == id) {
            self.act_on_tools(out);
        }
    }

    fn error(&mut self, code: &str, message: &str, tag: Option<u32>, out: &mut Vec<Act>) {
        if FATAL.contains(&code) {
            return self.give_up(format!("the session ended: {code}"), out);
        }
        let busy = code == "conversation_already_has_active_response";
        let refused = self.requested.take_if(|(number, _)| Some(*number) == tag || (tag.is_none() && busy));
        let Some((_, task)) = refused else { return };
        out.push(Act::Clear(Timer::Begin));
        if busy {
            // The model began to speak by itself at the same moment: after that.
            if self.running.is_none() {
                self.wait(1, out);
            }
            // A sentence for which it took too long to begin isn't waited for any more.
            let is_late = matches!(task, Task::Say(..)) && self.saying.is_none();
            if self.saying.take().is_some() {
                out.push(Act::Clear(Timer::Say));
            }
            if is_late {
                return;
            }
            return self.again(task);
        }
        if matches!(task, Task::Say(..)) {
            self.not_said(&format!("the session refused it: {message}"), out);
        }
        self.failed(if code.is_empty() { "an error without a code" } else { code }, Some(task), out);
    }

    /// A response was not made.
    fn failed(&mut self, code: &str, task: Option<Task>, out: &mut Vec<Act>) {
        self.failures += 1;
        if self.failures >= MOST_FAILURES || FATAL.contains(&code) {
            return self.give_up(format!("the model gives no answer: {code}"), out);
        }
        match task {
            // Was answered.
            Some(Task::Say(..)) => {}
            task => self.again(task.unwrap_or(Task::Speak)),
        }
        self.wait(self.failures.into(), out);
    }

    fn wait(&mut self, times: u32, out: &mut Vec<Act>) {
        self.waits = true;
        out.push(Act::Set(Timer::Retry, RETRY * times));
    }

    fn again(&mut self, task: Task) {
        if task == Task::Speak && self.tasks.contains(&Task::Speak) {
            return;
        }
        self.tasks.push_front(task);
    }

    fn give_up(&mut self, why: String, out: &mut Vec<Act>) {
        self.not_said("the session ended", out);
        self.refuse_sentences("the session ended", out);
        self.over = true;
        out.push(Act::GiveUp(why));
    }

    fn act_on_tools(&mut self, out: &mut Vec<Act>) {
        if let Some(held) = self.held.take() {
            out.push(Act::Clear(Timer::Tools));
            self.ready.extend(held.asks);
        }
        out.extend(
            std::mem::take(&mut self.ready).into_iter().map(|(number, wish)| Act::Asked(number, wish)),
        );
    }

    fn due(&mut self, timer: Timer, out: &mut Vec<Act>) {
        match timer {
            Timer::Begin => {
                if let Some((_, task)) = self.requested.take() {
                    if matches!(task, Task::Say(..)) {
                        self.not_said("the session did not begin to say it", out);
                    }
                    self.failed("it does not begin", Some(task), out);
                }
            }
            Timer::Heard => {
                if let Some(saying) = self.saying.take_if(|saying| saying.made && saying.played) {
                    self.said(saying.number, Ok(()), out);
                }
                if self.held.is_none() {
                    self.act_on_tools(out);
                }
            }
            Timer::Finish => {
                let waits = self.tasks.iter().any(|task| matches!(task, Task::Say(..)));
                if waits && self.saying.is_none() {
                    out.extend(events::be_silent(self.running.is_some()).into_iter().map(Act::Send));
                    self.playing = None;
                }
            }
            Timer::Tools => self.act_on_tools(out),
            Timer::Say => self.not_said("it was not heard to its end in time", out),
            Timer::Retry => self.waits = false,
        }
    }

    fn greet(&mut self) {
        if self.open && self.joined && !self.greeted {
            self.greeted = true;
            self.tasks.push_front(Task::Greet);
        }
    }

    fn speak(&mut self) {
        if !self.tasks.contains(&Task::Speak) {
            self.tasks.push_back(Task::Speak);
        }
    }

    /// Begins with the next task, if nothing else is being said.
    fn advance(&mut self, out: &mut Vec<Act>) {
        if self.over || !self.open || self.waits || self.is_busy() {
            return;
        }
        let hears = self.playing.is_some();
        let Some(task) = self.tasks.pop_front_if(|task| !(hears && matches!(task, Task::Say(..)))) else {
            return;
        };
        let number = self.number();
        let event = match &task {
            Task::Greet => match &self.first_message {
                Some(words) => events::say(number, words),
                None => events::respond(number, None),
            },
            Task::Speak => events::respond(number, None),
            Task::Say(told, words, within) => {
                self.saying = Some(Saying { number: *told, response: None, made: false, played: false });
                out.extend([Act::Clear(Timer::Finish), Act::Set(Timer::Say, *within)]);
                events::say(number, words)
            }
        };
        self.requested = Some((number, task));
        out.extend([Act::Send(event), Act::Set(Timer::Begin, TO_BEGIN)]);
    }

    fn is_busy(&self) -> bool {
        self.requested.is_some() || self.running.is_some() || self.saying.is_some()
    }

    /// Adds an item to the conversation; over the next socket where there is none now.
    fn add(&mut self, event: Value, out: &mut Vec<Act>) {
        let event = self.items.add(event);
        if self.open {
            out.push(Act::Send(event));
        }
    }

    fn number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests;
