//! HTTP of a pod as a client uses it: `curl` with a bearer key, at one pod or another. Gateways have call control there, the
//! role `api` all of the product's API.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::succeed;
use super::sipp::Sipp;
use super::wait::{SOON, until};

/// A client of one pod.
pub struct Control {
    base: String,
    key: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, or null if it wasn't JSON.
    pub body: Value,
}

impl Control {
    /// For the pod with this address.
    pub fn new(pod: impl Into<IpAddr>, key: &str) -> Self {
        let pod = SocketAddr::new(pod.into(), 8080);
        Self { base: format!("http://{pod}/api/v1"), key: key.to_owned() }
    }

    /// With another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { base: self.base.clone(), key: key.to_owned() }
    }

    /// GET below `/api/v1`.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(path, &[])
    }

    /// POST or PATCH below `/api/v1`.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(path, &["--request", method, "--json", &body.to_string()])
    }

    /// A call by its id.
    pub fn call(&self, id: &str) -> Answer {
        self.get(&format!("/calls/{id}"))
    }

    /// A command to a call.
    pub fn command(&self, id: &str, command: &Value) -> Answer {
        self.ask(&format!("/calls/{id}/control"), &["--json", &command.to_string()])
    }

    /// A command that is carried out once, however often it is sent.
    pub fn command_once(&self, id: &str, command: &Value, key: &str) -> Answer {
        let header = format!("Idempotency-Key: {key}");
        self.ask(&format!("/calls/{id}/control"), &["--json", &command.to_string(), "--header", &header])
    }

    /// Asks for a transfer, which has to be taken.
    pub fn transfer(&self, id: &str, destination: &str) {
        let answer = self.command(id, &json!({ "type": "transfer", "destination": destination }));
        assert_eq!(answer.status, 200, "the transfer of {id} to {destination} is refused: {}", answer.body);
        assert_eq!(answer.body["success"], true, "{}", answer.body);
    }

    fn ask(&self, path: &str, rest: &[&str]) -> Answer {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "10",
            "--write-out",
            "\n%{http_code}",
        ]);
        curl.args(["--header", &format!("Authorization: Bearer {}", self.key)]).args(rest);
        let said = succeed(curl.arg(format!("{}{path}", self.base)));
        let (body, status) = said.rsplit_once('\n').expect("curl writes the status on a line of its own");
        Answer {
            status: status.trim().parse().expect("a status is a number"),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }
}

/// The id of the call that an agent answered, from the header that the gateway gave it.
pub fn voicedock_id(agent: &Sipp) -> String {
    let line = agent.sees(&["answered: ", ", call call_"]);
    voicedock_ids(&line).next().expect("the line names the call")
}

/// The ids of the calls in an agent's log.
pub fn voicedock_ids(log: &str) -> impl Iterator<Item = String> {
    log.split(", call ").skip(1).filter_map(|rest| Some(rest.split_once(',')?.0.to_owned()))
}

/// Waits until a call is as it should be and returns it as the API shows it.
pub fn call_is(control: &Control, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    call_is_within(control, id, what, SOON, wanted)
}

/// As [`call_is`], with a time-out of your own.
pub fn call_is_within(
    control: &Control,
    id: &str,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    until(&format!("call {id} {what}"), limit, || {
        let answer = control.call(id);
        if answer.status == 200 && wanted(&answer.body) {
            Ok(answer.body)
        } else {
            Err(format!("{} {}", answer.status, answer.body))
        }
    })
}
