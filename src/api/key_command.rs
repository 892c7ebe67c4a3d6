//! `voicedock api-key`: creates, lists and revokes keys of the API, with the rights of whoever runs it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};

use super::keys::{API_KEY, EXPIRES_AT, HASH, HOLDS, Key, KeyHash, SCOPES, generate};
use super::scopes::Scopes;
use super::store::CLIENT_MANAGER;
use crate::operator::api::{ApiError, read};

/// What `voicedock api-key` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Make a key and print it, once: only its hash is kept, in the Secret api-key-NAME
    Create {
        /// Names the key, such as the program that will use it
        name: String,
        /// The namespace that it opens
        #[arg(long, short, value_name = "NAMESPACE")]
        namespace: String,
        /// What it may do, separated by commas: assistants, numbers, sip-trunks, calls or traces, then :read or :write; everything
        /// when left out
        #[arg(long, value_name = "SCOPES")]
        scopes: Option<Scopes>,
        /// How long it is good, such as 90d or 12h; for ever when left out
        #[arg(long, value_name = "TIME", value_parser = span)]
        expires_in: Option<Duration>,
    },
    /// List the keys of a namespace
    List {
        /// The namespace
        #[arg(long, short, value_name = "NAMESPACE")]
        namespace: String,
    },
    /// Delete a key: it opens nothing any more within a second
    Revoke {
        /// Its name
        name: String,
        /// Its namespace
        #[arg(long, short, value_name = "NAMESPACE")]
        namespace: String,
    },
}

/// Why there is no key. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    /// There is no way to the API server.
    #[error("there is no way to the API server: {0}; set KUBECONFIG")]
    Config(Box<dyn std::error::Error + Send + Sync>),
    /// There is one already.
    #[error("there is a key '{0}' in namespace {1} already; revoke it, or take another name")]
    Exists(String, String),
    /// There is none.
    #[error("there is no key '{0}' in namespace {1}; `voicedock api-key list` shows those that there are")]
    Unknown(String, String),
    /// The API server said no.
    #[error(transparent)]
    Call(ApiError),
}

/// Runs the command in the cluster that the environment names.
pub async fn run(args: Args) -> Result<(), KeyCommandError> {
    let client = Client::try_default().await.map_err(|error| KeyCommandError::Config(error.into()))?;
    println!("{}", answer(args.command, client).await?);
    Ok(())
}

async fn answer(command: Command, client: Client) -> Result<String, KeyCommandError> {
    match command {
        Command::Create { name, namespace, scopes, expires_in } => {
            let key = generate();
            let expires = expires_in.map(|span| Timestamp::now() + span);
            let secret = secret(&name, &key, scopes, expires);
            let secrets: Api<Secret> = Api::namespaced(client, &namespace);
            let params =
                PostParams { field_manager: Some(CLIENT_MANAGER.to_owned()), ..PostParams::default() };
            let made = secrets.create(&params, &secret);
            match read(format!("create the key's Secret in namespace {namespace}"), made).await {
                Ok(_) => Ok(key),
                Err(error) if error.is_already_exists() => Err(KeyCommandError::Exists(name, namespace)),
                Err(error) => Err(KeyCommandError::Call(error)),
            }
        }
        Command::List { namespace } => {
            let secrets: Api<Secret> = Api::namespaced(client, &namespace);
            let params = ListParams::default().labels(&format!("{HOLDS}={API_KEY}"));
            let found = read(format!("list the keys of namespace {namespace}"), secrets.list(&params)).await;
            let found = found.map_err(KeyCommandError::Call)?;
            let lines: Vec<String> = found.iter().map(line).collect();
            Ok(lines.join("\n"))
        }
        Command::Revoke { name, namespace } => {
            let secrets: Api<Secret> = Api::namespaced(client, &namespace);
            let unknown = || KeyCommandError::Unknown(name.clone(), namespace.clone());
            let object = secret_name(&name);
            let found = read(format!("read Secret {namespace}/{object}"), secrets.get_opt(&object)).await;
            let found = found.map_err(KeyCommandError::Call)?.ok_or_else(unknown)?;
            if found.labels().get(HOLDS).map(String::as_str) != Some(API_KEY) {
                return Err(unknown());
            }
            let params = DeleteParams::default();
            let deleted = secrets.delete(&object, &params);
            match read(format!("delete Secret {namespace}/{object}"), deleted).await {
                Ok(_) => Ok(format!("{name} opens nothing any more")),
                Err(error) if error.is_not_found() => Err(unknown()),
                Err(error) => Err(KeyCommandError::Call(error)),
            }
        }
    }
}

fn secret_name(name: &str) -> String {
    format!("{API_KEY}-{name}")
}

fn secret(name: &str, key: &str, scopes: Option<Scopes>, expires: Option<Timestamp>) -> Secret {
    let scopes = scopes.map(|scopes| (SCOPES.to_owned(), scopes.to_string()));
    let expires = expires.map(|expires| (EXPIRES_AT.to_owned(), format!("{expires:.0}")));
    let annotations: BTreeMap<String, String> = scopes.into_iter().chain(expires).collect();
    let hash = KeyHash::of(key.as_bytes()).to_string();
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(name)),
            labels: Some(BTreeMap::from([(HOLDS.to_owned(), API_KEY.to_owned())])),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        },
        string_data: Some(BTreeMap::from([(HASH.to_owned(), hash)])),
        type_: Some("voicedock.dev/api-key".to_owned()),
        ..Secret::default()
    }
}

/// Name, what it may do, until when.
fn line(secret: &Secret) -> String {
    let name = secret.name_any();
    let name = name.strip_prefix("api-key-").unwrap_or(&name);
    match Key::of(secret) {
        Ok(key) => {
            let until = key.expires.map_or("for ever".to_owned(), |expires| format!("until {expires:.0}"));
            format!("{name}\t{}\t{until}", key.scopes)
        }
        Err(error) => format!("{name}\topens nothing: {error}"),
    }
}

/// `90d`, `12h`, `30m` or `45s`.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time such as 90d, 12h, 30m or 45s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().ok().filter(|number| (1..=36_500).contains(number)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(span("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(span("12h"), Ok(Duration::from_secs(43_200)));
        for wrong in ["", "d", "0d", "-1h", "90", "1w", "1.5h", "99999999d", "1é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
