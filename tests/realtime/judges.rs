//! Real programs verify what the double signs: OpenAI's own library for Python, and Standard Webhooks'.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::client::{Caller, Hook, Stage};
use crate::realtime::{PROJECT, WEBHOOK_SECRET};
use crate::tools::cached;

/// Reads the secret, the headers and the body of an event as JSON, and prints what a library reads of it.
const OPENAI: &str = "\
import json, sys
from openai import OpenAI
given = json.load(sys.stdin)
client = OpenAI(api_key='none', webhook_secret=given['secret'])
event = client.webhooks.unwrap(given['body'], given['headers'])
print(event.type, event.data.call_id, [h.value for h in event.data.sip_headers if h.name == 'X-Twice'])
";
const STANDARD: &str = "\
import json, sys
from standardwebhooks.webhooks import Webhook
given = json.load(sys.stdin)
event = Webhook(given['secret']).verify(given['body'], given['headers'])
print(event['type'], event['data']['call_id'], [h['value'] for h in event['data']['sip_headers'] if h['name'] == 'X-Twice'])
";

/// Whether a library takes an event, and what it says.
fn judged(program: &str, hook: &Hook) -> (bool, String) {
    let headers: serde_json::Map<String, serde_json::Value> = (hook.headers.iter())
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let given = serde_json::json!({
        "secret": WEBHOOK_SECRET, "headers": headers, "body": String::from_utf8(hook.body.to_vec()).unwrap(),
    });
    let libraries =
        cached("webhook-judges").expect("the judges are there: hack/tools.sh cluster installs them");
    let mut child = Command::new("python3")
        .args(["-c", program])
        .env("PYTHONPATH", libraries)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is Python");
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn event(script: &str) -> Hook {
    let mut stage = Stage::new(script).await;
    let _caller = Caller::call(&stage, PROJECT, "").await;
    stage.hook().await
}

#[tokio::test]
async fn the_libraries_that_customers_use_take_what_the_double_signs() {
    for script in ["", "calls: [{webhook: {signature: second}}]"] {
        let hook = event(script).await;
        let expected = format!("realtime.call.incoming {} ['a', 'b']", hook.call());
        for judge in [OPENAI, STANDARD] {
            let (taken, said) = judged(judge, &hook);
            assert!(taken, "{said}");
            assert_eq!(said.trim(), expected);
        }
    }
}

#[tokio::test]
async fn they_refuse_what_somebody_else_signed_and_what_is_old() {
    for script in ["calls: [{webhook: {signature: wrong}}]", "calls: [{webhook: {age: 10m}}]"] {
        let hook = event(script).await;
        for judge in [OPENAI, STANDARD] {
            let (taken, said) = judged(judge, &hook);
            assert!(!taken, "{script}: {said}");
            assert!(
                said.contains("WebhookVerificationError") || said.contains("InvalidWebhookSignatureError"),
                "{said}"
            );
        }
    }
}
