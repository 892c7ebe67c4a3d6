//! `POST /api/v1/calls/test-destination`: a destination is dialled once, as a transfer would dial it, to see whether it answers.
//!
//! ```json
//! {"destination": "sales", "number": "+31201234567"}
//! ```
//!
//! The answer is the call that this is, with `direction: outbound`; its outcome is in `transfers` once it is over.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::access::Caller;
use super::error::ApiError;
use super::{BODY_LIMIT, Http};
use crate::gateway::control::Test;
use crate::routing::table::E164;

/// Where a test is asked for.
pub const PATH: &str = "/api/v1/calls/test-destination";
/// Longest name of a destination, characters.
const LONGEST_NAME: usize = 253;

/// What is asked.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// The name that an assistant lists the destination by, or that of a number's fallback.
    #[schemars(length(min = 1, max = LONGEST_NAME))]
    pub destination: String,
    /// The number whose calls are transferred there, E.164; when left out, the first one that leads there. Its transfer trunk and
    /// its caller id are used.
    #[serde(default)]
    #[schemars(with = "Option<String>", regex(pattern = r"^\+[1-9][0-9]{6,14}$"))]
    pub number: Option<E164>,
}

impl TestRequest {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let request: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let (path, why) = (error.path().to_string(), error.inner().to_string());
            if path == "." { ApiError::unreadable(why) } else { ApiError::invalid(path, why) }
        })?;
        if !(1..=LONGEST_NAME).contains(&request.destination.chars().count()) {
            let message = format!("destination has 1 to {LONGEST_NAME} characters");
            return Err(ApiError::invalid("destination", message));
        }
        Ok(request)
    }
}

/// Dials it from this pod.
pub async fn test_destination(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|_| ApiError::too_large(BODY_LIMIT))?;
    let TestRequest { destination, number } = TestRequest::parse(&body)?;
    let call = http.control.test(Test { destination, number, namespace: caller.namespace() }).await?;
    let view = http.control.get(call).ok_or_else(|| ApiError::no_call(&call.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(view.as_ref())).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_refused_by_the_name_of_its_field() {
        let param = |body: &str| TestRequest::parse(body.as_bytes()).unwrap_err().body.param;
        assert_eq!(param("["), None);
        assert_eq!(param("{}"), None);
        assert_eq!(param(r#"{"destination": ""}"#).as_deref(), Some("destination"));
        assert_eq!(param(r#"{"destination": "a", "number": "0612345678"}"#).as_deref(), Some("number"));
        assert_eq!(param(r#"{"destination": "a", "from": "b"}"#).as_deref(), Some("from"));
        let request = TestRequest::parse(br#"{"destination": "sales", "number": "+31201234567"}"#).unwrap();
        assert_eq!(request.number.unwrap().as_str(), "+31201234567");
    }
}
