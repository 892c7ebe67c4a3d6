//! Assistants, numbers and trunks: created, shown, changed, deleted, refused.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::stage::Stage;

#[tokio::test]
async fn a_number_is_created_shown_changed_detached_and_deleted() {
    let stage = Stage::set("number").await;
    stage.ask("POST", "/assistants", Some(json!({ "name": "Support" })));
    let body = json!({ "phone_number": "+31201234567", "name": "Main line", "agent_id": "support" });
    let (status, made) = stage.ask("POST", "/numbers", Some(body));
    assert_eq!(status, 201, "{made}");
    let number = &made["number"];
    assert_eq!((&number["id"], &number["assistant_id"]), (&json!("num-31201234567"), &json!("support")));
    assert_eq!((&number["transfer_trunk_id"], &number["is_active"]), (&Value::Null, &json!(false)));
    assert_eq!(number["status"]["ready"], Value::Null, "no operator has looked at it");
    assert_eq!(stage.ask("GET", "/numbers/num-31201234567", None), (200, made.clone()));

    let (_, changed) = stage.ask("PATCH", "/numbers/num-31201234567", Some(json!({ "assistant_id": null })));
    assert_eq!(
        (&changed["number"]["assistant_id"], &changed["number"]["name"]),
        (&Value::Null, &json!("Main line"))
    );
    assert_eq!(stage.ask("DELETE", "/numbers/num-31201234567", None), (204, Value::Null));
    assert_eq!(stage.ask("GET", "/numbers/num-31201234567", None).0, 404);
    assert_eq!(stage.ask("DELETE", "/numbers/num-31201234567", None).0, 404);
}

#[tokio::test]
async fn a_number_is_there_once() {
    let stage = Stage::set("once").await;
    stage.apply("people", "PhoneNumber", "main-line", json!({ "number": "+31201234567" })).await;
    stage.shows("/numbers/main-line", |_| true).await;
    let (status, refused) = stage.ask("POST", "/numbers", Some(json!({ "phone_number": "+31201234567" })));
    assert_eq!((status, &refused["error"]), (409, &json!("already_exists")));
    assert!(refused["message"].as_str().unwrap().contains("'main-line'"), "{refused}");
}

#[tokio::test]
async fn a_trunks_password_becomes_a_secret_that_goes_with_it_and_is_in_no_answer() {
    let stage = Stage::set("trunk").await;
    let body = json!({ "name": "Office PBX", "host": "pbx.example.com", "username": "acme", "password": "s3cret-pa55" });
    let (status, made) = stage.ask("POST", "/sip-trunks", Some(body));
    assert_eq!(status, 201, "{made}");
    let id = made["sip_trunk"]["id"].as_str().unwrap();
    assert_eq!((id, &made["sip_trunk"]["username"]), ("office-pbx", &json!("acme")));

    let trunk = stage.resource("SipTrunk", id).await.unwrap();
    let name = trunk.data["spec"]["credentialsSecretRef"]["name"].as_str().unwrap().to_owned();
    let secrets: Api<Secret> = Api::namespaced(stage.server.client.clone(), &stage.namespace);
    let secret = secrets.get(&name).await.unwrap();
    assert_eq!(secret.data.unwrap()["password"].0, b"s3cret-pa55");
    let owner = &secret.metadata.owner_references.unwrap()[0];
    assert_eq!(Some(&owner.uid), trunk.metadata.uid.as_ref(), "it is deleted with the trunk");

    for path in ["/sip-trunks", "/sip-trunks/office-pbx"] {
        let (status, shown) = stage.ask("GET", path, None);
        assert_eq!(status, 200);
        assert!(!shown.to_string().contains("s3cret-pa55"), "{shown}");
        assert!(shown.to_string().contains("\"username\":\"acme\""), "{shown}");
    }
    assert_eq!(
        stage.ask("PATCH", "/sip-trunks/office-pbx", Some(json!({ "host": "evil.example.com" }))).0,
        405
    );
    assert_eq!(stage.ask("DELETE", "/sip-trunks/office-pbx", None).0, 204);
    assert!(stage.resource("SipTrunk", id).await.is_none());
}

