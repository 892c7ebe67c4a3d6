//! The session of one agent over OpenAI, from the webhook to the end of its leg: the thin driver around the conversation.
//!
//! ```text
//! INVITE sent ─▶ webhook ─▶ accept, repeated while that may help ─▶ socket, opened again when it is lost ─▶ leg over
//! ```
//!
//! It tells the shard what the agent wants and what it has done; and once, if so, that it can't serve any more. When we end a leg
//! and the server doesn't show that it noticed, its call is ended over the API: an agent must not talk to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::call_id::CallId;
use super::openai::{Access, OpenAi};
use super::shard::ShardInput;
use crate::agent::openai::conversation::{Act, Again, Conversation, Happened, Timer, Wish as Wanting};
use crate::agent::openai::events;
use crate::agent::openai::rest::ApiError;
use crate::agent::openai::script;
use crate::agent::openai::socket::{Frame, Socket};
use crate::call::{AskId, LegKey, TellId, Telling, Wish};
use crate::routing::decide::Wanted;
use crate::routing::table::ObjectKey;

/// Inputs that may wait for a session; the machine asks for less.
const QUEUE: usize = 64;
/// How often a call is accepted before it is given up.
const MOST_TRIES: u32 = 5;
/// Between the first two tries; doubled from one to the next.
const RETRY: Duration = Duration::from_millis(250);
/// Longest pause between two tries: whoever calls hears it ring.
const LONGEST_RETRY: Duration = Duration::from_secs(3);
/// How long the socket may take to be opened, the first time: the caller hears nothing before.
const TO_OPEN: Duration = Duration::from_secs(8);
/// The same when it was lost: the caller still talks with the model, which can't do anything for the caller.
const TO_OPEN_AGAIN: Duration = Duration::from_secs(15);
/// How often a sign of life is asked for.
const PING_EVERY: Duration = Duration::from_secs(15);
/// A socket that brings nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(40);
/// How long the server may take to notice that we ended the call.
const TO_NOTICE: Duration = Duration::from_secs(4);
/// Close codes after which it makes no sense to come back: a bad key and a bad model.
const FATAL_CODES: [u16; 2] = [3000, 4000];

/// What a session is told.
#[derive(Debug)]
pub(super) enum Input {
    /// The call waits at OpenAI under this name.
    Waiting(String),
    /// See [`Happened::Joined`].
    Joined(Again),
    /// See [`crate::call::Effect::Tell`].
    Tell(TellId, Telling, Duration),
    /// See [`crate::call::Effect::Conclude`].
    Conclude(AskId, Value),
    /// The leg is over; whether the server knows.
    Over(bool),
}

/// Whose session it is.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) id: CallId,
    pub(super) call: u64,
    pub(super) leg: LegKey,
    pub(super) assistant: ObjectKey,
}

/// A session, as its shard holds it. Dropped, it ends as if its leg had ended without a word.
pub(super) struct Session(mpsc::Sender<Input>);

impl Session {
    /// Begins one whose INVITE is about to be sent.
    pub(super) fn begin(openai: Arc<OpenAi>, whose: Whose, shard: mpsc::Sender<ShardInput>) -> Self {
        let (sender, inputs) = mpsc::channel(QUEUE);
        tokio::spawn(Driver::new(openai, whose, shard, inputs).run());
        Self(sender)
    }

    /// Tells it; false when it can't be told any more.
    pub(super) fn tell(&self, input: Input) -> bool {
        self.0.try_send(input).is_ok()
    }
}

/// The leg is over; whether the server knows.
struct Over(bool);

struct Driver {
    openai: Arc<OpenAi>,
    whose: Whose,
    shard: mpsc::Sender<ShardInput>,
    inputs: mpsc::Receiver<Input>,
    /// What came before the server's answer that the call is accepted: SIP may be faster.
    early: Vec<Input>,
    conversation: Conversation,
    timers: BTreeMap<Timer, Instant>,
    socket: Option<Socket>,
    given_up: bool,
}

type Opening = Pin<Box<dyn Future<Output = Result<Socket, String>> + Send>>;

impl Driver {
    fn new(
        openai: Arc<OpenAi>,
        whose: Whose,
        shard: mpsc::Sender<ShardInput>,
        inputs: mpsc::Receiver<Input>,
    ) -> Self {
        let conversation = Conversation::new(None, Vec::new());
        Self {
            openai,
            whose,
            shard,
            inputs,
            early: Vec::new(),
            conversation,
            timers: BTreeMap::new(),
            socket: None,
            given_up: false,
        }
    }

    async fn run(mut self) {
        let Some(mut at) = self.waiting().await else { return };
        let over = match self.accept(&mut at).await {
            Ok(()) => self.converse(&at).await,
            Err(over) => over,
        };
        self.part(&at, over).await;
    }

    /// The name under which the call waits; `None` when its leg ends first.
    async fn waiting(&mut self) -> Option<String> {
        loop {
            match self.inputs.recv().await? {
                Input::Waiting(at) => return Some(at),
                Input::Over(_) => return None,
                // Nobody is joined with a leg that has no answer.
                Input::Joined(_) | Input::Tell(..) | Input::Conclude(..) => {}
            }
        }
    }

