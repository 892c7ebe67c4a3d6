//! What the double saw and did, in order: for tests, and as lines for people.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::simulate::report::Report;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Time since the double was started.
    pub at: Duration,
    /// The call, as OpenAI names it; empty where there is none.
    pub call: String,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// An INVITE came.
    Invited {
        /// Its headers, in order.
        headers: Vec<(String, String)>,
        /// Its session description.
        offer: String,
    },
    /// Another SIP request of the call came.
    Request {
        /// Its method.
        method: String,
    },
    /// The INVITE was answered.
    Answered,
    /// The INVITE was refused.
    Refused {
        /// With this code.
        code: u16,
    },
    /// The call is over on the SIP side.
    Ended(String),
    /// An event was sent to the webhook.
    Webhook {
        /// Its `webhook-id`.
        id: String,
        /// 1 for the first time.
        attempt: u32,
        /// The status of the answer; `None` if there was none.
        status: Option<u16>,
    },
    /// A request to the REST API came and was answered.
    Rest {
        /// `accept`, `reject`, `hangup`, `refer`.
        verb: String,
        /// The request's body; `Null` if there was none.
        body: Value,
        /// The status of the answer.
        status: u16,
    },
    /// A WebSocket was opened.
    SocketOpened,
    /// A WebSocket is gone.
    SocketClosed,
    /// An event of the client.
    Client(Value),
    /// An event to the client; it is lost if no WebSocket is open.
    Server(Value),
    /// Something that the real API would not have taken, or that the script has waited for in vain.
    Wrong(String),
    /// It can be reached.
    Ready {
        /// For SIP over TLS.
        sip: SocketAddr,
        /// For REST and WebSockets.
        base_url: String,
    },
}

/// See the module. Clones are of the same journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entries: Mutex<Vec<Entry>>,
    /// How many there are.
    written: watch::Sender<usize>,
    began: Instant,
    report: Option<Mutex<Report>>,
}

/// What was waited for did not happen.
#[derive(Debug, thiserror::Error)]
pub struct NotSeen(Vec<Entry>);

impl Journal {
    /// An empty one. With a report what happens is told to people as well, and forgotten.
    pub fn new(report: Option<Report>) -> Self {
        Self(Arc::new(Shared {
            entries: Mutex::default(),
            written: watch::Sender::new(0),
            began: Instant::now(),
            report: report.map(Mutex::new),
        }))
    }

    /// The time, as entries have it.
    pub fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// All that happened so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.locked().clone()
    }

    /// What the real API would not have taken, and what the script has waited for in vain.
    pub fn wrong(&self) -> Vec<String> {
        let wrong = |entry: &Entry| match &entry.what {
            What::Wrong(text) => Some(text.clone()),
            _ => None,
        };
        self.locked().iter().filter_map(wrong).collect()
    }

    /// What `pick` makes of the first entry of which it makes something, past ones included.
    pub async fn wait_for<T>(
        &self,
        within: Duration,
        mut pick: impl FnMut(&Entry) -> Option<T>,
    ) -> Result<T, NotSeen> {
        let mut written = self.0.written.subscribe();
        let mut looked_at = 0;
        let seen = async {
            loop {
                written.mark_unchanged();
                let found = {
                    let entries = self.locked();
                    let found = entries.iter().skip(looked_at).find_map(&mut pick);
                    looked_at = entries.len();
                    found
                };
                if let Some(found) = found {
                    return found;
                }
                // The journal holds the other end: that can't be gone.
                let _ = written.changed().await;
            }
        };
        tokio::time::timeout(within, seen).await.map_err(|_| NotSeen(self.entries()))
    }

    /// Adds an entry; `name` is what people know the call by.
    pub(super) fn add(&self, call: &str, name: &str, what: What) {
        if let Some(report) = &self.0.report {
            if let Some((word, text)) = in_words(&what) {
                report.lock().unwrap_or_else(PoisonError::into_inner).tell("openai double", name, word, text);
            }
            return;
        }
        let entry = Entry { at: self.0.began.elapsed(), call: call.to_owned(), what };
        let count = {
            let mut entries = self.locked();
            entries.push(entry);
            entries.len()
        };
        self.0.written.send_replace(count);
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What people want to know, and the word for it.
fn in_words(what: &What) -> Option<(&'static str, String)> {
    Some(match what {
        What::Invited { headers, .. } => {
            let number = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("X-VoiceDock-Number"));
            let number = number.map_or("a number that no header names", |(_, number)| number);
            ("called", format!("is called on {number}"))
        }
        What::Answered => ("answered", "answers".into()),
        What::Refused { code } => ("refused", format!("refuses the call ({code})")),
        What::Ended(why) => ("ended", why.clone()),
        What::Webhook { status: Some(status @ 200..300), .. } => {
            ("webhook", format!("has told the webhook of the call ({status})"))
        }
        What::Webhook { status, .. } => {
            let why = status.map_or("no answer".to_owned(), |status| status.to_string());
            ("webhook-failed", format!("could not tell the webhook of the call: {why}"))
        }
        What::Rest { verb, body, status } => {
            let detail = match (body["model"].as_str(), body["tools"].as_array()) {
                (Some(model), Some(tools)) => {
                    let tools: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
                    format!(" as {model} with the tools {}", tools.join(", "))
                }
                (Some(model), None) => format!(" as {model}"),
                _ => String::new(),
            };
            ("asked", format!("is told to {verb} the call{detail} ({status})"))
        }
        What::SocketOpened => ("listening", "is listened to (WebSocket)".into()),
        What::SocketClosed => ("left", "is no longer listened to".into()),
        What::Server(event) => return told(event),
        What::Client(event) if event["item"]["type"] == "function_call_output" => {
            let output = event["item"]["output"].as_str().unwrap_or_default();
            ("outcome", format!("is told what came of it: {output}"))
        }
        What::Client(event) if event["item"]["type"] == "message" => {
            let said = event["item"]["content"][0]["text"].as_str().unwrap_or_default();
            ("context", format!("is told: {said}"))
        }
        What::Wrong(text) => ("wrong", format!("WRONG: {text}")),
        What::Ready { sip, base_url } => ("ready", format!("listens at {sip}, TLS, and at {base_url}")),
        What::Request { .. } | What::Client(_) => return None,
    })
}

fn told(event: &Value) -> Option<(&'static str, String)> {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    Some(match event["type"].as_str()? {
        "response.output_audio_transcript.done" => ("says", format!("says: {}", text("transcript"))),
        "response.function_call_arguments.done" => {
            ("calls", format!("calls {}({})", text("name"), text("arguments")))
        }
        "conversation.item.input_audio_transcription.completed" => {
            ("hears", format!("hears: {}", text("transcript")))
        }
        "output_audio_buffer.cleared" => ("interrupted", "is interrupted".into()),
        "error" => {
            let message = event["error"]["message"].as_str().unwrap_or_default();
            ("error", format!("complains: {message}"))
        }
        _ => return None,
    })
}

impl fmt::Display for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "it did not happen in time; what the double saw:")?;
        for Entry { at, call, what } in &self.0 {
            writeln!(f, "{:8.3} {call} {what:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