#[tokio::test]
async fn a_trunk_without_a_login_makes_no_secret_and_a_refused_one_leaves_none() {
    let stage = Stage::set("login").await;
    assert_eq!(
        stage.ask("POST", "/sip-trunks", Some(json!({ "name": "Open", "host": "pbx.example.com" }))).0,
        201
    );
    let wrong = json!({ "name": "Bad", "host": "no host", "username": "a", "password": "b" });
    let (status, refused) = stage.ask("POST", "/sip-trunks", Some(wrong));
    assert_eq!((status, &refused["param"]), (400, &json!("host")), "{refused}");
    assert!(
        refused["message"].as_str().unwrap().starts_with("write a host name or an IP address"),
        "{refused}"
    );
    let secrets: Api<Secret> = Api::namespaced(stage.server.client.clone(), &stage.namespace);
    let logins =
        secrets.list(&ListParams::default().labels("voicedock.dev/holds=trunk-login")).await.unwrap();
    assert_eq!(logins.items.len(), 0);
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_field_with_a_sentence() {
    let stage = Stage::set("wrong").await;
    stage.ask("POST", "/assistants", Some(json!({ "name": "Support" })));
    let tool = |destination: Value| json!({ "llm_config": { "tools": [{ "type": "transfer_call", "destinations": [destination] }] } });
    for (method, path, body, param, says) in [
        (
            "POST",
            "/numbers",
            json!({ "phone_number": "0201234567" }),
            "phone_number",
            "write the number in E.164",
        ),
        ("POST", "/numbers", json!({ "name": "x" }), "phone_number", "missing field"),
        (
            "POST",
            "/numbers",
            json!({ "phone_number": "+31201234567", "assistant_id": "nobody" }),
            "assistant_id",
            "no assistant has the id 'nobody'",
        ),
        (
            "POST",
            "/numbers",
            json!({ "phone_number": "+31201234567", "transfer_trunk_id": "../../x" }),
            "transfer_trunk_id",
            "write the id of a trunk",
        ),
        (
            "POST",
            "/sip-trunks",
            json!({ "name": "x", "host": "h", "port": 70000 }),
            "port",
            "less than or equal to 65535",
        ),
        (
            "PATCH",
            "/assistants/support",
            tool(json!({ "type": "number", "number": "+31612345678" })),
            "llm_config.tools[0].destinations[0]",
            "a description that tells the model",
        ),
        (
            "PATCH",
            "/assistants/support",
            json!({ "llm_config": { "tools": [{ "type": "transfer_call" }] } }),
            "llm_config.tools[0]",
            "transfer_call needs destinations",
        ),
        ("PATCH", "/assistants/support", json!({ "agent": { "openai": {} } }), "agent", "unknown field"),
        ("PATCH", "/assistants/support", json!({ "first_message": "" }), "first_message", "at least 1"),
    ] {
        let (status, refused) = stage.ask(method, path, Some(body.clone()));
        assert_eq!((status, &refused["error"]), (400, &json!("invalid_request")), "{body}: {refused}");
        assert_eq!(refused["param"], param, "{body}: {refused}");
        assert!(refused["message"].as_str().unwrap().contains(says), "{body}: {refused}");
    }
    for (method, path, status) in [
        ("GET", "/assistants/Nobody%2F..%2Fx", 404),
        ("GET", "/assistants/%ff", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/assistants", 405),
        ("GET", "/assistants?limit=0", 400),
    ] {
        let (found, body) = stage.ask(method, path, None);
        assert_eq!(found, status, "{path}: {body}");
        assert!(body["message"].is_string(), "{path}: {body}");
    }
    let long = json!({ "name": "x", "first_message": "a".repeat(1 << 20) });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), long.to_string()).unwrap();
    let url = format!("http://{}/api/v1/assistants", stage.api.http);
    let arguments = [
        "-H".to_owned(),
        format!("Authorization: Bearer {}", stage.key),
        "--data-binary".to_owned(),
        format!("@{}", file.path().display()),
        url,
    ];
    assert_eq!(crate::stage::curl(&arguments).0, 413);
}

#[tokio::test]
async fn the_same_name_twice_makes_two_and_pages_show_the_newest_first() {
    let stage = Stage::set("pages").await;
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let (status, made) = stage.ask("POST", "/assistants", Some(json!({ "name": "Support" })));
            assert_eq!(status, 201, "{made}");
            made["assistant"]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids[0], "support");
    assert!(ids[1].starts_with("support-") && ids[1] != ids[2], "{ids:?}");
    let (_, page) = stage.ask("GET", "/assistants?limit=2&offset=1", None);
    assert_eq!(page["assistants"].as_array().unwrap().len(), 2);
    assert_eq!(page["pagination"], json!({ "total": 3, "limit": 2, "offset": 1 }));
}
