//! Secrets: created later, without the right keys, rotated, gone; and that no value is ever seen where it doesn't belong.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::logs;
use crate::stage::{CREDENTIALS, GATEWAY, Stage, eventually, found, office_trunk};

/// The passwords in the published credentials Secret that the published table names, in any order.
async fn published_passwords(stage: &Stage) -> Option<Vec<String>> {
    let table = stage.table().await?;
    let named: Vec<_> = table.trunks.values().filter_map(|trunk| trunk.credential.clone()).collect();
    if named.is_empty() {
        return Some(Vec::new());
    }
    let secret = found(&stage.api::<Secret>(), CREDENTIALS).await?;
    let data = secret.data.unwrap_or_default();
    named
        .iter()
        .map(|id| {
            let login: Value = serde_json::from_slice(&data.get(&id.0)?.0).unwrap();
            Some(login["password"].as_str().unwrap().to_owned())
        })
        .collect()
}

async fn gateways_use(stage: &Stage, passwords: &[&str]) {
    eventually(&format!("the credentials {passwords:?}"), async || {
        (published_passwords(stage).await? == passwords).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_secret_of_an_assistant_that_comes_after_everything_else_is_read() {
    let (stage, _operator, _pod) = Stage::set("assistant-secret").await;
    stage.secret("openai", &[("apiKey", "a-key"), ("webhookSecret", "whsec_YS1zZWNyZXQ=")]).await;
    stage.office().await;
    stage.is_ready("SipTrunk", "office").await;
    let openai = json!({
        "projectId": "proj_test", "apiKeySecretRef": { "name": "openai" }, "webhookSecretRef": { "name": "openai" },
    });
    stage.apply("Assistant", "receptionist", json!({ "agent": { "openai": openai } })).await;
    stage.says("Assistant", "receptionist", "ResolvedRefs", "True", "Resolved").await;
}

#[tokio::test]
async fn a_secret_may_come_later_lack_a_key_be_rotated_and_vanish() {
    let (stage, _operator, _pod) = Stage::set("secret").await;
    stage.office().await;
    stage.is_ready("SipTrunk", "office").await;
    gateways_use(&stage, &["first-password"]).await;

    stage.secret("office-pbx", &[("username", "acme"), ("password", "second-password")]).await;
    gateways_use(&stage, &["second-password"]).await;
    stage.is_ready("SipTrunk", "office").await;

    stage.secret("office-pbx", &[("username", "acme"), ("pass", "third-password")]).await;
    let message = stage.says("SipTrunk", "office", "ResolvedRefs", "False", "SecretKeyMissing").await;
    assert!(message.contains("password") && !message.contains("third-password"), "{message}");
    eventually("no credentials in the table", async || {
        let table = stage.table().await?;
        table.trunks.values().all(|trunk| trunk.credential.is_none()).then_some(())
    })
    .await;

    stage.secret("office-pbx", &[("username", "acme"), ("password", "fourth-password")]).await;
    stage.is_ready("SipTrunk", "office").await;
    gateways_use(&stage, &["fourth-password"]).await;

    stage.api::<Secret>().delete("office-pbx", &DeleteParams::default()).await.unwrap();
    let message = stage.says("SipTrunk", "office", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(message.contains(&format!("{}/office-pbx", stage.namespace)), "{message}");
}

#[tokio::test]
async fn a_renamed_key_is_followed() {
    let (stage, _operator, _pod) = Stage::set("keys").await;
    let mut trunk = office_trunk();
    trunk["credentialsSecretRef"] = json!({ "name": "pbx", "usernameKey": "user", "passwordKey": "pin" });
    stage.secret("pbx", &[("user", "acme"), ("pin", "renamed-password")]).await;
    stage.office().await;
    stage.apply("SipTrunk", "office", trunk).await;
    stage.is_ready("SipTrunk", "office").await;
    gateways_use(&stage, &["renamed-password"]).await;
}

#[tokio::test]
async fn credentials_of_old_tables_do_not_stay() {
    let (stage, _operator, pod) = Stage::set("prune").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    for password in ["a-password", "b-password", "c-password"] {
        stage.secret("office-pbx", &[("username", "acme"), ("password", password)]).await;
        gateways_use(&stage, &[password]).await;
    }
    stage.is_ready("SipTrunk", "office").await;
    let versions = async || {
        let secret = found(&stage.api::<Secret>(), CREDENTIALS).await?;
        Some(secret.data.unwrap_or_default().len())
    };
    eventually("only the version in use", async || (versions().await? == 1).then_some(())).await;
    drop(pod);
}

#[tokio::test]
async fn no_value_of_a_secret_is_seen_outside_the_two_secrets() {
    let (stage, _operator, _pod) = Stage::set("leak").await;
    let (user, password) = ("leak-user-8b1f", "leak-password-4c2e");
    stage.office().await;
    stage.secret("office-pbx", &[("username", user), ("password", password)]).await;
    gateways_use(&stage, &[password]).await;
    // Trouble talks most: the Secret loses a key, is deleted, and comes back.
    stage.secret("office-pbx", &[("username", user), ("pass", password)]).await;
    stage.says("SipTrunk", "office", "ResolvedRefs", "False", "SecretKeyMissing").await;
    stage.api::<Secret>().delete("office-pbx", &DeleteParams::default()).await.unwrap();
    stage.says("SipTrunk", "office", "ResolvedRefs", "False", "RefNotFound").await;
    stage.secret("office-pbx", &[("username", user), ("password", password)]).await;
    gateways_use(&stage, &[password]).await;
    stage.is_ready("SipTrunk", "office").await;
    stage.settled().await;

    let values = [user, password].map(|value| (value, base64(value)));
    let leaks =
        |text: &str| values.iter().any(|(plain, encoded)| text.contains(plain) || text.contains(encoded));
    let all = stage.everything().await;
    assert!(
        all.keys().any(|name| name.starts_with("Event ")),
        "there are events to look at: {:?}",
        all.keys()
    );
    for (name, object) in all {
        if name == "Secret office-pbx" || name == format!("Secret {CREDENTIALS}") {
            assert!(
                leaks(&object.to_string()) || name.contains(CREDENTIALS),
                "the search finds what is there"
            );
            continue;
        }
        assert!(!leaks(&object.to_string()), "{name} holds a value of a Secret");
    }
    let logs = logs::captured();
    assert!(logs.contains(&stage.namespace), "there are logs to look at");
    assert!(!leaks(&logs), "a log line holds a value of a Secret");
}

/// The inner part of the value's base64, which doesn't depend on what stands around it.
fn base64(value: &str) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(value).trim_end_matches('=').to_owned()
}

#[tokio::test]
async fn credentials_that_hardly_fit_are_told_before_they_no_longer_do() {
    let (stage, _operator, _pod) = Stage::set("full").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let says = async |type_, status, reason| stage.says("RoutingTable", GATEWAY, type_, status, reason).await;
    says("NearSizeLimit", "False", "Fits").await;
    let long = |letter: &str| letter.repeat(870_000);
    stage.secret("office-pbx", &[("username", "acme"), ("password", &long("x"))]).await;
    says("NearSizeLimit", "True", "NearlyFull").await;
    gateways_use(&stage, &[&long("x")]).await;

    // The old version can't go before gateways hold the new one, and both don't fit.
    stage.secret("office-pbx", &[("username", "acme"), ("password", &long("y"))]).await;
    let why = says("Ready", "False", "TooLarge").await;
    assert!(
        why.contains("the credentials Secret of gateway") && why.contains("keep the last table"),
        "{why}"
    );
    gateways_use(&stage, &[&long("x")]).await;

    stage.secret("office-pbx", &[("username", "acme"), ("password", "short")]).await;
    gateways_use(&stage, &["short"]).await;
    says("Ready", "True", "Ready").await;
    says("NearSizeLimit", "False", "Fits").await;
}

#[tokio::test]
async fn a_credentials_secret_that_somebody_changes_is_made_good() {
    let (stage, _operator, _pod) = Stage::set("tamper").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    let api = stage.api::<Secret>();
    let before = found(&api, CREDENTIALS).await.unwrap();
    let generation = stage.generation().await;

    api.delete(CREDENTIALS, &DeleteParams::default()).await.unwrap();
    let again = eventually("the Secret", async || found(&api, CREDENTIALS).await).await;
    assert_eq!(again.data, before.data);

    let id = before.data.as_ref().unwrap().keys().next().unwrap().clone();
    stage.secret_value(CREDENTIALS, &id, "{\"username\":\"acme\",\"password\":\"forged\"}").await;
    eventually("the right value", async || {
        let secret = found(&api, CREDENTIALS).await?;
        (secret.data == before.data && secret.labels() == before.labels()).then_some(())
    })
    .await;
    assert_eq!(stage.generation().await, generation, "the routes didn't change");
    stage.is_ready("SipGateway", GATEWAY).await;
}

#[tokio::test]
async fn the_secret_of_an_agents_hook_reaches_the_gateway_and_is_followed() {
    let (stage, _operator, _pod) = Stage::set("hook").await;
    stage.office().await;
    stage.secret("voice-agent", &[("secret", "first-secret")]).await;
    let hook = json!({ "url": "http://voice-agent:8080/hook", "secretRef": { "name": "voice-agent" } });
    let agent = json!({ "sip": { "uri": "sip:agent@voice-agent", "hook": hook } });
    stage.apply("Assistant", "support", json!({ "agent": agent })).await;
    let signed_with = async |expected: Option<&str>| {
        eventually(&format!("signatures with {expected:?}"), async || {
            let table = stage.table().await?;
            let hook = table.assistants.get(&stage.key("support"))?.agent.hook().cloned();
            let Some(hook) = hook else { return expected.is_none().then_some(()) };
            let published = found(&stage.api::<Secret>(), CREDENTIALS).await?.data.unwrap_or_default();
            let value: Value = serde_json::from_slice(&published.get(&hook.secret.0)?.0).unwrap();
            (value["secret"].as_str() == expected).then_some(())
        })
        .await;
    };
    signed_with(Some("first-secret")).await;
    stage.is_ready("Assistant", "support").await;
    stage.secret("voice-agent", &[("secret", "second-secret")]).await;
    signed_with(Some("second-secret")).await;

    stage.api::<Secret>().delete("voice-agent", &DeleteParams::default()).await.unwrap();
    let message = stage.says("Assistant", "support", "ResolvedRefs", "False", "RefNotFound").await;
    assert!(message.contains("/voice-agent, which does not exist"), "{message}");
    signed_with(None).await;
}
