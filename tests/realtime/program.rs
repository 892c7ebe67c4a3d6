//! The double as a program of its own, as the demo runs it.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use voicedock::simulate::realtime::Identity;

use crate::client::{Caller, SOON, Users, session, webhook};
use crate::realtime::{API_KEY, PROJECT, WEBHOOK_SECRET, identity};

/// What it tells, a JSON object a line.
struct Told(Lines<BufReader<ChildStdout>>);

impl Told {
    /// The text of the next line with this word.
    async fn line(&mut self, word: &str) -> String {
        loop {
            let line = tokio::time::timeout(SOON, self.0.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("it says nothing of '{word}'")).unwrap();
            let line: Value = serde_json::from_str(&line.expect("it runs")).expect("a line is JSON");
            if line["event"] == word {
                return line["text"].as_str().unwrap().to_owned();
            }
        }
    }
}

async fn start(script: &str) -> (Child, Told, Users) {
    let (Identity { certificate, key }, authority) = identity();
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [("tls.crt", &*certificate), ("tls.key", &*key), ("script.yaml", script)] {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let (url, hooks) = webhook([]).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_voicedock"))
        .args(["simulate", "realtime", "--json", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args(["--project", PROJECT, "--webhook", &url, "--tls"])
        .arg(directory.path())
        .arg("--script")
        .arg(directory.path().join("script.yaml"))
        .env("VOICEDOCK_SIMULATE_API_KEY", API_KEY)
        .env("VOICEDOCK_SIMULATE_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut told = Told(BufReader::new(child.stdout.take().unwrap()).lines());
    let line = told.line("ready").await;
    let mut words = line.split(' ').filter(|word| word.contains("127.0.0.1"));
    let sip = words.next().unwrap().trim_end_matches(',').parse().unwrap();
    let base_url = words.next().unwrap().to_owned();
    (child, told, Users::of(sip, &base_url, &authority, hooks))
}

#[tokio::test]
async fn it_takes_calls_by_its_script_and_tells_what_happens() {
    let (mut child, mut told, mut users) = start(
        "calls: [{steps: [{respond: {}}, {speak: {call: {name: transfer_call, arguments: {destination: sales}}}}]}]",
    )
    .await;
    let mut caller = Caller::call(&users, PROJECT, "X-VoiceDock-Call-Id: call_1\r\n").await;
    assert_eq!(told.line("called").await, "is called on +31201234567");
    let call = users.hook().await.call();
    let mut asked = session();
    asked["tools"] = json!([{ "type": "function", "name": "transfer_call" }]);
    assert_eq!(users.ask(&call, "accept", asked).await.status, 200);
    caller.answered().await;
    assert_eq!(
        told.line("asked").await,
        "is told to accept the call as gpt-realtime with the tools transfer_call (200)"
    );
    let mut socket = users.socket(&call).await.unwrap();
    let instructions = "Say exactly: \"Welcome.\"";
    socket.send(json!({ "type": "response.create", "response": { "instructions": instructions } })).await;
    assert_eq!(told.line("says").await, "says: Welcome.");
    assert_eq!(told.line("calls").await, "calls transfer_call({\"destination\":\"sales\"})");
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    caller.until("BYE").await;
    assert!(tokio::time::timeout(SOON, child.wait()).await.unwrap().unwrap().success());
}
