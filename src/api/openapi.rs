//! The OpenAPI 3.1 document of the API: paths from a table of operations, schemas from the types that bodies are read as and
//! answers are written from.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::scopes::{Access, Scope, Subject};
use super::shapes::assistant::{Assistant, AssistantFields};
use super::shapes::number::{Number, NumberChange, NumberFields};
use super::shapes::trunk::{NewTrunk, Trunk};
use crate::gateway::calls::CallView;
use crate::gateway::trace::TraceView;
use crate::http::command::Shape as Command;
use crate::http::error::ErrorBody;
use crate::http::page::{
    ENDED_WITHIN, LARGEST_LIMIT, LARGEST_OFFSET, LONGEST_ENDED, Pagination, USUAL_LIMIT,
};
use crate::http::traces::{TraceBegun, TraceRequest};
use crate::http::trial::TestRequest;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document as JSON text; made once.
pub fn text() -> &'static str {
    &DOCUMENT
}

/// What a body is, and what an answer is.
type Shape = fn(&mut SchemaGenerator) -> Value;

/// One operation.
struct Operation {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    scope: Option<Scope>,
    body: Option<Shape>,
    success: (u16, Option<Shape>),
    /// Refusals beside those that every operation has.
    refusals: &'static [u16],
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// `{"<name>": …}`.
fn wrapped(name: &str, inner: Value) -> Value {
    json!({ "type": "object", "required": [name], "properties": { name: inner } })
}

/// `{"<name>": […], "pagination": …}`.
fn listed(name: &str, inner: Value, generator: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object", "required": [name, "pagination"],
        "properties": { name: { "type": "array", "items": inner }, "pagination": schema::<Pagination>(generator) },
    })
}

fn assistant(generator: &mut SchemaGenerator) -> Value {
    wrapped("assistant", schema::<Assistant>(generator))
}

fn number(generator: &mut SchemaGenerator) -> Value {
    wrapped("number", schema::<Number>(generator))
}

fn trunk(generator: &mut SchemaGenerator) -> Value {
    wrapped("sip_trunk", schema::<Trunk>(generator))
}

fn assistants(generator: &mut SchemaGenerator) -> Value {
    let one = schema::<Assistant>(generator);
    listed("assistants", one, generator)
}

fn numbers(generator: &mut SchemaGenerator) -> Value {
    let one = schema::<Number>(generator);
    listed("numbers", one, generator)
}

fn trunks(generator: &mut SchemaGenerator) -> Value {
    let one = schema::<Trunk>(generator);
    listed("sip_trunks", one, generator)
}

fn calls(generator: &mut SchemaGenerator) -> Value {
    let one = schema::<CallView>(generator);
    let mut list = listed("calls", one, generator);
    list["properties"]["warnings"] = json!({
        "description": "Gateways and pods whose calls are missing, with the reason.",
        "type": "array", "items": { "type": "string" },
    });
    list
}

fn done(_: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object", "required": ["success", "message"],
        "properties": { "success": { "const": true }, "message": { "type": "string" } },
    })
}

fn health(_: &mut SchemaGenerator) -> Value {
    json!({ "type": "object", "required": ["status"], "properties": { "status": { "const": "ok" } } })
}

#[rustfmt::skip]
fn operations() -> Vec<Operation> {
    use Access::{Read, Write};
    use Subject::{Assistants, Calls, Numbers, SipTrunks, Traces};
    let operation = |path, method, id, summary, scope: Option<Scope>, body, success, refusals| Operation {
        path, method, id, summary, scope, body, success, refusals,
    };
    vec![
        operation("/health", "get", "health", "Whether the API answers", None, None, (200, Some(health as Shape)), &[]),
        operation("/assistants", "get", "listAssistants", "List assistants, newest first", Some(Scope(Assistants, Read)), None, (200, Some(assistants as Shape)), &[400]),
        operation("/assistants", "post", "createAssistant", "Create an assistant", Some(Scope(Assistants, Write)), Some(schema::<AssistantFields> as Shape), (201, Some(assistant as Shape)), &[400, 409, 413]),
        operation("/assistants/{id}", "get", "getAssistant", "Show an assistant", Some(Scope(Assistants, Read)), None, (200, Some(assistant as Shape)), &[404]),
        operation("/assistants/{id}", "patch", "changeAssistant", "Change an assistant: objects are merged, null takes a field away (RFC 7396)", Some(Scope(Assistants, Write)), Some(schema::<AssistantFields> as Shape), (200, Some(assistant as Shape)), &[400, 404, 409, 413]),
        operation("/assistants/{id}", "delete", "deleteAssistant", "Delete an assistant", Some(Scope(Assistants, Write)), None, (204, None), &[404, 409]),
        operation("/numbers", "get", "listNumbers", "List numbers, newest first", Some(Scope(Numbers, Read)), None, (200, Some(numbers as Shape)), &[400]),
        operation("/numbers", "post", "createNumber", "Register a number", Some(Scope(Numbers, Write)), Some(schema::<NumberFields> as Shape), (201, Some(number as Shape)), &[400, 409, 413]),
        operation("/numbers/{id}", "get", "getNumber", "Show a number", Some(Scope(Numbers, Read)), None, (200, Some(number as Shape)), &[404]),
        operation("/numbers/{id}", "patch", "changeNumber", "Change a number: null detaches", Some(Scope(Numbers, Write)), Some(schema::<NumberChange> as Shape), (200, Some(number as Shape)), &[400, 404, 409, 413]),
        operation("/numbers/{id}", "delete", "deleteNumber", "Delete a number", Some(Scope(Numbers, Write)), None, (204, None), &[404, 409]),
        operation("/sip-trunks", "get", "listTrunks", "List SIP trunks, newest first", Some(Scope(SipTrunks, Read)), None, (200, Some(trunks as Shape)), &[400]),
        operation("/sip-trunks", "post", "createTrunk", "Create a SIP trunk", Some(Scope(SipTrunks, Write)), Some(schema::<NewTrunk> as Shape), (201, Some(trunk as Shape)), &[400, 409, 413]),
        operation("/sip-trunks/{id}", "get", "getTrunk", "Show a SIP trunk", Some(Scope(SipTrunks, Read)), None, (200, Some(trunk as Shape)), &[404]),
        operation("/sip-trunks/{id}", "delete", "deleteTrunk", "Delete a SIP trunk and its login", Some(Scope(SipTrunks, Write)), None, (204, None), &[404, 409]),
        operation("/calls", "get", "listCalls", "List calls, newest first; those that are over for an hour", Some(Scope(Calls, Read)), None, (200, Some(calls as Shape)), &[400]),
        operation("/calls/test-destination", "post", "testDestination", "Dial a destination once, as a transfer would, and hang up when it answers; the outcome is in the call's transfers", Some(Scope(Calls, Write)), Some(schema::<TestRequest> as Shape), (202, Some(schema::<CallView> as Shape)), &[400, 404, 413]),
        operation("/calls/{id}", "get", "getCall", "Show a call", Some(Scope(Calls, Read)), None, (200, Some(schema::<CallView> as Shape)), &[404]),
        operation("/calls/{id}/control", "post", "controlCall", "Command a call that is in progress", Some(Scope(Calls, Write)), Some(schema::<Command> as Shape), (200, Some(done as Shape)), &[400, 404, 409, 413, 422]),
        operation("/traces", "post", "beginTrace", "Follow what a call, or the next one to a number, says on the wire, redacted", Some(Scope(Traces, Write)), Some(schema::<TraceRequest> as Shape), (201, Some(schema::<TraceBegun> as Shape)), &[400, 404, 413]),
        operation("/traces/{id}", "get", "getTrace", "Show the messages of a trace; one that is over is kept for two minutes", Some(Scope(Traces, Read)), None, (200, Some(schema::<TraceView> as Shape)), &[400, 404]),
        operation("/traces/{id}", "delete", "stopTrace", "End a trace", Some(Scope(Traces, Write)), None, (204, None), &[404]),
    ]
}

fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let error = schema::<ErrorBody>(&mut generator);
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(&operation, &error, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "VoiceDock", "version": env!("CARGO_PKG_VERSION"),
            "description": "AI assistants on the phone, and transfers to people. What is written becomes a Kubernetes resource in the \
                            namespace of the key; ids are names of resources.",
        },
        "servers": [{ "url": "/api/v1" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn described(operation: &Operation, error: &Value, generator: &mut SchemaGenerator) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    let mut responses = Map::new();
    let (status, shape) = operation.success;
    let mut success = json!({ "description": "Done" });
    if let Some(shape) = shape {
        success["content"] = json_of(shape(generator));
    }
    responses.insert(status.to_string(), success);
    let common: &[u16] = if operation.scope.is_some() { &[401, 403, 429, 503] } else { &[503] };
    for status in operation.refusals.iter().chain(common) {
        let mut refusal = json!({ "description": meaning(*status), "content": json_of(error.clone()) });
        if matches!(status, 429 | 503) {
            refusal["headers"] =
                json!({ "Retry-After": { "description": "Seconds", "schema": { "type": "integer" } } });
        }
        responses.insert(status.to_string(), refusal);
    }
    let mut described = json!({
        "operationId": operation.id, "summary": operation.summary, "responses": responses,
        "parameters": parameters(operation),
    });
    if let Some(scope) = operation.scope {
        described["security"] = json!([{ "key": [] }]);
        described["description"] = json!(format!("Needs the scope {scope}."));
    }
    if let Some(body) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": json_of(body(generator)) });
    }
    described
}

fn parameters(operation: &Operation) -> Value {
    let mut parameters = Vec::new();
    if operation.path.contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 },
        }));
    }
    if operation.id.starts_with("list") {
        parameters.push(json!({
            "name": "limit", "in": "query", "description": "Most entries on the page",
            "schema": { "type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": USUAL_LIMIT },
        }));
        parameters.push(json!({
            "name": "offset", "in": "query", "description": "Entries before the page",
            "schema": { "type": "integer", "minimum": 0, "maximum": LARGEST_OFFSET, "default": 0 },
        }));
    }
    if operation.id == "getTrace" {
        parameters.push(json!({
            "name": "after", "in": "query", "description": "The number of the last message that is known",
            "schema": { "type": "integer", "minimum": 0, "default": 0 },
        }));
    }
    if operation.id == "listCalls" {
        parameters.push(json!({
            "name": ENDED_WITHIN, "in": "query",
            "description": "Calls that have been over for as many seconds or longer are left out; 0 leaves those that are not over",
            "schema": { "type": "integer", "minimum": 0, "maximum": LONGEST_ENDED, "default": LONGEST_ENDED },
        }));
    }
    if operation.id == "controlCall" {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "description": "The same command with the same key is carried out once",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        }));
    }
    Value::Array(parameters)
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "Something in the request is wrong; `param` names it",
        401 => "The key opens nothing",
        403 => "The key may not do this",
        404 => "There is no such thing in the key's namespace",
        409 => "It is there already, or somebody else manages it",
        413 => "The body is too large",
        422 => "The Idempotency-Key was used for another command",
        429 => "Too many requests with this key",
        _ => "Something that is needed can't be had now",
    }
}
