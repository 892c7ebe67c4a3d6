//! Challenges: P demands digest authentication.

use sipx_sip::auth::{Challenge, Credentials as SipxCredentials, respond};
use sipx_sip::{HeaderName, Request};

use super::net::*;
use crate::sip::event::{Credentials, LegEvent, LegId, OutgoingInvite, RefusedBy};

fn call(realm: Option<&str>) -> OutgoingInvite {
    let credentials =
        Credentials { username: "u".into(), password: "secret".into(), realm: realm.map(str::to_owned) };
    OutgoingInvite { credentials: Some(credentials), ..call_to(P) }
}

fn start(realm: Option<&str>) -> (Net, LegId, Request) {
    let mut net = Net::new();
    let caller = net.act(A, |a, now| a.invite(call(realm), now));
    let invite = net.request("INVITE");
    (net, caller, invite)
}

/// Checks an authorisation as a server would: by computing it anew.
fn assert_authorised(request: &Request, name: &HeaderName, challenge: &str, count: u32) {
    let value = header(request, name);
    let challenge = Challenge::parse(challenge.as_bytes(), false).unwrap();
    let credentials = SipxCredentials::new("u", "secret");
    let uri = String::from_utf8(request.uri.to_bytes().to_vec()).unwrap();
    let cnonce = value.split("cnonce=\"").nth(1).map_or("", |rest| rest.split('"').next().unwrap());
    let method = request.method.to_string();
    assert_eq!(value, respond(&challenge, &credentials, &method, &uri, count, cnonce));
}

const SHA: &str = r#"Digest realm="r", nonce="n1", qop="auth,auth-int", algorithm=SHA-256"#;
const MD5: &str = r#"Digest realm="r", nonce="n1", opaque="o""#;

#[test]
fn a_challenge_of_a_server_or_proxy_is_answered_with_the_next_cseq() {
    for (code, challenge) in [(401, SHA), (401, MD5), (407, SHA), (407, MD5)] {
        let (mut net, caller, invite) = start(Some("r"));
        let (demand, answer) = match code {
            401 => ("WWW-Authenticate", HeaderName::Authorization),
            _ => ("Proxy-Authenticate", HeaderName::ProxyAuthorization),
        };
        net.reply(&invite, code, "x", &[(demand, challenge)], "");
        net.request("ACK");
        let again = net.request("INVITE");
        assert_authorised(&again, &answer, challenge, 1);
        assert_eq!(header(&again, &HeaderName::CSeq), "2 INVITE");
        for same in [HeaderName::CallId, HeaderName::From, HeaderName::To] {
            assert_eq!(header(&again, &same), header(&invite, &same));
        }
        assert_ne!(header(&again, &HeaderName::Via), header(&invite, &HeaderName::Via));
        assert_eq!(again.body(), invite.body());
        assert!(net.events(A).is_empty(), "the call machine hears nothing of it");
        net.reply(&again, 200, "p", &[], "answer");
        assert!(matches!(net.event(A), (leg, LegEvent::Answered { .. }) if leg == caller));
        assert_eq!(header(&net.request("ACK"), &answer), header(&again, &answer), "RFC 3261 §22.1");
        // Later requests bring it along.
        net.act(A, |a, now| a.hang_up(caller, None, now));
        assert_authorised(&net.request("BYE"), &answer, challenge, 2);
    }
}

#[test]
fn wrong_credentials_another_realm_and_an_unknown_algorithm_are_given_up() {
    let (mut net, _, invite) = start(None);
    net.reply(&invite, 401, "x", &[("WWW-Authenticate", SHA)], "");
    let again = net.request("INVITE");
    net.reply(&again, 401, "x", &[("WWW-Authenticate", &SHA.replace("n1", "n2"))], "");
    assert!(matches!(net.event(A).1, LegEvent::Refused { code: 401, by: RefusedBy::Unauthorized, .. }));
    for (realm, challenge) in [(Some("other"), SHA.to_owned()), (None, SHA.replace("SHA-256", "SHA-9"))] {
        let (mut net, _, invite) = start(realm);
        net.reply(&invite, 407, "x", &[("Proxy-Authenticate", &challenge)], "");
        assert!(matches!(net.event(A).1, LegEvent::Refused { code: 407, by: RefusedBy::Unauthorized, .. }));
        assert_eq!(net.count("INVITE"), 1);
        net.run(40_000);
        net.assert_quiet();
    }
}

