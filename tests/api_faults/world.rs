//! What is in a namespace at one moment, and whether it is as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use voicedock::resources::conditions::{Condition, ConditionStatus, condition};
use voicedock::resources::{RoutingSlice, RoutingTable};
use voicedock::routing::ack::{Acknowledgement, Held};
use voicedock::routing::compile::{Compiled, Kind, ObjectRef, Objects, SecretFacts, compile};
use voicedock::routing::slice::{self, layout};
use voicedock::routing::table::{DestinationTarget, ObjectKey, Table};

use crate::history::Event;
use crate::scenario::Written;
use crate::stage::{CREDENTIALS, GATEWAY};

/// A namespace.
#[derive(Clone, Default)]
pub struct World {
    namespace: String,
    pub head: Option<RoutingTable>,
    pub slices: BTreeMap<String, RoutingSlice>,
    pub secrets: BTreeMap<String, Secret>,
    pods: BTreeMap<String, Pod>,
    leases: BTreeMap<String, Lease>,
    objects: Objects,
    versions: BTreeMap<String, Versions>,
}

/// The version of each object of a kind, and the newest write.
type Versions = (BTreeMap<String, u64>, u64);

/// What the status of an object that people write says.
pub struct Report {
    pub object: ObjectRef,
    pub generation: i64,
    observed: Option<i64>,
    pub conditions: Vec<Condition>,
}

impl Report {
    /// Whether a condition of the present generation holds.
    pub fn says(&self, type_: &str) -> bool {
        let found = self.conditions.iter().find(|condition| condition.type_ == type_);
        found.is_some_and(|found| {
            found.status == ConditionStatus::True && found.observed_generation == self.generation
        })
    }
}

