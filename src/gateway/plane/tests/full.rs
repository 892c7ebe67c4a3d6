//! A pod, or a trunk, that has as many calls as it may have.

use serde_json::json;

use super::{Given, LIMIT, Peer, request, until};

/// Calls that a plane of these tests takes.
const MOST: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pod_refuses_new_calls_and_goes_on_with_those_that_it_has() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let stage = Given::taking(&agent, "127.0.0.1").stage().await;
    let gateway = stage.address;
    let invite = |number: u32| request(&caller, gateway, "INVITE", "", &format!("i{number}"), number);
    for number in 1..=MOST {
        caller.send(gateway, &invite(number)).await;
        caller.receive("SIP/2.0 100").await;
        agent.receive("INVITE").await;
    }
    for _copy in 0..2 {
        caller.send(gateway, &invite(MOST + 1)).await;
        let (refusal, _) = caller.receive("SIP/2.0").await;
        assert!(refusal.starts_with("SIP/2.0 503"), "{refusal}");
        assert!(refusal.contains("Retry-After: 5\r\n"), "{refusal}");
        let to = refusal.lines().find(|line| line.starts_with("To:")).unwrap();
        let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
        caller
            .send(gateway, &request(&caller, gateway, "ACK", &tag, &format!("i{}", MOST + 1), MOST + 1))
            .await;
    }
    caller.send(gateway, &invite(1)).await;
    let (again, _) = caller.receive("SIP/2.0").await;
    assert!(again.starts_with("SIP/2.0 100"), "the copy of a call that is there: {again}");

    let cancel = request(&caller, gateway, "CANCEL", "", "i1", 1);
    caller.send(gateway, &cancel).await;
    caller.receive("SIP/2.0 487").await;
    caller.send(gateway, &invite(MOST + 2)).await;
    caller.receive("SIP/2.0 100").await;
    let metrics = stage.metrics.encode();
    assert!(
        metrics.lines().any(|line| line.contains("overload") && line.ends_with(" 2")),
        "both refusals are counted:\n{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_brings_in_as_many_calls_as_its_limit_lets_it_and_another_when_one_is_over() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let trunk = json!({
        "host": "127.0.0.1", "allowedSources": ["127.0.0.1/32"], "inboundLimits": { "calls": 2 },
    });
    let stage = Given { trunk, ..Given::new(&agent) }.stage().await;
    let gateway = stage.address;
    let request =
        |method: &str, number: u32| request(&caller, gateway, method, "", &format!("i{number}"), number);
    for number in 1..=2 {
        caller.send(gateway, &request("INVITE", number)).await;
        caller.receive("SIP/2.0 100").await;
    }
    caller.send(gateway, &request("INVITE", 3)).await;
    let (refusal, _) = caller.receive("SIP/2.0 503").await;
    assert!(refusal.contains("Retry-After: 5\r\n"), "{refusal}");
    assert_eq!(stage.plane.live_calls(), 2);
    let metrics = stage.metrics.encode();
    let counted = metrics.lines().any(|line| line.contains("trunk-limit") && line.ends_with(" 1"));
    assert!(counted, "{metrics}");
    caller.send(gateway, &request("CANCEL", 1)).await;
    caller.receive("SIP/2.0 487").await;
    let other = async { until(|| stage.plane.live_calls() == 1).await };
    tokio::time::timeout(LIMIT, other).await.expect("the first one is over");
    caller.send(gateway, &request("INVITE", 4)).await;
    let taken = async { until(|| stage.plane.live_calls() == 2).await };
    tokio::time::timeout(LIMIT, taken).await.expect("the fourth one is taken");
}
