use super::*;
use crate::simulate::realtime::script::Script;

/// A conversation whose clock the test moves.
struct Stage {
    conversation: Conversation,
    now: Duration,
    /// What is still to come, by its time and its place.
    ticks: BTreeMap<(Duration, usize), Tick>,
    /// What was sent, and what else happened.
    said: Vec<Value>,
    effects: Vec<Effect>,
}

fn stage(steps: &str) -> Stage {
    let script = Script::parse(&format!("calls: [{{steps: {steps}}}]")).unwrap();
    let session = json!({ "type": "realtime", "model": "gpt-realtime" });
    let session = Session::of(&session).unwrap();
    let conversation = Conversation::new("x", session, &script.of_call(&[]), Duration::from_millis(100));
    let mut stage = Stage {
        conversation,
        now: Duration::ZERO,
        ticks: BTreeMap::new(),
        said: Vec::new(),
        effects: Vec::new(),
    };
    let effects = stage.conversation.begin();
    stage.take(effects);
    stage
}

impl Stage {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(event) => self.said.push(event),
                Effect::After(time, tick) => {
                    self.ticks.insert((self.now + time, self.ticks.len() + self.said.len()), tick);
                }
                other => self.effects.push(other),
            }
        }
    }

    fn client(&mut self, event: &Value) -> &mut Self {
        let effects = self.conversation.receive(&event.to_string());
        self.take(effects);
        self
    }

    /// Lets time pass.
    fn pass(&mut self, milliseconds: u64) -> &mut Self {
        let until = self.now + Duration::from_millis(milliseconds);
        while let Some(entry) = self.ticks.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), tick) = entry.remove_entry();
            self.now = at;
            let effects = self.conversation.tick(tick);
            self.take(effects);
        }
        self.now = until;
        self
    }

    /// The types of what was sent since this was asked last.
    fn types(&mut self) -> Vec<String> {
        let said = std::mem::take(&mut self.said);
        let types = said.iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned());
        types.filter(|name| name != "rate_limits.updated").collect()
    }

    /// The first event of a type among what was sent, and not asked for yet.
    fn event(&self, name: &str) -> &Value {
        let found = self.said.iter().find(|event| event["type"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#?}", self.said))
    }

    fn code(&self) -> &str {
        self.event("error")["error"]["code"].as_str().unwrap()
    }

    fn wrong(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Wrong(_))).count()
    }
}

fn create() -> Value {
    json!({ "type": "response.create" })
}

fn outcome(call_id: &Value) -> Value {
    json!({ "type": "conversation.item.create",
            "item": { "type": "function_call_output", "call_id": call_id, "output": "done" } })
}

