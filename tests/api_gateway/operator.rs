//! The operator's part: publishing tables, and hearing what gateway pods acknowledge.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use voicedock::resources::routing_slice::RoutingSliceSpec;
use voicedock::resources::routing_table::{RoutingTableSpec, TableCounts};
use voicedock::resources::{RoutingSlice, RoutingTable};
use voicedock::routing::ack::Acknowledgement;
use voicedock::routing::slice::{self, Slice};
use voicedock::routing::table::{E164, NumberEntry, Table, TrunkEntry};

use crate::support::api_server::{SOON, api_server};

/// Name of the SipGateway.
pub const GATEWAY: &str = "default";
const SECRET: &str = "default-voicedock-credentials";

/// What the operator writes.
pub struct Operator {
    pub client: Client,
    pub namespace: String,
}

impl Operator {
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn publish(&self, generation: i64, table: &Table) {
        let slices = slice::cut(table);
        for slice in &slices {
            self.write_slice(slice).await;
        }
        self.write_head(generation, &slices).await;
    }

    pub async fn write_slice(&self, slice: &Slice) {
        let spec = RoutingSliceSpec {
            gateway: GATEWAY.to_owned(),
            part: slice.part.clone(),
            content: slice.content.clone(),
        };
        self.apply(&RoutingSlice::new(&slice_name(slice), spec)).await;
    }

    pub async fn write_head(&self, generation: i64, slices: &[Slice]) {
        let spec = RoutingTableSpec {
            generation,
            hash: slice::table_hash(slices.iter().map(|slice| &*slice.hash)),
            slices: slices.iter().map(slice_name).collect(),
            amendments: Vec::new(),
            previous_slices: Vec::new(),
            credentials_secret: Some(SECRET.to_owned()),
            counts: TableCounts::default(),
        };
        self.apply(&RoutingTable::new(GATEWAY, spec)).await;
    }

    pub async fn write_credentials(&self, logins: &[(&str, &str)]) {
        let data = logins.iter().map(|(id, password)| {
            let login = json!({ "username": "acme", "password": password });
            ((*id).to_owned(), ByteString(login.to_string().into_bytes()))
        });
        let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data.collect()), ..Secret::default() };
        self.apply(&secret).await;
    }

    pub async fn apply<K>(&self, object: &K)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let parameters = PatchParams::apply("operator").force();
        self.api::<K>().patch(&object.name_any(), &parameters, &Patch::Apply(object)).await.unwrap();
    }

    pub async fn lease(&self, pod: &str) -> Option<Lease> {
        self.api::<Lease>().get_opt(pod).await.unwrap()
    }

    /// Waits until a pod's Lease says this.
    pub async fn hears<T>(&self, pod: &str, what: &str, says: impl Fn(&Acknowledgement) -> Option<T>) -> T {
        eventually(what, async || {
            let lease = self.lease(pod).await?;
            says(&Acknowledgement::parse(lease.annotations()).unwrap())
        })
        .await
    }
}

/// The names of slices end with their hashes.
pub fn slice_name(slice: &Slice) -> String {
    format!("{GATEWAY}-{}-{}", slice.part, slice.hash)
}

/// Polls until there is something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, found).await.unwrap_or_else(|_| panic!("{what} did not come within {SOON:?}"))
}

pub fn number(text: &str) -> E164 {
    text.parse().unwrap()
}

pub fn table_of(numbers: &[&str]) -> Table {
    let entry = |number: &&str| {
        let object = format!("acme/{}", number.trim_start_matches('+'));
        let entry: NumberEntry = serde_json::from_value(json!({ "object": object })).unwrap();
        (number.parse().unwrap(), Arc::new(entry))
    };
    Table { numbers: numbers.iter().map(entry).collect(), ..Table::default() }
}

/// A table with a trunk whose credentials have this version. The trunk's host is the version, too.
pub fn table_with_credential(version: &str) -> Table {
    let trunk: Value = json!({
        "host": version, "transport": "UDP", "credential": version, "numberFormat": "e164",
        "callerIdHeader": "PAI", "allowedNamespaces": ["acme"],
    });
    let trunk: TrunkEntry = serde_json::from_value(trunk).unwrap();
    let trunks = [("acme/pbx".parse().unwrap(), Arc::new(trunk))].into_iter().collect();
    Table { trunks, ..table_of(&["+31201234567"]) }
}

pub async fn cluster(hint: &str) -> (Client, Operator, tempfile::TempDir) {
    let server = api_server().await;
    let namespace = server.namespace(hint).await;
    let operator = Operator { client: server.client.clone(), namespace };
    (server.client, operator, tempfile::tempdir().unwrap())
}
