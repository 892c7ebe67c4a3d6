//! Who asks a gateway pod, and which calls they see.
//!
//! A key of the SipGateway sees every call of it. With the header [`NAMESPACE`] it sees and commands those of one namespace and
//! no others: so the API role asks, whose keys belong to one namespace each.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};

use crate::gateway::calls::CallView;

/// Narrows what a key sees to the calls of one namespace's PhoneNumbers.
pub const NAMESPACE: HeaderName = HeaderName::from_static("x-voicedock-namespace");

/// Whoever asks, with a key that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The only namespace that it sees; all when `None`.
    namespace: Option<Vec<u8>>,
    /// The name of its key, for the log.
    key: Arc<str>,
}

impl Caller {
    /// Whoever sends these headers. A header that names no namespace narrows to nothing.
    pub fn of(key: Arc<str>, headers: &HeaderMap) -> Self {
        Self { namespace: headers.get(NAMESPACE).map(|value| value.as_bytes().to_vec()), key }
    }

    /// The name of its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The only namespace whose calls are theirs; all when `None`.
    pub fn namespace(&self) -> Option<String> {
        self.namespace.as_ref().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Whether a call is theirs to see and command.
    pub fn sees(&self, call: &CallView) -> bool {
        match &self.namespace {
            None => true,
            Some(namespace) => {
                call.number_id.as_ref().is_some_and(|number| number.namespace.as_bytes() == namespace)
            }
        }
    }
}
