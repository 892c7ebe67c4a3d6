//! The CustomResourceDefinitions, generated from the types: `voicedock crds`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Schema of an object that Kubernetes itself defines and validates where it is used.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Schema of a list of such objects, bounded.
pub fn any_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 64,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// Every CustomResourceDefinition, with the parts that the derive can't say.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        super::Assistant::crd(),
        super::PhoneNumber::crd(),
        super::RoutingSlice::crd(),
        super::RoutingTable::crd(),
        super::SipGateway::crd(),
        super::SipTrunk::crd(),
        super::TransferDestination::crd(),
    ]
}