impl World {
    /// A namespace in which there is nothing.
    pub fn of(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::default() }
    }

    /// Takes a write in.
    pub fn take_in(&mut self, event: &Event) {
        let key = ObjectKey::new(&self.namespace, &event.name);
        let (versions, newest) = self.versions.entry(event.kind.clone()).or_default();
        *newest = event.revision;
        if event.deleted {
            versions.remove(&event.name);
        } else {
            versions.insert(event.name.clone(), event.revision);
        }
        let objects = &mut self.objects;
        match event.kind.as_str() {
            "RoutingTable" => self.head = (!event.deleted).then(|| parse(&event.object)),
            "RoutingSlice" => put(&mut self.slices, event.name.clone(), event),
            "Secret" => put(&mut self.secrets, event.name.clone(), event),
            "Pod" => put(&mut self.pods, event.name.clone(), event),
            "Lease" => put(&mut self.leases, event.name.clone(), event),
            "SipGateway" => put_shared(&mut objects.gateways, key, event),
            "SipTrunk" => put_shared(&mut objects.trunks, key, event),
            "TransferDestination" => put_shared(&mut objects.destinations, key, event),
            "Assistant" => put_shared(&mut objects.assistants, key, event),
            "PhoneNumber" => put_shared(&mut objects.numbers, key, event),
            other => panic!("nobody watches {other}"),
        }
    }

    /// The version of each object of a kind, and the newest write.
    pub fn versions(&self, kind: &str) -> Versions {
        self.versions.get(kind).cloned().unwrap_or_default()
    }

    /// Who leads.
    pub fn leader(&self) -> Option<String> {
        self.leases.get("voicedock-operator")?.spec.as_ref()?.holder_identity.clone()
    }

    /// Whether it is known here what people wrote last.
    pub fn shows(&self, written: &Written) -> Result<(), String> {
        let sales = self.objects.destinations.get(&ObjectKey::new(&self.namespace, "sales"));
        let sales = sales.and_then(|object| object.spec.number.as_deref());
        let password =
            self.secrets.get("office-pbx").and_then(|secret| secret.data.as_ref()?.get("password"));
        let numbers = self.objects.numbers.len();
        let all = numbers == 1
            && sales == written.sales
            && password.is_some_and(|password| password.0 == written.password.as_bytes());
        all.then_some(()).ok_or_else(|| format!("of {written:?} there is {sales:?}, {password:?}, {numbers}"))
    }

    /// The published table and its generation, put together as a gateway does; an error names what the head names and isn't
    /// there.
    pub fn published(&self) -> Result<Option<(i64, Table)>, String> {
        let Some(head) = &self.head else { return Ok(None) };
        let generation = head.spec.generation;
        let mut pieces = Vec::new();
        for (name, hash, amendment) in layout::hashes(&head.spec) {
            let slice = self.slices.get(name).ok_or_else(|| {
                format!("the head of generation {generation} names the slice {name}, which isn't there")
            })?;
            let mut content = slice.spec.content.clone();
            if let Some(amendment) = amendment {
                let amended = layout::amend(&content.to_string(), amendment);
                let amended = amended.map_err(|error| format!("generation {generation}, {name}: {error}"))?;
                content = serde_json::from_str(&amended).map_err(|error| error.to_string())?;
            }
            pieces.push((slice.spec.part.as_str(), hash, content));
        }
        let pieces = pieces.iter().map(|(part, hash, content)| (*part, *hash, content));
        let table = slice::join(pieces).map_err(|error| format!("generation {generation}: {error}"))?;
        let keys = self.credentials();
        let named = table.trunks.values().filter_map(|trunk| trunk.credential.as_ref());
        let mut missing = named.filter(|id| !keys.contains(&id.0));
        if let Some(id) = missing.next() {
            return Err(format!(
                "the table of generation {generation} names the credentials {}, which aren't there",
                id.0
            ));
        }
        Ok(Some((generation, table)))
    }

    /// Keys of the credentials Secret.
    fn credentials(&self) -> BTreeSet<String> {
        let data = self.secrets.get(CREDENTIALS).and_then(|secret| secret.data.as_ref());
        data.into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// What pods that are ready say to hold, by pod.
    pub fn held(&self) -> BTreeMap<&String, Option<Held>> {
        let ready = self.pods.iter().filter(|(_, pod)| is_ready(pod));
        ready.map(|(name, pod)| (name, self.said(name, pod).and_then(|said| said.table))).collect()
    }

    fn said(&self, name: &str, pod: &Pod) -> Option<Acknowledgement> {
        let lease = self.leases.get(name)?;
        let holder = lease.spec.as_ref()?.holder_identity.as_ref();
        let said = Acknowledgement::parse(lease.annotations()).expect("what a gateway writes can be read");
        (holder == pod.metadata.uid.as_ref()).then_some(said)
    }

    /// The statuses of everything that people write.
    pub fn reports(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        macro_rules! report {
            ($objects:ident, $kind:ident) => {
                for (key, object) in &self.objects.$objects {
                    let status = object.status.clone().unwrap_or_default();
                    reports.push(Report {
                        object: ObjectRef { kind: Kind::$kind, key: key.clone() },
                        generation: object.metadata.generation.unwrap_or_default(),
                        observed: status.observed_generation,
                        conditions: status.conditions,
                    });
                }
            };
        }
        report!(assistants, Assistant);
        report!(numbers, PhoneNumber);
        report!(gateways, SipGateway);
        report!(trunks, SipTrunk);
        report!(destinations, TransferDestination);
        reports
    }

    /// What everything that people write means: the definition, not what the operator has come to.
    fn compiled(&self) -> Compiled {
        let facts = |secret: &Secret| SecretFacts {
            uid: secret.uid().unwrap_or_default(),
            resource_version: secret.resource_version().unwrap_or_default(),
            keys: secret.data.iter().flat_map(BTreeMap::keys).cloned().collect(),
            certificates: BTreeSet::new(),
            private_keys: BTreeSet::new(),
            is_sealed: false,
        };
        let secrets = self.secrets.iter();
        let labels = [("kubernetes.io/metadata.name".to_owned(), self.namespace.clone())];
        compile(&Objects {
            secrets: secrets
                .map(|(name, secret)| (ObjectKey::new(&self.namespace, name), facts(secret)))
                .collect(),
            namespaces: BTreeMap::from([(self.namespace.clone(), BTreeMap::from(labels))]),
            default_gateway: Some(self.gateway()),
            ..self.objects.clone()
        })
    }

    fn gateway(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, GATEWAY)
    }

    /// Whether a table holds an object as its spec is now.
    pub fn is_in(&self, object: &ObjectRef, table: &Table) -> bool {
        let (key, objects) = (&object.key, &self.objects);
        match object.kind {
            Kind::SipGateway => true,
            Kind::PhoneNumber => table.numbers.values().any(|entry| entry.object == *key),
            Kind::SipTrunk => {
                let (spec, entry) = (&objects.trunks[key].spec, table.trunks.get(key));
                entry.is_some_and(|entry| entry.host == spec.host)
            }
            Kind::TransferDestination => {
                let (spec, entry) = (&objects.destinations[key].spec, table.destinations.get(key));
                entry.is_some_and(|entry| match &entry.target {
                    DestinationTarget::Number(number) => Some(number.as_str()) == spec.number.as_deref(),
                    _ => false,
                })
            }
            Kind::Assistant => table.assistants.contains_key(key),
        }
    }

    /// Whether what is published is what people wrote.
    pub fn is_published(&self) -> Result<(), String> {
        let (published, compiled) = (self.published()?, self.compiled());
        match published {
            Some((_, table)) if table == compiled.tables[&self.gateway()] => Ok(()),
            table => Err(format!("published is {table:?}")),
        }
    }

    /// Whether the last state is published, held by every ready pod, and told by every status.
    pub fn is_converged(&self) -> Result<(), String> {
        let head = self.head.as_ref().ok_or("there is no head")?;
        let generation = head.spec.generation;
        for (pod, held) in self.held() {
            if held.as_ref().map(|held| (held.generation, &held.hash)) != Some((generation, &head.spec.hash))
            {
                return Err(format!("pod {pod} holds {held:?}, the head is {generation} {}", head.spec.hash));
            }
        }
        let status = head.status.clone().unwrap_or_default();
        let told = [status.published_generation, status.acknowledged_generation] == [Some(generation); 2];
        if !told || status.observed_generation != head.metadata.generation || !status.lagging.is_empty() {
            return Err(format!("the head of generation {generation} says {status:?}"));
        }
        let compiled = self.compiled();
        for report in self.reports() {
            let Report { object, generation, observed, conditions } = &report;
            let used = !compiled.verdicts[object].gateways.is_empty();
            let right = *observed == Some(*generation)
                && report.says(condition::READY)
                && report.says(condition::PROGRAMMED) == used;
            if !right {
                return Err(format!(
                    "{object:?} of generation {generation} says {observed:?} {conditions:?}"
                ));
            }
        }
        let gateway = &self.objects.gateways[&self.gateway()];
        let shown = gateway.status.as_ref().and_then(|status| status.table_generation);
        if shown != Some(generation) {
            return Err(format!("the SipGateway shows generation {shown:?} of {generation}"));
        }
        self.is_published()
    }

    /// Whether nothing is left that no gateway can ask for.
    pub fn is_collected(&self) -> Result<(), String> {
        let Some((_, table)) = self.published()? else { return Err("there is no head".to_owned()) };
        let head = self.head.as_ref().map(|head| &head.spec).ok_or("there is no head")?;
        let kept: BTreeSet<_> = head.slices.iter().chain(&head.previous_slices).collect();
        let there: BTreeSet<_> = self.slices.keys().collect();
        let needed = table.trunks.values().filter_map(|trunk| Some(trunk.credential.as_ref()?.0.clone()));
        let needed: BTreeSet<_> = needed.collect();
        let credentials = self.credentials();
        (there == kept && credentials == needed)
            .then_some(())
            .ok_or_else(|| format!("slices {there:?} of {kept:?}; credentials {credentials:?} of {needed:?}"))
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn parse<K: Resource + DeserializeOwned>(object: &DynamicObject) -> K {
    object.clone().try_parse().expect("the API server gives what the types say")
}

fn put<N: Ord, K: Resource + DeserializeOwned>(known: &mut BTreeMap<N, K>, name: N, event: &Event) {
    if event.deleted {
        known.remove(&name);
    } else {
        known.insert(name, parse(&event.object));
    }
}

fn put_shared<K: Resource + DeserializeOwned + Debug>(
    known: &mut BTreeMap<ObjectKey, Arc<K>>,
    key: ObjectKey,
    event: &Event,
) {
    if event.deleted {
        known.remove(&key);
    } else {
        known.insert(key, Arc::new(parse(&event.object)));
    }
}
