//! A realtime model that answers the phone: the double of OpenAI's Realtime API, outside of the cluster as OpenAI is, in the
//! process of the tests.

use std::net::SocketAddr;

use serde_json::json;
use tokio::runtime::Runtime;
use voicedock::simulate::realtime::{Config, Double, Entry, Script, Step, What};

use super::pods::Pod;
use super::realtime::{self, API_KEY, PROJECT, WEBHOOK_SECRET};
use super::scene::Scene;
use super::wait::SOON;

/// Where pods take its webhooks, those of the gateway and those of the API.
const HTTP: u16 = 8080;

/// The model, and the servers that it is reached at.
pub struct Model {
    double: Double,
    authority: String,
    runtime: Runtime,
}

impl Scene {
    /// Starts a model; `script` says what it does with its calls (docs/realtime-double.md).
    pub fn model(&self, script: &str) -> Model {
        let runtime = Runtime::new().expect("there are threads");
        let (identity, authority) = realtime::identity_for(&[&self.host().to_string()]);
        let anywhere = SocketAddr::from((self.host(), 0));
        let config = Config {
            sip: anywhere,
            http: anywhere,
            advertise: Some(self.host().to_string()),
            script: parsed(script),
            ..realtime::config(identity)
        };
        let double = runtime.block_on(Double::start(config)).unwrap_or_else(|error| panic!("{error}"));
        Model { double, authority, runtime }
    }
}

impl Model {
    /// The way to it, as an Assistant's `agent`; its Secret is [`Self::secret`].
    pub fn agent(&self) -> String {
        let (sip, api) = (self.double.sip(), self.double.base_url());
        json!({ "openai": {
            "projectId": PROJECT, "apiBaseUrl": api, "sipHost": sip.to_string(), "caBundleRef": { "name": "openai" },
            "apiKeySecretRef": { "name": "openai" }, "webhookSecretRef": { "name": "openai" },
        }})
        .to_string()
    }

    /// The Secret that an Assistant needs: the API's key, that of the webhooks, and whom to trust.
    pub fn secret(&self) -> String {
        let data = json!({ "apiKey": API_KEY, "webhookSecret": WEBHOOK_SECRET, "ca.crt": self.authority });
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: openai}}\nstringData: {data}\n")
    }

    /// From now on this pod is told of calls.
    pub fn tells(&self, pod: &Pod) {
        self.double.set_webhook_url(format!("http://{}:{HTTP}/webhooks/openai", pod.address));
    }

    /// What `pick` makes of the first thing that it saw or did of which `pick` makes something.
    pub fn sees<T>(&self, what: &str, pick: impl FnMut(&Entry) -> Option<T>) -> T {
        let seen = self.runtime.block_on(self.double.journal().wait_for(SOON, pick));
        seen.unwrap_or_else(|error| panic!("the model doesn't see {what}: {error}"))
    }

    /// Waits until it has greeted the n-th caller, from 1: OpenAI's name of that call, and ours.
    pub fn greets(&self, n: usize) -> (String, String) {
        let mut calls = Vec::new();
        let (call, id) = self.sees("the call", |entry| match &entry.what {
            What::Invited { headers, .. } => {
                let ours = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-VoiceDock-Call-Id"));
                calls.push((entry.call.clone(), ours.map(|(_, id)| id.clone()).unwrap_or_default()));
                calls.get(n - 1).cloned()
            }
            _ => None,
        });
        self.sees("the end of its greeting", |entry| match &entry.what {
            What::Server(event) if entry.call == call => {
                (event["type"] == "output_audio_buffer.stopped").then_some(())
            }
            _ => None,
        });
        (call, id)
    }

    /// What it does next in a call: a step of a script.
    pub fn goes_on(&self, call: &str, step: &str) {
        let script = parsed(&format!("calls: [{{steps: [{step}]}}]"));
        let steps: Vec<Step> = script.calls.into_iter().flat_map(|call| call.steps).collect();
        steps.into_iter().for_each(|step| self.double.act(call, step));
    }

    /// Nothing was asked of it that OpenAI would not have taken.
    pub fn is_content(&self) {
        assert_eq!(self.double.journal().wrong(), Vec::<String>::new());
    }
}

fn parsed(script: &str) -> Script {
    Script::parse(script).unwrap_or_else(|error| panic!("{error}: {script}"))
}
