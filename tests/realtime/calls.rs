//! Calls that go as they should.

use serde_json::json;
use voicedock::simulate::realtime::{Script, Step, What, script, sign};

use crate::client::{Caller, Stage, session};
use crate::realtime::{PROJECT, WEBHOOK_SECRET};

#[tokio::test]
async fn a_call_is_told_to_the_webhook_and_answered_once_it_is_accepted() {
    let mut stage = Stage::new("").await;
    let mut caller = Caller::call(&stage, PROJECT, "X-VoiceDock-Call-Id: call_1\r\n").await;
    caller.until("SIP/2.0 100").await;
    caller.until("SIP/2.0 180").await;
    let hook = stage.hook().await;
    let event = hook.json();
    assert_eq!((&event["type"], &event["object"]), (&json!("realtime.call.incoming"), &json!("event")));
    let headers = event["data"]["sip_headers"].as_array().unwrap();
    let values = |name: &str| -> Vec<_> {
        let named = headers.iter().filter(|header| header["name"] == name);
        named.map(|header| header["value"].as_str().unwrap()).collect()
    };
    assert_eq!(values("X-VoiceDock-Call-Id"), ["call_1"]);
    assert_eq!(values("X-Twice"), ["a", "b"]);
    let at = hook.header("webhook-timestamp").parse().unwrap();
    let expected = sign(WEBHOOK_SECRET, hook.header("webhook-id"), at, &hook.body);
    assert_eq!(hook.header("webhook-signature"), expected);

    let answer = stage.ask(&hook.call(), "accept", session()).await;
    assert_eq!((answer.status, &answer.headers["content-length"]), (200, &"0".parse().unwrap()));
    let ok = caller.answered().await;
    assert!(ok.contains("Contact: <sip:OAI@sip.api.openai.com:5061>\r\n"), "{ok}");
    assert!(!ok.contains("Content-Type"), "{ok}");
    assert!(ok.contains("\r\n\r\nv=0\r\n") && ok.contains("s=OAI\r\n"), "{ok}");
    caller.bye().await;
    let entries = stage.double.journal().entries();
    let at = |wanted: fn(&What) -> bool| entries.iter().position(|entry| wanted(&entry.what)).unwrap();
    assert!(at(|what| matches!(what, What::Rest { .. })) < at(|what| matches!(what, What::Answered)));
    assert_eq!(stage.double.journal().wrong(), [""; 0]);
}

#[tokio::test]
async fn a_whole_conversation_goes_over_its_websocket() {
    let mut stage = Stage::new(
        "calls:\n\
         - when: {X-VoiceDock-Number: '+31201234567'}\n\
         \x20 steps:\n\
         \x20 - respond: {}\n\
         \x20 - caller: {says: Sales please.}\n\
         \x20 - speak: {call: {name: transfer_call, arguments: {destination: sales}}}\n\
         \x20 - await: {event: conversation.item.create, item: function_call_output}\n\
         \x20 - respond: {say: They are busy.}\n",
    )
    .await;
    let (mut caller, call) = stage.accepted().await;
    let mut socket = stage.socket(&call).await.unwrap();
    assert_eq!(socket.event("session.created").await["session"]["model"], "gpt-realtime");
    let first = json!({ "instructions": "Say exactly: \"Welcome.\"" });
    socket.send(json!({ "type": "response.create", "response": first })).await;
    assert_eq!(socket.event("response.output_audio_transcript.done").await["transcript"], "Welcome.");
    let done = socket.event("response.done").await;
    let stopped = socket.event("output_audio_buffer.stopped").await;
    assert_eq!(stopped["response_id"], done["response"]["id"]);
    let heard = socket.event("conversation.item.input_audio_transcription.completed").await;
    assert_eq!(heard["transcript"], "Sales please.");
    let call_id = socket.event("response.done").await["response"]["output"][0]["call_id"].clone();
    let item = json!({ "type": "function_call_output", "call_id": call_id, "output": "busy" });
    socket.send(json!({ "type": "conversation.item.create", "item": item })).await;
    socket.event("conversation.item.done").await;
    socket.send(json!({ "type": "response.create" })).await;
    assert_eq!(socket.event("response.output_audio_transcript.done").await["transcript"], "They are busy.");
    caller.bye().await;
    socket.closed().await;
    assert_eq!(stage.double.journal().wrong(), [""; 0]);
}