    /// Accepts the call, also after a lost answer: a repetition can only lose.
    async fn accept(&mut self, at: &mut String) -> Result<(), Over> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (openai, assistant, name) =
                (Arc::clone(&self.openai), self.whose.assistant.clone(), at.clone());
            let accepting = async move {
                let access =
                    openai.access(&assistant).map_err(|error| ApiError::Unusable(error.to_string()))?;
                let session = session(&access);
                let accepted = access.api.accept(&access.place, &name, &session).await;
                openai.answered("accept", accepted).map(|()| access)
            };
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                over = news(&mut self.inputs, &mut self.early, at) => match over {
                    Some(over) => return Err(over),
                    None => continue,
                },
            };
            let error = match accepted {
                Ok(access) => return self.accepted(&access),
                Err(error) => error,
            };
            if tries > 1 && error.is_done_already() {
                match self.openai.access(&self.whose.assistant) {
                    Ok(access) => return self.accepted(&access),
                    Err(error) => return self.give_up_and_wait(error.to_string()).await,
                }
            }
            if !error.is_temporary() || tries >= MOST_TRIES {
                return self.give_up_and_wait(format!("the call was not accepted: {error}")).await;
            }
            tracing::info!(call = %self.whose.id, "accepting the call is tried again: {error}");
            let pause = error.retry_after().unwrap_or(RETRY * 2u32.pow(tries - 1)).min(LONGEST_RETRY);
            tokio::select! {
                () = sleep(pause) => {}
                over = news(&mut self.inputs, &mut self.early, at) => if let Some(over) = over { return Err(over) },
            }
        }
    }

    fn accepted(&mut self, access: &Access) -> Result<(), Over> {
        if let Some(script) = &access.assistant.script {
            self.conversation = Conversation::new(script.first_message.clone(), script::turns(script));
        }
        Ok(())
    }

    /// From the accepted call to the end of its leg.
    async fn converse(&mut self, at: &str) -> Over {
        let mut opening = Some(self.open(at, "socket", TO_OPEN));
        let mut heard = Instant::now();
        let mut ping = tokio::time::interval(PING_EVERY);
        for input in std::mem::take(&mut self.early) {
            let acts = self.input(input);
            self.carry_out(acts).await;
        }
        loop {
            let due = self.timers.iter().map(|(timer, when)| (*when, *timer)).min();
            let acts = tokio::select! {
                input = self.inputs.recv() => match input {
                    None => return Over(false),
                    Some(Input::Over(known)) => return Over(known),
                    Some(input) => self.input(input),
                },
                opened = ready(&mut opening) => {
                    opening = None;
                    match opened {
                        Ok(socket) => {
                            self.socket = Some(socket);
                            heard = Instant::now();
                            self.conversation.step(Happened::Opened)
                        }
                        Err(why) => vec![Act::GiveUp(why)],
                    }
                }
                frame = next(&mut self.socket) => {
                    heard = Instant::now();
                    match frame {
                        Frame::Event(text) => self.conversation.step(Happened::Told(events::read(&text))),
                        Frame::Alive => Vec::new(),
                        Frame::Closed(code, why) => self.closed(code, &why),
                    }
                }
                () = until(due.map(|(when, _)| when)) => match due {
                    Some((_, timer)) => {
                        self.timers.remove(&timer);
                        self.conversation.step(Happened::Due(timer))
                    }
                    None => Vec::new(),
                },
                _ = ping.tick() => match &mut self.socket {
                    Some(_) if heard.elapsed() > SILENCE => self.closed(None, "it brought nothing for too long"),
                    Some(socket) => if socket.ping().await { Vec::new() } else { self.closed(None, "it takes nothing") },
                    None => Vec::new(),
                },
            };
            self.carry_out(acts).await;
            if self.socket.is_none() && opening.is_none() && !self.given_up {
                opening = Some(self.open(at, "socket-again", TO_OPEN_AGAIN));
            }
        }
    }

    fn input(&mut self, input: Input) -> Vec<Act> {
        self.conversation.step(match input {
            Input::Joined(again) => Happened::Joined(again),
            Input::Tell(id, Telling::Say { content, .. }, within) => Happened::Say(id.0, content, within),
            Input::Tell(id, Telling::Context { content, trigger_response }, _) => {
                Happened::Know(id.0, content, trigger_response)
            }
            Input::Conclude(ask, result) => Happened::Concluded(ask.0, result),
            Input::Waiting(_) | Input::Over(_) => return Vec::new(),
        })
    }

    /// The socket is gone; the call may go on.
    fn closed(&mut self, code: Option<u16>, why: &str) -> Vec<Act> {
        self.socket = None;
        let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        let mut acts = self.conversation.step(Happened::Closed);
        match code {
            Some(code) if FATAL_CODES.contains(&code) => {
                acts.push(Act::GiveUp(format!("the session was closed with code {code}: {why}")));
            }
            _ => tracing::info!(call = %self.whose.id, code, "the socket of the session is closed: {why}"),
        }
        acts
    }

    async fn carry_out(&mut self, acts: Vec<Act>) {
        let mut acts = VecDeque::from(acts);
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Send(event) => {
                    if let Some(socket) = &mut self.socket
                        && !socket.send(event.to_string()).await
                    {
                        acts.extend(self.closed(None, "it takes nothing"));
                    }
                }
                Act::Done(number, done) => {
                    self.tell(ShardInput::Told { call: self.whose.call, id: TellId(number), done }).await;
                }
                Act::Asked(number, wanting) => {
                    let (call, leg) = (self.whose.call, self.whose.leg);
                    let input = ShardInput::Asked { call, leg, ask: AskId(number), wish: wish(wanting) };
                    self.tell(input).await;
                }
                Act::GiveUp(why) => self.give_up(why).await,
                Act::Set(timer, after) => {
                    self.timers.insert(timer, Instant::now() + after);
                }
                Act::Clear(timer) => {
                    self.timers.remove(&timer);
                }
            }
        }
    }

    async fn give_up(&mut self, why: String) {
        if !std::mem::replace(&mut self.given_up, true) {
            self.tell(ShardInput::AgentFailed { call: self.whose.call, leg: self.whose.leg, why }).await;
        }
    }

    /// Gives up before anything was said, and waits for the end of the leg.
    async fn give_up_and_wait(&mut self, why: String) -> Result<(), Over> {
        self.give_up(why).await;
        loop {
            match self.inputs.recv().await {
                None => return Err(Over(false)),
                Some(Input::Over(known)) => return Err(Over(known)),
                Some(_) => {}
            }
        }
    }

    /// The leg is over: sees to it that the call is at the server as well.
    async fn part(&mut self, at: &str, over: Over) {
        if over.0 {
            return;
        }
        if let Some(mut socket) = self.socket.take() {
            let noticed = async { while !matches!(socket.next().await, Frame::Closed(..)) {} };
            if timeout(TO_NOTICE, noticed).await.is_ok() {
                return;
            }
            socket.close().await;
        }
        let Ok(access) = self.openai.access(&self.whose.assistant) else { return };
        let ended = access.api.hang_up(&access.place, at).await;
        match self.openai.answered("hangup", ended) {
            Ok(()) => tracing::info!(call = %self.whose.id, "the agent's call was ended over the API"),
            // It is gone already, most likely.
            Err(error) => {
                tracing::debug!(call = %self.whose.id, "the agent's call is not ended over the API: {error}")
            }
        }
    }

    /// A shard that is gone has no calls.
    async fn tell(&self, input: ShardInput) {
        let _ = self.shard.send(input).await;
    }

    /// Opens the socket, again and again for so long.
    fn open(&self, at: &str, request: &'static str, within: Duration) -> Opening {
        let (openai, assistant, at) = (Arc::clone(&self.openai), self.whose.assistant.clone(), at.to_owned());
        Box::pin(async move {
            let ends = Instant::now() + within;
            let mut pause = RETRY;
            loop {
                let opened = match openai.access(&assistant) {
                    Ok(access) => {
                        let opened = access.api.socket(&access.place, &at).await;
                        openai.answered(request, opened)
                    }
                    Err(error) => Err(ApiError::Unusable(error.to_string())),
                };
                let error = match opened {
                    Ok(socket) => return Ok(socket),
                    Err(error) => error,
                };
                // 404: not there yet, or not any more. The SIP leg knows which, and ends this then.
                let is_absent = matches!(error, ApiError::Refused { status: 404, .. });
                if !(error.is_temporary() || is_absent) || Instant::now() + pause > ends {
                    return Err(format!("the socket of the session can't be opened: {error}"));
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        })
    }
}

/// What a session is told of its task now.
fn session(access: &Access) -> Value {
    match access.agent() {
        Some(agent) => {
            let now = jiff::Timestamp::now();
            script::session(access.snapshot.index.table(), &access.assistant, agent, now)
        }
        None => Value::Null,
    }
}

/// A name that is none is refused by whoever is asked, with those that there are.
fn wish(wanting: Wanting) -> Wish {
    match wanting {
        Wanting::End => Wish::End,
        Wanting::Transfer(to) => {
            let wanted = to.parse().unwrap_or(Wanted::Name(to));
            Wish::Transfer { wanted, message: None }
        }
    }
}

/// Waits for the end of the leg, or for another name of the call; what else comes is kept.
async fn news(inputs: &mut mpsc::Receiver<Input>, early: &mut Vec<Input>, at: &mut String) -> Option<Over> {
    loop {
        match inputs.recv().await {
            None => return Some(Over(false)),
            Some(Input::Over(known)) => return Some(Over(known)),
            Some(Input::Waiting(other)) if other != *at => {
                *at = other;
                return None;
            }
            Some(Input::Waiting(_)) => {}
            Some(input) => early.push(input),
        }
    }
}

/// The result of what may not be under way.
async fn ready(opening: &mut Option<Opening>) -> Result<Socket, String> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

async fn next(socket: &mut Option<Socket>) -> Frame {
    match socket {
        Some(socket) => socket.next().await,
        None => pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}
