//! Certificates: what a trunk and a listener name gets to the gateway, by version and never by value, and is missed by name.

use serde_json::json;

use crate::stage::{CREDENTIALS, Stage, office_trunk};

/// A certificate and its key; for tests of what is done with them, not of TLS.
fn certified() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["pbx.example.com".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_trunk_over_tls_carries_calls_once_its_certificates_are_there_and_follows_them() {
    let (stage, _operator, pod) = Stage::set("tls").await;
    stage.office().await;
    let mut trunk = office_trunk();
    trunk["transport"] = json!("TLS");
    trunk["tls"] =
        json!({ "caBundleRef": { "name": "pbx-ca" }, "clientCertificateRef": { "name": "client" } });
    stage.apply("SipTrunk", "office", trunk).await;
    let message = stage.says("SipTrunk", "office", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(
        message.contains("tls.caBundleRef names Secret") && message.contains("/client, which"),
        "{message}"
    );
    stage
        .table_where("no calls without", |table| {
            table
                .trunks
                .values()
                .any(|trunk| trunk.transport.to_string() == "TLS" && trunk.credentials_missing)
        })
        .await;

    let (certificate, key) = certified();
    stage.secret("pbx-ca", &[("ca.crt", "no certificate")]).await;
    stage.secret("client", &[("tls.crt", &certificate), ("tls.key", &key)]).await;
    let message = stage.says("SipTrunk", "office", "ResolvedRefs", "False", "SecretKeyMissing").await;
    assert!(message.contains("no certificates in PEM under key 'ca.crt'"), "{message}");
    stage.secret("pbx-ca", &[("ca.crt", &certificate)]).await;
    stage.is_ready("SipTrunk", "office").await;
    let table =
        stage.table_where("calls", |table| table.trunks.values().all(|it| !it.credentials_missing)).await;
    let before: Vec<_> = table.trunks.values().flat_map(|trunk| trunk.credentials()).cloned().collect();
    assert_eq!(before.len(), 3, "login, authorities, certificate");
    for (name, object) in stage.everything().await {
        let is_secret = name.starts_with("Secret ");
        assert!(is_secret || !object.to_string().contains("BEGIN PRIVATE KEY"), "{name} holds a private key");
    }
    let held = pod.snapshot.load().credentials.len();
    assert_eq!(held, 3, "the gateway has what it needs, by way of {CREDENTIALS}");

    let (certificate, key) = certified();
    stage.secret("client", &[("tls.crt", &certificate), ("tls.key", &key)]).await;
    stage
        .table_where("the new certificate", |table| {
            let now: Vec<_> = table.trunks.values().flat_map(|trunk| trunk.credentials()).collect();
            now.len() == 3 && now.into_iter().filter(|id| !before.contains(id)).count() == 1
        })
        .await;
}

#[tokio::test]
async fn a_listener_misses_its_certificate_by_name_and_finds_it() {
    let (stage, _operator, _pod) = Stage::set("listener").await;
    let listeners = json!([{ "transport": "TLS", "port": 5061, "certificateRef": { "name": "sip-tls" } }]);
    stage.apply("SipGateway", "default", json!({ "exposure": "ClusterIP", "listeners": listeners })).await;
    let message = stage.says("SipGateway", "default", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(message.contains("/sip-tls, which does not exist") && message.contains("port 5061"), "{message}");
    let (certificate, key) = certified();
    stage.secret("sip-tls", &[("tls.crt", &certificate), ("tls.key", &key)]).await;
    stage.says("SipGateway", "default", "ResolvedRefs", "True", "Resolved").await;
}
