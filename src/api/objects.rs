//! The handlers of what is a resource of its own: list, get, create, change, delete. What differs between kinds is in
//! [`Product`] and [`Editable`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::StatusCode;
use kube::ResourceExt;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use super::cache::{Cache, Stored};
use super::errors::{answer, not_found, unavailable};
use super::keys::Key;
use super::router::{BODY_LIMIT, Service};
use super::shapes::assistant::{Assistant as AssistantView, AssistantFields};
use super::shapes::number::{self, Number as NumberView, NumberFields};
use super::shapes::trunk::Trunk as TrunkView;
use super::shapes::{State as Condition, fields, is_name, merge, object, slug, time, typed};
use super::store::{Edit, Kind};
use crate::http::error::ApiError;
use crate::http::page::{self, LARGEST_LIMIT, Page, Pagination};
use crate::resources::{Assistant, PhoneNumber, SipTrunk};
use crate::routing::table::ObjectKey;

/// Letters of a name's random end, as Kubernetes uses them: none that make words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A kind that the API shows.
pub trait Product: Kind {
    /// One of them, as in `{"assistant": …}` and in sentences.
    const ONE: &'static str;
    /// Several, as in `{"assistants": […]}`.
    const MANY: &'static str;
    /// Those that there are.
    fn cache(service: &Service) -> &Cache<Self>;
    /// One as it is shown.
    fn view(stored: &Stored<Self>, service: &Service) -> Value;
}

/// A kind that the API changes.
pub trait Editable: Product {
    /// What can be written, as it is now.
    fn fields(&self) -> Map<String, Value>;
    /// The body as it is meant.
    fn normalised(body: Map<String, Value>) -> Map<String, Value> {
        body
    }
    /// Reads what was written as a part of a spec.
    ///
    /// # Errors
    /// When a field is missing, unknown or wrong.
    fn spec(written: Map<String, Value>) -> Result<Value, ApiError>;
    /// Names for a new one, tried in order.
    fn names(written: &Map<String, Value>) -> Vec<String>;
    /// Whether what is written fits with what else there is.
    fn check(
        _service: &Service,
        _namespace: &str,
        _written: &Map<String, Value>,
        _new: bool,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        async { Ok(()) }
    }
}

/// `GET /<many>?limit&offset`.
pub async fn list<K: Product>(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let Page { limit, offset } = page::of_query(query.as_deref().unwrap_or_default(), LARGEST_LIMIT)?;
    let (found, total) = K::cache(&service).page(&key.object.namespace, limit, offset);
    let views: Vec<Value> = found.iter().map(|stored| K::view(stored, &service)).collect();
    Ok(Json(json!({ (K::MANY): views, "pagination": Pagination { total, limit, offset } })))
}

/// `GET /<many>/{id}`.
pub async fn get<K: Product>(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let id = id_of::<K>(path)?;
    let found = find::<K>(&service, &key.object.namespace, &id).await?;
    let found = found.ok_or_else(|| not_found(K::ONE, &id))?;
    Ok(shown(&found, &service))
}

/// `POST /<many>`.
pub async fn create<K: Editable>(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let namespace = &key.object.namespace;
    let mut written = Map::new();
    merge(&mut written, K::normalised(object(&whole(body)?)?));
    let spec = K::spec(written.clone())?;
    K::check(&service, namespace, &written, true).await?;
    let names = K::names(&written);
    let first = names.first().cloned().unwrap_or_default();
    let made = service.store.create::<K>(namespace, names, &spec).await;
    let made = made.map_err(|error| answer(error, K::ONE, &first))?;
    said(&key, "created", &made);
    let stored = K::cache(&service).put(Stored::new(made));
    Ok((StatusCode::CREATED, shown(&stored, &service)))
}

/// `PATCH /<many>/{id}`.
pub async fn change<K: Editable>(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let id = id_of::<K>(path)?;
    let namespace = &key.object.namespace;
    let patch = K::normalised(object(&whole(body)?)?);
    if find::<K>(&service, namespace, &id).await?.is_none() {
        return Err(not_found(K::ONE, &id));
    }
    K::check(&service, namespace, &patch, false).await?;
    let edit = |found: &K| {
        let before = found.fields();
        let mut after = before.clone();
        merge(&mut after, patch.clone());
        Ok(Edit { before: K::spec(before)?, after: K::spec(after)? })
    };
    let refused = |error| answer(error, K::ONE, &id);
    let changed: K = service.store.change(namespace, &id, edit).await.map_err(|error| match error {
        ChangeError::Edit(error) => error,
        ChangeError::Store(error) => refused(error),
    })?;
    said(&key, "changed", &changed);
    let stored = K::cache(&service).put(Stored::new(changed));
    Ok(shown(&stored, &service))
}

