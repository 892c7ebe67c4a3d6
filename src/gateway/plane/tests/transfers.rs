//! Transfers on real sockets: the message before one, with a hook that the test serves over HTTP, and attended ones.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::Timestamp;
use ring::hmac;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::side::{Side, sdp};
use super::*;
use crate::call::Command;
use crate::gateway::call_id::CallId;
use crate::gateway::calls::{CallView, Outcome};

const SECRET: &str = "whsec_7";
const MESSAGE: &str = "I'm transferring you to our sales team, one moment please.";

/// A request that a hook got, and the way to answer it.
struct Asked {
    headers: HeaderMap,
    body: Bytes,
    answer: oneshot::Sender<Response>,
}

impl Asked {
    fn content(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn answer(self, status: u16) {
        let _ = self.answer.send(StatusCode::from_u16(status).unwrap().into_response());
    }
}

/// An agent's hook: its URL, and what it is asked.
struct Hook {
    url: String,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl Hook {
    async fn serve() -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let take = |headers: HeaderMap, body: Bytes| async move {
            let (answer, answered) = oneshot::channel();
            let _ = sender.send(Asked { headers, body, answer });
            answered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(take))).await });
        Self { url, asked }
    }

    async fn asked(&mut self) -> Asked {
        tokio::time::timeout(LIMIT, self.asked.recv()).await.expect("the hook was not asked").unwrap()
    }
}

/// A call that the agent answered, and whom it can be transferred to.
struct Scene {
    stage: Stage,
    caller: Side,
    agent: Side,
    human: Side,
    call: CallId,
}

impl Scene {
    async fn new(hook: &str) -> Self {
        Self::with_events(hook, Value::Null).await
    }

    async fn with_events(hook: &str, events: Value) -> Self {
        let (agent, human) = (Peer::new().await, Peer::new().await);
        let sales = json!({
            "target": { "number": "+31612345678" }, "description": "Sales", "message": MESSAGE,
            "ringTimeoutSeconds": 30, "callerId": "preserve", "returnToAssistant": true,
        });
        let signing = Credential::Signing { secret: SECRET.into() };
        let given = Given {
            hook: json!({ "url": hook, "secret": "v1" }),
            events,
            destinations: [("sales".to_owned(), sales)].into_iter().collect(),
            trunk: json!({
                "host": "127.0.0.1", "port": human.address().port(), "allowedSources": ["127.0.0.1/32"],
            }),
            credentials: [(CredentialId("v1".into()), signing)].into(),
            ..Given::new(&agent)
        };
        let stage = given.stage().await;
        let (mut agent, human) = (Side::called(agent, stage.address), Side::called(human, stage.address));
        let mut caller = Side::caller(stage.address).await;
        caller.request("INVITE", "", &sdp("caller", "sendrecv")).await;
        let invite = agent.receive("INVITE").await;
        let call = invite.value("X-VoiceDock-Call-Id").parse().unwrap();
        agent.answer(&invite, 200, "", &sdp("agent", "sendrecv")).await;
        agent.receive("ACK").await;
        caller.receive("SIP/2.0 200").await;
        caller.request("ACK", "", "").await;
        Self { stage, caller, agent, human, call }
    }

    /// The agent asks for sales.
    async fn refer(&mut self) {
        self.refer_with("").await;
    }

    /// The same with headers that the URI embeds.
    async fn refer_with(&mut self, embedded: &str) {
        let refer_to = format!("Refer-To: <sip:sales@{}{embedded}>\r\n", self.stage.address);
        self.agent.request("REFER", &refer_to, "").await;
        self.agent.receive("SIP/2.0 202").await;
    }

    /// What the gateway has been told so far is carried out once something that it was told later is.
    async fn settled(&mut self) {
        self.caller.request("INFO", "", "5").await;
        self.agent.receive("INFO").await;
    }

