//! What a trace shows of calls on real sockets.

use super::*;
use crate::gateway::calls::CallView;
use crate::gateway::control::ControlError;
use crate::gateway::trace::{Over, Subject, Trace, TraceState, TracedMessage, Wanted, Way};

const NUMBER: &str = "+31201234567";

impl Stage {
    async fn trace(&self, subject: Subject, namespace: Option<&str>) -> Arc<Trace> {
        let wanted = self.wanted(subject, namespace);
        self.control.trace(wanted).await.unwrap()
    }

    fn wanted(&self, subject: Subject, namespace: Option<&str>) -> Wanted {
        let id = self.control.new_trace_id();
        Wanted { id, subject, namespace: namespace.map(str::to_owned), span: Duration::from_secs(60) }
    }

    /// The call that there is, once there is one.
    async fn call(&self) -> Arc<CallView> {
        tokio::time::timeout(LIMIT, async {
            loop {
                match self.control.list(usize::MAX).first() {
                    Some(call) => return Arc::clone(call),
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .unwrap()
    }
}

fn number() -> Subject {
    Subject::Number(NUMBER.parse().unwrap())
}

/// Waits until the trace is over and says what it has.
async fn whole(trace: &Trace) -> (Vec<Arc<TracedMessage>>, Option<Over>) {
    tokio::time::timeout(LIMIT * 2, async {
        loop {
            let view = trace.view(0, std::time::Instant::now());
            if view.state == TraceState::Over {
                return (view.messages, view.over);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap()
}

/// Of each message its leg, its way, and the first word of a request or the code of a response.
fn rungs(messages: &[Arc<TracedMessage>]) -> Vec<String> {
    let first = |text: &str| text.trim_start_matches("SIP/2.0 ").split(' ').next().unwrap().to_owned();
    let way = |way| if way == Way::In { "in" } else { "out" };
    messages.iter().map(|m| format!("{} {} {}", m.leg, way(m.way), first(&m.text))).collect()
}

/// A call that is answered, up to the agent's ACK; what the caller's next requests need as To tag.
async fn answered(caller: &Peer, agent: &Peer, gateway: SocketAddr) -> String {
    caller.send(gateway, &request(caller, gateway, "INVITE", "", "i", 1)).await;
    let (invite, from) = agent.receive("INVITE").await;
    agent.accept(&invite, from).await;
    let (answer, _) = caller.receive("SIP/2.0 200").await;
    let to = answer.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
    caller.send(gateway, &request(caller, gateway, "ACK", &tag, "a", 1)).await;
    agent.receive("ACK").await;
    tag
}

async fn hung_up(caller: &Peer, agent: &Peer, gateway: SocketAddr, tag: &str) {
    caller.send(gateway, &request(caller, gateway, "BYE", tag, "b", 2)).await;
    caller.receive("SIP/2.0 200").await;
    let (bye, from) = agent.receive("BYE").await;
    agent.accept(&bye, from).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_to_a_number_is_shown_from_its_invite_to_its_last_goodbye_without_numbers() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let stage = Given::taking(&agent, "127.0.0.1").stage().await;
    let trace = stage.trace(number(), Some("acme")).await;
    let tag = answered(&caller, &agent, stage.address).await;
    let call = stage.call().await.id;
    // A second call at the same time is none of it.
    let other = Peer::new().await;
    let other_tag = answered(&other, &agent, stage.address).await;
    hung_up(&other, &agent, stage.address, &other_tag).await;
    hung_up(&caller, &agent, stage.address, &tag).await;

    let (messages, over) = whole(&trace).await;
    assert_eq!(
        rungs(&messages),
        [
            "caller in INVITE",
            "caller out 100",
            "dialled-1 out INVITE",
            "dialled-1 in 200",
            "caller out 200",
            "caller in ACK",
            "dialled-1 out ACK",
            "caller in BYE",
            "caller out 200",
            "dialled-1 out BYE",
            "dialled-1 in 200",
        ]
    );
    assert_eq!((over, trace.view(0, std::time::Instant::now()).call), (Some(Over::CallOver), Some(call)));
    assert_eq!(messages[0].peer, caller.address().to_string());
    for message in &messages {
        let text = &message.text;
        assert!(!text.contains("31687654321") && !text.contains("31201234567"), "{text}");
    }
    assert!(messages[0].text.contains("From: <sip:+*********21@"), "{}", messages[0].text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_up_is_followed_from_then_on() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let stage = Given::taking(&agent, "127.0.0.1").stage().await;
    let tag = answered(&caller, &agent, stage.address).await;
    let call = stage.call().await.id;
    let trace = stage.trace(Subject::Call(call), None).await;
    hung_up(&caller, &agent, stage.address, &tag).await;
    let (messages, _) = whole(&trace).await;
    assert_eq!(
        rungs(&messages),
        ["caller in BYE", "caller out 200", "dialled-1 out BYE", "dialled-1 in 200"]
    );
    let late = stage.control.trace(stage.wanted(Subject::Call(call), None)).await;
    assert_eq!(late.err(), Some(ControlError::CallOver));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_is_shown_to_the_gateways_owner_and_to_no_namespace() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    // Calls come in from another address only.
    let stage = Given::taking(&agent, "127.0.0.3").stage().await;
    let (everybodys, theirs) = (stage.trace(number(), None).await, stage.trace(number(), Some("acme")).await);
    caller.send(stage.address, &request(&caller, stage.address, "INVITE", "", "i", 1)).await;
    let (refusal, _) = caller.receive("SIP/2.0 403").await;
    let to = refusal.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
    caller.send(stage.address, &request(&caller, stage.address, "ACK", &tag, "i", 1)).await;
    let (messages, over) = whole(&everybodys).await;
    let rungs = rungs(&messages);
    assert_eq!(rungs.first().map(String::as_str), Some("caller in INVITE"), "{rungs:?}");
    assert!(rungs.contains(&"caller out 403".to_owned()), "{rungs:?}");
    assert_eq!(over, Some(Over::CallOver));
    assert_eq!(theirs.view(0, std::time::Instant::now()).state, TraceState::Waiting);
}
