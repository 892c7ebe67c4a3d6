//! Trunks whose callers must prove that they know its credentials.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::json;
use sipx_sip::auth::{Algorithm, Challenge, Credentials, respond};
use tokio::net::UdpSocket;

use super::side::{Side, sdp};
use super::{Given, LIMIT, Peer, Stage};
use crate::gateway::snapshot::Credential;
use crate::routing::table::CredentialId;

/// A trunk with these sources that authenticates its callers.
async fn stage(agent: &Peer, sources: &[&str]) -> Stage {
    let login = Credential::Login { username: "office".into(), password: "se\"cret".into() };
    let trunk = json!({
        "host": "127.0.0.1", "allowedSources": sources, "authenticates": true, "credential": "pbx",
    });
    let credentials = HashMap::from([(CredentialId("pbx".into()), login)]);
    Given { trunk, credentials, ..Given::new(agent) }.stage().await
}

/// The challenge of a 401 with this algorithm.
fn challenge(refusal: &super::side::Seen, algorithm: Algorithm) -> Challenge {
    let challenges: Vec<_> = refusal
        .values("WWW-Authenticate")
        .into_iter()
        .map(|value| Challenge::parse(value.as_bytes(), false).unwrap())
        .collect();
    assert_eq!(challenges.len(), 2, "{}", refusal.text);
    assert_eq!((challenges[0].algorithm, challenges[0].realm.as_str()), (Algorithm::Sha256, "gw.test"));
    challenges.into_iter().find(|challenge| challenge.algorithm == algorithm).unwrap()
}

fn authorization(challenge: &Challenge, password: &str) -> String {
    let credentials = Credentials::new("office", password);
    let value = respond(challenge, &credentials, "INVITE", "sip:+31201234567@gw", 1, "cnonce");
    format!("Authorization: {value}\r\n")
}