    /// The call as it is shown once its transfer has an outcome.
    async fn transferred(&self) -> Arc<CallView> {
        let view = async {
            loop {
                match self.stage.control.get(self.call) {
                    Some(view) if !view.transfers.is_empty() => return view,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(LIMIT, view).await.expect("the transfer has an outcome")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_human_is_dialled_when_the_hook_says_that_the_message_was_heard() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    scene.refer().await;
    let asked = hook.asked().await;
    let said = json!({
        "type": "say", "call_id": scene.call.to_string(), "assistant": "acme/support", "number": "+31201234567",
        "content": MESSAGE, "end_after": false,
    });
    assert_eq!(asked.content(), said);
    let header = |name: &str| asked.headers[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("x-webhook-event"), header("content-type")),
        ("say".into(), "application/json".into())
    );
    let signed = [header("x-webhook-timestamp").as_bytes(), b".", &asked.body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &signed);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("x-webhook-signature"), format!("sha256={hex}"));
    let now = Timestamp::now().as_second();
    assert!((now - 60..=now).contains(&header("x-webhook-timestamp").parse().unwrap()));

    scene.settled().await;
    assert!(scene.human.has_heard_nothing(), "nobody is dialled while the caller hears the message");
    asked.answer(204);
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 200, "", &sdp("human", "sendrecv")).await;
    let moved = scene.caller.receive("INVITE").await;
    scene.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
    let view = scene.transferred().await;
    assert_eq!(view.transfers[0].outcome, Outcome::Answered);
    assert!(view.transfers[0].message.as_ref().is_some_and(|message| message.heard));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_does_not_hold_up_the_transfer() {
    let elsewhere = Hook::serve().await;
    for (status, why) in
        [(500, "answered 500"), (404, "answered 404"), (307, "answered 307"), (0, "can't be reached")]
    {
        let mut hook = Hook::serve().await;
        let nobody = format!("http://{}/hook", free_address());
        let mut scene = Scene::new(if status == 0 { &nobody } else { &hook.url }).await;
        scene.refer().await;
        if status == 307 {
            let location = [(header::LOCATION, elsewhere.url.clone())];
            let _ =
                hook.asked().await.answer.send((StatusCode::TEMPORARY_REDIRECT, location).into_response());
        } else if status > 0 {
            hook.asked().await.answer(status);
        }
        let invite = scene.human.receive("INVITE").await;
        scene.human.answer(&invite, 486, "", "").await;
        let view = scene.transferred().await;
        let message = view.transfers[0].message.clone().unwrap();
        let reason = message.reason.unwrap();
        assert!(!message.heard && reason.contains(why), "{reason}");
    }
    let mut elsewhere = elsewhere;
    assert!(elsewhere.asked.try_recv().is_err(), "a redirect is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_over_the_message_has_nobody_dialled_and_the_hook_is_left() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    scene.refer().await;
    let mut asked = hook.asked().await;
    scene.caller.request("BYE", "", "").await;
    let bye = scene.agent.receive("BYE").await;
    scene.agent.answer(&bye, 200, "", "").await;
    tokio::time::timeout(LIMIT, asked.answer.closed()).await.expect("the request is given up with the call");
    let view = scene.transferred().await;
    assert_eq!((view.transfers[0].outcome, view.transfers[0].attempts), (Outcome::CallerHungUp, 0));
    assert!(scene.human.has_heard_nothing());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_wants_said_goes_before_the_message_of_the_destination() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    let command =
        Command::Transfer { wanted: "sales".parse().unwrap(), message: Some("Eén moment geduld.".into()) };
    scene.stage.control.command(scene.call, command).await.unwrap();
    let asked = hook.asked().await;
    assert_eq!(asked.content()["content"], "Eén moment geduld.");
    asked.answer(200);
    scene.human.receive("INVITE sip:+31612345678@127.0.0.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_one_thing_after_the_other_and_the_call_ends_after_the_goodbye() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    for command in [
        Command::Inject { content: "The order has left.".into(), trigger_response: false },
        Command::Say { content: "Are you still there?".into(), end_after: false },
        Command::End { message: Some("Goodbye.".into()) },
    ] {
        scene.stage.control.command(scene.call, command).await.unwrap();
    }
    let asked = hook.asked().await;
    assert_eq!(asked.headers["x-webhook-event"], "inject-context");
    let told = asked.content();
    assert_eq!(
        (&told["type"], &told["content"], &told["trigger_response"]),
        (&json!("inject-context"), &json!("The order has left."), &json!(false))
    );
    assert!(hook.asked.try_recv().is_err(), "one after the other");
    asked.answer(200);
    let asked = hook.asked().await;
    assert_eq!(asked.content()["content"], "Are you still there?");
    asked.answer(500);
    let asked = hook.asked().await;
    assert_eq!(
        (&asked.content()["content"], &asked.content()["end_after"]),
        (&json!("Goodbye."), &json!(true))
    );
    scene.settled().await;
    asked.answer(200);
    scene.caller.receive("BYE").await;
    scene.agent.receive("BYE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_of_from_its_answer_over_its_transfer_to_the_report() {
    let (mut hook, mut owner) = (Hook::serve().await, Hook::serve().await);
    let mut scene = Scene::with_events(&hook.url, json!({ "url": owner.url, "secret": "v1" })).await;
    let mut told = async || {
        let asked = owner.asked().await;
        let signed = asked.headers["x-webhook-timestamp"].to_str().unwrap().parse().unwrap();
        let signature = crate::gateway::signing::signature(SECRET, signed, &asked.body);
        assert_eq!(asked.headers["x-webhook-signature"], signature);
        let message = asked.content()["message"].take();
        assert_eq!(asked.headers["x-webhook-event"].to_str().unwrap(), message["type"]);
        assert_eq!(message["call"]["id"], scene.call.to_string());
        asked.answer(200);
        message
    };
    assert_eq!(told().await["status"], "in-progress");
    let refer_to = format!("Refer-To: <sip:sales@{}>\r\n", scene.stage.address);
    scene.agent.request("REFER", &refer_to, "").await;
    assert_eq!(told().await["transfer"], json!({ "status": "requested", "destination": "sales" }));
    hook.asked().await.answer(200);
    assert_eq!(told().await["transfer"]["status"], "dialling");
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 180, "", "").await;
    assert_eq!(told().await["transfer"]["status"], "ringing");
    scene.human.answer(&invite, 486, "", "").await;
    let transfer = told().await["transfer"].take();
    let outcome = &transfer["outcome"];
    assert_eq!((&transfer["status"], &outcome["outcome"]), (&json!("failed"), &json!("busy")));
    assert_eq!((&outcome["sip_code"], &outcome["message"]["heard"]), (&json!(486), &json!(true)));
    scene.caller.request("BYE", "", "").await;
    assert_eq!(told().await["status"], "ended");
    let report = told().await;
    assert_eq!(
        (&report["type"], &report["ended_reason"]),
        (&json!("end-of-call-report"), &json!("caller-hung-up"))
    );
    assert_eq!(report["transfers"], json!([outcome]));
    let metrics = scene.stage.metrics.encode();
    for line in [
        r#"voicedock_assistant_calls_total{namespace="acme",assistant="support",answered="true",transferred="false"} 1"#,
        r#"voicedock_assistant_transfers_total{namespace="acme",assistant="support",destination="sales",outcome="busy"} 1"#,
        r#"voicedock_assistant_seconds_to_transfer_count{namespace="acme",assistant="support"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_revoked_signs_nothing_more() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    let table = Arc::clone(scene.stage.snapshot.load().index.table());
    let without = Snapshot { index: Index::new(table), ..Snapshot::none() };
    scene.stage.snapshot.store(Arc::new(without));
    scene.refer().await;
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 486, "", "").await;
    let view = scene.transferred().await;
    let reason = view.transfers[0].message.clone().unwrap().reason.unwrap();
    assert_eq!(reason, "the secret of the agent's hook is gone");
    assert!(hook.asked.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hands_its_own_call_with_the_human_over_and_no_other_header() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    let embedded = "?X-Evil=1&Replaces=c7%40pbx%3Bfrom-tag%3Dagent%3Bto-tag%3Dhuman&Route=%3Csip:evil%3E";
    scene.refer_with(embedded).await;
    hook.asked().await.answer(200);
    let invite = scene.human.receive("INVITE sip:+31612345678@127.0.0.1").await;
    assert_eq!(invite.values("Replaces"), ["c7@pbx;to-tag=human;from-tag=agent"]);
    assert!(!invite.text.contains("evil") && !invite.text.contains("X-Evil"), "{}", invite.text);
}

fn in_place_of(side: &Side) -> String {
    format!("Require: replaces\r\nReplaces: {}\r\n", side.dialog())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_place_of_an_agent() {
    let hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    let mut stranger = Side::caller(scene.stage.address).await.in_call("stranger");
    stranger.request("INVITE", &in_place_of(&scene.agent), &sdp("stranger", "sendrecv")).await;
    stranger.receive("SIP/2.0 403").await;
    scene.settled().await;
    assert_eq!(scene.stage.plane.live_calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_of_the_trunk_takes_the_callers_place_and_nobody_from_elsewhere() {
    let hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    // The trunk takes calls from 127.0.0.1 only.
    let elsewhere = Peer(UdpSocket::bind("127.0.0.2:0").await.unwrap());
    let mut stranger = Side::calling(elsewhere, scene.stage.address).in_call("stranger");
    stranger.request("INVITE", &in_place_of(&scene.caller), &sdp("stranger", "sendrecv")).await;
    stranger.receive("SIP/2.0 403").await;

    let mut customer = Side::caller(scene.stage.address).await.in_call("customer");
    customer.request("INVITE", &in_place_of(&scene.caller), &sdp("customer", "sendrecv")).await;
    let moved = scene.agent.receive("INVITE").await;
    scene.agent.answer(&moved, 200, "", &sdp("agent", "sendrecv")).await;
    customer.receive("SIP/2.0 200").await;
    customer.request("ACK", "", "").await;
    let bye = scene.caller.receive("BYE").await;
    scene.caller.answer(&bye, 200, "", "").await;
    customer.request("INFO", "", "5").await;
    scene.agent.receive("INFO").await;
    customer.request("BYE", "", "").await;
    scene.agent.receive("BYE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_of_the_trunk_picks_up_a_call_that_rings_at_another_one() {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    scene.refer().await;
    hook.asked().await.answer(200);
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 180, "", "").await;
    // Until the gateway knows of the ringing there is nothing to pick up.
    scene.agent.receive("NOTIFY").await;
    let ringing = loop {
        let notify = scene.agent.receive("NOTIFY").await;
        scene.agent.answer(&notify, 200, "", "").await;
        if notify.body().contains("180") {
            break notify;
        }
    };
    assert!(ringing.body().contains("180 Ringing"), "{}", ringing.text);
    let mut colleague = Side::caller(scene.stage.address).await.in_call("colleague");
    colleague.request("INVITE", &in_place_of(&scene.human), &sdp("colleague", "sendrecv")).await;
    let cancel = scene.human.receive("CANCEL").await;
    assert!(cancel.text.contains("completed elsewhere"), "{}", cancel.text);
    scene.human.answer(&cancel, 200, "", "").await;
    scene.human.answer(&invite, 487, "", "").await;
    let moved = scene.caller.receive("INVITE").await;
    scene.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
    colleague.receive("SIP/2.0 200").await;
    colleague.request("ACK", "", "").await;
    assert_eq!(scene.transferred().await.transfers[0].outcome, Outcome::Answered);
    colleague.request("BYE", "", "").await;
    scene.caller.receive("BYE").await;
}

/// A call that was transferred to the human.
async fn transferred() -> Scene {
    let mut hook = Hook::serve().await;
    let mut scene = Scene::new(&hook.url).await;
    scene.refer().await;
    hook.asked().await.answer(200);
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 200, "", &sdp("human", "sendrecv")).await;
    scene.human.receive("ACK").await;
    let moved = scene.caller.receive("INVITE").await;
    scene.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
    scene.caller.receive("ACK").await;
    scene.transferred().await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_of_the_trunk_takes_the_place_of_the_human() {
    let mut scene = transferred().await;
    let mut colleague = Side::caller(scene.stage.address).await.in_call("colleague");
    colleague.request("INVITE", &in_place_of(&scene.human), &sdp("colleague", "sendrecv")).await;
    let moved = scene.caller.receive("INVITE").await;
    assert!(moved.body().contains("o=") && moved.direction() == "sendrecv", "{}", moved.body());
    scene.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
    colleague.receive("SIP/2.0 200").await;
    colleague.request("ACK", "", "").await;
    let bye = scene.human.receive("BYE").await;
    scene.human.answer(&bye, 200, "", "").await;
    colleague.request("INFO", "", "5").await;
    scene.caller.receive("INFO").await;
    colleague.request("BYE", "", "").await;
    scene.caller.receive("BYE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_from_elsewhere_takes_the_place_of_a_human() {
    let mut scene = transferred().await;
    // The trunk takes calls from 127.0.0.1 only.
    let elsewhere = Peer(UdpSocket::bind("127.0.0.2:0").await.unwrap());
    let mut stranger = Side::calling(elsewhere, scene.stage.address).in_call("stranger");
    stranger.request("INVITE", &in_place_of(&scene.human), &sdp("stranger", "sendrecv")).await;
    stranger.receive("SIP/2.0 403").await;
    scene.caller.request("INFO", "", "5").await;
    scene.human.receive("INFO").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_passed_on_to_somebody_who_leaves_is_answered_by_us() {
    let mut scene = Scene::new("http://127.0.0.1:9/hook").await;
    scene.refer().await;
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 180, "", "").await;
    scene.caller.request("INFO", "", "5").await;
    scene.agent.receive("INFO").await;
    scene.agent.request("BYE", "", "").await;
    let answer = scene.caller.receive("SIP/2.0").await;
    assert!(answer.text.starts_with("SIP/2.0 500"), "{}", answer.text);
    assert_eq!(answer.value("Retry-After"), "2");
}
