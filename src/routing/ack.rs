//! What a gateway pod says about the table that it holds: the contract between gateway pods (which write it) and the
//! operator and other gateway pods (which read it).
//!
//! One `coordination.k8s.io` Lease per gateway pod: its name is the pod's name, its owner the pod, its holder the pod's uid;
//! labels are [`labels`], annotations an [`Acknowledgement`]. It is written on change, after the table was swapped
//! and never before: an acknowledged generation is one that calls are routed by. Pure: parse and format only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::table::ObjectKey;

/// Label of everything that belongs to a gateway: the name of its SipGateway, in the same namespace.
pub const GATEWAY_LABEL: &str = "voicedock.dev/gateway";
/// Label `app.kubernetes.io/managed-by` of Leases that gateway pods write.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "voicedock-gateway";

/// Annotation: the table generation that calls are routed by; absent until the first table.
pub const GENERATION: &str = "voicedock.dev/generation";
/// Annotation: the hash of that table.
pub const TABLE_HASH: &str = "voicedock.dev/table-hash";
/// Annotation: a newer head that was refused, as JSON; see [`Rejection`].
pub const REJECTED: &str = "voicedock.dev/rejected";
/// Annotation: `true` while the pod waits for its last calls.
pub const DRAINING: &str = "voicedock.dev/draining";
/// Annotation: calls that the pod holds; written at most every few seconds.
pub const CALLS: &str = "voicedock.dev/calls";
/// Annotation: `ip:port` at which the pod takes HTTP from its peers; an IPv6 address in brackets.
pub const ADDRESS: &str = "voicedock.dev/address";
/// Annotation: the SIP instance id in Contacts of this pod, eight hexadecimal digits.
pub const INSTANCE: &str = "voicedock.dev/instance";
/// Annotation: what the pod found about the trunks that it keeps, as JSON; see [`TrunkReports`].
pub const TRUNKS: &str = "voicedock.dev/trunks";

/// What one gateway pod says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The table that calls are routed by; `None` until the pod holds its first one.
    pub table: Option<Held>,
    /// The newer head that the pod refused, if the last one that it saw was refused.
    pub rejected: Option<Rejection>,
    /// The pod takes no new calls and ends with its last one.
    pub draining: bool,
    /// Calls that the pod holds, as of the last write.
    pub calls: u32,
    /// `ip:port` of the pod's HTTP.
    pub address: String,
    /// The pod's SIP instance id.
    pub instance: u32,
    /// What the pod found about the trunks that it keeps.
    pub trunks: TrunkReports,
}

/// What a pod found about trunks, by their keys.
pub type TrunkReports = BTreeMap<ObjectKey, TrunkReport>;

/// What a pod found about one trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrunkReport {
    /// Whether somebody is there who takes calls.
    pub reachable: bool,
    /// The last answer, or why there is none: a part of a sentence.
    pub said: String,
    /// What was asked, as [`TrunkEntry::address`](super::table::TrunkEntry::address) says: a report about another address
    /// than the trunk has now says nothing.
    pub address: String,
}

/// The table that a gateway routes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// `RoutingTable.spec.generation`.
    pub generation: i64,
    /// `RoutingTable.spec.hash`.
    pub hash: String,
}

/// A head that a gateway refused; it goes on with the table that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The generation that was refused.
    pub generation: i64,
    /// Why, as a sentence; nothing secret in it.
    pub reason: String,
}

/// Why annotations are not an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {annotation} is '{value}', which is not {expected}; is the gateway newer than the operator?"
)]
pub struct AckError {
    /// Which annotation.
    pub annotation: &'static str,
    /// What it says.
    pub value: String,
    /// What it should be.
    pub expected: &'static str,
}

/// Labels of the Lease of a pod of `gateway`.
pub fn labels(gateway: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (GATEWAY_LABEL.to_owned(), gateway.to_owned()),
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
    ])
}

/// Label selector for the Leases of the pods of `gateway`.
pub fn selector(gateway: &str) -> String {
    format!("{GATEWAY_LABEL}={gateway},{MANAGED_BY_LABEL}={MANAGED_BY}")
}

