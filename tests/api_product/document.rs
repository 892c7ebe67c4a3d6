//! Every command of the product's document on call transfers, executed by curl as it is printed: only host, key and
//! ids are put in.

use std::process::Command;

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::tools::printed;

/// The document.
const DOCUMENT: &str = include_str!("call-transfers.txt");
/// The host that it is written for.
const HOST: &str = "https://api.hmsovereign.com";

/// The commands of the document, as printed: from `curl` to the line that ends the quoted body.
pub fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        if !line.starts_with("curl ") {
            continue;
        }
        let mut command = line.to_owned();
        while !command.ends_with('\'') {
            command.push('\n');
            command.push_str(lines.next().expect("the body ends"));
        }
        commands.push(command);
    }
    commands
}

/// The words of a command. Messages of the document have apostrophes, at which a shell would end the quoted body; as it is
/// meant, the body ends with the command.
fn words(command: &str) -> Vec<String> {
    let (head, body) = command.split_once('\'').expect("there is a body");
    let body = body.strip_suffix('\'').expect("it ends with the command");
    let (mut words, mut quoted) = (Vec::new(), false);
    for part in head.replace("\\\n", " ").split('"') {
        if quoted {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
        quoted = !quoted;
    }
    words.push(body.to_owned());
    words
}

/// The command of the document that has all of these words.
pub fn command(words: &[&str]) -> String {
    let mut found = commands().into_iter().filter(|command| words.iter().all(|word| command.contains(word)));
    let command = found.next().unwrap_or_else(|| panic!("no command with {words:?}"));
    assert_eq!(found.next(), None, "one command with {words:?}");
    command
}

/// The first JSON document after these words.
fn json_after(words: &str) -> Value {
    let (_, rest) = DOCUMENT.split_once(words).unwrap();
    let body = &rest[rest.find('{').unwrap()..];
    serde_json::Deserializer::from_str(body).into_iter().next().unwrap().unwrap()
}

/// Runs a command of the document with what a reader puts in; what it prints.
pub fn run(stage: &Stage, command: &str, ids: &[(&str, &str)]) -> Value {
    let host = format!("http://{}", stage.api.http);
    assert!(command.contains(HOST) && command.contains("YOUR_API_KEY"), "{command}");
    let mut command = command.replace(HOST, &host).replace("YOUR_API_KEY", &stage.key);
    for (placeholder, id) in ids {
        assert!(command.contains(placeholder), "{command} has no {placeholder}");
        command = command.replace(placeholder, id);
    }
    let words = words(&command);
    assert_eq!(words[0], "curl");
    let mut curl = Command::new("curl");
    // Of curl's own settings: no progress, an error status fails, no proxy of this machine.
    curl.args(["-sS", "--fail-with-body", "--max-time", "20", "--noproxy", "*"]).args(&words[1..]);
    let text = printed(&mut curl);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command} prints {text}: {error}"))
}

#[test]
fn the_document_has_four_commands() {
    assert_eq!(commands().len(), 4);
}

#[tokio::test]
async fn the_commands_of_the_document_do_what_it_says() {
    let stage = Stage::set("document").await;

    // Example: Complete Transfer Setup.
    let (status, made) =
        stage.ask("POST", "/assistants", Some(json_after("Example: Complete Transfer Setup")));
    assert_eq!(status, 201, "{made}");
    let assistant = made["assistant"]["id"].as_str().unwrap();
    assert_eq!(assistant, "support-assistant");

    // Step 1: Add Transfer Tool.
    let tool = command(&["PATCH", "ASSISTANT_ID"]);
    let changed = run(&stage, &tool, &[("ASSISTANT_ID", assistant)]);
    let config = &changed["assistant"]["llm_config"];
    assert_eq!(config["tools"][0]["destinations"].as_array().unwrap().len(), 3, "{changed}");
    assert_eq!(config["model"], "gpt-4o-mini", "what the command doesn't name stays");
    let object = stage.resource("Assistant", assistant).await.unwrap();
    let tools = &object.data["spec"]["llmConfig"]["tools"];
    assert_eq!(tools[0]["destinations"][2]["number"], "+31698765432", "{tools}");

    // Step 2: Guide the Assistant.
    let guide = json_after("Step 2: Guide the Assistant");
    let (status, guided) =
        stage.ask("PATCH", &format!("/assistants/{assistant}"), Some(json!({ "llm_config": guide })));
    assert_eq!((status, &guided["assistant"]["llm_config"]["messages"]), (200, &guide["messages"]));

    // Using SIP Trunks, step 1.
    let trunk = run(&stage, &command(&["POST", "/sip-trunks"]), &[]);
    assert_eq!(trunk["sip_trunk"]["username"], "hms-sovereign", "{trunk}");
    assert!(!trunk.to_string().contains("secure-password"), "{trunk}");
    let trunk = trunk["sip_trunk"]["id"].as_str().unwrap();

    // Step 2: Assign to Phone Number.
    let number = json!({ "phone_number": "+31201234567", "name": "Main line", "assistant_id": assistant });
    let (status, number) = stage.ask("POST", "/numbers", Some(number));
    assert_eq!(status, 201, "{number}");
    let number = number["number"]["id"].as_str().unwrap();
    let assign = command(&["PATCH", "NUMBER_ID"]);
    let assigned = run(&stage, &assign, &[("NUMBER_ID", number), ("TRUNK_ID", trunk)]);
    assert_eq!(assigned["number"]["transfer_trunk_id"], json!(trunk), "{assigned}");
    assert_eq!(assigned["number"]["transfer_trunk_name"], "Office PBX");
    let object = stage.resource("PhoneNumber", number).await.unwrap();
    assert_eq!(object.data["spec"]["transferTrunkRef"], json!({ "name": trunk }));
}
