//! Errors of the API: `{"error", "message", "param"?, "type"?}`, the product's shape.
//!
//! `error` is a fixed word for programs, `message` a sentence for people that says what to do, `param` the field that is
//! wrong, `type` the type of the command that was refused.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::call::Untold;
use crate::gateway::control::ControlError;
use crate::routing::decide::TestRefusal;

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: ErrorBody,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// A fixed word.
    pub error: &'static str,
    /// A sentence.
    pub message: String,
    /// The field or parameter that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// The type of the command.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self {
            status,
            body: ErrorBody { error, message: message.into(), param: None, command: None },
            retry_after,
        }
    }

    /// 400 that names the field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message).about(param)
    }

    /// 400 for something that the product has and this version doesn't.
    pub fn not_supported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not_supported", message).about(param)
    }

    /// 400 for a body that can't be read at all.
    pub fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 401, the same whatever is wrong with the key; `whence` says where keys come from.
    pub fn unauthorized(whence: &str) -> Self {
        let message = format!("send 'Authorization: Bearer <key>' with a key {whence}");
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 401 for a webhook that isn't believed.
    pub fn not_believed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404 for a call.
    pub fn no_call(id: &str) -> Self {
        let id: String = id.chars().take(64).collect();
        Self::not_found(format!("no call has the id '{id}'; GET /api/v1/calls lists those that there are"))
    }

    /// 403: the key may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "insufficient_scope", message)
    }

    /// 409: what is to be made is there already.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "already_exists", message)
    }

    /// 409: somebody else manages it.
    pub fn managed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "managed_elsewhere", message)
    }

    /// 429.
    pub fn rate_limited(wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        let message = format!("too many requests with this key; try again in {seconds} s");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        Self { retry_after: Some(seconds), ..error }
    }

    /// 405; `methods` says what the path takes.
    pub fn wrong_method(methods: &str) -> Self {
        let message = format!("this path doesn't take this method; {methods}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// 503: this pod gave up.
    pub fn too_slow(limit: Duration) -> Self {
        let message = format!("the request took longer than {} s", limit.as_secs());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 503: another pod is needed and can't be had.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Names the field that is wrong.
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    /// Names the command that was refused.
    pub fn of_command(mut self, command: impl Into<String>) -> Self {
        self.body.command = Some(command.into());
        self
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        match error {
            ControlError::UnknownCall(_) => Self::not_found(message),
            ControlError::NotActive(_) | ControlError::Ending | ControlError::CallOver => {
                Self::new(StatusCode::BAD_REQUEST, "call_not_active", message)
            }
            ControlError::Untold(Untold::Human | Untold::Gone) => {
                Self::new(StatusCode::BAD_REQUEST, "no_agent", message)
            }
            ControlError::Untold(Untold::NoHook(_)) => Self::not_supported("type", message),
            ControlError::Untold(Untold::Busy(_)) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
            }
            ControlError::TransferUnderWay => {
                Self::new(StatusCode::BAD_REQUEST, "transfer_under_way", message)
            }
            ControlError::Refused(_) => {
                Self::new(StatusCode::BAD_REQUEST, "transfer_refused", message).about("destination")
            }
            ControlError::Untestable(TestRefusal::NoCalls(_)) => {
                Self::new(StatusCode::BAD_REQUEST, "transfer_refused", message).about("number")
            }
            ControlError::Untestable(TestRefusal::UnknownNumber(_)) => {
                Self::not_found(message).about("number")
            }
            ControlError::Untestable(TestRefusal::UnknownDestination(_)) => {
                Self::not_found(message).about("destination")
            }
            ControlError::Full | ControlError::TooManyTests(_) | ControlError::TooManyTraces(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
            }
            ControlError::Overloaded => Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message),
            ControlError::NoReply | ControlError::ShuttingDown => Self::unavailable(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut answer = (self.status, Json(self.body)).into_response();
        let headers = answer.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}