impl Acknowledgement {
    /// As annotations. What does not hold is absent: whoever writes them replaces all annotations with this prefix.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([
            (CALLS.to_owned(), self.calls.to_string()),
            (ADDRESS.to_owned(), self.address.clone()),
            (INSTANCE.to_owned(), format!("{:08x}", self.instance)),
        ]);
        if let Some(held) = &self.table {
            annotations.insert(GENERATION.to_owned(), held.generation.to_string());
            annotations.insert(TABLE_HASH.to_owned(), held.hash.clone());
        }
        if let Some(rejection) = &self.rejected {
            let json = serde_json::json!({ "generation": rejection.generation, "reason": rejection.reason });
            annotations.insert(REJECTED.to_owned(), json.to_string());
        }
        if !self.trunks.is_empty() {
            annotations.insert(TRUNKS.to_owned(), serde_json::json!(self.trunks).to_string());
        }
        if self.draining {
            annotations.insert(DRAINING.to_owned(), "true".to_owned());
        }
        annotations
    }

    /// From the annotations of a Lease; absent ones take the default, unreadable ones are an error.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, AckError> {
        let number = |annotation, expected| {
            read(annotations, annotation, expected, |text| text.parse::<i64>().ok().filter(|n| *n >= 0))
        };
        let table = number(GENERATION, "a table generation")?.map(|generation| Held {
            generation,
            hash: annotations.get(TABLE_HASH).cloned().unwrap_or_default(),
        });
        Ok(Self {
            table,
            rejected: read(annotations, REJECTED, "JSON with generation and reason", |text| {
                serde_json::from_str(text).ok()
            })?,
            draining: annotations.get(DRAINING).is_some_and(|value| value == "true"),
            calls: read(annotations, CALLS, "a number of calls", |text| text.parse().ok())?
                .unwrap_or_default(),
            address: annotations.get(ADDRESS).cloned().unwrap_or_default(),
            instance: read(annotations, INSTANCE, "up to eight hexadecimal digits", |text| {
                u32::from_str_radix(text, 16).ok()
            })?
            .unwrap_or_default(),
            trunks: read(annotations, TRUNKS, "JSON with what was found about each trunk", |text| {
                serde_json::from_str(text).ok()
            })?
            .unwrap_or_default(),
        })
    }
}

fn read<T>(
    annotations: &BTreeMap<String, String>,
    annotation: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, AckError> {
    let Some(value) = annotations.get(annotation) else { return Ok(None) };
    match parse(value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(AckError { annotation, value: value.chars().take(64).collect(), expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_writes_the_operator_reads() {
        let said = Acknowledgement {
            table: Some(Held { generation: 7, hash: "ab12".to_owned() }),
            rejected: Some(Rejection { generation: 8, reason: "slice \"x\" is missing".to_owned() }),
            draining: true,
            calls: 3,
            address: "10.0.0.7:8080".to_owned(),
            instance: 0xc0ffee,
            trunks: BTreeMap::from([(
                ObjectKey::new("acme", "pbx"),
                TrunkReport { reachable: true, said: "200 OK".to_owned(), address: "UDP pbx".to_owned() },
            )]),
        };
        assert_eq!(Acknowledgement::parse(&said.annotations()), Ok(said));
    }

    #[test]
    fn a_pod_without_a_table_acknowledges_nothing() {
        let said = Acknowledgement { address: "10.0.0.7:8080".to_owned(), ..Acknowledgement::default() };
        let annotations = said.annotations();
        assert!(!annotations.contains_key(GENERATION));
        assert!(!annotations.contains_key(DRAINING));
        assert_eq!(Acknowledgement::parse(&annotations), Ok(said));
    }

    #[test]
    fn an_unreadable_annotation_is_named() {
        let annotations = BTreeMap::from([(GENERATION.to_owned(), "seven".to_owned())]);
        let error = Acknowledgement::parse(&annotations).unwrap_err();
        assert_eq!(error.annotation, GENERATION);
        assert!(error.to_string().contains("'seven'"), "{error}");
    }
}
