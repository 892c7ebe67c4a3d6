//! What the double refuses, and what it does wrong when its script says so.

use serde_json::{Value, json};
use voicedock::simulate::realtime::What;

use crate::client::{Caller, Stage, session};
use crate::realtime::{API_KEY, PROJECT};

#[tokio::test]
async fn a_call_that_nobody_accepts_in_time_is_refused_with_400() {
    let mut stage = Stage::new("calls: [{invite: {accept_within: 100ms}}]").await;
    let (mut caller, call) = stage.call().await;
    assert_eq!(caller.refused().await, 400);
    let late = stage.ask(&call, "accept", session()).await;
    assert_eq!((late.status, &*late.code()), (404, "call_id_not_found"));
}

#[tokio::test]
async fn an_invite_that_the_api_does_not_take_is_refused_and_noted() {
    let stage = Stage::new("").await;
    let opus = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 96\r\n";
    assert_eq!(Caller::call(&stage, "proj_other", "").await.refused().await, 404);
    assert_eq!(Caller::call_with(&stage, PROJECT, "", opus).await.refused().await, 488);
    let wrong = stage.double.journal().wrong();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    let told = stage.double.journal().entries();
    assert!(!told.iter().any(|entry| matches!(entry.what, What::Webhook { .. })), "nobody is told of them");
}

#[tokio::test]
async fn a_session_that_the_api_does_not_take_is_refused_with_its_path() {
    let mut stage = Stage::new("").await;
    let (_caller, call) = stage.call().await;
    let vad = json!({ "turn_detection": { "type": "server_vad", "threshold": 0.5 } });
    for (body, code, message) in [
        (json!({ "session": session() }), "unknown_parameter", "Unknown parameter: 'session.session'."),
        (
            json!({ "type": "realtime", "model": "gpt-realtime", "audio": { "input": vad } }),
            "unknown_parameter",
            "Unknown parameter: 'session.audio.input.turn_detection.threshold'.",
        ),
        (
            json!({ "type": "realtime", "model": "gpt-4o-mini" }),
            "invalid_model",
            "Model \"gpt-4o-mini\" is not supported in realtime mode.",
        ),
    ] {
        let answer = stage.ask(&call, "accept", body).await;
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!((&error["error"]["code"], &error["error"]["message"]), (&json!(code), &json!(message)));
    }
    assert_eq!(stage.double.journal().wrong().len(), 3);
    assert_eq!(stage.ask(&call, "accept", session()).await.status, 200, "it can still be accepted");
    let again = stage.ask(&call, "accept", session()).await;
    assert_eq!(again.code(), "decision_already_made");
}

#[tokio::test]
async fn each_attempt_to_accept_meets_what_the_script_says_for_it() {
    let mut stage = Stage::new(
        "calls: [{accept: [{status: 500}, {status: 429, code: rate_limit_exceeded, retry_after: 1}, {lost: true}]}]",
    )
    .await;
    let (mut caller, call) = stage.call().await;
    let wrong = stage.ask_with(&call, "accept", session(), "sk-wrong").await;
    assert_eq!((wrong.status, &*wrong.code()), (401, "invalid_api_key"));
    let limited = stage.ask(&call, "accept", session()).await;
    assert_eq!((limited.status, &*limited.code()), (429, "rate_limit_exceeded"));
    assert_eq!(limited.headers["retry-after"], "1");
    assert_eq!(stage.ask(&call, "accept", session()).await.status, 0, "done, but nobody says so");
    caller.answered().await;
    assert_eq!(stage.ask(&call, "accept", session()).await.code(), "decision_already_made");
}

#[tokio::test]
async fn a_caller_can_be_answered_before_whoever_accepted_the_call_hears_of_it() {
    let mut stage = Stage::new("calls: [{accept: [{late: 300ms}]}]").await;
    let (mut caller, call) = stage.call().await;
    let accepting = stage.ask(&call, "accept", session());
    tokio::pin!(accepting);
    tokio::select! {
        _ = &mut accepting => panic!("it is answered first"),
        _ = caller.answered() => {}
    }
    assert_eq!(accepting.await.status, 200);
}