/// `DELETE /<many>/{id}`.
pub async fn delete<K: Product>(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let id = id_of::<K>(path)?;
    remove::<K>(&service, &key, &id).await.map(|_| StatusCode::NO_CONTENT)
}

/// Deletes one and returns what it was.
pub async fn remove<K: Product>(service: &Service, key: &Key, id: &str) -> Result<K, ApiError> {
    let namespace = &key.object.namespace;
    let deleted = service.store.delete::<K>(namespace, id).await;
    let deleted = deleted.map_err(|error| answer(error, K::ONE, id))?;
    said(key, "deleted", &deleted);
    K::cache(service).remove(&ObjectKey::new(namespace, id));
    Ok(deleted)
}

/// Why a change came to nothing.
enum ChangeError {
    Edit(ApiError),
    Store(super::store::StoreError),
}

impl From<super::store::StoreError> for ChangeError {
    fn from(error: super::store::StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ApiError> for ChangeError {
    fn from(error: ApiError) -> Self {
        Self::Edit(error)
    }
}

/// One log line a write: who wrote what, and nothing of its content.
pub fn said<K: Product>(key: &Key, what: &str, object: &K) {
    let name = ObjectKey::new(&key.object.namespace, object.name_any());
    tracing::info!(key = %key.object, "{} {name} {what}", K::kind(&()));
}

/// `{"<one>": …}`.
pub fn shown<K: Product>(stored: &Stored<K>, service: &Service) -> Json<Value> {
    Json(json!({ (K::ONE): K::view(stored, service) }))
}

/// The id of the path; a text that can name no resource is unknown like any other.
pub fn id_of<K: Product>(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    match path {
        Ok(Path(id)) if is_name(&id) => Ok(id),
        Ok(Path(id)) => Err(not_found(K::ONE, &id)),
        Err(_) => Err(not_found(K::ONE, "?")),
    }
}

/// A body within its bounds.
pub fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|_| ApiError::too_large(BODY_LIMIT))
}

/// What is known, or else what the API server knows: another replica may have made it just now.
async fn find<K: Product>(
    service: &Service,
    namespace: &str,
    id: &str,
) -> Result<Option<Arc<Stored<K>>>, ApiError> {
    let cache = K::cache(service);
    if let Some(found) = cache.get(namespace, id) {
        return Ok(Some(found));
    }
    let found = service.store.get::<K>(namespace, id).await.map_err(|error| unavailable(&error))?;
    Ok(found.map(|object| cache.put(Stored::new(object))))
}

/// Names made from a text: as it is, then with random ends.
pub fn names(text: &str, otherwise: &str) -> Vec<String> {
    let slug = slug(text, otherwise);
    let ends = (0..3).map(|_| format!("{slug}-{}", random_end()));
    std::iter::once(slug.clone()).chain(ends.collect::<Vec<_>>()).collect()
}

/// Five random letters.
pub fn random_end() -> String {
    let mut dice = rand::rng();
    (0..5).filter_map(|_| LETTERS.choose(&mut dice)).map(|letter| char::from(*letter)).collect()
}

impl Product for Assistant {
    const ONE: &'static str = "assistant";
    const MANY: &'static str = "assistants";

    fn cache(service: &Service) -> &Cache<Self> {
        &service.assistants
    }

    fn view(stored: &Stored<Self>, _service: &Service) -> Value {
        let AssistantFields { name, first_message, llm_config } = AssistantFields::of(&stored.object.spec);
        let conditions = stored.object.status.as_ref().map(|status| &*status.conditions);
        json!(AssistantView {
            id: stored.object.name_any(),
            name,
            first_message,
            llm_config,
            status: Condition::of(conditions.unwrap_or_default(), stored.object.metadata.generation),
            created_at: time(stored.created),
            updated_at: time(stored.updated),
        })
    }
}

impl Editable for Assistant {
    fn fields(&self) -> Map<String, Value> {
        fields(&AssistantFields::of(&self.spec))
    }

    fn spec(written: Map<String, Value>) -> Result<Value, ApiError> {
        Ok(json!(typed::<AssistantFields>(written)?.into_spec()))
    }

    fn names(written: &Map<String, Value>) -> Vec<String> {
        names(written.get("name").and_then(Value::as_str).unwrap_or_default(), "assistant")
    }
}

