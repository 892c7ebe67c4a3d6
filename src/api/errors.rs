//! From what the API server refuses to an answer in the product's words: which field, and what to write instead.

use kube::core::Status;

use super::store::StoreError;
use crate::http::error::ApiError;
use crate::operator::api::ApiError as CallError;

/// Fields of specs that have other names in the API, longest first; a dot at the end stands for everything below.
const NAMES: [(&str, &str); 6] = [
    ("assistantRef.name", "assistant_id"),
    ("assistantRef", "assistant_id"),
    ("transferTrunkRef.", "transfer_trunk_id"),
    ("transferTrunkRef", "transfer_trunk_id"),
    ("inbound.allowedSources", "inbound_addresses"),
    ("displayName", "name"),
];

/// The answer to an error of a write of `one` (`assistant` …) with this id.
pub fn answer(error: StoreError, one: &str, id: &str) -> ApiError {
    match error {
        StoreError::NotFound => not_found(one, id),
        StoreError::Exists => ApiError::exists(format!(
            "there is a resource with the id '{id}' already; GET it, or take another name"
        )),
        StoreError::Managed(conflict) if conflict.path.is_empty() => {
            let managers = conflict.managers.join(", ");
            ApiError::managed(format!("{one} '{id}' is managed by {managers}; delete it there"))
        }
        StoreError::Managed(conflict) => {
            let (field, managers) = (param(&conflict.path.join(".")), conflict.managers.join(", "));
            let message = format!("{field} of {one} '{id}' is managed by {managers}; change it there");
            ApiError::managed(message).about(field)
        }
        StoreError::Invalid(status) => invalid(&status),
        StoreError::Busy => ApiError::unavailable(format!("{one} '{id}': {error}")),
        StoreError::Call(error) => unavailable(&error),
    }
}

/// 404.
pub fn not_found(one: &str, id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::not_found(format!("no {one} has the id '{id}'"))
}

/// 503, and a log line with what the API server said.
pub fn unavailable(error: &CallError) -> ApiError {
    tracing::warn!("{error}");
    ApiError::unavailable(
        "the cluster's API server did not take this; try again, the log of the API says why",
    )
}

fn invalid(status: &Status) -> ApiError {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    // A rule that a wrong value keeps from being looked at says nothing by itself.
    let cause =
        causes.into_iter().find(|cause| !cause.message.contains("some validation rules were not checked"));
    match cause {
        Some(cause) => {
            let field = cause.field.strip_prefix("spec.").unwrap_or(&cause.field);
            ApiError::invalid(param(field), sentence(&cause.message))
        }
        None => ApiError::unreadable(status.message.clone()),
    }
}

/// A path below the spec in the names of the API: `llmConfig.tools[0].type` → `llm_config.tools[0].type`.
fn param(path: &str) -> String {
    let renamed = NAMES.iter().find_map(|(field, name)| {
        let rest = path.strip_prefix(field)?;
        if field.ends_with('.') { Some((*name).to_owned()) } else { Some(format!("{name}{rest}")) }
    });
    let path =
        renamed.unwrap_or_else(|| if path == "number" { "phone_number".to_owned() } else { path.to_owned() });
    let mut snake = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// What the API server says of a value, without the value: `Invalid value: "x": write …` → `write …`.
fn sentence(message: &str) -> String {
    let Some(rest) = message.strip_prefix("Invalid value: ") else { return message.to_owned() };
    let end = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut escaped = false;
            let close = quoted.char_indices().find(|(_, letter)| {
                let closes = *letter == '"' && !escaped;
                escaped = *letter == '\\' && !escaped;
                closes
            });
            close.map(|(place, _)| place + 2)
        }
        None => rest.find(": "),
    };
    let said = end.and_then(|end| rest.get(end..)).and_then(|rest| rest.strip_prefix(": "));
    said.unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_names_of_the_api() {
        for (path, expected) in [
            ("llmConfig.tools[0].destinations[1].number", "llm_config.tools[0].destinations[1].number"),
            ("number", "phone_number"),
            ("displayName", "name"),
            ("assistantRef.name", "assistant_id"),
            ("transferTrunkRef.namespace", "transfer_trunk_id"),
            ("inbound.allowedSources[3]", "inbound_addresses[3]"),
            ("firstMessage", "first_message"),
        ] {
            assert_eq!(param(path), expected);
        }
    }

    #[test]
    fn what_is_said_of_a_value_is_kept_and_the_value_is_not() {
        for (message, expected) in [
            (r#"Invalid value: "06": write the number in E.164: +, …"#, "write the number in E.164: +, …"),
            (r#"Invalid value: "a\": b": write it so"#, "write it so"),
            (
                "Invalid value: 70000: spec.port in body should be less than",
                "spec.port in body should be less than",
            ),
            ("Required value", "Required value"),
        ] {
            assert_eq!(sentence(message), expected);
        }
    }
}
