//! Who gets in, to what, and for how long.

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;

use crate::stage::{Stage, new_key, voicedock};
use crate::support::tools::{output, printed};

#[tokio::test]
async fn a_key_sees_and_changes_nothing_of_another_namespace() {
    let stage = Stage::set("ours").await;
    let other = stage.server.namespace("theirs").await;
    let key = new_key(&stage.server, &other, "theirs", &[]);
    stage.knows(&key).await;
    let (status, made) = stage.ask("POST", "/assistants", Some(json!({ "name": "Support" })));
    assert_eq!(status, 201, "{made}");
    let path = format!("/assistants/{}", made["assistant"]["id"].as_str().unwrap());
    assert_eq!(stage.ask("GET", &path, None).0, 200);
    assert_eq!(stage.ask_as(&key, "GET", &path, None).0, 404);
    assert_eq!(stage.ask_as(&key, "PATCH", &path, Some(json!({ "name": "x" }))).0, 404);
    assert_eq!(stage.ask_as(&key, "DELETE", &path, None).0, 404);
    let (_, list) = stage.ask_as(&key, "GET", "/assistants", None);
    assert_eq!(list, json!({ "assistants": [], "pagination": { "total": 0, "limit": 50, "offset": 0 } }));
}

#[tokio::test]
async fn without_a_key_only_health_is_answered() {
    let stage = Stage::set("keyless").await;
    for key in ["", "vdk_wrong", "tests"] {
        for path in ["/assistants", "/numbers/x", "/nothing"] {
            let (status, body) = stage.ask_as(key, "GET", path, None);
            assert_eq!((status, &body["error"]), (401, &json!("unauthorized")), "{path} with '{key}'");
        }
    }
    assert_eq!(stage.ask_as("", "GET", "/health", None), (200, json!({ "status": "ok" })));
}

#[tokio::test]
async fn a_key_that_is_revoked_opens_nothing_within_a_second() {
    let stage = Stage::set("revoked").await;
    let key = stage.another_key("crm", &[]).await;
    let list = || printed(voicedock(&stage.server).args(["api-key", "list", "-n", &stage.namespace]));
    assert!(list().contains("crm\teverything\tfor ever"), "{}", list());
    printed(voicedock(&stage.server).args(["api-key", "revoke", "crm", "-n", &stage.namespace]));
    let revoked = Instant::now();
    while stage.ask_as(&key, "GET", "/numbers", None).0 != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(1), "it still opens something");
    }
    assert!(!list().contains("crm"), "{}", list());
    assert_eq!(stage.ask("GET", "/numbers", None).0, 200, "the other key is as it was");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_no_longer_than_it_may() {
    let stage = Stage::set("scopes").await;
    let key = stage
        .another_key("reader", &["--scopes", "numbers:read,assistants:write", "--expires-in", "3s"])
        .await;
    let made = Instant::now();
    let number = json!({ "phone_number": "+31201234567" });
    assert_eq!(stage.ask_as(&key, "GET", "/numbers", None).0, 200);
    let (status, refused) = stage.ask_as(&key, "POST", "/numbers", Some(number));
    assert_eq!((status, &refused["error"]), (403, &json!("insufficient_scope")));
    assert!(refused["message"].as_str().unwrap().contains("numbers:write is needed"), "{refused}");
    assert_eq!(stage.ask_as(&key, "GET", "/sip-trunks", None).0, 403);
    assert_eq!(stage.ask_as(&key, "POST", "/assistants", Some(json!({ "name": "Support" }))).0, 201);
    while stage.ask_as(&key, "GET", "/numbers", None).0 != 401 {
        assert!(made.elapsed() < Duration::from_secs(10), "its time is over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn only_the_hash_of_a_key_is_kept() {
    let stage = Stage::set("hash").await;
    let secrets: Api<Secret> = Api::namespaced(stage.server.client.clone(), &stage.namespace);
    let secret = secrets.get("api-key-tests").await.unwrap();
    assert!(!serde_json::to_string(&secret).unwrap().contains(&stage.key));
    assert!(secret.data.unwrap().values().all(|value| value.0 != stage.key.as_bytes()));
    let again = output(voicedock(&stage.server).args(["api-key", "create", "tests", "-n", &stage.namespace]));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("revoke it, or take another name"), "{said}");
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let stage = Stage::with("rate", &["--key-rate", "5"]).await;
    let other = stage.another_key("other", &[]).await;
    let url = format!("http://{}/api/v1/numbers", stage.api.http);
    let limited = (0..20).find_map(|_| {
        let mut curl = Command::new("curl");
        curl.args(["-sSi", "--noproxy", "*", &url, "-H", &format!("Authorization: Bearer {}", stage.key)]);
        Some(printed(&mut curl)).filter(|text| text.starts_with("HTTP/1.1 429"))
    });
    let limited = limited.expect("20 requests at once are too many");
    assert!(limited.contains("retry-after: 1\r\n") && limited.contains("rate_limited"), "{limited}");
    assert_eq!(stage.ask_as(&other, "GET", "/numbers", None).0, 200, "another key has a rate of its own");
}
