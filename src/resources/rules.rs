//! The rules that several fields share, as CEL for the API server: each refuses at `kubectl apply` with a sentence that
//! says what to write instead (the API server puts the field's path before it).
//!
//! Every rule has an example that it takes and one that it refuses in `tests/resources/`. Strings that a rule reads have a
//! `maxLength` well above what the rule allows, so that a long mistake gets the rule's sentence, and far below what would
//! exceed the API server's cost budget.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest string that a rule of this file is asked to read where the field itself allows less.
pub const MAX_READ: usize = 256;

/// A port in a SIP URI.
const PORT: &str = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})";
/// A host in a SIP URI; IPv6 in brackets.
const URI_HOST: &str = r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?)";

/// A string literal of CEL that holds `text` letter by letter.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// `subject` matches `pattern` (RE2).
fn matches(subject: &str, pattern: &str) -> String {
    format!("{subject}.matches({})", literal(pattern))
}

/// `subject` is a host name or an address that can be dialled. A name whose last label is all digits is none (RFC 1123
/// §2.1), so that a mistyped address isn't looked up.
fn is_host(subject: &str) -> String {
    let name = matches(
        subject,
        r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$",
    );
    let digits = matches(subject, r"(^|\.)[0-9]+\.?$");
    format!("isIP({subject}) ? !ip({subject}).isUnspecified() : ({name} && !{digits})")
}

/// `subject` is a SIP URI without a password and without headers.
fn is_sip_uri(subject: &str) -> String {
    let user = r"([a-zA-Z0-9_.!~*'()&=+$,;?/%-]+@)?";
    let parameters = r"(;[a-zA-Z0-9_.!~*'()%+$&/:\[\]-]+(=[a-zA-Z0-9_.!~*'()%+$&/:\[\]-]+)?)*";
    matches(subject, &format!("^sips?:{user}{URI_HOST}(:{PORT})?{parameters}$"))
}

/// A phone number in E.164.
pub fn e164() -> Rule {
    Rule::new(matches("self", r"^\+[1-9][0-9]{6,14}$"))
        .message("write the number in E.164: +, the country code and the number, 7 to 15 digits and nothing else, such as +31201234567")
}

/// A list of beginnings of E.164 numbers.
pub fn e164_prefixes() -> Rule {
    Rule::new(format!("self.all(prefix, {})", matches("prefix", r"^\+[1-9][0-9]{0,14}$")))
        .message("write each prefix as + and the first digits of an E.164 number, such as +31")
}

/// A host name or an IP address.
pub fn host() -> Rule {
    Rule::new(is_host("self")).message(
        "write a host name or an IP address without scheme, brackets or port, such as pbx.example.com, 203.0.113.10 or 2001:db8::10",
    )
}

/// A host name or an IP address (IPv6 in brackets) with an optional port.
pub fn host_and_port() -> Rule {
    Rule::new(matches("self", &format!("^{URI_HOST}(:{PORT})?$")))
        .message("write a host and optionally a port, such as sip.example.com, sip.example.com:5061 or [2001:db8::10]:5061")
}

/// A SIP URI.
pub fn sip_uri() -> Rule {
    Rule::new(is_sip_uri("self")).message(
        "write a SIP URI: sip: or sips:, an optional user@, a host and an optional port and parameters, such as sip:agent@voice.example.com:5060;transport=tcp",
    )
}

/// A list of SIP URIs.
pub fn sip_uris() -> Rule {
    Rule::new(format!("self.all(uri, {})", is_sip_uri("uri"))).message(
        "write each as a SIP URI: sip: or sips:, an optional user@, a host and an optional port and parameters, such as sip:agent@voice.example.com:5060",
    )
}

/// `subject` is a URL of one of these schemes, without credentials.
fn is_url(subject: &str, schemes: &str) -> String {
    let shape = matches(subject, &format!(r"^{schemes}://[^/?#@\s]+([/?#]\S*)?$"));
    format!("isURL({subject}) && {shape}")
}

/// An https URL without credentials.
pub fn https_url() -> Rule {
    Rule::new(is_url("self", "https"))
        .message("write an https URL without user and password, such as https://crm.example.com/hooks")
}

/// An http or https URL without credentials.
pub fn http_url() -> Rule {
    Rule::new(is_url("self", "https?")).message(
        "write an http or https URL without user and password, such as http://voice-agent.default.svc:8080/hook",
    )
}

/// The name of an object.
pub fn object_name() -> Rule {
    Rule::new(matches("self", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))
        .message("write the name of an object and nothing else: lower case letters, digits, - and ., such as office-pbx")
}

/// The name of a namespace.
pub fn namespace_name() -> Rule {
    Rule::new(matches("self", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
        .message("write the name of a namespace: lower case letters, digits and -, such as voicedock-system")
}

/// A key in a Secret.
pub fn secret_key() -> Rule {
    Rule::new(matches("self", r"^[-._a-zA-Z0-9]+$"))
        .message("write a key of the Secret: letters, digits, -, _ and ., such as password")
}

/// The name of a header that people may add. The gateway's own can't be forged.
pub fn header_name() -> Rule {
    let allowed = matches("self", r"^(?i:x-[a-z0-9.!%*_+~'-]+|user-to-user)$");
    let own = matches("self", r"^(?i:x-voicedock-)");
    Rule::new(format!("{allowed} && !{own}"))
        .message("write a header that begins with X-, or User-to-User; X-VoiceDock-* are the gateway's own")
}

/// The value of a header: one line.
pub fn header_value() -> Rule {
    Rule::new(matches("self", r"^[^\x00-\x08\x0a-\x1f\x7f]*$"))
        .message("write one line: a header value has no line breaks and no control characters")
}

/// A list in which nothing stands twice.
pub fn unique(what: &str) -> Rule {
    Rule::new("self.all(x, self.exists_one(y, x == y))").message(format!("write each {what} once").as_str())
}

/// Schema of labels: a map with bounded keys and values.
pub fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 63 },
        "x-kubernetes-validations": [{
            "rule": format!(
                "self.all(key, size(key) <= 317 && {} && {})",
                matches("key", r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$"),
                matches("self[key]", r"^([a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?)?$"),
            ),
            "message": "write labels: keys such as team or example.com/team, values of at most 63 letters, digits, -, _ and .",
        }],
    })
}

/// Schema of annotations: a map with bounded keys and values.
pub fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
        "x-kubernetes-validations": [{
            "rule": format!(
                "self.all(key, size(key) <= 317 && {})",
                matches("key", r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$"),
            ),
            "message": "write annotations with keys such as example.com/setting",
        }],
    })
}