#[tokio::test]
async fn an_acceptance_can_be_followed_by_a_refusal() {
    let mut stage = Stage::new("calls: [{accept: [{sip: 400}]}]").await;
    let (mut caller, call) = stage.call().await;
    assert_eq!(stage.ask(&call, "accept", session()).await.status, 200);
    assert_eq!(caller.refused().await, 400);
    assert_eq!(stage.socket(&call).await.err(), Some(404));
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_an_agent_that_can_still_be_accepted_and_hung_up() {
    let mut stage = Stage::new("").await;
    let (mut caller, call) = stage.call().await;
    caller.request("CANCEL", "", "").await;
    assert_eq!(caller.refused().await, 487);
    assert_eq!(stage.ask(&call, "accept", session()).await.status, 200);
    assert!(stage.socket(&call).await.is_ok(), "it talks to nobody");
    assert_eq!(stage.ask(&call, "hangup", json!(null)).await.status, 200);
    assert_eq!(stage.ask(&call, "hangup", json!(null)).await.status, 404);
}

#[tokio::test]
async fn an_event_that_is_not_taken_comes_again_under_the_same_id() {
    let mut stage = Stage::with_webhook("", [503, 302]).await;
    let _caller = Caller::call(&stage, PROJECT, "").await;
    let hooks = [stage.hook().await, stage.hook().await, stage.hook().await];
    for hook in &hooks[1..] {
        assert_eq!(hook.header("webhook-id"), hooks[0].header("webhook-id"));
        assert_eq!(hook.body, hooks[0].body);
    }
    let mut statuses = Vec::new();
    let attempts = stage.seen(|entry| match entry.what {
        What::Webhook { attempt, status, .. } => {
            statuses.push(status);
            (status == Some(200)).then_some(attempt)
        }
        _ => None,
    });
    assert_eq!(attempts.await, 3);
    assert_eq!(statuses, [Some(503), Some(302), Some(200)]);
}

#[tokio::test]
async fn an_event_can_come_twice_old_and_badly_signed() {
    let mut stage = Stage::new("calls: [{webhook: {copies: 2, age: 10m, signature: wrong}}]").await;
    let _caller = Caller::call(&stage, PROJECT, "").await;
    let (first, second) = (stage.hook().await, stage.hook().await);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    let at: i64 = first.header("webhook-timestamp").parse().unwrap();
    assert!(jiff::Timestamp::now().as_second() - at >= 600);
    let right = voicedock::simulate::realtime::sign(
        crate::realtime::WEBHOOK_SECRET,
        first.header("webhook-id"),
        at,
        &first.body,
    );
    assert_ne!(first.header("webhook-signature"), right);
}

#[tokio::test]
async fn a_websocket_that_is_not_welcome_is_closed_with_its_code() {
    let mut stage = Stage::new("calls: [{socket: [{status: 503}]}]").await;
    assert_eq!(stage.socket("rtc_nobody").await.err(), Some(404));
    let (mut caller, call) = stage.call().await;
    assert_eq!(stage.socket(&call).await.err(), Some(404), "nobody has accepted it");
    stage.ask(&call, "accept", session()).await;
    caller.answered().await;
    assert_eq!(stage.socket(&call).await.err(), Some(503));
    let mut wrong = stage.socket_with(&call, "sk-wrong", None).await.unwrap();
    assert_eq!(wrong.event("error").await["error"]["code"], "invalid_api_key");
    assert_eq!(wrong.closed().await, 3000);
    let mut beta = stage.socket_with(&call, API_KEY, Some("realtime=v1")).await.unwrap();
    assert_eq!(beta.event("error").await["error"]["code"], "beta_api_shape_disabled");
    assert_eq!(beta.closed().await, 4000);
    assert_eq!(stage.double.journal().wrong().len(), 1);
}

#[tokio::test]
async fn a_websocket_can_be_closed_or_cut_and_opened_again() {
    let mut stage = Stage::new(
        "calls: [{steps: [{close: {code: 1011, reason: oops}}, {await: {event: response.create}}, drop, {wait: 50ms}, {dtmf: '1'}]}]",
    )
    .await;
    let (_caller, call) = stage.accepted().await;
    assert_eq!(stage.socket(&call).await.unwrap().closed().await, 1011);
    let mut second = stage.socket(&call).await.unwrap();
    second.event("session.created").await;
    second.send(json!({ "type": "response.create" })).await;
    assert_eq!(second.closed().await, 0);
}

#[tokio::test]
async fn a_session_that_lasts_too_long_is_ended() {
    let mut stage = Stage::new("calls: [{lasts: 300ms}]").await;
    let (mut caller, call) = stage.accepted().await;
    let mut socket = stage.socket(&call).await.unwrap();
    assert_eq!(socket.event("error").await["error"]["code"], "session_expired");
    assert_eq!(socket.closed().await, 1001);
    caller.until("BYE").await;
}

#[tokio::test]
async fn a_reinvite_is_answered_refused_or_left_alone_by_the_script() {
    let sdp =
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n";
    for (code, start) in [(200, "SIP/2.0 200"), (488, "SIP/2.0 488"), (491, "SIP/2.0 491")] {
        let mut stage = Stage::new(&format!("calls: [{{invite: {{reoffer: {code}}}}}]")).await;
        let (mut caller, _) = stage.accepted().await;
        caller.reinvite(sdp).await;
        caller.until(start).await;
    }
    let mut stage = Stage::new("calls: [{invite: {reoffer: 0}}]").await;
    let (mut caller, _) = stage.accepted().await;
    caller.reinvite(sdp).await;
    stage.request("INVITE").await;
    caller.bye().await;
}

#[tokio::test]
async fn the_sip_connection_can_be_cut_under_a_call() {
    let mut stage = Stage::new("calls: [{steps: [drop_line]}]").await;
    let (mut caller, call) = stage.accepted().await;
    let _socket = stage.socket(&call).await.unwrap();
    while caller.message().await.is_some() {}
    assert_eq!(stage.ask(&call, "hangup", json!(null)).await.status, 200, "by request it can still be ended");
}