#[test]
fn what_is_said_is_made_first_and_played_to_its_end_later() {
    let mut stage = stage("[{respond: {say: Welcome here.}}]");
    assert!(stage.types().is_empty(), "nobody has asked for it");
    stage.client(&create()).pass(0);
    assert_eq!(
        stage.types(),
        [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "output_audio_buffer.started",
            "response.output_audio_transcript.delta",
            "response.output_audio_transcript.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
    );
    assert!(stage.pass(199).types().is_empty(), "two words take 200 ms");
    assert_eq!(stage.pass(1).types(), ["output_audio_buffer.stopped"]);
}

#[test]
fn a_sentence_that_it_is_told_to_say_is_said_and_can_be_told_from_others() {
    let mut stage = stage("[]");
    let response = json!({ "instructions": "Say exactly: \"One moment.\"", "conversation": "none",
                           "metadata": { "id": "m1" } });
    stage.client(&json!({ "type": "response.create", "response": response })).pass(0);
    assert_eq!(stage.event("response.output_audio_transcript.done")["transcript"], "One moment.");
    let id = stage.event("response.created")["response"]["id"].clone();
    for name in ["response.created", "response.done"] {
        assert_eq!(stage.event(name)["response"]["metadata"]["id"], "m1");
    }
    stage.pass(200);
    assert_eq!(stage.event("output_audio_buffer.stopped")["response_id"], id);
}

#[test]
fn a_function_is_called_at_the_end_of_a_response_and_its_outcome_is_taken_once() {
    let mut stage = stage("[{speak: {call: {name: transfer_call, arguments: {destination: sales}}}}]");
    stage.pass(0);
    let call = stage.event("response.done")["response"]["output"][0].clone();
    assert_eq!((&call["name"], &call["status"]), (&json!("transfer_call"), &json!("completed")));
    assert_eq!(call["arguments"], "{\"destination\":\"sales\"}");
    stage.said.clear();
    assert_eq!(
        stage.client(&outcome(&call["call_id"])).types(),
        ["conversation.item.added", "conversation.item.done"]
    );
    for id in [&call["call_id"], &json!("call_of_nobody")] {
        stage.client(&outcome(id));
        assert_eq!(stage.code(), "invalid_value");
    }
    assert_eq!(stage.wrong(), 2);
}

#[test]
fn a_caller_who_speaks_while_a_response_is_made_cancels_it() {
    let mut stage = stage(
        "[{speak: {say: a b c d, takes: 1s, interrupted: {after: 100ms, says: stop}}}, {wait: 1s}, {speak: {say: well}}]",
    );
    stage.pass(100);
    let done = &stage.event("response.done")["response"];
    assert_eq!(
        (&done["status"], &done["status_details"]["reason"]),
        (&json!("cancelled"), &json!("turn_detected"))
    );
    let types = stage.types();
    let at = |name: &str| types.iter().position(|other| other == name).unwrap();
    assert!(at("input_audio_buffer.speech_started") < at("output_audio_buffer.cleared"));
    stage.pass(2000);
    assert_eq!(stage.event("conversation.item.input_audio_transcription.completed")["transcript"], "stop");
    assert_eq!(stage.event("response.output_audio_transcript.done")["transcript"], "well", "then it goes on");
}

#[test]
fn a_caller_who_speaks_into_what_is_made_already_only_stops_its_playing() {
    let mut stage = stage("[{speak: {say: a b c d, interrupted: {after: 100ms}}}]");
    stage.pass(5000);
    assert_eq!(stage.event("response.done")["response"]["status"], "completed");
    let types = stage.types();
    assert!(types.contains(&"output_audio_buffer.cleared".to_owned()));
    assert!(!types.contains(&"output_audio_buffer.stopped".to_owned()));
}

#[test]
fn what_must_not_be_interrupted_is_heard_to_its_end() {
    let quiet = json!({ "type": "session.update", "session": { "type": "realtime", "audio": { "input": {
        "turn_detection": { "type": "server_vad", "interrupt_response": false, "create_response": false } } } } });
    let mut forbidden = stage("[{respond: {say: a b c d, takes: 1s, interrupted: {after: 100ms}}}]");
    forbidden.client(&quiet).client(&create()).pass(5000);
    let mut apart = stage("[{respond: {say: a b c d, takes: 1s, interrupted: {after: 100ms}}}]");
    apart.client(&json!({ "type": "response.create", "response": { "conversation": "none" } })).pass(5000);
    for mut stage in [forbidden, apart] {
        assert_eq!(stage.event("response.done")["response"]["status"], "completed");
        let types = stage.types();
        assert!(types.contains(&"input_audio_buffer.speech_started".to_owned()));
        assert_eq!(types.last().map(String::as_str), Some("output_audio_buffer.stopped"));
    }
}

#[test]
fn a_client_that_cancels_and_clears_silences_the_model() {
    let mut stage = stage("[{respond: {say: a b c d, takes: 1s}}]");
    stage.client(&create()).pass(100);
    stage.client(&json!({ "type": "response.cancel" }));
    assert_eq!(stage.event("response.done")["response"]["status_details"]["reason"], "client_cancelled");
    stage.client(&json!({ "type": "output_audio_buffer.clear" }));
    stage.event("output_audio_buffer.cleared");
    stage.client(&json!({ "type": "response.cancel" }));
    assert_eq!(stage.code(), "response_cancel_not_active");
    stage.types();
    assert!(stage.pass(5000).types().is_empty(), "nothing more is heard of it");
    assert_eq!(stage.wrong(), 0, "it may have ended by itself");
}

#[test]
fn one_response_is_made_at_a_time_and_one_sound_played() {
    let mut stage = stage("[]");
    let slow = json!({ "type": "response.create", "response": { "instructions": "one two" } });
    stage.client(&slow).client(&create());
    assert_eq!(stage.code(), "conversation_already_has_active_response");
    stage.pass(0).said.clear();
    stage.client(&create());
    assert!(
        !stage.types().contains(&"output_audio_buffer.started".to_owned()),
        "the first one is still heard"
    );
    let types = stage.pass(200).types();
    assert!(types.ends_with(&["output_audio_buffer.stopped".into(), "output_audio_buffer.started".into()]));
}

#[test]
fn a_response_can_fail_and_a_sound_can_have_no_end() {
    let mut failed = stage("[{speak: {status: failed, code: model_not_found}}]");
    failed.pass(0);
    let done = &failed.event("response.done")["response"];
    assert_eq!((&done["status"], &done["output"]), (&json!("failed"), &json!([])));
    assert_eq!(done["status_details"]["error"]["code"], "model_not_found");
    let mut endless = stage("[{speak: {say: a, endless: true}}, hang_up]");
    endless.pass(5000);
    assert!(!endless.types().contains(&"output_audio_buffer.stopped".to_owned()));
    assert_eq!(endless.effects, [Effect::HangUp], "and the script goes on");
}

#[test]
fn a_script_waits_for_what_the_client_does_and_says_so_when_that_never_comes() {
    let steps = "[{await: {event: conversation.item.create, item: message, within: 1s}}, {dtmf: '5'}]";
    let mut waited = stage(steps);
    assert!(waited.pass(999).types().is_empty());
    assert_eq!(waited.pass(1).types(), ["input_audio_buffer.dtmf_event_received"]);
    assert_eq!(waited.wrong(), 1);
    let mut came = stage(steps);
    let message = json!({ "type": "conversation.item.create", "item": { "type": "message", "role": "system",
        "content": [{ "type": "input_text", "text": "The caller is a customer." }] } });
    came.client(&message);
    assert_eq!(came.types().last().map(String::as_str), Some("input_audio_buffer.dtmf_event_received"));
    came.pass(5000);
    assert_eq!(came.wrong(), 0);
}

#[test]
fn what_the_api_does_not_take_is_answered_with_an_error_that_names_the_event() {
    let mut stage = stage("[]");
    stage.client(&json!({ "type": "session.update", "event_id": "e7", "session": { "instructions": "x" } }));
    let error = &stage.event("error")["error"];
    assert_eq!(error["message"], "Missing required parameter: 'session.type'.");
    assert_eq!((&error["event_id"], &error["param"]), (&json!("e7"), &json!("session.type")));
    assert_eq!(stage.wrong(), 1);
}

#[test]
fn the_network_and_the_clock_can_end_it() {
    let mut stage =
        stage("[{frame: '{'}, {send: {type: x.y}}, {close: {code: 1011}}, drop, drop_line, hang_up]");
    assert_eq!(
        stage.effects,
        [
            Effect::Frame("{".into()),
            Effect::Close(1011, String::new()),
            Effect::Drop,
            Effect::DropLine,
            Effect::HangUp
        ]
    );
    assert_eq!(stage.types(), ["x.y"]);
    let expired = stage.conversation.expire();
    assert!(matches!(&expired[..], [Effect::Send(_), Effect::Close(1001, _)]));
}
