//! Agents over OpenAI: calls on real sockets with the double of its API.

use tokio::net::TcpListener;

use super::secured::{Authority, Certificate};
use super::side::{Seen, Side, sdp};
use super::*;
use crate::call::Command;
use crate::gateway::call_id::CallId;
use crate::gateway::calls::{CallView, Outcome};
use crate::gateway::metrics::GatewayMetrics;
use crate::http::forward::Forwarder;
use crate::http::health::Phase;
use crate::http::idempotency::Answers;
use crate::http::keys::Keys;
use crate::http::{self, Http, server};
use crate::routing::decide::Wanted;
use crate::simulate::realtime::{Config, Double, Identity, Script, Step, WebhookTarget, What};

const KEY: &str = "sk-test";
const WEBHOOK_SECRET: &str = "whsec_dGVzdC1zZWNyZXQtb2YtdGhlLWRvdWJsZQ==";
const MESSAGE: &str = "One moment please.";

/// A number that is answered over OpenAI, and everybody around it.
struct Scene {
    stage: Stage,
    double: Double,
    caller: Side,
    human: Side,
    _stop: DropGuard,
}

impl Scene {
    /// Before the call.
    async fn set(script: &str) -> Self {
        Self::set_with(script, |_| {}).await
    }

    async fn set_with(script: &str, change: impl Fn(&mut Given)) -> Self {
        let authority = Authority::new("the double's");
        let Certificate { certificate, key } = authority.issue("127.0.0.1");
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let double = Double::start(Config {
            sip: anywhere,
            http: anywhere,
            advertise: None,
            identity: Identity { certificate, key },
            plain_http: false,
            project: "proj_test".into(),
            api_key: KEY.into(),
            webhook: WebhookTarget { url: None, secret: WEBHOOK_SECRET.into(), authorities: None },
            script: Script::parse(script).unwrap_or_else(|error| panic!("{error}")),
        });
        let double = double.await.unwrap();

        let human = Peer::new().await;
        let port = double.sip().port();
        let target = json!({
            "uri": format!("sip:proj_test@127.0.0.1:{port};transport=tls"), "host": "127.0.0.1", "port": port,
            "transport": "TLS", "tls": { "authorities": "ca" },
        });
        let destination = |message: Value| {
            json!({
                "target": { "number": "+31612345678" }, "description": "Sales", "message": message,
                "ringTimeoutSeconds": 30, "callerId": "preserve", "returnToAssistant": true,
            })
        };
        let named = [("sales", destination(MESSAGE.into())), ("desk", destination(Value::Null))];
        let secret = |text: &str| Credential::Signing { secret: text.into() };
        let id = |text: &str| CredentialId(text.into());
        let authorities = Credential::Authorities { authorities: authority.pem.clone() };
        let mut given = Given {
            agent: json!({ "openai": {
                "target": target, "api": double.base_url(), "keys": { "api": "k1", "webhook": "k2" },
                "answerTimeoutSeconds": 4,
            } }),
            script: json!({
                "model": "gpt-realtime", "instructions": "Be kind.", "firstMessage": "Welcome to Acme.", "canEnd": true,
            }),
            fallback: "acme/desk".into(),
            destinations: named.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect(),
            trunk: json!({
                "host": "127.0.0.1", "port": human.address().port(), "allowedSources": ["127.0.0.1/32"],
            }),
            credentials: [
                (id("k1"), secret(KEY)),
                (id("k2"), secret(WEBHOOK_SECRET)),
                (id("ca"), authorities),
            ]
            .into(),
            ..Given::new(&human)
        };
        change(&mut given);
        let stage = given.stage().await;

        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        double.set_webhook_url(format!("http://{}/webhooks/openai", listener.local_addr().unwrap()));
        let http = Http {
            control: stage.control.clone(),
            openai: Arc::clone(&stage.openai),
            peers: Arc::clone(&stage.peers),
            forwarder: Forwarder::default(),
            answers: Answers::default(),
            keys: Arc::new(Keys::new("/nowhere")),
            phase: watch::channel(Phase::Serving).1,
            counters: GatewayMetrics::new(&stage.metrics),
            metrics: stage.metrics.clone(),
        };
        tokio::spawn(server::serve(listener, http::router(http), stop.clone()));
        let (caller, human) = (Side::caller(stage.address).await, Side::called(human, stage.address));
        Self { stage, double, caller, human, _stop: stop.drop_guard() }
    }