/// Calls and is challenged.
async fn challenged(caller: &mut Side, authorization: &str, algorithm: Algorithm) -> Challenge {
    caller.request("INVITE", authorization, &sdp("caller", "sendrecv")).await;
    let refusal = caller.receive("SIP/2.0 401").await;
    challenge(&refusal, algorithm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_knows_the_password_is_let_in_wherever_it_calls_from_and_never_asked_again() {
    for (sources, algorithm) in
        [(&["127.0.0.1/32"][..], Algorithm::Sha256), (&[], Algorithm::Md5), (&[], Algorithm::Sha256)]
    {
        let agent = Peer::new().await;
        let stage = stage(&agent, sources).await;
        let mut agent = Side::called(agent, stage.address);
        let mut caller = Side::caller(stage.address).await;
        let first = challenged(&mut caller, "", algorithm).await;
        assert!(!first.stale);
        caller.request("INVITE", &authorization(&first, "se\"cret"), &sdp("caller", "sendrecv")).await;
        let invite = agent.receive("INVITE").await;
        assert!(!invite.text.contains("Authorization"), "{}", invite.text);
        agent.answer(&invite, 200, "", &sdp("agent", "sendrecv")).await;
        caller.receive("SIP/2.0 200").await;
        caller.request("ACK", "", "").await;
        caller.request("BYE", "", "").await;
        caller.receive("SIP/2.0 200").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_an_answer_that_was_used_is_challenged_again() {
    let agent = Peer::new().await;
    let stage = stage(&agent, &[]).await;
    let mut agent = Side::called(agent, stage.address);
    let mut caller = Side::caller(stage.address).await;
    let first = challenged(&mut caller, "", Algorithm::Sha256).await;
    let second = challenged(&mut caller, &authorization(&first, "guess"), Algorithm::Sha256).await;
    assert!(!second.stale, "that would say that the password is right");

    let right = authorization(&second, "se\"cret");
    caller.request("INVITE", &right, &sdp("caller", "sendrecv")).await;
    agent.receive("INVITE").await;
    // Somebody else has seen it.
    let mut thief = Side::caller(stage.address).await.in_call("another");
    let third = challenged(&mut thief, &right, Algorithm::Sha256).await;
    assert!(third.stale);
    let metrics = stage.metrics.encode();
    assert!(metrics.contains("voicedock_calls_refused_total{reason=\"unauthorized\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_can_not_be_tried_for_long() {
    let agent = Peer::new().await;
    let stage = stage(&agent, &[]).await;
    let mut caller = Side::caller(stage.address).await;
    let mut challenge = challenged(&mut caller, "", Algorithm::Md5).await;
    for tries in 0.. {
        assert!(tries < 40, "nobody objects");
        let wrong = authorization(&challenge, &format!("guess {tries}"));
        caller.request("INVITE", &wrong, "").await;
        let refusal = caller.receive("SIP/2.0 40").await;
        if refusal.text.starts_with("SIP/2.0 403") {
            break;
        }
        challenge = self::challenge(&refusal, Algorithm::Md5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_listed_is_refused_whatever_it_knows() {
    let agent = Peer::new().await;
    let stage = stage(&agent, &["127.0.0.9/32"]).await;
    let mut caller = Side::caller(stage.address).await;
    caller.request("INVITE", "", "").await;
    caller.receive("SIP/2.0 403").await;
}

/// What SIPp is told to do: call, answer the challenge, call again, hang up.
const SIPP: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<scenario name="digest">
  <send retrans="500"><![CDATA[
INVITE sip:+31201234567@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch];rport
From: <sip:a@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:+31201234567@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:a@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Length: 0
]]></send>
  <recv response="100" optional="true"/>
  <recv response="401" auth="true"/>
  <send><![CDATA[
ACK sip:+31201234567@[remote_ip]:[remote_port] SIP/2.0
[last_Via:]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0
]]></send>
  <send retrans="500"><![CDATA[
INVITE sip:+31201234567@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch];rport
From: <sip:a@[local_ip]:[local_port]>;tag=[call_number]
To: <sip:+31201234567@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 2 INVITE
Contact: <sip:a@[local_ip]:[local_port]>
Max-Forwards: 70
[authentication]
Content-Length: 0
]]></send>
  <recv response="100" optional="true"/>
  <recv response="480"/>
  <send><![CDATA[
ACK sip:+31201234567@[remote_ip]:[remote_port] SIP/2.0
[last_Via:]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 2 ACK
Max-Forwards: 70
Content-Length: 0
]]></send>
</scenario>
"#;

/// An old proxy before the gateway, which takes out challenges that it doesn't know: this SIPp reads the first one only.
async fn old_proxy(gateway: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut buffer, mut client) = (vec![0; 65_535], None);
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]);
            if from == gateway {
                let known = text.split_inclusive("\r\n").filter(|line| !line.contains("algorithm=SHA-256"));
                socket.send_to(known.collect::<String>().as_bytes(), client.unwrap()).await.unwrap();
            } else {
                client = Some(from);
                socket.send_to(text.as_bytes(), gateway).await.unwrap();
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_answers_the_challenge() {
    let agent = Peer::new().await;
    let stage = stage(&agent, &[]).await;
    let proxy = old_proxy(stage.address).await;
    let directory = tempfile::tempdir().unwrap();
    let scenario = directory.path().join("digest.xml");
    std::fs::write(&scenario, SIPP).unwrap();
    for (password, success) in [("se\"cret", true), ("wrong", false)] {
        let mut sipp = tokio::process::Command::new("sipp")
            .arg(proxy.to_string())
            .args(["-i", "127.0.0.1", "-m", "1", "-timeout", "20", "-timeout_error", "-nostdin"])
            .args(["-au", "office", "-ap", password, "-sf"])
            .arg(&scenario)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("sipp is installed (make tools)");
        if success {
            // Whoever is let in reaches the agent, who declines.
            let (invite, from) = agent.receive("INVITE").await;
            agent.answer(&invite, "486 Busy Here", from).await;
        }
        let ended = tokio::time::timeout(LIMIT * 5, sipp.wait()).await.expect("sipp ends").unwrap();
        assert_eq!(ended.success(), success, "with {password}");
    }
}
