//! What somebody else manages is not changed and not taken over.

use serde_json::json;

use crate::stage::Stage;

#[tokio::test]
async fn what_git_owns_is_not_changed_and_the_rest_is() {
    let stage = Stage::set("git").await;
    let spec = json!({
        "displayName": "Support", "llmConfig": { "model": "gpt-realtime", "tools": [{ "type": "end_call" }] },
        "agent": { "sip": { "uri": "sip:agent@example.com" } },
    });
    stage.apply("argocd-controller", "Assistant", "support", spec.clone()).await;
    stage.shows("/assistants/support", |_| true).await;

    for (change, field) in [
        (json!({ "name": "Mine" }), "name"),
        (json!({ "llm_config": { "tools": [] } }), "llm_config.tools"),
        (json!({ "llm_config": null }), "llm_config"),
        (json!({ "name": null }), "name"),
    ] {
        let (status, refused) = stage.ask("PATCH", "/assistants/support", Some(change));
        assert_eq!((status, &refused["error"]), (409, &json!("managed_elsewhere")), "{refused}");
        assert_eq!(refused["param"], field);
        assert!(refused["message"].as_str().unwrap().contains("argocd-controller"), "{refused}");
    }
    let (status, refused) = stage.ask("DELETE", "/assistants/support", None);
    assert_eq!(status, 409, "{refused}");

    // What Git says nothing of may be changed, and changed again, and taken away; the same value is no change.
    for change in [
        json!({ "first_message": "Hello", "name": "Support" }),
        json!({ "first_message": "Good day", "llm_config": { "provider": "openai" } }),
        json!({ "first_message": null }),
    ] {
        let (status, changed) = stage.ask("PATCH", "/assistants/support", Some(change));
        assert_eq!(status, 200, "{changed}");
    }
    let object = stage.resource("Assistant", "support").await.unwrap();
    let mut expected = spec.clone();
    expected["llmConfig"]["provider"] = json!("openai");
    assert_eq!(object.data["spec"], expected);

    // And nothing of Git's became ours: it changes and removes its own without being forced to.
    stage.apply("argocd-controller", "Assistant", "support", json!({ "displayName": "Help desk" })).await;
    let object = stage.resource("Assistant", "support").await.unwrap();
    assert_eq!(
        object.data["spec"],
        json!({ "displayName": "Help desk", "llmConfig": { "provider": "openai" } })
    );
}

#[tokio::test]
async fn two_who_change_one_assistant_at_the_same_time_both_have_their_way() {
    let stage = Stage::set("race").await;
    let (_, made) = stage.ask("POST", "/assistants", Some(json!({ "name": "Support" })));
    let path = format!("/assistants/{}", made["assistant"]["id"].as_str().unwrap());
    std::thread::scope(|scope| {
        for change in [
            json!({ "first_message": "Hello" }),
            json!({ "llm_config": { "model": "x" } }),
            json!({ "name": "Desk" }),
        ] {
            let (stage, path) = (&stage, &path);
            scope.spawn(move || assert_eq!(stage.ask("PATCH", path, Some(change)).0, 200));
        }
    });
    let (_, shown) = stage.ask("GET", &path, None);
    let shown = &shown["assistant"];
    assert_eq!(
        (&shown["name"], &shown["first_message"], &shown["llm_config"]["model"]),
        (&json!("Desk"), &json!("Hello"), &json!("x"))
    );
}
