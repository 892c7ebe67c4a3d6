//! Conversations as the server tells them, and at random.

use proptest::prelude::*;

use super::*;

/// A conversation and what it has done so far.
struct Scene {
    conversation: Conversation,
    done: Vec<Act>,
}

fn told(value: Value) -> Happened {
    Happened::Told(events::read(&value.to_string()))
}

fn about(kind: &str, response: &str) -> Happened {
    told(json!({ "type": kind, "response_id": response }))
}

/// A response that was made, with these items.
fn made(id: &str, status: &str, output: Value) -> Happened {
    told(json!({ "type": "response.done", "response": { "id": id, "status": status, "output": output } }))
}

fn speech() -> Value {
    json!({ "type": "message", "content": [{ "type": "output_audio", "transcript": "…" }] })
}

fn tool(id: &str, name: &str, arguments: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": name, "arguments": arguments })
}

fn transfer(id: &str, to: &str) -> Value {
    tool(id, "transfer_call", &json!({ "destination": to }).to_string())
}

impl Scene {
    fn new(first_message: Option<&str>) -> Self {
        Self {
            conversation: Conversation::new(first_message.map(str::to_owned), Vec::new()),
            done: Vec::new(),
        }
    }

    /// A caller who has heard the first message.
    fn greeted() -> Self {
        let mut scene = Self::new(Some("Welcome."));
        scene.happens(Happened::Opened);
        scene.happens(Happened::Joined(Again::No));
        scene.speaks("greeting");
        scene.done.clear();
        scene
    }

    fn happens(&mut self, happened: Happened) -> &mut Self {
        self.done.extend(self.conversation.step(happened));
        self
    }

    /// The number of the last response that was asked for.
    fn tag(&self) -> Value {
        let asked = self.sent("response.create");
        asked.last().expect("a response was asked for")["response"]["metadata"].clone()
    }

    /// The response that was asked for begins.
    fn begins(&mut self, id: &str) -> &mut Self {
        let metadata = self.tag();
        self.happens(told(
            json!({ "type": "response.created", "response": { "id": id, "metadata": metadata } }),
        ))
    }

    /// The model begins by itself.
    fn begins_alone(&mut self, id: &str) -> &mut Self {
        self.happens(told(json!({ "type": "response.created", "response": { "id": id } })))
    }

    /// What was asked for is said and heard.
    fn speaks(&mut self, id: &str) -> &mut Self {
        self.begins(id)
            .happens(about("output_audio_buffer.started", id))
            .happens(made(id, "completed", json!([speech()])))
            .happens(about("output_audio_buffer.stopped", id))
    }

    fn sent(&self, kind: &str) -> Vec<&Value> {
        let sent = self.done.iter().filter_map(|act| match act {
            Act::Send(event) => Some(event),
            _ => None,
        });
        sent.filter(|event| event["type"] == kind).collect()
    }

    /// Results of tools that were given.
    fn results(&self) -> Vec<&Value> {
        let items = self.sent("conversation.item.create").into_iter();
        items.filter(|event| event["item"]["type"] == "function_call_output").collect()
    }

    fn asked(&self) -> Vec<(u32, Wish)> {
        let asked = self.done.iter().filter_map(|act| match act {
            Act::Asked(number, wish) => Some((*number, wish.clone())),
            _ => None,
        });
        asked.collect()
    }

    fn answered(&self) -> Vec<(u32, Result<(), String>)> {
        let done = self.done.iter().filter_map(|act| match act {
            Act::Done(number, result) => Some((*number, result.clone())),
            _ => None,
        });
        done.collect()
    }

    fn given_up(&self) -> Option<&str> {
        self.done.iter().find_map(|act| match act {
            Act::GiveUp(why) => Some(why.as_str()),
            _ => None,
        })
    }

    fn say(&mut self, number: u32) -> &mut Self {
        self.happens(Happened::Say(number, "One moment.".into(), Duration::from_secs(11)))
    }

    /// Whether the caller interrupts now, by the last that the session was told.
    fn listens(&self) -> Option<bool> {
        let updates = self.sent("session.update");
        updates.last()?.pointer("/session/audio/input/turn_detection/interrupt_response")?.as_bool()
    }
}