impl Product for PhoneNumber {
    const ONE: &'static str = "number";
    const MANY: &'static str = "numbers";

    fn cache(service: &Service) -> &Cache<Self> {
        &service.numbers
    }

    fn view(stored: &Stored<Self>, service: &Service) -> Value {
        let number = &stored.object;
        let NumberFields { phone_number, name, assistant_id, transfer_trunk_id } =
            NumberFields::of(&number.spec);
        let conditions = number.status.as_ref().map(|status| &*status.conditions);
        let status = Condition::of(conditions.unwrap_or_default(), number.metadata.generation);
        // The name of a trunk in another namespace is none of this key's business.
        let namespace = number.namespace().unwrap_or_default();
        let trunk = transfer_trunk_id.as_deref().and_then(|id| service.trunks.get(&namespace, id));
        json!(NumberView {
            id: number.name_any(),
            phone_number,
            name,
            assistant_id,
            transfer_trunk_id,
            transfer_trunk_name: trunk.and_then(|trunk| trunk.object.spec.display_name.clone()),
            is_active: status.ready == Some(true),
            status,
            created_at: time(stored.created),
            updated_at: time(stored.updated),
        })
    }
}

impl Editable for PhoneNumber {
    fn fields(&self) -> Map<String, Value> {
        fields(&NumberFields::of(&self.spec))
    }

    fn normalised(body: Map<String, Value>) -> Map<String, Value> {
        number::normalised(body)
    }

    fn spec(written: Map<String, Value>) -> Result<Value, ApiError> {
        typed::<NumberFields>(written)?.spec()
    }

    /// One name only: a number is there once.
    fn names(written: &Map<String, Value>) -> Vec<String> {
        let number = written.get("phone_number").and_then(Value::as_str).unwrap_or_default();
        vec![format!("num-{}", slug(number, "unknown"))]
    }

    async fn check(
        service: &Service,
        namespace: &str,
        written: &Map<String, Value>,
        new: bool,
    ) -> Result<(), ApiError> {
        let text = |field: &str| written.get(field).and_then(Value::as_str);
        if new
            && let Some(number) = text("phone_number")
            && let Some(there) = service.numbers.find(namespace, |found| found.spec.number == number)
        {
            let id = there.object.name_any();
            return Err(ApiError::exists(format!("{number} is there already, as '{id}'; change that one"))
                .about("phone_number"));
        }
        if let Some(id) = text("assistant_id") {
            there::<Assistant>(service, namespace, id, "assistant_id").await?;
        }
        // Whether there is a trunk in another namespace is told by the number's status, to whoever may use it.
        if let Some(id) = text("transfer_trunk_id").filter(|id| !id.contains('/')) {
            there::<SipTrunk>(service, namespace, id, "transfer_trunk_id").await?;
        }
        Ok(())
    }
}

async fn there<K: Product>(
    service: &Service,
    namespace: &str,
    id: &str,
    param: &str,
) -> Result<(), ApiError> {
    let found = if is_name(id) { find::<K>(service, namespace, id).await? } else { None };
    match found {
        Some(_) => Ok(()),
        None => {
            let id: String = id.chars().take(64).collect();
            Err(ApiError::invalid(param, format!("no {} has the id '{id}'", K::ONE)))
        }
    }
}

impl Product for SipTrunk {
    const ONE: &'static str = "sip_trunk";
    const MANY: &'static str = "sip_trunks";

    fn cache(service: &Service) -> &Cache<Self> {
        &service.trunks
    }

    fn view(stored: &Stored<Self>, service: &Service) -> Value {
        let trunk = &stored.object;
        let namespace = trunk.namespace().unwrap_or_default();
        let login = trunk.spec.credentials_secret_ref.as_ref();
        let login = login.map(|named| ObjectKey::new(namespace, &named.name));
        let conditions = trunk.status.as_ref().map(|status| &*status.conditions);
        json!(TrunkView {
            id: trunk.name_any(),
            name: trunk.spec.display_name.clone(),
            host: trunk.spec.host.clone(),
            port: trunk.spec.port,
            transport: trunk.spec.transport,
            username: login.and_then(|secret| service.secrets.username(&secret)),
            inbound_addresses: trunk
                .spec
                .inbound
                .iter()
                .flat_map(|inbound| inbound.allowed_sources.clone())
                .collect(),
            status: Condition::of(conditions.unwrap_or_default(), trunk.metadata.generation),
            created_at: time(stored.created),
            updated_at: time(stored.updated),
        })
    }
}
