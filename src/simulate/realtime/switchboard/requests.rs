//! What is asked over HTTP: the four verbs, and WebSockets that come and go.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Call, Due, Phase, Switchboard};
use crate::simulate::realtime::conversation::Conversation;
use crate::simulate::realtime::journal::What;
use crate::simulate::realtime::rest::{Asked, JoinRequest, Outgoing, Reply, Unwelcome, VerbRequest};
use crate::simulate::realtime::script::Fault;
use crate::simulate::realtime::session::Session;

impl Switchboard {
    pub(super) fn asked(&mut self, asked: Asked) {
        // Whoever no longer waits for the answer is gone.
        match asked {
            Asked::Ahead { verb, call, answer } => {
                let _ = answer.send(self.ahead(&verb, &call));
            }
            Asked::Verb { request, answer } => {
                let _ = answer.send(self.verb(&request));
            }
            Asked::Join { request, answer } => {
                let _ = answer.send(self.join(&request));
            }
            Asked::Joined { call, socket, unwelcome, outgoing } => {
                self.joined(&call, socket, unwelcome, outgoing);
            }
            Asked::Text { call, socket, text } => {
                let known = |call: &&mut Call| call.sockets.iter().any(|(id, _)| *id == socket);
                if self.calls.get_mut(&call).as_ref().is_some_and(known) {
                    let event = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
                    self.note(&call, What::Client(event));
                    self.converse(&call, |conversation| conversation.receive(&text));
                }
            }
            Asked::Left { call, socket } => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.sockets.retain(|(id, _)| *id != socket);
                }
                self.note(&call, What::SocketClosed);
            }
        }
    }

    fn ahead(&self, verb: &str, id: &str) -> Duration {
        match self.calls.get(id) {
            None => self.script.unknown_after.0,
            Some(call) if call.phase == Phase::Over => self.script.unknown_after.0,
            Some(call) if verb == "socket" => {
                let script = call.script.socket.get(call.attempts.get(verb).copied().unwrap_or_default());
                script.map(|script| script.after.0).unwrap_or_default()
            }
            Some(call) => call.fault(verb).after.0,
        }
    }

    fn verb(&mut self, request: &VerbRequest) -> (Reply, Duration) {
        let (verb, id) = (request.verb.clone(), request.call.clone());
        let fault = self.calls.get_mut(&id).map(|call| {
            let fault = call.fault(&verb);
            *call.attempts.entry(verb.clone()).or_default() += 1;
            fault
        });
        let fault = fault.unwrap_or_default();
        let reply = self.decide(request, &fault);
        let status = match &reply {
            Reply::Status { status, .. } => *status,
            Reply::Nothing | Reply::Welcome { .. } => 0,
        };
        let body = request.body.clone().unwrap_or_else(|| Value::String("no JSON".into()));
        self.note(&id, What::Rest { verb, body, status });
        (reply, fault.late.0)
    }

    fn decide(&mut self, request: &VerbRequest, fault: &Fault) -> Reply {
        let VerbRequest { verb, call: id, bearer, body } = request;
        if bearer.as_ref() != Some(&self.api_key) {
            return Reply::error(401, "invalid_api_key", "Incorrect API key provided.", None);
        }
        if let Some(status) = fault.status {
            let code = fault.code.as_deref().unwrap_or("server_error");
            let Reply::Status { status, body, .. } = Reply::error(status, code, "As the script says.", None)
            else {
                return Reply::Nothing;
            };
            return Reply::Status { status, body, retry_after: fault.retry_after };
        }
        let phase = self.calls.get(id).map_or(Phase::Over, |call| call.phase);
        if phase == Phase::Over {
            return Reply::error(404, "call_id_not_found", "No session found for the provided call_id", None);
        }
        let done = match verb.as_str() {
            "accept" => self.accept(id, phase, body.as_ref(), fault),
            "reject" => self.reject(id, phase, body.as_ref()),
            "refer" => self.refer(id, phase, body.as_ref(), fault),
            _ => self.hangup(id, phase, body.as_ref(), fault),
        };
        match done {
            Ok(()) if fault.lost => Reply::Nothing,
            Ok(()) => Reply::done(),
            Err(reply) => reply,
        }
    }

    fn accept(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        let session = body.ok_or("We could not parse the JSON body of your request.".to_owned());
        let session = session.map_err(|said| ("invalid_json", said, String::new())).and_then(|body| {
            Session::of(body).map_err(|misfit| (misfit.code, misfit.message.clone(), misfit.param))
        });
        let session = session.map_err(|(code, said, param)| {
            self.note(id, What::Wrong(format!("accept: {said} ({code})")));
            Reply::error(400, code, &said, Some(&param))
        })?;
        if !matches!(phase, Phase::Undecided | Phase::Orphan) {
            return Err(decided());
        }
        if let (Some(code), Phase::Undecided) = (fault.sip, phase) {
            self.refuse(id, code);
            return Ok(());
        }
        let word = self.script.word.0;
        let Some(call) = self.calls.get_mut(id) else { return Ok(()) };
        call.conversation = Some(Conversation::new(&id[id.len() - 6..], session, &call.script, word));
        if phase == Phase::Undecided {
            call.phase = Phase::Accepted;
            let after = call.script.invite.answer_after.0;
            self.later(id, after, Due::Answer);
        }
        Ok(())
    }

    fn reject(&mut self, id: &str, phase: Phase, body: Option<&Value>) -> Result<(), Reply> {
        let code = match body {
            Some(Value::Null) => 603,
            Some(body) => match body["status_code"].as_u64().and_then(|code| u16::try_from(code).ok()) {
                Some(code @ 300..=699) => code,
                _ => return Err(self.wrong_body(id, "reject", "status_code", "it must be from 300 to 699")),
            },
            None => return Err(self.wrong_body(id, "reject", "status_code", "the body is no JSON")),
        };
        match phase {
            Phase::Undecided => self.refuse(id, code),
            Phase::Orphan => self.over(id),
            _ => return Err(decided()),
        }
        Ok(())
    }

    fn refer(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        let target = body.and_then(|body| body["target_uri"].as_str()).unwrap_or_default().to_owned();
        if !["tel:", "sip:", "sips:"].iter().any(|scheme| target.starts_with(scheme)) {
            return Err(self.wrong_body(id, "refer", "target_uri", "it must be a tel or sip URI"));
        }
        let now = self.phone.now();
        if let (Phase::Answered, None, Some(call)) = (phase, fault.sip, self.calls.get(id)) {
            self.phone.endpoint.refer(call.leg, &target, now);
        }
        Ok(())
    }

    fn hangup(&mut self, id: &str, phase: Phase, body: Option<&Value>, fault: &Fault) -> Result<(), Reply> {
        if body.is_none_or(|body| !body.is_null()) {
            return Err(self.wrong_body(id, "hangup", "body", "there must be none"));
        }
        match phase {
            _ if fault.sip.is_some() => {}
            Phase::Orphan => self.over(id),
            _ => self.hang_up(id),
        }
        Ok(())
    }

    fn wrong_body(&self, id: &str, verb: &str, param: &str, why: &str) -> Reply {
        self.note(id, What::Wrong(format!("{verb}: '{param}' can't be used: {why}")));
        Reply::error(400, "invalid_value", &format!("Invalid value for '{param}': {why}."), Some(param))
    }

    fn join(&mut self, request: &JoinRequest) -> Reply {
        let Some(id) = &request.call else {
            return Reply::error(
                400,
                "missing_required_parameter",
                "There must be a call_id.",
                Some("call_id"),
            );
        };
        let Some(bearer) = &request.bearer else {
            return Reply::error(401, "invalid_api_key", "Missing bearer authentication in header", None);
        };
        let unknown =
            || Reply::error(404, "call_id_not_found", "No session found for the provided call_id", None);
        let Some(call) = self.calls.get_mut(id) else { return unknown() };
        if call.conversation.is_none() {
            return unknown();
        }
        let index = call.attempts.entry("socket".to_owned()).or_default();
        let script = call.script.socket.get(*index).cloned().unwrap_or_default();
        *index += 1;
        if let Some(status) = script.status {
            return Reply::error(status, "server_error", "As the script says.", None);
        }
        let unwelcome = if *bearer != self.api_key {
            Some(("invalid_api_key", 3000))
        } else if request.beta {
            self.note(id, What::Wrong("the WebSocket was asked for with OpenAI-Beta".into()));
            Some(("beta_api_shape_disabled", 4000))
        } else {
            None
        };
        self.sockets += 1;
        Reply::Welcome { socket: self.sockets, unwelcome }
    }

    fn joined(&mut self, id: &str, socket: u64, unwelcome: Unwelcome, outgoing: mpsc::Sender<Outgoing>) {
        // A socket whose queue is full at its beginning, or that is gone, gets nothing.
        let send = |outgoing_text: Outgoing| drop(outgoing.try_send(outgoing_text));
        if let Some((code, close)) = unwelcome {
            let error = json!({ "type": "error", "event_id": "event_0",
                "error": { "type": "invalid_request_error", "code": code, "message": "You are not welcome." } });
            send(Outgoing::Text(error.to_string()));
            return send(Outgoing::Close(close, format!("invalid_request_error.{code}")));
        }
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(conversation) = &mut call.conversation else {
            return send(Outgoing::Close(1000, String::new()));
        };
        let greeted = call.script.socket.get(call.joined).is_none_or(|script| script.session_created);
        call.joined += 1;
        let created = greeted.then(|| conversation.created());
        call.sockets.push((socket, outgoing.clone()));
        self.note(id, What::SocketOpened);
        if let Some(created) = created {
            send(Outgoing::Text(created.to_string()));
            self.note(id, What::Server(created));
        }
        self.converse(id, Conversation::begin);
    }
}

fn decided() -> Reply {
    let said = "This call was accepted or rejected already.";
    Reply::error(409, "decision_already_made", said, None)
}
