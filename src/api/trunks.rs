//! Creating and deleting a trunk, which has a Secret beside it.
//!
//! The Secret gets a name that nobody could have guessed and used before, and is owned by the trunk: it goes with it, however
//! that is deleted. No answer and no log line holds a password.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::{Map, Value};

use super::cache::Stored;
use super::errors::{answer, unavailable};
use super::keys::{HOLDS, Key};
use super::objects::{id_of, names, random_end, remove, said, shown, whole};
use super::router::Service;
use super::secrets::TRUNK_LOGIN;
use super::shapes::trunk::{Login, NewTrunk};
use super::shapes::{merge, object, slug, typed};
use crate::http::error::ApiError;
use crate::operator::names::owner_of;
use crate::resources::SipTrunk;
use crate::routing::table::ObjectKey;

/// `POST /sip-trunks`.
pub async fn create(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let namespace = &key.object.namespace;
    let mut written = Map::new();
    merge(&mut written, object(&whole(body)?)?);
    let trunk: NewTrunk = typed(written)?;
    let login = trunk.login()?;
    let secret = login.as_ref().map(|_| format!("{}-login-{}", slug(&trunk.name, "trunk"), random_end()));

    let names = names(&trunk.name, "trunk");
    let first = names.first().cloned().unwrap_or_default();
    let made = service.store.create::<SipTrunk>(namespace, names, &trunk.spec(secret.as_deref())).await;
    let made = made.map_err(|error| answer(error, "sip_trunk", &first))?;
    if let (Some(login), Some(name)) = (login, secret) {
        let name = ObjectKey::new(namespace, name);
        let username = login.username.clone();
        if let Err(error) = service.store.create_secret(login_secret(&made, &name, login)).await {
            // A trunk without its login would be tried without one: better there is none.
            let _ = service.store.delete::<SipTrunk>(namespace, &made.name_any()).await;
            return Err(unavailable(&error));
        }
        service.secrets.put_username(name, username);
    }
    said(&key, "created", &made);
    let stored = service.trunks.put(Stored::new(made));
    Ok((StatusCode::CREATED, shown(&stored, &service)))
}

/// `DELETE /sip-trunks/{id}`.
pub async fn delete(
    State(service): State<Service>,
    Extension(key): Extension<Arc<Key>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let id = id_of::<SipTrunk>(path)?;
    remove::<SipTrunk>(&service, &key, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn login_secret(trunk: &SipTrunk, name: &ObjectKey, login: Login) -> Secret {
    let owner: OwnerReference = owner_of(trunk);
    let labels = BTreeMap::from([
        (HOLDS.to_owned(), TRUNK_LOGIN.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "voicedock".to_owned()),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/basic-auth".to_owned()),
        string_data: Some(BTreeMap::from([
            ("username".to_owned(), login.username),
            ("password".to_owned(), login.password),
        ])),
        ..Secret::default()
    }
}