#[test]
fn without_credentials_a_challenge_is_a_refusal() {
    let mut net = Net::new();
    net.act(A, |a, now| a.invite(call_to(P), now));
    let invite = net.request("INVITE");
    net.reply(&invite, 401, "x", &[("WWW-Authenticate", SHA)], "");
    assert!(matches!(net.event(A).1, LegEvent::Refused { code: 401, by: RefusedBy::Unauthorized, .. }));
}

#[test]
fn a_stale_nonce_is_replaced() {
    let (mut net, _, invite) = start(Some("r"));
    net.reply(&invite, 401, "x", &[("WWW-Authenticate", SHA)], "");
    let again = net.request("INVITE");
    let stale = format!("{}, stale=true", SHA.replace("n1", "n2"));
    net.reply(&again, 401, "x", &[("WWW-Authenticate", &stale)], "");
    assert_authorised(&net.request("INVITE"), &HeaderName::Authorization, &stale, 1);
}

#[test]
fn the_topmost_known_algorithm_is_taken_even_when_challenges_share_a_row() {
    let unknown = SHA.replace("SHA-256", "SHA-9");
    let (mut net, _, invite) = start(Some("r"));
    net.reply(&invite, 401, "x", &[("WWW-Authenticate", &format!("{unknown}, {SHA}, {MD5}"))], "");
    assert_authorised(&net.request("INVITE"), &HeaderName::Authorization, SHA, 1);
}

#[test]
fn a_proxy_and_a_server_may_both_demand_it() {
    let (mut net, _, invite) = start(None);
    let proxy = SHA.replace("realm=\"r\"", "realm=\"proxy\"");
    net.reply(&invite, 407, "x", &[("Proxy-Authenticate", &proxy)], "");
    let again = net.request("INVITE");
    net.reply(&again, 401, "x", &[("WWW-Authenticate", MD5)], "");
    let third = net.request("INVITE");
    assert_authorised(&third, &HeaderName::ProxyAuthorization, &proxy, 2);
    assert_authorised(&third, &HeaderName::Authorization, MD5, 1);
}

#[test]
fn reinvite_and_bye_answer_a_challenge_after_the_nonce_expired() {
    let (mut net, caller, invite) = start(Some("r"));
    net.reply(&invite, 407, "x", &[("Proxy-Authenticate", SHA)], "");
    let again = net.request("INVITE");
    net.reply(&again, 200, "p", &[], "answer");
    net.inbox.clear();
    let (later, last) = (SHA.replace("n1", "n2"), SHA.replace("n1", "n3"));
    net.act(A, |a, now| a.reoffer(caller, sdp("new"), now));
    let reinvite = net.request("INVITE");
    net.reply(&reinvite, 407, "p", &[("Proxy-Authenticate", &later)], "");
    let reinvite = net.request("INVITE");
    assert_authorised(&reinvite, &HeaderName::ProxyAuthorization, &later, 1);
    assert_eq!(reinvite.body().as_ref(), b"new");
    net.reply(&reinvite, 200, "p", &[], "fine");
    net.events(A);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    let bye = net.request("BYE");
    net.reply(&bye, 407, "p", &[("Proxy-Authenticate", &last)], "");
    let bye = net.request("BYE");
    assert_authorised(&bye, &HeaderName::ProxyAuthorization, &last, 1);
    net.reply(&bye, 200, "p", &[], "");
    net.run(40_000);
    net.assert_quiet();
}

#[test]
fn a_caller_who_gave_up_answers_no_challenge() {
    let (mut net, caller, invite) = start(None);
    net.act(A, |a, now| a.hang_up(caller, None, now));
    net.reply(&invite, 401, "x", &[("WWW-Authenticate", SHA)], "");
    assert_eq!(net.count("INVITE"), 1);
    net.run(40_000);
    net.assert_quiet();
}