#[test]
fn the_first_message_is_said_once_when_the_caller_hears_the_agent() {
    let joined = Happened::Joined(Again::No);
    for order in [[Happened::Opened, joined.clone()], [joined, Happened::Opened]] {
        let mut scene = Scene::new(Some("Welcome to Acme."));
        let [first, second] = order;
        scene.happens(first);
        assert!(scene.sent("response.create").is_empty(), "nobody would hear it");
        scene.happens(second);
        let asked = scene.sent("response.create");
        let instructions = asked[0]["response"]["instructions"].as_str().unwrap();
        assert!(instructions.contains("\"Welcome to Acme.\""), "{instructions}");
        scene.speaks("r").happens(Happened::Closed).happens(Happened::Opened);
        assert_eq!(scene.sent("response.create").len(), 1, "not again after the socket was lost");
    }
}

#[test]
fn what_comes_before_the_socket_is_open_is_said_after_the_first_message() {
    let mut scene = Scene::new(Some("Welcome."));
    scene.happens(Happened::Joined(Again::No)).say(1);
    scene.happens(Happened::Know(2, "A gold member.".into(), true));
    assert_eq!(scene.answered(), [(2, Ok(()))]);
    scene.happens(Happened::Opened);
    let said = |scene: &Scene, words: &str| {
        scene.sent("response.create").last().unwrap()["response"]["instructions"].to_string().contains(words)
    };
    assert!(said(&scene, "Welcome."));
    scene.speaks("greeting");
    assert!(said(&scene, "One moment."));
    scene.speaks("sentence").happens(Happened::Due(Timer::Heard));
    assert_eq!(scene.answered(), [(2, Ok(())), (1, Ok(()))]);
    assert_eq!(scene.sent("response.create").len(), 3, "and then of what it should know");
    let mut scene = Scene::new(None);
    scene.say(1).happens(Happened::Closed);
    assert_eq!(scene.answered().len(), 1, "that doesn't come about");
}

#[test]
fn an_assistant_without_a_first_message_begins_in_its_own_words() {
    let mut scene = Scene::new(None);
    scene.happens(Happened::Opened).happens(Happened::Joined(Again::No));
    let asked = scene.sent("response.create");
    assert!(asked.len() == 1 && asked[0]["response"].get("instructions").is_none());
}

#[test]
fn a_tool_is_acted_on_at_the_end_of_its_response_and_once() {
    let mut scene = Scene::greeted();
    scene.begins_alone("r");
    let early = json!({
        "type": "response.function_call_arguments.done", "response_id": "r", "call_id": "c", "name": "transfer_call",
        "arguments": "{\"destination\":\"sales\"}",
    });
    scene.happens(told(early));
    assert!(scene.asked().is_empty(), "a response that isn't whole is none");
    let output = json!([transfer("c", "sales")]);
    scene.happens(made("r", "completed", output.clone())).happens(made("r", "completed", output));
    let asked = scene.asked();
    assert_eq!(
        asked.iter().map(|(_, wish)| wish.clone()).collect::<Vec<_>>(),
        [Wish::Transfer("sales".into())]
    );

    let result = json!({ "outcome": "busy" });
    scene.happens(Happened::Concluded(asked[0].0, result.clone()));
    let items = scene.results();
    assert_eq!((&items[0]["item"]["call_id"], items.len()), (&json!("c"), 1));
    assert_eq!(items[0]["item"]["output"], result.to_string());
    assert_eq!(scene.sent("response.create").len(), 1, "it speaks about it");
    scene.happens(Happened::Concluded(asked[0].0, json!({})));
    assert_eq!(scene.results().len(), 1, "a result is given once");
}

#[test]
fn a_response_that_was_cancelled_or_broke_off_has_no_tools() {
    for status in ["cancelled", "incomplete"] {
        let mut scene = Scene::greeted();
        scene.begins_alone("r").happens(made("r", status, json!([transfer("c", "sales")])));
        assert!(scene.asked().is_empty(), "{status}");
    }
}

