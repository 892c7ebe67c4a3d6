//! How OpenAI's API serves the agents of this pod. Names, as Prometheus shows them:
//!
//! | name | what |
//! |---|---|
//! | `voicedock_openai_requests_total{request,outcome}` | requests `accept`, `reject`, `hangup`, `socket` (opening one), `socket-again` (after it was lost), by what came of them |
//! | `voicedock_openai_webhooks_total{outcome}` | webhooks about calls: `delivered`, `repeated`, `late`, `foreign`, `not-believed` |
//!
//! The outcome of a request is `done`, the status of a refusal that an operator can do something about, the class of any other
//! (`4xx`, `5xx`), or why there was no answer: `unreachable`, `too-slow`, `unusable` (base URL or key).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::openai::Taken;
use crate::agent::openai::rest::ApiError;
use crate::agent::openai::webhook::NotBelieved;
use crate::metrics::Metrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    request: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    outcome: &'static str,
}

/// Handles to the metrics above.
#[derive(Default)]
pub(super) struct OpenAiMetrics {
    requests: Family<RequestLabels, Counter>,
    webhooks: Family<WebhookLabels, Counter>,
}

impl OpenAiMetrics {
    /// The metrics, registered.
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.register(|registry| {
            let openai = registry.sub_registry_with_prefix("openai");
            openai.register(
                "requests",
                "Requests to OpenAI's API, by what came of them",
                this.requests.clone(),
            );
            openai.register(
                "webhooks",
                "Webhooks of OpenAI about calls, by what became of them",
                this.webhooks.clone(),
            );
        });
        this
    }

    /// A request was answered, or not.
    pub(super) fn request(&self, request: &'static str, error: Option<&ApiError>) {
        let outcome = error.map_or("done", outcome);
        self.requests.get_or_create(&RequestLabels { request, outcome }).inc();
    }

    /// A webhook about a call came in.
    pub(super) fn webhook(&self, taken: Result<Taken, &NotBelieved>) {
        let outcome = match taken {
            Ok(Taken::Delivered) => "delivered",
            Ok(Taken::Repeated) => "repeated",
            Ok(Taken::Late) => "late",
            Ok(Taken::Foreign) => "foreign",
            Err(_) => "not-believed",
        };
        self.webhooks.get_or_create(&WebhookLabels { outcome }).inc();
    }
}

/// One of a few words: what a server answers must not make series without end.
fn outcome(error: &ApiError) -> &'static str {
    match error {
        ApiError::Unusable(_) => "unusable",
        ApiError::Unreachable(_) => "unreachable",
        ApiError::TooSlow(_) => "too-slow",
        ApiError::Refused { status, .. } => match status {
            401 => "401",
            403 => "403",
            404 => "404",
            409 => "409",
            429 => "429",
            400..=499 => "4xx",
            500..=599 => "5xx",
            _ => "other",
        },
    }
}
