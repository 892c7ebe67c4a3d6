//! What a gateway process needs to start by itself: the disk copy of a table, written with the product's own types, and the
//! way to an API server that isn't there. It is then a pod that restarts while no API server can be reached.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use voicedock::gateway::disk::Disk;
use voicedock::gateway::snapshot::{Credential, Parts, Piece};
use voicedock::routing::slice;
use voicedock::routing::table::{CredentialId, Table};

/// A kubeconfig with which nobody is reached.
pub fn nowhere() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{ "name": "nowhere", "cluster": { "server": "http://127.0.0.1:9" } }],
        "users": [{ "name": "nobody", "user": {} }],
        "contexts": [{ "name": "nowhere", "context": { "cluster": "nowhere", "user": "nobody" } }],
    })
}

/// Writes the copy of a table, as JSON, of the gateway `namespace/name` into a directory.
pub fn write(directory: &Path, gateway: &str, table: Value, credentials: BTreeMap<CredentialId, Credential>) {
    let table: Table = serde_json::from_value(table).expect("it is a table");
    let slices = slice::cut(&table);
    let parts = Parts {
        generation: 1,
        hash: slice::table_hash(slices.iter().map(|slice| &*slice.hash)),
        slices: (slices.into_iter())
            .map(|slice| Piece {
                name: format!("default-{}-{}", slice.part, slice.hash),
                hash: slice.hash,
                content: serde_json::value::to_raw_value(&slice.content).expect("it is JSON").into(),
            })
            .collect(),
        credentials,
    };
    Disk::new(directory.to_owned(), gateway).save(&parts).expect("the disk copy can be written");
}
