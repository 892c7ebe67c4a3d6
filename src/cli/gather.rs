//! Manifests → the compiler's objects, with what the API server would say about them on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::operator::secrets;
use crate::resources::{GROUP, SipGateway, VERSION};
use crate::routing::compile::{Kind, ObjectRef, Objects, SecretFacts, secrets_needed};
use crate::routing::table::ObjectKey;

use super::manifests::{Manifest, Manifests, Place};
use super::schema::{Refusal, Schemas};

/// Something about a manifest that somebody should know.
#[derive(Clone, Debug)]
pub struct Remark {
    /// Whether it has to be mended.
    pub is_error: bool,
    /// Where.
    pub place: Place,
    /// Which object, as far as it says.
    pub object: Option<(String, ObjectKey)>,
    /// The field, such as `spec.number`; empty when it is about all of it.
    pub field: String,
    /// Why, as a CamelCase constant.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What the manifests are, as one cluster.
pub struct Gathered<'a> {
    /// For the compiler.
    pub objects: Objects,
    /// What is wrong so far.
    pub remarks: Vec<Remark>,
    manifests: BTreeMap<ObjectRef, &'a Manifest>,
    /// Objects of ours.
    pub count: usize,
}

/// What isn't in the manifests.
#[derive(Debug, clap::Args)]
pub struct Surroundings {
    /// The namespace of objects that name none
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// The gateway of PhoneNumbers that name none [default: the one with the name default]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub default_gateway: Option<ObjectKey>,
}

impl Gathered<'_> {
    /// The place of an object, or of one of its fields (below `spec`).
    pub fn place(&self, object: &ObjectRef, field: &str) -> Option<Place> {
        let manifest = self.manifests.get(object)?;
        let steps = field.split(['.', '[', ']']).filter(|step| !step.is_empty());
        Some(if field.is_empty() {
            manifest.place([])
        } else {
            manifest.place(["spec"].into_iter().chain(steps))
        })
    }
}

/// Takes the manifests for a cluster.
pub fn gather<'a>(manifests: &'a Manifests, schemas: &Schemas, around: &Surroundings) -> Gathered<'a> {
    let mut gathered =
        Gathered { objects: Objects::default(), remarks: Vec::new(), manifests: BTreeMap::new(), count: 0 };
    for (place, message) in &manifests.broken {
        gathered.remark(true, place.clone(), None, "Unreadable", format!("{message}."));
    }
    for manifest in &manifests.read {
        gathered.add(manifest, schemas, around);
    }
    gathered.assume(around);
    gathered
}

impl<'a> Gathered<'a> {
    fn remark(
        &mut self,
        is_error: bool,
        place: Place,
        object: Option<(String, ObjectKey)>,
        reason: &'static str,
        message: String,
    ) {
        self.remarks.push(Remark { is_error, place, object, field: String::new(), reason, message });
    }

