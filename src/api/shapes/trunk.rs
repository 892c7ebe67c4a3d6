//! A SIP trunk: the product's JSON and the spec of a SipTrunk.
//!
//! A trunk is not changed but made anew: where a password goes is decided once, together with the password.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::State;
use crate::http::error::ApiError;
use crate::resources::sip_trunk::Transport;

/// A new trunk.
#[derive(Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTrunk {
    /// Name for people.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Host name or IP address.
    #[schemars(length(min = 1, max = 255))]
    pub host: String,
    /// Port; when left out SRV is used, else 5060, or 5061 for TLS.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Transport; when left out the host's NAPTR records decide, else UDP.
    #[serde(default)]
    pub transport: Option<Transport>,
    /// User name for digest authentication; together with `password`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// Password for digest authentication; together with `username`. It is kept in a Secret and is in no answer.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    pub password: Option<String>,
    /// Addresses or networks from which calls are taken; none when left out.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub inbound_addresses: Vec<String>,
}

/// A trunk as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trunk {
    /// Name of the resource.
    pub id: String,
    /// Name for people.
    pub name: Option<String>,
    /// Host name or IP address.
    pub host: String,
    /// Port; null when SRV decides.
    pub port: Option<i32>,
    /// Transport; null when the host's DNS decides.
    pub transport: Option<Transport>,
    /// User name, of a trunk that was made here.
    pub username: Option<String>,
    /// Addresses or networks from which calls are taken.
    pub inbound_addresses: Vec<String>,
    /// Whether it works.
    pub status: State,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it was last changed, RFC 3339.
    pub updated_at: String,
}

/// User name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl NewTrunk {
    /// User name and password, both or none.
    ///
    /// # Errors
    /// When one is missing, or can't stand in a SIP header.
    pub fn login(&self) -> Result<Option<Login>, ApiError> {
        let (username, password) = match (&self.username, &self.password) {
            (None, None) => return Ok(None),
            (Some(username), Some(password)) => (username.clone(), password.clone()),
            (Some(_), None) => return Err(ApiError::invalid("password", "a username needs a password")),
            (None, Some(_)) => return Err(ApiError::invalid("username", "a password needs a username")),
        };
        for (param, text, longest) in [("username", &username, 256), ("password", &password, 1024)] {
            let fits = (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            if !fits {
                let why = format!("{param} has 1 to {longest} characters, none of them a control character");
                return Err(ApiError::invalid(param, why));
            }
        }
        Ok(Some(Login { username, password }))
    }

    /// The spec, with the Secret of the login.
    pub fn spec(&self, secret: Option<&str>) -> Value {
        let mut spec = json!({ "displayName": self.name, "host": self.host });
        if let Some(port) = self.port {
            spec["port"] = json!(port);
        }
        if let Some(transport) = self.transport {
            spec["transport"] = json!(transport);
        }
        if let Some(secret) = secret {
            spec["credentialsSecretRef"] = json!({ "name": secret });
        }
        if !self.inbound_addresses.is_empty() {
            spec["inbound"] = json!({ "allowedSources": self.inbound_addresses });
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(body: Value) -> NewTrunk {
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn the_products_example_becomes_a_spec_without_the_password() {
        let trunk = trunk(json!({
            "name": "Office PBX", "host": "pbx.example.com", "port": 5060, "username": "hms-sovereign",
            "password": "secure-password",
        }));
        let spec = trunk.spec(Some("office-pbx-login"));
        assert_eq!(
            spec,
            json!({
                "displayName": "Office PBX", "host": "pbx.example.com", "port": 5060,
                "credentialsSecretRef": { "name": "office-pbx-login" },
            })
        );
        assert!(trunk.login().unwrap().is_some());
    }

    #[test]
    fn a_login_is_whole_or_there_is_none() {
        let wrong = |body: Value| {
            let mut whole = json!({ "name": "x", "host": "h" });
            whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
            trunk(whole).login().err().and_then(|error| error.body.param)
        };
        assert_eq!(wrong(json!({ "username": "a" })).as_deref(), Some("password"));
        assert_eq!(wrong(json!({ "password": "a" })).as_deref(), Some("username"));
        assert_eq!(wrong(json!({ "username": "a", "password": "b\r\nX: y" })).as_deref(), Some("password"));
        assert_eq!(wrong(json!({})), None);
    }
}
