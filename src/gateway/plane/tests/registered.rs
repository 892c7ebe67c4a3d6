//! Registration on a real socket: the registrar is played by hand.

use super::*;

/// A trunk that is registered at with a password.
fn registered(registrar: &Peer) -> Given {
    let login = Credential::Login { username: "acme".into(), password: "secret".into() };
    Given {
        trunk: json!({
            "host": "127.0.0.1", "port": registrar.address().port(), "registerSeconds": 300, "credential": "login",
            "realm": "pbx", "allowedSources": ["127.0.0.1/32"],
        }),
        credentials: [(CredentialId("login".into()), login)].into(),
        ..Given::new(registrar)
    }
}

/// Challenges the next REGISTER, and accepts the one that answers; returns that.
async fn admit(registrar: &Peer, seconds: u32) -> String {
    let (first, from) = registrar.receive("REGISTER sip:127.0.0.1:").await;
    let challenge = "WWW-Authenticate: Digest realm=\"pbx\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"\r\n";
    registrar.answer_with(&first, "401 Unauthorized", challenge, from).await;
    let (second, from) = registrar.receive("REGISTER").await;
    assert!(second.contains("Authorization: Digest username=\"acme\", realm=\"pbx\""), "{second}");
    registrar.answer_with(&second, "200 OK", &format!("Expires: {seconds}\r\n"), from).await;
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_is_registered_at_refreshed_and_left_when_nobody_asks_for_it_any_more() {
    let registrar = Peer::new().await;
    let mut stage = registered(&registrar).stage().await;
    let register = admit(&registrar, 4).await;
    let contact = format!("Contact: <sip:acme@{}>;expires=300\r\n", stage.address);
    assert!(register.contains(&contact), "{register}");
    assert!(register.contains("To: <sip:acme@127.0.0.1>\r\n"), "{register}");
    let said = "it holds our registration for 4 s";
    stage.found(said, |report| report.is_some_and(|report| report.reachable && report.said == said)).await;

    // Half of it later it is refreshed, with the challenge answered beforehand.
    let (refresh, from) = registrar.receive("REGISTER").await;
    assert!(refresh.contains("nc=00000002") && refresh.contains("CSeq: 3 REGISTER"), "{refresh}");
    registrar.answer_with(&refresh, "200 OK", "Expires: 300\r\n", from).await;
    let said = "it holds our registration for 300 s";
    stage.found(said, |report| report.is_some_and(|report| report.said == said)).await;

    let nothing = Snapshot { generation: 2, ..Snapshot::none() };
    stage.snapshot.store(Arc::new(nothing));
    let (last, _) = registrar.receive("REGISTER").await;
    assert!(last.contains(";expires=0\r\n"), "{last}");
    stage.found("nothing", |report| report.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_shown_with_what_to_look_at() {
    let registrar = Peer::new().await;
    let mut stage = registered(&registrar).stage().await;
    let challenge = |nonce: &str| format!("WWW-Authenticate: Digest realm=\"pbx\", nonce=\"{nonce}\"\r\n");
    for nonce in ["n1", "n2"] {
        let (register, from) = registrar.receive("REGISTER").await;
        registrar.answer_with(&register, "401 Unauthorized", &challenge(nonce), from).await;
    }
    let refused = |report: Option<&TrunkReport>| {
        report.is_some_and(|report| {
            !report.reachable && report.said.contains("user name or password was refused")
        })
    };
    stage.found("the password is wrong", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_the_registered_contact_is_for_the_number_in_to() {
    let (registrar, caller) = (Peer::new().await, Peer::new().await);
    let stage = registered(&registrar).stage().await;
    admit(&registrar, 300).await;
    let invite = request(&caller, stage.address, "INVITE", "", "i", 1);
    let invite = invite.replacen("INVITE sip:+31201234567@", "INVITE sip:acme@", 1);
    caller.send(stage.address, &invite).await;
    registrar.receive("INVITE sip:agent@").await;
}