    /// A call that the agent answered.
    async fn answered(script: &str) -> Self {
        let mut scene = Self::set(script).await;
        scene.call().await;
        scene.is_answered().await;
        scene
    }

    async fn call(&mut self) {
        self.caller.request("INVITE", "", &sdp("caller", "sendrecv")).await;
    }

    async fn is_answered(&mut self) {
        self.caller.receive("SIP/2.0 200").await;
        self.caller.request("ACK", "", "").await;
    }

    /// What `pick` makes of something that the double saw.
    async fn seen<T>(&self, what: &str, pick: impl Fn(&What) -> Option<T>) -> T {
        let found = self.double.journal().wait_for(LIMIT, |entry| pick(&entry.what)).await;
        found.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// A request to the API.
    async fn asked(&self, verb: &str) -> Value {
        self.seen(verb, |what| match what {
            What::Rest { verb: found, body, .. } if found == verb => Some(body.clone()),
            _ => None,
        })
        .await
    }

    fn count(&self, is: impl Fn(&What) -> bool) -> usize {
        self.double.journal().entries().iter().filter(|entry| is(&entry.what)).count()
    }

    /// What came back to the model as the result of a tool.
    async fn result(&self) -> Value {
        let output = self.seen("a result", |what| match what {
            What::Client(event) if event["item"]["type"] == "function_call_output" => {
                event["item"]["output"].as_str().map(str::to_owned)
            }
            _ => None,
        });
        serde_json::from_str(&output.await).unwrap()
    }

    /// The model is told this.
    async fn is_told(&self, words: &str) {
        self.seen(words, |what| match what {
            What::Client(event) => event.to_string().contains(words).then_some(()),
            _ => None,
        })
        .await;
    }

    /// The human is dialled instead of the agent, and joined with the caller.
    async fn falls_back(&mut self) {
        let invite = self.human.receive("INVITE").await;
        self.human.answer(&invite, 200, "", &sdp("human", "sendrecv")).await;
        self.human.receive("ACK").await;
    }

    /// The caller is joined with the human who is called now.
    async fn is_handed_over(&mut self, invite: &Seen) {
        self.human.answer(invite, 200, "", &sdp("human", "sendrecv")).await;
        self.human.receive("ACK").await;
        let moved = self.caller.receive("INVITE").await;
        self.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
        self.caller.receive("ACK").await;
    }

    /// The call, once it looks so.
    async fn shows(&self, what: &str, holds: impl Fn(&CallView) -> bool) -> Arc<CallView> {
        let view = async {
            loop {
                match self.stage.control.list(usize::MAX).first() {
                    Some(view) if holds(view) => return Arc::clone(view),
                    _ => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, view).await.unwrap_or_else(|_| panic!("{what}"))
    }

    /// The double took everything.
    fn is_right(&self) {
        assert_eq!(self.double.journal().wrong(), Vec::<String>::new());
    }
}

/// The model says its welcome, then calls this tool.
fn asks_for(tool: &str, arguments: &Value) -> String {
    json!({ "word": "1ms", "unknown_after": "1ms", "calls": [{ "steps": [
        { "respond": {} },
        { "speak": { "call": { "name": tool, "arguments": arguments } } },
    ] }] })
    .to_string()
}

fn transfers_to(destination: &str) -> String {
    asks_for("transfer_call", &json!({ "destination": destination }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_call_becomes_a_transfer_after_its_message_was_heard() {
    let mut scene = Scene::answered(&transfers_to("sales")).await;
    let session = scene.asked("accept").await;
    assert_eq!((&session["type"], &session["instructions"]), (&json!("realtime"), &json!("Be kind.")));
    let names = &session["tools"][0]["parameters"]["properties"]["destination"]["enum"];
    assert_eq!(names, &json!(["desk", "sales"]));
    let said = |words: &'static str| {
        move |what: &What| match what {
            What::Client(event) => {
                event["response"]["instructions"].as_str().filter(|text| text.contains(words)).map(|_| ())
            }
            _ => None,
        }
    };
    scene.seen("the first message", said("Welcome to Acme.")).await;
    let invite = scene.human.receive("INVITE sip:+31612345678@127.0.0.1").await;
    scene.seen("the message", said(MESSAGE)).await;
    let heard = scene
        .count(|what| matches!(what, What::Server(event) if event["type"] == "output_audio_buffer.stopped"));
    assert_eq!(heard, 2, "the welcome and the message were heard to their ends");
    scene.is_handed_over(&invite).await;
    scene
        .seen("the agent is released", |what| match what {
            What::Request { method } => (method == "BYE").then_some(()),
            _ => None,
        })
        .await;
    let view = scene.shows("transferred", |view| !view.transfers.is_empty()).await;
    assert_eq!(view.transfers[0].outcome, Outcome::Answered);
    assert!(view.transfers[0].message.as_ref().is_some_and(|message| message.heard));
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_fails_comes_back_as_the_tools_result_and_is_spoken_about() {
    let mut scene = Scene::answered(&transfers_to("desk")).await;
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 486, "", "").await;
    let result = scene.result().await;
    assert_eq!((&result["outcome"], &result["destination"]), (&json!("busy"), &json!("desk")));
    scene
        .seen("it speaks", |what| match what {
            What::Client(event) => {
                let plain =
                    event["type"] == "response.create" && event["response"].get("instructions").is_none();
                plain.then_some(())
            }
            _ => None,
        })
        .await;
    scene.caller.request("INFO", "", "5").await;
    scene.caller.request("BYE", "", "").await;
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_none_is_refused_with_those_that_there_are() {
    let scene = Scene::answered(&transfers_to("marketing")).await;
    let result = scene.result().await;
    assert_eq!(result["outcome"], "refused");
    assert!(result["reason"].as_str().unwrap().contains("desk, sales"), "{result}");
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_ends_the_call_when_its_goodbye_was_heard() {
    let script = json!({ "word": "1ms", "calls": [{ "steps": [
        { "respond": {} },
        { "speak": { "say": "Goodbye.", "plays": "300ms", "call": { "name": "end_call" } } },
    ] }] });
    let mut scene = Scene::answered(&script.to_string()).await;
    let bye = scene.caller.receive("BYE").await;
    scene.caller.answer(&bye, 200, "", "").await;
    let heard = scene
        .count(|what| matches!(what, What::Server(event) if event["type"] == "output_audio_buffer.stopped"));
    assert_eq!(heard, 2, "the goodbye was heard");
    let view = scene.shows("over", |view| view.status.is_over()).await;
    assert_eq!(view.end_reason.as_deref(), Some("assistant-ended"));
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_has_the_model_say_and_know_things() {
    let scene = Scene::answered(r#"{"word": "1ms"}"#).await;
    let view = scene.shows("in progress", |view| view.agent_id.is_some()).await;
    let call: CallId = view.id;
    let say = Command::Say { content: "It is noon.".into(), end_after: false };
    scene.stage.control.command(call, say).await.unwrap();
    let know = Command::Inject { content: "A gold member.".into(), trigger_response: true };
    scene.stage.control.command(call, know).await.unwrap();
    for words in ["It is noon.", "A gold member."] {
        scene
            .seen(words, |what| match what {
                What::Client(event) => event.to_string().contains(words).then_some(()),
                _ => None,
            })
            .await;
    }
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_can_not_be_had_leaves_its_caller_to_the_fallback() {
    for (what, call, counted) in [
        ("no webhook", json!({ "webhook": { "skip": true } }), ""),
        (
            "a wrong signature",
            json!({ "webhook": { "signature": "wrong" } }),
            r#"webhooks_total{outcome="not-believed"} "#,
        ),
        ("the INVITE is refused", json!({ "invite": { "refuse": 603 } }), ""),
        (
            "the key is refused",
            json!({ "accept": [{ "status": 401, "code": "invalid_api_key" }] }),
            r#"requests_total{request="accept",outcome="401"} 1"#,
        ),
        (
            "no budget",
            json!({ "accept": [{ "status": 429, "code": "insufficient_quota" }] }),
            r#"requests_total{request="accept",outcome="429"} 1"#,
        ),
        (
            "accepted, then refused over SIP",
            json!({ "accept": [{ "sip": 400 }] }),
            r#"webhooks_total{outcome="delivered"} 1"#,
        ),
        (
            "the socket is refused",
            json!({ "socket": [{ "status": 401 }], "invite": { "answer_after": "2s" } }),
            r#"requests_total{request="socket",outcome="401"} 1"#,
        ),
    ] {
        let mut scene =
            Scene::set(&json!({ "word": "1ms", "unknown_after": "1ms", "calls": [call] }).to_string()).await;
        scene.call().await;
        scene.falls_back().await;
        scene.is_answered().await;
        let view = scene.shows(what, |view| view.agent_id.is_some()).await;
        assert!(!view.status.is_over(), "{what}");
        let metrics = scene.stage.metrics.encode();
        let line = format!("voicedock_openai_{counted}");
        assert!(counted.is_empty() || metrics.contains(&line), "{what}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_of_no_use_leaves_its_caller_to_the_fallback() {
    for (what, call) in [
        (
            "a bad key in the session",
            json!({ "steps": [{ "respond": {} }, { "close": { "code": 3000, "reason": "invalid_api_key" } }] }),
        ),
        (
            "a session that expires",
            json!({ "steps": [{ "respond": {} }, { "error": { "code": "session_expired", "message": "…" } }] }),
        ),
        (
            "a model that fails",
            json!({ "steps": [
            { "respond": { "status": "failed", "code": "server_error" } },
            { "respond": { "status": "failed", "code": "server_error" } },
            { "respond": { "status": "failed", "code": "server_error" } },
        ] }),
        ),
    ] {
        let mut scene =
            Scene::answered(&json!({ "word": "1ms", "unknown_after": "1ms", "calls": [call] }).to_string())
                .await;
        let invite = scene.human.receive("INVITE").await;
        scene.is_handed_over(&invite).await;
        let view = scene.shows(what, |view| view.agent_id.is_some()).await;
        assert!(!view.status.is_over(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_busy_is_asked_again() {
    let accept =
        json!([{ "status": 500 }, { "status": 429, "code": "rate_limit_exceeded" }, { "lost": true }]);
    let mut scene = Scene::set(&json!({ "word": "1ms", "calls": [{ "accept": accept }] }).to_string()).await;
    scene.call().await;
    scene.is_answered().await;
    assert!(scene.human.has_heard_nothing());
    let accepts = scene.count(|what| matches!(what, What::Rest { verb, .. } if verb == "accept"));
    assert!(accepts >= 3, "{accepts}");
    let metrics = scene.stage.metrics.encode();
    for outcome in ["5xx", "429"] {
        let line = format!(r#"voicedock_openai_requests_total{{request="accept",outcome="{outcome}"}} 1"#);
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_is_answered_before_the_api_says_so_is_greeted() {
    let script = json!({ "word": "1ms", "calls": [{ "accept": [{ "late": "300ms" }] }] }).to_string();
    let scene = Scene::answered(&script).await;
    scene
        .seen("the greeting", |what| match what {
            What::Client(event) if event["type"] == "response.create" => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_twice_is_acted_on_once() {
    let script = json!({ "word": "1ms", "calls": [{ "webhook": { "copies": 3 } }] }).to_string();
    let scene = Scene::answered(&script).await;
    scene.seen("the socket", |what| matches!(what, What::SocketOpened).then_some(())).await;
    assert_eq!(scene.count(|what| matches!(what, What::Rest { verb, .. } if verb == "accept")), 1);
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_lost_is_opened_again_and_the_tools_still_work() {
    let script = json!({ "word": "1ms", "calls": [{ "steps": [
        { "respond": {} },
        "drop",
        { "wait": "1s" },
        { "speak": { "call": { "name": "transfer_call", "arguments": { "destination": "desk" } } } },
    ] }] });
    let mut scene = Scene::answered(&script.to_string()).await;
    scene.human.receive("INVITE").await;
    assert_eq!(scene.count(|what| matches!(what, What::SocketOpened)), 2);
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_called_while_the_socket_is_lost_is_carried_out_and_its_result_given() {
    let script = json!({ "word": "1ms", "calls": [{ "socket": [{}, { "after": "500ms" }], "steps": [
        { "respond": {} },
        "drop",
        { "speak": { "call": { "name": "transfer_call", "arguments": { "destination": "desk" } } } },
    ] }] });
    let mut scene = Scene::answered(&script.to_string()).await;
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 486, "", "").await;
    assert_eq!(scene.result().await["outcome"], "busy");
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_by_the_api_that_fails_is_told_to_the_model() {
    let mut scene = Scene::answered(r#"{"word": "1ms"}"#).await;
    let call = scene.shows("in progress", |view| view.agent_id.is_some()).await.id;
    let transfer = Command::Transfer { wanted: Wanted::Name("desk".into()), message: None };
    scene.stage.control.command(call, transfer).await.unwrap();
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 486, "", "").await;
    scene.is_told("to be transferred to desk, which did not work out (busy: 486 Answer)").await;
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assistant_that_is_called_back_knows_what_happened_and_greets_nobody_twice() {
    let mut scene = Scene::answered(&transfers_to("desk")).await;
    let invite = scene.human.receive("INVITE").await;
    scene.human.answer(&invite, 180, "", "").await;
    scene.double.set_script(Script::parse(r#"{"word": "1ms"}"#).unwrap());
    let entries = scene.double.journal().entries();
    let name = entries.iter().map(|entry| &entry.call).find(|call| !call.is_empty()).unwrap().clone();
    scene.double.act(&name, Step::HangUp);
    // Its BYE has arrived once nobody takes what the caller sends.
    loop {
        scene.caller.request("INFO", "", "5").await;
        if scene.caller.receive("SIP/2.0").await.text.contains("nobody is joined") {
            break;
        }
    }
    scene.human.answer(&invite, 486, "", "").await;
    let moved = scene.caller.receive("INVITE").await;
    scene.caller.answer(&moved, 200, "", &sdp("caller", "sendrecv")).await;
    scene.is_told("to be transferred to desk, which did not work out").await;
    let greeted = scene.count(|what| match what {
        What::Client(event) => event.to_string().contains("Welcome to Acme."),
        _ => false,
    });
    assert_eq!(greeted, 1);
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_holds_is_answered_without_asking_the_model() {
    let mut scene = Scene::answered(r#"{"word": "1ms", "calls": [{"invite": {"reoffer": 0}}]}"#).await;
    for (hold, answer) in [("sendonly", "recvonly"), ("sendrecv", "sendrecv")] {
        scene.caller.request("INVITE", "", &sdp("caller", hold)).await;
        let answered = scene.caller.receive("SIP/2.0 200").await;
        assert!(
            answer == "sendrecv" || answered.body().contains(&format!("a={answer}\r\n")),
            "{}",
            answered.body()
        );
        scene.caller.request("ACK", "", "").await;
    }
    let asked = scene.count(|what| matches!(what, What::Request { method } if method == "INVITE"));
    assert_eq!(asked, 0);
    scene.is_right();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_early_leaves_no_agent_talking_to_nobody() {
    // The webhook comes when nobody waits any more.
    let mut scene =
        Scene::set(r#"{"unknown_after": "1ms", "calls": [{"webhook": {"after": "500ms"}}]}"#).await;
    scene.call().await;
    scene.seen("the INVITE", |what| matches!(what, What::Invited { .. }).then_some(())).await;
    scene.caller.cancel().await;
    scene.caller.receive("SIP/2.0 487").await;
    scene.asked("reject").await;
    assert_eq!(scene.count(|what| matches!(what, What::Rest { verb, .. } if verb == "accept")), 0);

    // The API was about to accept it.
    let mut scene =
        Scene::set(r#"{"unknown_after": "1ms", "calls": [{"accept": [{"after": "600ms"}]}]}"#).await;
    scene.call().await;
    scene
        .seen("the webhook", |what| matches!(what, What::Webhook { status: Some(200), .. }).then_some(()))
        .await;
    scene.caller.cancel().await;
    scene.caller.receive("SIP/2.0 487").await;
    scene.asked("hangup").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secrets_an_agent_is_not_dialled() {
    let without = |given: &mut Given| given.agent["openai"]["keys"] = Value::Null;
    let mut scene = Scene::set_with("{}", without).await;
    scene.call().await;
    scene.falls_back().await;
    scene.is_answered().await;
    assert_eq!(scene.count(|what| matches!(what, What::Invited { .. })), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_tool_call_to_the_invite_it_takes_milliseconds() {
    let mut spans = Vec::new();
    for _ in 0..10 {
        let mut scene = Scene::answered(&transfers_to("desk")).await;
        let called = scene.double.journal().wait_for(LIMIT, |entry| match &entry.what {
            What::Server(event) if event["type"] == "response.done" => {
                let output = &event["response"]["output"];
                output.to_string().contains("function_call").then(std::time::Instant::now)
            }
            _ => None,
        });
        let (called, _) = tokio::join!(called, scene.human.receive("INVITE"));
        spans.push(called.unwrap().elapsed());
    }
    spans.sort_unstable();
    println!("tool call to INVITE, debug build: {spans:?}");
    assert!(spans[spans.len() / 2] < Duration::from_millis(50), "{spans:?}");
}