    fn add(&mut self, manifest: &'a Manifest, schemas: &Schemas, around: &Surroundings) {
        let root = &manifest.root;
        let (Some(version), Some(kind)) = (root.text("apiVersion"), root.text("kind")) else {
            let message = "This has no apiVersion and kind: it is no Kubernetes object and was passed over.";
            return self.remark(false, manifest.place([]), None, "NotAnObject", message.to_owned());
        };
        let metadata = root.field("metadata").map(|(_, metadata)| metadata);
        let name = metadata.and_then(|metadata| metadata.text("name"));
        let namespace = metadata.and_then(|metadata| metadata.text("namespace")).unwrap_or(&around.namespace);
        match (version, kind) {
            ("v1", "Secret") => return self.add_secret(manifest, namespace),
            ("v1", "Namespace") => return self.add_namespace(manifest, name),
            _ => {}
        }
        let Some(version) = version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/')) else {
            return;
        };
        self.count += 1;
        let key = ObjectKey::new(namespace, name.unwrap_or("(without a name)"));
        let object = Some((kind.to_owned(), key.clone()));
        if version != VERSION {
            let message = format!("{GROUP} has no version {version}; write apiVersion: {GROUP}/{VERSION}.");
            return self.remark(true, manifest.place(["apiVersion"]), object, "UnknownVersion", message);
        }
        if !schemas.has(kind) {
            let kinds: Vec<_> = schemas.kinds().collect();
            let message = format!("{GROUP} has no kind {kind}; it has {}.", kinds.join(", "));
            return self.remark(true, manifest.place(["kind"]), object, "UnknownKind", message);
        }
        if !name.is_some_and(is_name) {
            let message = "metadata.name is needed: lower case letters, digits, - and ., such as office-pbx.";
            return self.remark(
                true,
                manifest.place(["metadata", "name"]),
                object,
                "Invalid",
                message.to_owned(),
            );
        }
        let mut value = root.value();
        value["metadata"]["namespace"] = namespace.into();
        for Refusal { path, message } in schemas.refusals(kind, &value) {
            let place = manifest.place(path.iter().map(String::as_str));
            let field = path.join(".");
            let message = format!("{message}.").replace("..", ".");
            let object = object.clone();
            self.remarks.push(Remark { is_error: true, place, object, field, reason: "Refused", message });
        }
        let objects = &mut self.objects;
        let taken = match kind {
            "Assistant" => insert(&mut objects.assistants, key, value).map(|known| (Kind::Assistant, known)),
            "PhoneNumber" => insert(&mut objects.numbers, key, value).map(|known| (Kind::PhoneNumber, known)),
            "SipGateway" => insert(&mut objects.gateways, key, value).map(|known| (Kind::SipGateway, known)),
            "SipTrunk" => insert(&mut objects.trunks, key, value).map(|known| (Kind::SipTrunk, known)),
            "TransferDestination" => {
                insert(&mut objects.destinations, key, value).map(|known| (Kind::TransferDestination, known))
            }
            _ => {
                let message = format!("{kind}s are written by the operator; remove this one.");
                return self.remark(true, manifest.place(["kind"]), object, "Generated", message);
            }
        };
        // What can't be read into its type was refused by the schema.
        let Some((kind, key)) = taken else { return };
        if let Some(first) = self.manifests.insert(ObjectRef { kind, key: key.clone() }, manifest) {
            let message =
                format!("The same object is already at {}; remove one of the two.", first.place([]));
            self.remark(true, manifest.place([]), object, "Twice", message);
        }
    }

    fn add_secret(&mut self, manifest: &Manifest, namespace: &str) {
        let value = manifest.root.value();
        let is_sealed = value.get("sops").is_some();
        let Ok(mut secret) = serde_json::from_value::<Secret>(value) else {
            let message = "This Secret can't be read; write data in base64, or stringData.".to_owned();
            return self.remark(true, manifest.place([]), None, "Invalid", message);
        };
        let Some(name) = secret.metadata.name.clone() else { return };
        let written = secret.string_data.take().unwrap_or_default();
        let written =
            written.into_iter().map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes())));
        secret.data.get_or_insert_default().extend(written);
        let facts = SecretFacts { is_sealed, ..secrets::facts(secret) };
        self.objects.secrets.insert(ObjectKey::new(namespace, name), facts);
    }

    fn add_namespace(&mut self, manifest: &Manifest, name: Option<&str>) {
        let Some(name) = name else { return };
        let labels = manifest.root.value()["metadata"]["labels"].take();
        let mut labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        self.objects.namespaces.insert(name.to_owned(), labels);
    }

    /// Secrets are seldom among manifests, and the gateway is often the platform's: both are taken to be there.
    fn assume(&mut self, around: &Surroundings) {
        for secret in secrets_needed(&self.objects) {
            self.objects.secrets.entry(secret).or_insert_with(SecretFacts::sealed);
        }
        let gateways = &mut self.objects.gateways;
        let default = around.default_gateway.clone().unwrap_or_else(|| default_gateway(gateways.keys()));
        let is_wanted = self.objects.numbers.values().any(|number| number.spec.gateway_ref.is_none());
        if is_wanted && !gateways.contains_key(&default) {
            let spec = json!({
                "allowedNamespaces": {"from": "All"}, "defaultAgent": {"sip": {"uri": "sip:agent@agent.invalid"}},
            });
            if let Ok(spec) = serde_json::from_value(spec) {
                gateways.insert(default.clone(), Arc::new(SipGateway::new(&default.name, spec)));
            }
        }
        self.objects.default_gateway = Some(default);
    }
}

/// The gateway of PhoneNumbers that name none, as the chart sets the operator up: the one with the name `default`. Its
/// namespace is the operator's, which is not known here.
pub fn default_gateway<'a>(mut gateways: impl Iterator<Item = &'a ObjectKey>) -> ObjectKey {
    let named = gateways.find(|key| key.name == "default").cloned();
    named.unwrap_or_else(|| ObjectKey::new("voicedock-system", "default"))
}

/// Takes an object; `None` when it doesn't fit its type.
fn insert<T: DeserializeOwned>(
    objects: &mut BTreeMap<ObjectKey, Arc<T>>,
    key: ObjectKey,
    value: Value,
) -> Option<ObjectKey> {
    objects.insert(key.clone(), Arc::new(serde_json::from_value(value).ok()?));
    Some(key)
}

/// The name of an object (RFC 1123 subdomain).
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(fits) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