#[test]
fn what_is_said_with_a_tool_is_heard_before_it_is_acted_on() {
    let mut scene = Scene::greeted();
    let output = json!([speech(), tool("c", "end_call", "{}")]);
    scene.begins_alone("r").happens(about("output_audio_buffer.started", "r"));
    scene.happens(made("r", "completed", output.clone()));
    assert!(scene.asked().is_empty(), "the caller still hears the goodbye");
    scene.happens(about("output_audio_buffer.stopped", "r"));
    assert!(scene.asked().is_empty(), "the end of the buffer is not yet the caller's ear");
    scene.happens(Happened::Due(Timer::Heard));
    assert_eq!(scene.asked().len(), 1);

    // Where the end never comes, or the caller speaks into it, the model's decision stands.
    for end in [Happened::Due(Timer::Tools), about("output_audio_buffer.cleared", "r"), Happened::Closed] {
        let mut scene = Scene::greeted();
        scene.begins_alone("r").happens(made("r", "completed", output.clone())).happens(end.clone());
        assert_eq!(scene.asked().len(), 1, "{end:?}");
    }
}

#[test]
fn a_wrong_tool_call_is_answered_at_once() {
    for (output, why) in [
        (tool("c", "transfer_call", "{}"), "'destination' is missing"),
        (tool("c", "transfer_call", "{\"destination\":"), "'destination' is missing"),
        (tool("c", "order_pizza", "{}"), "no tool 'order_pizza'"),
    ] {
        let mut scene = Scene::greeted();
        scene.begins_alone("r").happens(made("r", "completed", json!([output])));
        assert!(scene.asked().is_empty());
        let items = scene.sent("conversation.item.create");
        assert!(items[0]["item"]["output"].as_str().unwrap().contains(why), "{items:?}");
        assert_eq!(scene.sent("response.create").len(), 1);
    }
}

#[test]
fn a_sentence_is_done_when_it_was_made_and_heard_in_either_order() {
    let (whole, heard) =
        (made("m", "completed", json!([speech()])), about("output_audio_buffer.stopped", "m"));
    for order in [[whole.clone(), heard.clone()], [heard, whole]] {
        let mut scene = Scene::greeted();
        scene.say(5).begins("m").happens(about("output_audio_buffer.started", "m"));
        assert_eq!(scene.listens(), Some(false), "nobody interrupts it");
        let [first, second] = order;
        scene.happens(first).happens(Happened::Due(Timer::Heard));
        assert!(scene.answered().is_empty(), "half of it");
        scene.happens(second);
        assert!(scene.answered().is_empty(), "on its way to the ear");
        scene.happens(Happened::Due(Timer::Heard));
        assert_eq!(scene.answered(), [(5, Ok(()))]);
        assert_eq!(scene.listens(), Some(true));
    }
}

#[test]
fn a_sentence_that_is_not_heard_to_its_end_says_why() {
    for (end, why) in [
        (made("m", "cancelled", json!([speech()])), "the caller interrupted it"),
        (about("output_audio_buffer.cleared", "m"), "the caller interrupted it"),
        (made("m", "incomplete", json!([speech()])), "the model broke off"),
        (made("m", "failed", json!([])), "the model failed: no reason given"),
        (made("m", "completed", json!([])), "the model said nothing"),
        (Happened::Due(Timer::Say), "it was not heard to its end in time"),
        (Happened::Closed, "the connection to the session was lost over it"),
    ] {
        let mut scene = Scene::greeted();
        scene.say(5).begins("m").happens(end);
        assert_eq!(scene.answered(), [(5, Err(why.to_owned()))]);
        scene.happens(made("m", "completed", json!([speech()])));
        scene.happens(about("output_audio_buffer.stopped", "m")).happens(Happened::Due(Timer::Heard));
        assert_eq!(scene.answered().len(), 1, "{why}");
    }
}

