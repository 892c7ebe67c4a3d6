//! What `voicedock status` found, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::cli::table::Table;
use crate::resources::conditions::ConditionStatus;
use crate::routing::table::ObjectKey;

use super::judge::Judged;

/// What was found; the names of its fields are part of the interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether all is as it should be.
    pub fine: bool,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Their pods.
    pub pods: Vec<GatewayPod>,
    /// The trunks.
    pub trunks: Vec<Trunk>,
    /// How many of the other kinds are Ready.
    pub objects: Vec<Counted>,
    /// What isn't as it should be.
    pub problems: Vec<Problem>,
    /// What could not be found out, as sentences.
    pub unknown: Vec<String>,
    /// Where it was looked.
    #[serde(skip)]
    pub place: String,
}

/// A SipGateway.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Which.
    pub gateway: ObjectKey,
    /// Its condition Ready.
    pub ready: bool,
    /// Pods that take new calls.
    pub pods_ready: Option<i64>,
    /// Pods that there should be.
    pub pods_wanted: Option<i32>,
    /// Generation of the table that every ready pod holds.
    pub table_held: Option<i64>,
    /// Generation that was published.
    pub table_wanted: Option<i64>,
    /// Calls now, a few seconds old at the most.
    pub calls: Option<i64>,
    /// Pods that wait for their last calls.
    pub draining: Draining,
    /// Where it is reached from outside.
    pub addresses: Vec<String>,
}

/// Pods that take no new calls.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Draining {
    /// How many.
    pub pods: usize,
    /// The calls that they still have.
    pub calls: u64,
}

/// A pod of a gateway.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPod {
    /// Which.
    pub pod: ObjectKey,
    /// Its SipGateway.
    pub gateway: ObjectKey,
    /// Generation of the table that its calls are routed by.
    pub table_held: Option<i64>,
    /// Calls now, a few seconds old at the most.
    pub calls: u32,
    /// Whether it waits for its last calls.
    pub draining: bool,
}

/// A SipTrunk.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trunk {
    /// Which.
    pub trunk: ObjectKey,
    /// Its condition Ready.
    pub ready: bool,
    /// Its condition Reachable; absent when nobody asks it.
    pub reachable: Option<ConditionStatus>,
    /// Calls that came in over it and are not over; absent when they are not known.
    pub calls_in: Option<usize>,
    /// Calls that a human has over it.
    pub calls_out: Option<usize>,
    /// Its last answer, as the operator tells it.
    pub said: Option<String>,
}

/// How many objects of a kind are Ready.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// The kind, in the plural.
    pub kind: &'static str,
    /// Of these.
    pub all: usize,
    /// So many.
    pub ready: usize,
}

/// Something that isn't as it should be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The object's kind.
    pub kind: &'static str,
    /// Which.
    pub object: ObjectKey,
    /// A CamelCase constant.
    pub reason: String,
    /// A sentence with the remedy.
    pub message: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

impl Counted {
    /// Counts.
    pub fn of(kind: &'static str, judged: impl Iterator<Item = Judged>) -> Self {
        let (mut all, mut ready) = (0, 0);
        for judged in judged {
            all += 1;
            ready += usize::from(judged.ready);
        }
        Self { kind, all, ready }
    }
}

fn shown<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

fn yes(ready: bool) -> String {
    if ready { "True".to_owned() } else { "False".to_owned() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gateways.is_empty() {
            writeln!(
                f,
                "No SipGateway is in {} or answers numbers there; nobody answers calls.\n",
                self.place
            )?;
        } else {
            let mut table = Table::new(["GATEWAY", "READY", "PODS", "TABLE", "CALLS", "DRAINING"]);
            for gateway in &self.gateways {
                let Draining { pods, calls } = gateway.draining;
                table.push([
                    gateway.gateway.to_string(),
                    yes(gateway.ready),
                    format!("{}/{}", shown(gateway.pods_ready), shown(gateway.pods_wanted)),
                    format!("{}/{}", shown(gateway.table_held), shown(gateway.table_wanted)),
                    shown(gateway.calls),
                    if pods > 0 { format!("{pods} with {calls} calls") } else { String::new() },
                ]);
            }
            writeln!(f, "{table}")?;
        }
        if !self.pods.is_empty() {
            let mut table = Table::new(["POD", "GATEWAY", "TABLE", "CALLS", "STATE"]);
            for pod in &self.pods {
                let state = if pod.draining { "drains" } else { "takes calls" };
                table.push([
                    pod.pod.to_string(),
                    pod.gateway.name.clone(),
                    shown(pod.table_held),
                    pod.calls.to_string(),
                    if pod.table_held.is_some() { state.to_owned() } else { "waits for a table".to_owned() },
                ]);
            }
            writeln!(f, "{table}")?;
        }
        if !self.trunks.is_empty() {
            let mut table = Table::new(["TRUNK", "READY", "REACHABLE", "IN", "OUT", "LAST ANSWER"]);
            for trunk in &self.trunks {
                table.push([
                    trunk.trunk.to_string(),
                    yes(trunk.ready),
                    trunk.reachable.map(|status| format!("{status:?}")).unwrap_or_default(),
                    shown(trunk.calls_in),
                    shown(trunk.calls_out),
                    trunk
                        .said
                        .clone()
                        .unwrap_or_else(|| "Nobody asks it: it has no probe and no registration.".to_owned()),
                ]);
            }
            writeln!(f, "{table}")?;
        }
        let counted: Vec<_> =
            self.objects.iter().map(|of| format!("{}/{} {}", of.ready, of.all, of.kind)).collect();
        writeln!(f, "Ready: {}.", counted.join(", "))?;
        if !self.problems.is_empty() {
            writeln!(f, "\nNot as it should be:")?;
        }
        for Problem { kind, object, reason, message, since } in &self.problems {
            let since = since.as_ref().map(|since| format!(", since {since}")).unwrap_or_default();
            writeln!(f, "  {kind} {object} ({reason}{since}): {message}")?;
        }
        if !self.unknown.is_empty() {
            writeln!(f, "\nNot known:")?;
        }
        self.unknown.iter().try_for_each(|unknown| writeln!(f, "  {unknown}"))
    }
}
