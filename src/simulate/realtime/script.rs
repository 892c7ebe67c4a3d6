//! What the double does with a call: a script, written in YAML or JSON.
//!
//! ```yaml
//! calls:
//! - when: {X-VoiceDock-Number: "+31201234567"}    # the first entry whose headers the INVITE has counts
//!   accept: [{status: 429, retry_after: 1}]       # the first attempt; the next one is granted
//!   steps:
//!   - respond: {say: Welcome to Acme support.}
//!   - caller: {says: I want to buy something.}
//!   - speak: {call: {name: transfer_call, arguments: {destination: sales}}}
//! ```
//!
//! Without an entry for it a call is answered and its responses read aloud what they are told to say. Times are written as
//! `200ms`, `2s`, `1m`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::simulate::rules;

/// What the double does with its calls.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// The first whose `when` fits a call is what happens to it.
    pub calls: Vec<CallScript>,
    /// Its 200 to an INVITE, and its other responses with a Contact.
    pub line: Line,
    /// How long a spoken word takes.
    pub word: Time<10>,
    /// Time until a request about a call that isn't known is answered; the real one takes five seconds.
    pub unknown_after: Time<50>,
}

/// Peculiarities of the SIP side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// Whether a session description comes with its Content-Type.
    pub content_type: bool,
    /// Whether Contact names the double's own address, rather than a name that all of OpenAI's nodes share.
    pub own_contact: bool,
}

#[allow(clippy::derivable_impls, reason = "the real one's habits are worth a place of their own")]
impl Default for Line {
    fn default() -> Self {
        Self { content_type: false, own_contact: false }
    }
}

/// What happens to one call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallScript {
    /// Headers of the INVITE, with their whole values.
    pub when: BTreeMap<String, String>,
    /// The event about it.
    pub webhook: WebhookScript,
    /// Its INVITE.
    pub invite: InviteScript,
    /// What the first, second … attempt to accept it meets; later ones are granted. So for the other verbs.
    pub accept: Vec<Fault>,
    /// To reject it.
    pub reject: Vec<Fault>,
    /// To hang it up.
    pub hangup: Vec<Fault>,
    /// To refer it.
    pub refer: Vec<Fault>,
    /// What its first, second … WebSocket meets.
    pub socket: Vec<SocketScript>,
    /// What the model and the caller do, once the first WebSocket is there.
    pub steps: Vec<Step>,
    /// How long a session may last.
    pub lasts: Time<{ 60 * 60 * 1000 }>,
}

/// The event about a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookScript {
    /// None is sent.
    pub skip: bool,
    /// Time after the INVITE.
    pub after: Time<0>,
    /// How often it is sent, also after it was taken.
    pub copies: u32,
    /// How it is signed.
    pub signature: Signature,
    /// How much older than it is its time says it was sent.
    pub age: Time<0>,
}

impl Default for WebhookScript {
    fn default() -> Self {
        Self {
            skip: false,
            after: Time::default(),
            copies: 1,
            signature: Signature::Right,
            age: Time::default(),
        }
    }
}

/// How an event is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// With the secret.
    #[default]
    Right,
    /// With another one.
    Wrong,
    /// With another one and with the secret, as while a secret is rotated.
    Second,
}

/// What becomes of an INVITE.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InviteScript {
    /// Provisional responses, at once.
    pub ring: Vec<u16>,
    /// It is refused with this code, at once; there is no event about it then.
    pub refuse: Option<u16>,
    /// It is refused with 400 when nobody has accepted it in this time.
    pub accept_within: Time<10_000>,
    /// Time from acceptance to the 200.
    pub answer_after: Time<0>,
    /// How a re-INVITE is answered; 0 for not at all.
    pub reoffer: u16,
}

impl Default for InviteScript {
    fn default() -> Self {
        Self {
            ring: vec![180],
            refuse: None,
            accept_within: Time::default(),
            answer_after: Time::default(),
            reoffer: 200,
        }
    }
}

/// What a request to the REST API meets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// It isn't looked at for so long.
    pub after: Time<0>,
    /// It is answered with this status and nothing is done.
    pub status: Option<u16>,
    /// The error code of that answer.
    pub code: Option<String>,
    /// Its Retry-After, seconds.
    pub retry_after: Option<u32>,
    /// It is done, and the connection is closed instead of an answer.
    pub lost: bool,
    /// It is done at once, and answered so much later: what comes of it is seen over SIP first.
    pub late: Time<0>,
    /// It is answered with 200, and the INVITE is refused with this code; or, to refer and hang up, nothing happens.
    pub sip: Option<u16>,
}

/// What a WebSocket meets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketScript {
    /// The upgrade is answered after so long.
    pub after: Time<0>,
    /// It is answered with this status instead.
    pub status: Option<u16>,
    /// Whether `session.created` is sent.
    pub session_created: bool,
}

impl Default for SocketScript {
    fn default() -> Self {
        Self { after: Time::default(), status: None, session_created: true }
    }
}

