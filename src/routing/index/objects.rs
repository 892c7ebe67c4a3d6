//! What the index needs to know of each kind: the parts that have a meaning, and what it refers to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use crate::resources::references::AllowedNamespaces;
use crate::resources::{Assistant, PhoneNumber, SipGateway, SipTrunk, TransferDestination};
use crate::routing::compile::{Kind, Objects, assistants, chains, gateways, grants, numbers, trunks};
use crate::routing::table::ObjectKey;

use super::dependants::Node;

/// The parts of an object that the compiler looks at. Two objects of the same meaning compile to the same.
#[derive(Debug, PartialEq)]
pub struct Meaning<'a, S> {
    /// Verdicts name it.
    generation: Option<i64>,
    /// Decides who keeps a number.
    created: Option<&'a Time>,
    spec: &'a S,
}

/// A kind that people write.
pub trait Indexed: Resource<DynamicType = ()> + Sized {
    /// The kind.
    const KIND: Kind;
    /// Type of the spec.
    type Spec: PartialEq;

    /// The objects of this kind.
    fn of(objects: &Objects) -> &BTreeMap<ObjectKey, Arc<Self>>;
    /// The objects of this kind.
    fn of_mut(objects: &mut Objects) -> &mut BTreeMap<ObjectKey, Arc<Self>>;
    /// The spec.
    fn spec(&self) -> &Self::Spec;
    /// Everything that the object refers to, whether it exists or not, each once.
    fn references(&self, key: &ObjectKey, objects: &Objects) -> Vec<Node>;
    /// Who may refer to it from another namespace.
    fn grant(&self) -> Option<&AllowedNamespaces> {
        None
    }

    /// What the compiler looks at.
    fn meaning(&self) -> Meaning<'_, Self::Spec> {
        let metadata = self.meta();
        Meaning {
            generation: metadata.generation,
            created: metadata.creation_timestamp.as_ref(),
            spec: self.spec(),
        }
    }
}

macro_rules! indexed {
    ($kind:ident, $objects:ident, $spec:path, $references:item $($grant:item)?) => {
        impl Indexed for $kind {
            const KIND: Kind = Kind::$kind;
            type Spec = $spec;
            fn of(objects: &Objects) -> &BTreeMap<ObjectKey, Arc<Self>> {
                &objects.$objects
            }
            fn of_mut(objects: &mut Objects) -> &mut BTreeMap<ObjectKey, Arc<Self>> {
                &mut objects.$objects
            }
            fn spec(&self) -> &Self::Spec {
                &self.spec
            }
            $references
            $($grant)?
        }
    };
}

indexed! {
    SipGateway, gateways, crate::resources::sip_gateway::SipGatewaySpec,
    fn references(&self, key: &ObjectKey, _: &Objects) -> Vec<Node> {
        gateways::secrets(key, &self.spec).into_iter().map(Node::Secret).collect()
    }
    fn grant(&self) -> Option<&AllowedNamespaces> {
        self.spec.allowed_namespaces.as_ref()
    }
}

indexed! {
    SipTrunk, trunks, crate::resources::sip_trunk::SipTrunkSpec,
    fn references(&self, key: &ObjectKey, _: &Objects) -> Vec<Node> {
        trunks::secrets(key, &self.spec).into_iter().map(Node::Secret).collect()
    }
    fn grant(&self) -> Option<&AllowedNamespaces> {
        self.spec.allowed_namespaces.as_ref()
    }
}

indexed! {
    TransferDestination, destinations, crate::resources::transfer_destination::TransferDestinationSpec,
    fn references(&self, key: &ObjectKey, _: &Objects) -> Vec<Node> {
        let trunk = self.spec.trunk_ref.as_ref().map(|named| grants::target(&key.namespace, named));
        let trunk = trunk.map(|trunk| Node::Object(Kind::SipTrunk, trunk));
        let mut then = chains::named(&key.namespace, &self.spec);
        then.sort_unstable();
        then.dedup();
        trunk.into_iter().chain(then.into_iter().map(|key| Node::Object(Kind::TransferDestination, key))).collect()
    }
}

indexed! {
    Assistant, assistants, crate::resources::assistant::AssistantSpec,
    fn references(&self, key: &ObjectKey, _: &Objects) -> Vec<Node> {
        let named = assistants::named(&self.spec).map(|name| ObjectKey::new(&key.namespace, name));
        let mut nodes: Vec<_> = named.map(|key| Node::Object(Kind::TransferDestination, key)).collect();
        nodes.extend(assistants::secrets(key, &self.spec).map(Node::Secret));
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

indexed! {
    PhoneNumber, numbers, crate::resources::phone_number::PhoneNumberSpec,
    fn references(&self, key: &ObjectKey, objects: &Objects) -> Vec<Node> {
        let local = |name: &String| ObjectKey::new(&key.namespace, name);
        let spec = &self.spec;
        let gateway = numbers::named_gateway(objects, key, self);
        let trunk = spec.transfer_trunk_ref.as_ref().map(|named| grants::target(&key.namespace, named));
        let named = [
            (Kind::SipGateway, gateway),
            (Kind::Assistant, spec.assistant_ref.as_ref().map(|named| local(&named.name))),
            (Kind::SipTrunk, trunk),
            (Kind::TransferDestination, spec.fallback_ref.as_ref().map(|named| local(&named.name))),
        ];
        named.into_iter().filter_map(|(kind, key)| Some(Node::Object(kind, key?))).collect()
    }
}
