//! Two pods of one gateway, and packets that reach the other one.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::until;
use super::{Given, LIMIT, Peer, Stage, free_address_at, peers, request};
use crate::gateway::call_id::Instance;
use crate::gateway::peers::Peers;
use crate::routing::ack::TrunkReports;
use crate::sip::event::{Flow, Transport};

/// Two pods at their own addresses, which know each other.
async fn pods(agent: &Peer) -> [Stage; 2] {
    let (first, second) = loop {
        let Some(first) = free_address_at("127.0.0.11", 0) else { continue };
        if let Some(second) = free_address_at("127.0.0.12", first.port()) {
            break (first, second);
        }
    };
    let pods = [(first, Instance(7)), (second, Instance(8))];
    let mut stages = Vec::new();
    for (own, other) in [(0, 1), (1, 0)] {
        let stage = Given { pod: Some(pods[own]), ..Given::taking(agent, "127.0.0.1") }.stage().await;
        let (address, instance) = pods[other];
        let sip = address.ip();
        let http = SocketAddr::new(sip, 8080);
        let peer =
            peers::Peer { pod: "other".into(), sip, http, draining: false, trunks: TrunkReports::new() };
        stage.peers.store(Arc::new(Peers([(instance, peer)].into())));
        stages.push(stage);
    }
    stages.try_into().unwrap_or_else(|_| unreachable!())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_reaches_another_pod_than_its_invite_ends_the_call_all_the_same() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    caller.send(first.address, &request(&caller, first.address, "INVITE", "", "i", 1)).await;
    let (invite, from) = agent.receive("INVITE").await;
    agent.answer(&invite, "180 Ringing", from).await;
    caller.receive("SIP/2.0 180").await;

    caller.send(second.address, &request(&caller, first.address, "CANCEL", "", "i", 1)).await;
    let (answer, from) = caller.receive("SIP/2.0 200").await;
    assert!(answer.contains("CSeq: 1 CANCEL"), "{answer}");
    assert_eq!(from, second.address, "the caller's own hop answers");
    // Repeated until it is acknowledged: none is missed.
    let (refused, from) = caller.receive("SIP/2.0 487").await;
    assert_eq!(from, first.address);
    let to = refused.lines().find(|line| line.starts_with("To:")).unwrap();
    let tag = format!(";tag={}", to.rsplit(";tag=").next().unwrap());
    caller.send(second.address, &request(&caller, first.address, "ACK", &tag, "i", 1)).await;
    agent.receive("CANCEL").await;
    assert_eq!((first.plane.live_calls(), second.plane.live_calls()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_of_nothing_that_any_pod_has_is_answered_481_once() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    let cancel = request(&caller, first.address, "CANCEL", "", "i", 1);
    // A repetition is no second question.
    caller.send(second.address, &cancel).await;
    caller.send(second.address, &cancel).await;
    let (answer, from) = caller.receive("SIP/2.0").await;
    assert!(answer.starts_with("SIP/2.0 481"), "{answer}");
    assert_eq!(from, second.address);
    // The other pod has said nothing: this answer is the next one.
    caller.send(first.address, &request(&caller, first.address, "OPTIONS", "", "o", 1)).await;
    let (answer, _) = caller.receive("SIP/2.0").await;
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
}

/// A call that rings at a pod: the INVITE and the 180.
async fn rings(caller: &Peer, agent: &Peer, pod: &Stage) -> (String, String) {
    let invite = request(caller, pod.address, "INVITE", "", "i", 1);
    caller.send(pod.address, &invite).await;
    let (dialled, from) = agent.receive("INVITE").await;
    agent.answer(&dialled, "180 Ringing", from).await;
    (invite, caller.receive("SIP/2.0 180").await.0)
}

/// Waits until a pod knows that another one has taken this INVITE.
async fn knows(pod: &Stage, invite: &str, from: &Peer) {
    let parsed = sipx_sip::parse_datagram(invite.to_owned().into(), &sipx_sip::Limits::datagram()).unwrap();
    let flow = Flow { transport: Transport::Udp, peer: from.address() };
    let known = || pod.plane.shared.sockets.taken_elsewhere(parsed.as_request().unwrap(), flow).is_some();
    tokio::time::timeout(LIMIT, until(known)).await.expect("the pod was told");
}

fn to_of(response: &str) -> String {
    response.lines().find(|line| line.starts_with("To:")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_of_an_invite_that_reaches_another_pod_begins_no_second_call() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    let (invite, ringing) = rings(&caller, &agent, &first).await;

    knows(&second, &invite, &caller).await;
    caller.send(second.address, &invite).await;
    let (again, from) = caller.receive("SIP/2.0 180").await;
    assert_eq!(from, first.address, "whoever has the call answers, as it does for the rest of it");
    assert_eq!(to_of(&again), to_of(&ringing), "it is the same call");
    assert_eq!((first.plane.live_calls(), second.plane.live_calls()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_that_reaches_a_full_pod_is_not_refused_there() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    let (invite, ringing) = rings(&caller, &agent, &first).await;
    knows(&second, &invite, &caller).await;
    let fill = |number: u32| request(&caller, second.address, "INVITE", "", &format!("f{number}"), number);
    let refused = async |number: u32| {
        caller.send(second.address, &fill(number)).await;
        caller.receive("SIP/2.0").await.0.starts_with("SIP/2.0 503")
    };
    let mut number = 1;
    while !refused(number).await {
        number += 1;
    }
    caller.send(second.address, &invite).await;
    let (again, from) = caller.receive("SIP/2.0 180").await;
    assert_eq!((from, to_of(&again)), (first.address, to_of(&ringing)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_invite_by_another_path_is_refused_by_whichever_pod_it_reaches() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    let (invite, _) = rings(&caller, &agent, &first).await;

    knows(&second, &invite, &caller).await;
    caller.send(second.address, &request(&caller, first.address, "INVITE", "", "other", 1)).await;
    let (refused, from) = caller.receive("SIP/2.0 4").await;
    assert!(refused.starts_with("SIP/2.0 482"), "{refused}");
    assert_eq!(from, second.address);
    // Another try of the same caller is another call.
    caller.send(second.address, &request(&caller, first.address, "INVITE", "", "next", 2)).await;
    agent.receive("INVITE").await;
    assert_eq!((first.plane.live_calls(), second.plane.live_calls()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_pod_is_gone_begins_a_call_where_it_arrives() {
    let (caller, agent) = (Peer::new().await, Peer::new().await);
    let [first, second] = pods(&agent).await;
    let (invite, _) = rings(&caller, &agent, &first).await;
    knows(&second, &invite, &caller).await;
    drop(first);
    second.peers.store(Arc::default());
    caller.send(second.address, &invite).await;
    agent.receive("INVITE").await;
    assert_eq!(second.plane.live_calls(), 1);
}
