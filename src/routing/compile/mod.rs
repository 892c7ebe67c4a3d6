//! Objects → one table per gateway plus a verdict for each object.
//!
//! A pure function: the same objects in any order give the same bytes. One broken destination never takes its assistant
//! down: it is left out of the table and named in the verdict.
//!
//! [`compile`] takes all objects at once: it is the definition of what they mean, and what tests read. The operator runs
//! [`super::index`], which shares every rule below (each checks one object) and does again only what a change concerns; a
//! property test holds the two equal, byte for byte.

pub(super) mod agents;
pub(super) mod assistants;
pub(super) mod chains;
pub(super) mod destinations;
mod fields;
pub(super) mod gateways;
pub(super) mod grants;
pub(super) mod numbers;
pub(super) mod openai;
mod secrets;
pub(super) mod tables;
pub(super) mod trunks;
pub(super) mod verdict;
pub(super) mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resources::conditions::ConditionStatus;
use crate::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination};

use super::table::{CredentialId, ObjectKey, Table};

pub use secrets::credential_id;

/// Everything that the compiler looks at.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Assistants by key.
    pub assistants: BTreeMap<ObjectKey, Arc<Assistant>>,
    /// PhoneNumbers by key.
    pub numbers: BTreeMap<ObjectKey, Arc<PhoneNumber>>,
    /// SipTrunks by key.
    pub trunks: BTreeMap<ObjectKey, Arc<SipTrunk>>,
    /// TransferDestinations by key.
    pub destinations: BTreeMap<ObjectKey, Arc<TransferDestination>>,
    /// SipGateways by key.
    pub gateways: BTreeMap<ObjectKey, Arc<SipGateway>>,
    /// Secrets that [`secrets_needed`] names and that exist.
    pub secrets: BTreeMap<ObjectKey, SecretFacts>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The gateway of PhoneNumbers that name none.
    pub default_gateway: Option<ObjectKey>,
}

/// What the compiler may know of a Secret: never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: a new one is a new version of the credentials.
    pub resource_version: String,
    /// The keys that hold one line of text that is not empty.
    pub keys: BTreeSet<String>,
    /// The keys that hold certificates (PEM).
    pub certificates: BTreeSet<String>,
    /// The keys that hold a private key (PEM).
    pub private_keys: BTreeSet<String>,
    /// Nobody could look into it (it is encrypted, or not there yet): it is taken to hold what is needed. Never in a cluster.
    pub is_sealed: bool,
}

impl SecretFacts {
    /// A Secret that nobody could look into.
    pub fn sealed() -> Self {
        let [keys, certificates, private_keys] = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
        let [uid, resource_version] = [String::new(), String::new()];
        Self { uid, resource_version, keys, certificates, private_keys, is_sealed: true }
    }

    /// Whether it holds a value under that key.
    fn has_value(&self, key: &str) -> bool {
        self.is_sealed || self.keys.contains(key)
    }

    /// Whether it holds certificates under that key.
    fn has_certificates(&self, key: &str) -> bool {
        self.is_sealed || self.certificates.contains(key)
    }

    /// Whether it holds a private key under that key.
    fn has_private_key(&self, key: &str) -> bool {
        self.is_sealed || self.private_keys.contains(key)
    }
}

/// What the objects mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// One table per accepted SipGateway (empty when no number attaches).
    pub tables: BTreeMap<ObjectKey, Table>,
    /// Which Secret, and which of its keys, each credential of a table stands for.
    pub credentials: BTreeMap<ObjectKey, BTreeMap<CredentialId, CredentialSource>>,
    /// One verdict for each object.
    pub verdicts: BTreeMap<ObjectRef, Verdict>,
}

/// Where the values of a credential are, and which of them it is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource {
    /// The Secret.
    pub secret: ObjectKey,
    /// What is read.
    pub keys: CredentialKeys,
}

/// What is read from a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKeys {
    /// User name and password for digest authentication.
    Login {
        /// Key of the user name.
        username: String,
        /// Key of the password.
        password: String,
    },
    /// `tls.crt` and `tls.key`: a certificate with its key, as `kubernetes.io/tls` has them.
    Certificate,
    /// `ca.crt`: authorities.
    Authorities,
    /// A secret that requests are signed with.
    Signing {
        /// Its key.
        key: String,
    },
}