#[test]
fn sentences_are_said_in_order_and_not_into_each_other() {
    let mut scene = Scene::greeted();
    scene.say(1).say(2);
    assert_eq!(scene.sent("response.create").len(), 1);
    scene.speaks("a").happens(Happened::Due(Timer::Heard));
    assert_eq!(scene.sent("response.create").len(), 2);
    assert_eq!(scene.listens(), Some(false), "the second follows");
    scene.speaks("b").happens(Happened::Due(Timer::Heard));
    assert_eq!(scene.answered(), [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(scene.listens(), Some(true));
}

#[test]
fn a_sentence_waits_for_what_is_being_said_but_not_for_long() {
    let mut scene = Scene::greeted();
    scene.begins_alone("r").happens(about("output_audio_buffer.started", "r")).say(1);
    assert!(scene.sent("response.create").is_empty());
    scene.happens(Happened::Due(Timer::Finish));
    assert_eq!(scene.sent("response.cancel").len(), 1);
    assert_eq!(scene.sent("output_audio_buffer.clear").len(), 1);
    scene.happens(made("r", "cancelled", json!([speech()])));
    assert_eq!(scene.sent("response.create").len(), 1, "now it is its turn");
}

#[test]
fn a_request_that_crosses_a_response_of_the_models_own_is_made_again_after_it() {
    let mut scene = Scene::greeted();
    scene.say(1);
    let event_id = scene.sent("response.create")[0]["event_id"].clone();
    let busy = json!({ "code": "conversation_already_has_active_response", "event_id": event_id });
    scene.begins_alone("r").happens(told(json!({ "type": "error", "error": busy })));
    assert_eq!(scene.sent("response.create").len(), 1);
    scene.happens(made("r", "completed", json!([])));
    assert_eq!(scene.sent("response.create").len(), 2);
    scene.speaks("m").happens(Happened::Due(Timer::Heard));
    assert_eq!(scene.answered(), [(1, Ok(()))]);
}

#[test]
fn a_model_that_fails_is_asked_again_and_given_up_the_third_time() {
    let mut scene = Scene::greeted();
    scene.begins_alone("r").happens(made("r", "failed", json!([])));
    assert!(scene.sent("response.create").is_empty(), "after a moment");
    for id in ["s", "t"] {
        assert_eq!(scene.given_up(), None);
        scene.happens(Happened::Due(Timer::Retry)).begins(id).happens(made(id, "failed", json!([])));
    }
    assert_eq!(scene.given_up(), Some("the model gives no answer: no reason given"));

    let mut scene = Scene::greeted();
    for id in ["a", "b", "c", "d"] {
        scene.begins_alone(id).happens(made(id, "failed", json!([])));
        scene.happens(Happened::Due(Timer::Retry)).speaks(&format!("{id}-again"));
    }
    assert_eq!(scene.given_up(), None, "failures count in a row");
}

#[test]
fn an_error_that_ends_the_session_is_told_and_a_harmless_one_is_not() {
    let error = |code: &str| told(json!({ "type": "error", "error": { "code": code, "message": "…" } }));
    let mut scene = Scene::greeted();
    scene.happens(error("response_cancel_not_active")).happens(error("unknown_parameter"));
    assert_eq!(scene.given_up(), None);
    scene.say(3).happens(error("session_expired"));
    assert_eq!(scene.given_up(), Some("the session ended: session_expired"));
    assert_eq!(scene.answered().len(), 1);
}

#[test]
fn what_could_not_be_sent_is_sent_when_the_socket_is_back() {
    let mut scene = Scene::greeted();
    scene.begins_alone("r").happens(made("r", "completed", json!([transfer("c", "sales")])));
    scene.happens(Happened::Closed);
    let asked = scene.asked();
    scene.happens(Happened::Concluded(asked[0].0, json!({ "outcome": "busy" })));
    assert!(scene.results().is_empty());
    scene.happens(Happened::Opened);
    assert_eq!(scene.results().len(), 1);
    assert_eq!(scene.sent("response.create").len(), 1);
}

#[test]
fn what_was_sent_and_lost_with_the_socket_is_sent_again_under_the_same_id() {
    let mut scene = Scene::greeted();
    for (call, shown) in [("a", true), ("b", false)] {
        scene.begins_alone(call).happens(made(call, "completed", json!([transfer(call, "sales")])));
        let (number, _) = *scene.asked().last().unwrap();
        scene.happens(Happened::Concluded(number, json!({ "outcome": "busy" })));
        if shown {
            let item = scene.results()[0]["item"].clone();
            scene.happens(told(json!({ "type": "conversation.item.added", "item": item })));
        }
    }
    let before: Vec<Value> = scene.results().into_iter().cloned().collect();
    scene.happens(Happened::Closed);
    scene.done.clear();
    scene.happens(Happened::Opened);
    assert_eq!(scene.results(), [&before[1]], "the server has shown the other one");
}

#[test]
fn a_tool_that_was_called_while_the_socket_was_gone_is_found_and_acted_on_once() {
    let mut scene = Scene::greeted();
    scene.happens(Happened::Closed).happens(Happened::Opened);
    let note = scene.sent("conversation.item.create")[0]["item"].clone();
    assert_eq!(note["role"], "system", "the model is to repeat what can't be found");
    let added = told(json!({ "type": "conversation.item.added", "previous_item_id": "lost", "item": note }));
    scene.happens(added.clone()).happens(added);
    let asked: Vec<_> =
        scene.sent("conversation.item.retrieve").into_iter().map(|it| &it["item_id"]).collect();
    assert_eq!(asked, ["lost"]);
    let mut item = transfer("c", "sales");
    item["status"] = "completed".into();
    let found = told(json!({ "type": "conversation.item.retrieved", "item": item }));
    scene.happens(found.clone()).happens(found).happens(made("r", "completed", json!([item])));
    let (number, wish) = scene.asked()[0].clone();
    assert_eq!((wish, scene.asked().len()), (Wish::Transfer("sales".into()), 1));
    scene.happens(Happened::Concluded(number, json!({ "outcome": "busy" })));
    assert_eq!(scene.results()[0]["item"]["call_id"], "c");
}

#[test]
fn nothing_is_looked_for_behind_what_we_added_ourselves() {
    let mut scene = Scene::greeted();
    scene.happens(Happened::Know(1, "A gold member.".into(), false));
    let own = scene.sent("conversation.item.create")[0]["item"]["id"].clone();
    scene.happens(Happened::Closed);
    scene.done.clear();
    scene.happens(Happened::Opened);
    let note = scene.sent("conversation.item.create")[0]["item"].clone();
    scene.happens(told(json!({ "type": "conversation.item.added", "previous_item_id": own, "item": note })));
    assert!(scene.sent("conversation.item.retrieve").is_empty());
}

#[test]
fn whether_the_caller_interrupts_is_said_again_over_the_next_socket() {
    let mut scene = Scene::greeted();
    scene.happens(Happened::Closed).happens(Happened::Opened);
    assert_eq!(scene.listens(), None, "nothing was changed");
    scene.say(1).happens(Happened::Closed);
    assert_eq!(scene.listens(), Some(false));
    scene.happens(Happened::Opened);
    assert_eq!(scene.listens(), Some(true));
}

#[test]
fn a_caller_who_is_back_is_told_what_happened_and_not_greeted() {
    let mut scene = Scene::new(Some("Welcome."));
    scene.happens(Happened::Opened).happens(Happened::Joined(Again::Yes));
    assert!(scene.sent("response.create").is_empty());
    scene.happens(Happened::Know(1, "Nobody answered at sales.".into(), true));
    let asked = scene.sent("response.create");
    assert!(asked.len() == 1 && asked[0]["response"].get("instructions").is_none());
}

#[test]
fn what_the_model_should_know_is_told_and_spoken_about_if_wanted() {
    let mut scene = Scene::greeted();
    scene.happens(Happened::Know(1, "The caller is a gold member.".into(), false));
    assert_eq!(scene.sent("conversation.item.create")[0]["item"]["role"], "system");
    assert!(scene.sent("response.create").is_empty());
    scene.happens(Happened::Know(2, "Offer a discount.".into(), true));
    assert_eq!(scene.sent("response.create").len(), 1);
    assert_eq!(scene.answered(), [(1, Ok(())), (2, Ok(()))]);
}

fn call(id: &str) -> events::Call {
    events::Call {
        id: id.to_owned(),
        name: "transfer_call".into(),
        arguments: r#"{"destination":"sales"}"#.into(),
    }
}

fn anything() -> impl Strategy<Value = Happened> {
    let id = || prop_oneof!["own", "r[0-2]"];
    let output = prop_oneof![
        Just(json!([])),
        Just(json!([speech()])),
        "c[0-2]".prop_map(|id| json!([transfer(&id, "sales")])),
        "c[0-2]".prop_map(|id| json!([speech(), tool(&id, "end_call", "{}")])),
    ];
    let status = prop_oneof![4 => Just("completed"), 1 => Just("cancelled"), 1 => Just("failed"), 1 => Just("incomplete")];
    let about_response = (
        prop_oneof![
            Just("output_audio_buffer.started"),
            Just("output_audio_buffer.stopped"),
            Just("output_audio_buffer.cleared")
        ],
        id(),
    );
    let timer = prop_oneof![
        Just(Timer::Begin),
        Just(Timer::Heard),
        Just(Timer::Finish),
        Just(Timer::Tools),
        Just(Timer::Say),
        Just(Timer::Retry),
    ];
    let error = prop_oneof![Just("conversation_already_has_active_response"), Just("invalid_value")];
    prop_oneof![
        2 => Just(Happened::Opened),
        1 => Just(Happened::Closed),
        1 => prop_oneof![Just(Again::No), Just(Again::Yes)].prop_map(Happened::Joined),
        2 => "c[0-2]".prop_map(|id| Happened::Told(Told::Found(call(&id)))),
        2 => ("vd-[1-9]", "(vd-[1-9]|i)").prop_map(|(id, before)| Happened::Told(Told::Item { id, before: Some(before) })),
        // "own" begins what was asked for last.
        4 => id().prop_map(|id| Happened::Told(Told::Begun { id, tag: None })),
        6 => (id(), status, output).prop_map(|(id, status, output)| made(&id, status, output)),
        6 => about_response.prop_map(|(kind, id)| about(kind, &id)),
        1 => error.prop_map(|code| told(json!({ "type": "error", "error": { "code": code } }))),
        2 => Just(Happened::Say(0, "One moment.".into(), Duration::from_secs(10))),
        1 => any::<bool>().prop_map(|speak| Happened::Know(0, "…".into(), speak)),
        2 => (1..20u32).prop_map(|number| Happened::Concluded(number, json!({}))),
        4 => timer.prop_map(Happened::Due),
    ]
}

proptest! {
    #[test]
    fn everything_told_is_answered_once_and_every_tool_acted_on_once(
        happenings in proptest::collection::vec(anything(), 0..80)
    ) {
        let mut conversation = Conversation::new(Some("Welcome.".into()), Vec::new());
        let (mut told_so_far, mut answered, mut asked, mut results) = (0, Vec::new(), Vec::new(), HashSet::new());
        let mut over = false;
        let mut tag = None;
        for happened in happenings.into_iter().chain([Happened::Closed]) {
            let happened = match happened {
                Happened::Say(_, words, within) if !over => {
                    told_so_far += 1;
                    Happened::Say(told_so_far, words, within)
                }
                Happened::Know(_, text, speak) if !over => {
                    told_so_far += 1;
                    Happened::Know(told_so_far, text, speak)
                }
                Happened::Told(Told::Begun { id, .. }) if id == "own" => {
                    Happened::Told(Told::Begun { id, tag: tag.take() })
                }
                other => other,
            };
            for act in conversation.step(happened) {
                match act {
                    Act::Done(number, _) => answered.push(number),
                    Act::Asked(number, _) => asked.push(number),
                    Act::GiveUp(_) => over = true,
                    Act::Send(event) => match event["type"].as_str().unwrap() {
                        "response.create" => {
                            let own = event["response"]["metadata"]["voicedock"].as_str().unwrap();
                            tag = Some(own.parse().unwrap());
                        }
                        // Under the same id it may be sent again.
                        "conversation.item.create" if event["item"]["type"] == "function_call_output" => {
                            results.insert(event["item"]["id"].to_string());
                        }
                        _ => {}
                    },
                    Act::Set(..) | Act::Clear(_) => {}
                }
            }
        }
        answered.sort_unstable();
        prop_assert_eq!(answered, (1..=told_so_far).collect::<Vec<_>>(), "each exactly once");
        let distinct: HashSet<_> = asked.iter().collect();
        prop_assert_eq!(distinct.len(), asked.len());
        prop_assert!(asked.len() <= 3 && results.len() <= 3, "there are three tool calls");
    }
}