/// One thing that the model, the caller or the network does. Each begins when the one before is over.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Waits for a `response.create` and makes this response.
    Respond(Answer),
    /// Makes a response by itself, as after the caller has spoken.
    Speak(Answer),
    /// The caller says something. What the model is saying meanwhile is cut short, unless the session forbids it.
    Caller(Utterance),
    /// The caller presses a key.
    Dtmf(char),
    /// Waits for an event of the client that came after the last one that was waited for.
    Await(Awaited),
    /// Lets time pass.
    Wait(Time<0>),
    /// Sends an event as it stands here.
    Send(Value),
    /// Sends a text as it stands here.
    Frame(String),
    /// Sends an `error` event.
    Error(Complaint),
    /// Closes the WebSocket.
    Close(Farewell),
    /// Cuts the WebSocket's connection.
    Drop,
    /// Cuts the SIP connection.
    DropLine,
    /// Hangs up with BYE.
    HangUp,
}

/// A response.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// What is said; what it was told to say if neither this nor a call is given.
    pub say: Option<String>,
    /// A function that is called.
    pub call: Option<FunctionCall>,
    /// Time until all of it is made.
    pub takes: Time<0>,
    /// Time until what is said has been played, from its start; by the number of words if not given.
    pub plays: Option<Time<0>>,
    /// How it ends.
    pub status: Ending,
    /// The error code or reason of an ending that is not `completed`.
    pub code: Option<String>,
    /// The caller speaks meanwhile.
    pub interrupted: Option<Interruption>,
    /// The end of the playing is never told.
    pub endless: bool,
}

/// A function call of the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// Its arguments; a string is sent as it is, though it be no JSON.
    #[serde(default)]
    pub arguments: Value,
    /// The id of the call; a new one if not given.
    pub call_id: Option<String>,
}

/// How a response ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Whole.
    #[default]
    Completed,
    /// Cut off (`max_output_tokens`, `content_filter`).
    Incomplete,
    /// The model failed.
    Failed,
}

/// The caller speaks while the model does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interruption {
    /// Time from the beginning of the response.
    pub after: Time<0>,
    /// What the caller says.
    #[serde(default)]
    pub says: String,
}

/// What a caller says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Utterance {
    /// The words.
    pub says: String,
    /// How long they take; by their number if not given.
    pub takes: Option<Time<0>>,
}

/// An event of the client that is waited for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awaited {
    /// Its type.
    pub event: String,
    /// The type of the item that it creates.
    pub item: Option<String>,
    /// How long it is waited for.
    #[serde(default)]
    pub within: Time<5000>,
}

/// An `error` event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complaint {
    /// Its code.
    pub code: String,
    /// Its words.
    #[serde(default)]
    pub message: String,
}

/// A closing handshake.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Farewell {
    /// Its code (RFC 6455 §7.4).
    pub code: u16,
    /// Its reason.
    #[serde(default)]
    pub reason: String,
}

/// A span of time, `DEFAULT` milliseconds if it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const DEFAULT: u64>(pub Duration);

impl<const DEFAULT: u64> Default for Time<DEFAULT> {
    fn default() -> Self {
        Self(Duration::from_millis(DEFAULT))
    }
}

impl<'de, const DEFAULT: u64> Deserialize<'de> for Time<DEFAULT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        rules::time(&text).map(Self).map_err(de::Error::custom)
    }
}

/// Why a script can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file.
    #[error("can't read the script {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says.
    #[error("the script can't be understood: {0}; docs/realtime-double.md says what can be written")]
    Text(String),
}

impl Script {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| ScriptError::Text(error.to_string()))
    }

    /// What happens to a call whose INVITE has these headers.
    pub fn of_call(&self, headers: &[(String, String)]) -> CallScript {
        let has = |(name, value): (&String, &String)| {
            headers.iter().any(|(other, given)| other.eq_ignore_ascii_case(name) && given == value)
        };
        self.calls.iter().find(|call| call.when.iter().all(has)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_whose_headers_an_invite_has_is_what_happens_to_it() {
        let script = Script::parse(
            "calls:\n- when: {X-A: '1'}\n  invite: {refuse: 503}\n- steps: [hang_up, {wait: 2s}]\n",
        )
        .unwrap();
        let of = |headers: &[(&str, &str)]| {
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            script.of_call(&headers)
        };
        assert_eq!(of(&[("x-a", "1")]).invite.refuse, Some(503));
        for other in [&[("X-A", "2")][..], &[]] {
            assert_eq!(of(other).invite.refuse, None);
            assert!(matches!(of(other).steps[..], [Step::HangUp, Step::Wait(_)]));
        }
    }

    #[test]
    fn a_script_that_cannot_be_understood_says_where_and_why() {
        for (text, said) in [
            ("cals: []", "cals"),
            ("calls: [{steps: [{sing: {}}]}]", "sing"),
            ("calls: [{lasts: soon}]", "such as 2s"),
        ] {
            let error = Script::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_empty_script_is_one() {
        assert!(Script::parse(" \n").unwrap().calls.is_empty());
        assert_eq!(Script::parse("{}").unwrap().unknown_after.0, Duration::from_millis(50));
    }
}