/// Key of a certificate in a `kubernetes.io/tls` Secret.
pub const CERTIFICATE_KEY: &str = "tls.crt";
/// Key of its private key.
pub const PRIVATE_KEY_KEY: &str = "tls.key";
/// Key of authorities, as cert-manager writes them.
pub const AUTHORITIES_KEY: &str = "ca.crt";

/// How the message of `Accepted` begins when it holds; a remark may follow.
pub const SPEC_ACCEPTED: &str = "The spec is accepted.";

/// Kind and key of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Kind.
    pub kind: Kind,
    /// `namespace/name`.
    pub key: ObjectKey,
}

/// The kinds that people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Assistant,
    PhoneNumber,
    SipGateway,
    SipTrunk,
    TransferDestination,
}

/// What the compiler found about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `metadata.generation` that was looked at.
    pub generation: i64,
    /// Condition `Accepted`.
    pub accepted: Finding,
    /// Condition `ResolvedRefs`.
    pub resolved_refs: Finding,
    /// Gateways whose tables hold the object; empty: `Programmed` is `False`, reason `NotUsed` when the object is sound.
    pub gateways: BTreeSet<ObjectKey>,
    /// Values for `status.effective` and the counters beside it.
    pub effective: Effective,
}

/// One condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// A constant of `resources::conditions::reason`.
    pub reason: &'static str,
    /// A sentence that names the object and the remedy.
    pub message: String,
}

impl Finding {
    /// A condition that doesn't hold, or not yet.
    pub fn not_yet(reason: &'static str, message: String) -> Self {
        Self { status: ConditionStatus::False, reason, message }
    }
}

/// Decided values, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Effective {
    Assistant {
        agent: Option<&'static str>,
        model: Option<String>,
        destinations: i64,
        numbers: i64,
    },
    PhoneNumber {
        gateway: Option<ObjectKey>,
    },
    SipGateway,
    SipTrunk {
        transport: crate::resources::sip_trunk::Transport,
        port: Option<i32>,
    },
    TransferDestination {
        target: String,
        method: crate::resources::transfer_destination::TransferMethod,
        ring_timeout_seconds: i32,
    },
}

/// The Secrets that objects name for credentials, certificates, API keys and signatures: the operator reads these and no others.
pub fn secrets_needed(objects: &Objects) -> BTreeSet<ObjectKey> {
    let trunks = objects.trunks.iter().flat_map(|(key, trunk)| trunks::secrets(key, &trunk.spec));
    let gateways = objects.gateways.iter().flat_map(|(key, gateway)| gateways::secrets(key, &gateway.spec));
    let assistants = objects.assistants.iter().flat_map(|(key, it)| assistants::secrets(key, &it.spec));
    trunks.chain(gateways).chain(assistants).collect()
}

/// Compiles everything.
///
/// Kinds are checked in the order in which they refer to each other, each object once, into values that can't be wrong;
/// the tables are then built from those without a possible error.
pub fn compile(objects: &Objects) -> Compiled {
    let gateways = gateways::check(objects);
    let trunks = trunks::check(objects);
    let destinations = destinations::check(objects, &trunks);
    let mut assistants = assistants::check(objects, &destinations);
    let targets = numbers::Targets {
        gateways: &gateways,
        assistants: &assistants,
        destinations: &destinations,
        trunks: &trunks,
    };
    let numbers = numbers::check(objects, &targets);
    let answering = numbers::answering_gateways(objects);
    let mut remarks = BTreeMap::new();
    for (key, assistant) in &mut assistants {
        let attached = answering.get(key).into_iter().flatten();
        remarks.insert(key.clone(), verdicts::Remarks::of(&gateways, assistant, attached.clone()));
        let problems = numbers::without_agent_on(&gateways, key, Some(&*assistant), attached);
        assistant.resolved.extend(problems);
    }
    let parts = tables::Parts {
        objects,
        gateways: &gateways,
        trunks: &trunks,
        destinations: &destinations,
        assistants: &assistants,
        numbers: &numbers,
    };
    let built = tables::build(&parts);
    let verdicts = verdicts::build(&parts, &built, &remarks);
    let mut compiled = Compiled { verdicts, ..Compiled::default() };
    for (gateway, (table, credentials)) in built {
        compiled.credentials.insert(gateway.clone(), credentials);
        compiled.tables.insert(gateway, table);
    }
    compiled
}

#[cfg(test)]
pub(super) mod tests;