#[tokio::test]
async fn a_call_can_be_rejected_and_hung_up_by_request() {
    let mut stage = Stage::new("").await;
    for (body, code) in [(json!(null), 603), (json!({ "status_code": 486 }), 486)] {
        let (mut caller, call) = stage.call().await;
        assert_eq!(stage.ask(&call, "reject", body).await.status, 200);
        assert_eq!(caller.refused().await, code);
        let late = stage.ask(&call, "accept", session()).await;
        assert_eq!((late.status, &*late.code()), (404, "call_id_not_found"));
    }
    let (mut caller, call) = stage.accepted().await;
    assert_eq!(stage.ask(&call, "hangup", json!(null)).await.status, 200);
    caller.until("BYE").await;
}

#[tokio::test]
async fn a_caller_is_referred_to_the_very_uri_that_was_asked_for() {
    let mut stage = Stage::new("").await;
    let (mut caller, call) = stage.accepted().await;
    assert_eq!(stage.ask(&call, "refer", json!({ "target_uri": "tel:+15551234567" })).await.status, 200);
    let refer = caller.until("REFER").await;
    assert!(refer.contains("Refer-To: <tel:+15551234567>\r\n"), "{refer}");
    assert!(!refer.contains("Referred-By"), "{refer}");
    let wrong = stage.ask(&call, "refer", json!({ "target_uri": "+15551234567" })).await;
    assert_eq!((wrong.status, stage.double.journal().wrong().len()), (400, 1));
}

#[tokio::test]
async fn a_test_can_have_more_happen_in_a_call() {
    let mut stage = Stage::new("").await;
    let (mut caller, call) = stage.accepted().await;
    let mut socket = stage.socket(&call).await.unwrap();
    socket.event("session.created").await;
    stage.double.act(&call, Step::Dtmf('7'));
    assert_eq!(socket.event("input_audio_buffer.dtmf_event_received").await["event"], "7");
    stage.double.act(&call, Step::Speak(script::Answer { say: Some("Bye.".into()), ..Default::default() }));
    stage.double.act(&call, Step::HangUp);
    socket.event("output_audio_buffer.stopped").await;
    caller.until("BYE").await;
}

#[tokio::test]
async fn a_script_a_key_and_a_webhook_can_be_changed_for_calls_to_come() {
    let mut stage = Stage::new("").await;
    stage.double.set_script(Script::parse("{calls: [{invite: {refuse: 480}}]}").unwrap());
    stage.double.set_api_key("sk-other");
    assert_eq!(Caller::call(&stage, PROJECT, "").await.refused().await, 480);
    stage.double.set_script(Script::parse("{line: {content_type: true, own_contact: true}}").unwrap());
    let (mut caller, call) = stage.call().await;
    assert_eq!(stage.ask(&call, "accept", session()).await.status, 401);
    assert_eq!(stage.ask_with(&call, "accept", session(), "sk-other").await.status, 200);
    let ok = caller.answered().await;
    assert!(ok.contains("Content-Type: application/sdp\r\n") && ok.contains("vd@127.0.0.1"), "{ok}");
}

#[tokio::test]
async fn several_sockets_hear_one_call() {
    let mut stage =
        Stage::new("calls: [{socket: [{}, {session_created: false}], steps: [{respond: {say: Hi.}}]}]").await;
    let (_caller, call) = stage.accepted().await;
    let mut first = stage.socket(&call).await.unwrap();
    first.event("session.created").await;
    let mut second = stage.socket(&call).await.unwrap();
    let opened =
        |entry: &voicedock::simulate::realtime::Entry| matches!(entry.what, What::SocketOpened).then_some(());
    let mut sockets = 0;
    stage
        .seen(|entry| {
            opened(entry).filter(|()| {
                sockets += 1;
                sockets == 2
            })
        })
        .await;
    first.send(json!({ "type": "response.create" })).await;
    for socket in [&mut first, &mut second] {
        assert_eq!(socket.event("response.output_audio_transcript.done").await["transcript"], "Hi.");
    }
    let created = stage
        .double
        .journal()
        .entries()
        .into_iter()
        .filter(|entry| matches!(&entry.what, What::Server(event) if event["type"] == "session.created"));
    assert_eq!(created.count(), 1, "the second one was not greeted");
}
