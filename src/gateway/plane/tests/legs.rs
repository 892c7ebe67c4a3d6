//! What passes between two joined legs, on the wire.

use super::side::{Side, sdp};
use super::{Peer, plane};
use crate::gateway::plane::Plane;

/// A call between a caller and an agent, answered.
async fn call() -> (Plane, Side, Side) {
    let agent = Peer::new().await;
    let (plane, gateway) = plane(&agent).await;
    let mut agent = Side::called(agent, gateway);
    let mut caller = Side::caller(gateway).await;
    caller.request("INVITE", "", &sdp("caller", "sendrecv")).await;
    let invite = agent.receive("INVITE").await;
    agent.answer(&invite, 200, "", &sdp("agent", "sendrecv")).await;
    agent.receive("ACK").await;
    caller.receive("SIP/2.0 200").await;
    caller.request("ACK", "", "").await;
    (plane, caller, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_puts_the_other_one_on_hold() {
    let (_plane, mut caller, mut agent) = call().await;
    let rounds = [
        ("INVITE", true, "sendonly", "recvonly"),
        ("INVITE", false, "inactive", "inactive"),
        ("UPDATE", true, "sendrecv", "sendrecv"),
        ("UPDATE", false, "sendonly", "recvonly"),
    ];
    for (method, by_caller, hold, answer) in rounds {
        let (holder, held) = if by_caller { (&mut caller, &mut agent) } else { (&mut agent, &mut caller) };
        holder.request(method, "", &sdp("holder", hold)).await;
        let offer = held.receive("INVITE").await;
        assert_eq!(offer.direction(), hold);
        held.answer(&offer, 200, "", &sdp("held", answer)).await;
        held.receive("ACK").await;
        let answered = holder.receive("SIP/2.0 200").await;
        assert_eq!((answered.direction(), answered.value("CSeq").contains(method)), (answer, true));
        if method == "INVITE" {
            holder.request("ACK", "", "").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_is_asked_for_comes_from_the_other_side_and_the_ack_brings_it_the_answer() {
    let (_plane, mut caller, mut agent) = call().await;
    caller.request("INVITE", "", "").await;
    let asked = agent.receive("INVITE").await;
    assert_eq!(asked.body(), "");
    agent.answer(&asked, 200, "", &sdp("agent", "sendonly")).await;
    assert_eq!(caller.receive("SIP/2.0 200").await.direction(), "sendonly");
    caller.request("ACK", "", &sdp("caller", "recvonly")).await;
    assert_eq!(agent.receive("ACK").await.direction(), "recvonly");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_meet_are_refused_with_491_on_both_sides() {
    let (_plane, mut caller, mut agent) = call().await;
    caller.request("INVITE", "", &sdp("caller", "sendonly")).await;
    let offer = agent.receive("INVITE").await;
    agent.request("INVITE", "", &sdp("agent", "sendonly")).await;
    agent.receive("SIP/2.0 491").await;
    agent.answer(&offer, 491, "", "").await;
    agent.receive("ACK").await;
    caller.receive("SIP/2.0 491").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_answered_without_asking_the_other_side() {
    let (_plane, mut caller, mut agent) = call().await;
    let lines = "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n";
    caller.request("INVITE", lines, &sdp("caller", "sendrecv")).await;
    let answer = caller.receive("SIP/2.0 200").await;
    assert_eq!(answer.value("Session-Expires"), "600;refresher=uac");
    assert!(answer.body().contains("o=agent "), "{}", answer.body());
    caller.request("ACK", "", "").await;
    caller.request("INFO", "", "5").await;
    let next = agent.receive("").await;
    assert!(next.text.starts_with("INFO"), "the agent hears of the digit only: {}", next.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_that_wants_a_shorter_interval_than_its_own_is_told_so_and_may_come_again() {
    let agent = Peer::new().await;
    let (_plane, gateway) = plane(&agent).await;
    let mut agent = Side::called(agent, gateway);
    let mut caller = Side::caller(gateway).await;
    for (interval, min) in [(60, "90"), (119, "120")] {
        let lines = format!("Supported: timer\r\nSession-Expires: {interval}\r\n");
        caller.request("INVITE", &lines, &sdp("caller", "sendrecv")).await;
        assert_eq!(caller.receive("SIP/2.0 422").await.value("Min-SE"), min);
        caller.request("ACK", "", "").await;
    }
    let lines = "Supported: timer\r\nSession-Expires: 120\r\nMin-SE: 120\r\n";
    caller.request("INVITE", lines, &sdp("caller", "sendrecv")).await;
    let invite = agent.receive("INVITE").await;
    assert_eq!(invite.value("Session-Expires"), "1800", "each leg has an interval of its own");
    agent.answer(&invite, 200, "Session-Expires: 300;refresher=uas\r\n", &sdp("agent", "sendrecv")).await;
    assert_eq!(caller.receive("SIP/2.0 200").await.value("Session-Expires"), "120;refresher=uas");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_media_is_acknowledged_on_both_legs_before_the_call_is_answered() {
    let agent = Peer::new().await;
    let (_plane, gateway) = plane(&agent).await;
    let mut agent = Side::called(agent, gateway);
    let mut caller = Side::caller(gateway).await;
    caller.request("INVITE", "Require: 100rel\r\n", &sdp("caller", "sendrecv")).await;
    let invite = agent.receive("INVITE").await;
    agent.answer(&invite, 183, "Require: 100rel\r\nRSeq: 41\r\n", &sdp("agent", "sendrecv")).await;
    let prack = agent.receive("PRACK").await;
    assert_eq!(prack.value("RAck"), "41 1 INVITE");
    agent.answer(&prack, 200, "", "").await;
    // The early answer is the answer: it need not be repeated.
    agent.answer(&invite, 200, "", "").await;
    agent.receive("ACK").await;
    let early = caller.receive("SIP/2.0 183").await;
    assert_eq!(early.value("Require"), "100rel");
    assert!(early.body().contains("o=agent "), "{}", early.body());
    let rack = format!("RAck: {} 1 INVITE\r\n", early.value("RSeq"));
    caller.request("PRACK", &rack, "").await;
    let acknowledged = caller.receive("SIP/2.0 200").await;
    assert_eq!(acknowledged.value("CSeq"), "2 PRACK");
    let answer = caller.receive_of(1, "SIP/2.0 200").await;
    assert!(answer.body().contains("o=agent "), "{}", answer.body());
}
