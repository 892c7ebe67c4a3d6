//! Assistants and the destinations that they list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::assistant::{AssistantSpec, EventsSink, ToolDestination, ToolType};
use crate::resources::conditions::reason;
use crate::routing::table::{
    CallerIdEntry, CredentialId, DestinationEntry, DestinationTarget, HookEntry, ObjectKey,
};

use super::agents::{self, Agent};
use super::destinations::DEFAULT_RING_TIMEOUT_SECONDS;
use super::gateways::Gateway;
use super::openai::Script;
use super::verdict::{Checked, Problems, problem};
use super::{CredentialSource, Kind, Objects, fields, grants, secrets};

/// An assistant that can answer.
#[derive(PartialEq)]
pub(in crate::routing) struct Assistant {
    /// How the AI is reached; absent: as the gateway's default agent.
    pub agent: Option<Agent>,
    /// The name that the assistant uses → the destination; only those of use.
    pub destinations: BTreeMap<String, ObjectKey>,
    /// Destinations that are written in the assistant itself.
    pub inline: BTreeMap<ObjectKey, Arc<DestinationEntry>>,
    /// Names of destinations with a message that is to be said before the transfer.
    pub announced: Vec<String>,
    /// What it tells an agent whose session the gateway runs.
    pub script: Script,
    /// The model that it names.
    pub model: Option<String>,
    /// Where events of its calls are sent, if they can be.
    pub events: Option<Events>,
}

/// Where events are sent, and where the secret is that they are signed with.
#[derive(Clone, PartialEq)]
pub(in crate::routing) struct Events {
    pub entry: HookEntry,
    pub credential: (CredentialId, CredentialSource),
}

/// Key of the secret that events are signed with.
const DEFAULT_SECRET_KEY: &str = "secret";
/// What doesn't work without it.
const NOT_SENT: &str = "Until then no events are sent; calls are answered all the same.";

/// Checks every Assistant.
pub(in crate::routing) fn check(
    objects: &Objects,
    destinations: &BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
) -> BTreeMap<ObjectKey, Checked<Assistant>> {
    let all = objects.assistants.iter();
    all.map(|(key, object)| (key.clone(), check_one(objects, destinations, key, &object.spec))).collect()
}

/// Checks one Assistant. A destination that is of no use is left out and named in `ResolvedRefs`; the assistant
/// answers all the same.
pub(in crate::routing) fn check_one(
    objects: &Objects,
    destinations: &BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    key: &ObjectKey,
    spec: &AssistantSpec,
) -> Checked<Assistant> {
    let (mut accepted, mut resolved) = (Problems::default(), Problems::default());
    let agent = spec.agent.as_ref().map(|agent| agents::check(objects, "agent", &key.namespace, agent));
    let agent = agent.and_then(|agent| agent.within(&mut accepted, &mut resolved));
    let (listed, inline) = listed(key, spec, destinations, &mut resolved);
    let has_message = |target: &ObjectKey| {
        let alone = grants::local(destinations, target).ok();
        inline.get(target).or(alone).is_some_and(|entry| entry.message.is_some())
    };
    let announced = listed.iter().filter(|(_, target)| has_message(target));
    let announced = announced.map(|(name, _)| name.clone()).collect();
    // An agent that is reached over SIP has its own script.
    let llm =
        spec.llm_config.as_ref().filter(|_| spec.agent.as_ref().is_none_or(|agent| agent.sip.is_none()));
    let script = accepted.take(Script::new(spec.first_message.as_ref(), llm));
    let model = spec.llm_config.as_ref().and_then(|llm| llm.model.clone());
    let events = spec.events.as_ref().and_then(|sink| {
        let url = accepted.take(fields::url("events.url", &sink.url));
        let (secret, key) = events_secret(key, sink);
        let secret = secrets::signing(objects, "events.secretRef", &secret, key, NOT_SENT);
        let (id, source) = resolved.take(secret)?;
        Some(Events { entry: HookEntry { url: url?, secret: id.clone() }, credential: (id, source) })
    });
    let usable = script.filter(|_| accepted.is_empty()).map(|script| Assistant {
        agent,
        destinations: listed,
        inline,
        announced,
        script,
        model,
        events,
    });
    Checked { accepted, resolved, usable }
}

/// The Secrets that an assistant names, in its own namespace.
pub(in crate::routing) fn secrets(key: &ObjectKey, spec: &AssistantSpec) -> impl Iterator<Item = ObjectKey> {
    let agent = spec.agent.iter().flat_map(|agent| agents::named_secrets(&key.namespace, agent));
    let events = spec.events.as_ref().map(|sink| events_secret(key, sink).0);
    agent.chain(events)
}

fn events_secret<'a>(assistant: &ObjectKey, sink: &'a EventsSink) -> (ObjectKey, &'a str) {
    let key = sink.secret_ref.key.as_deref().unwrap_or(DEFAULT_SECRET_KEY);
    (ObjectKey::new(&assistant.namespace, &sink.secret_ref.name), key)
}

/// The sentence that says which messages nobody will say, and what to do about it. `attached` are the gateways that answer a
/// PhoneNumber of the assistant: their default agent is its own if it has none.
pub(in crate::routing) fn unsaid<'a>(
    gateways: &BTreeMap<ObjectKey, Checked<Gateway>>,
    checked: &Checked<Assistant>,
    attached: impl IntoIterator<Item = &'a ObjectKey>,
) -> Option<String> {
    let assistant = checked.usable.as_ref().filter(|assistant| !assistant.announced.is_empty())?;
    let mute = |agent: &Agent| !agent.is_told;
    let field = match &assistant.agent {
        Some(agent) => mute(agent).then(|| "agent.sip".to_owned()),
        None => attached.into_iter().find_map(|key| {
            let gateway = gateways.get(key)?.usable.as_ref()?;
            let agent = gateway.default_agent.as_ref()?;
            mute(agent).then(|| format!("defaultAgent.sip of SipGateway {key}"))
        }),
    }?;
    let names = assistant.announced.join(", ");
    Some(format!(
        "But the message of {names} is not said before a transfer, because {field} has no hook; add one, or remove the message."
    ))
}

/// The realtime model that answers for an assistant, if one does; and the sentence that says which, if the assistant names another
/// one. `attached` as for [`unsaid`].
pub(in crate::routing) fn model<'a>(
    gateways: &'a BTreeMap<ObjectKey, Checked<Gateway>>,
    checked: &'a Checked<Assistant>,
    attached: impl IntoIterator<Item = &'a ObjectKey>,
) -> Option<(String, Option<String>)> {
    let assistant = checked.usable.as_ref()?;
    let default = |key| gateways.get(key)?.usable.as_ref()?.default_agent.as_ref();
    let agent = match &assistant.agent {
        Some(agent) => agent,
        None => attached.into_iter().filter_map(default).find(|agent| agent.entry.openai().is_some())?,
    };
    agent.entry.openai()?;
    let model = assistant.script.model_on(agent);
    let remark = assistant.model.as_ref().filter(|named| **named != model).map(|named| {
        format!("llmConfig.model is {named}; on the phone the realtime model {model} answers in its place.")
    });
    Some((model, remark))
}

/// The destinations that an Assistant names by reference.
pub(in crate::routing) fn named(spec: &AssistantSpec) -> impl Iterator<Item = &str> {
    transfers(spec).filter_map(|destination| Some(destination.destination_ref.as_ref()?.name.as_str()))
}

fn transfers(spec: &AssistantSpec) -> impl Iterator<Item = &ToolDestination> {
    let tools = spec.llm_config.iter().flat_map(|llm_config| &llm_config.tools);
    tools.filter(|tool| tool.type_ == ToolType::TransferCall).flat_map(|tool| &tool.destinations)
}

/// How the status names the agent.
pub(in crate::routing) fn agent_name(spec: &AssistantSpec) -> Option<&'static str> {
    match &spec.agent {
        None => Some("default"),
        Some(agent) if agent.openai.is_some() => Some("openai"),
        Some(agent) if agent.sip.is_some() => Some("sip"),
        Some(_) => None,
    }
}

type Listed = (BTreeMap<String, ObjectKey>, BTreeMap<ObjectKey, Arc<DestinationEntry>>);

fn listed(
    key: &ObjectKey,
    spec: &AssistantSpec,
    known: &BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
    problems: &mut Problems,
) -> Listed {
    let (mut listed, mut inline) = Listed::default();
    for (index, destination) in transfers(spec).enumerate() {
        if let Some(named) = &destination.destination_ref {
            let target = ObjectKey::new(&key.namespace, &named.name);
            match grants::local(known, &target) {
                Ok(_) => {
                    listed.insert(named.name.clone(), target);
                }
                Err(failure) => {
                    problems.extend(failure.of("destinationRef", Kind::TransferDestination, &target))
                }
            }
            continue;
        }
        let Some((name, entry)) = problems.take(inline_entry(destination)) else { continue };
        if listed.contains_key(&name) {
            problems.invalid(format!(
                "The inline destination {name} is listed twice; the second is left out, remove it."
            ));
            continue;
        }
        let own = inline_key(key, index);
        listed.insert(name, own.clone());
        inline.insert(own, Arc::new(entry));
    }
    (listed, inline)
}

/// The key of the `index`-th destination that `assistant` lists. No object's name can hold a '#'.
fn inline_key(assistant: &ObjectKey, index: usize) -> ObjectKey {
    ObjectKey::new(&assistant.namespace, format!("{}#{index}", assistant.name))
}

/// The assistant that a destination with this key is written in; `None` for an object of its own.
pub(in crate::routing) fn holder_of_inline(destination: &ObjectKey) -> Option<ObjectKey> {
    let (assistant, _) = destination.name.split_once('#')?;
    Some(ObjectKey::new(&destination.namespace, assistant))
}

/// The product's inline form; its number is its name.
fn inline_entry(destination: &ToolDestination) -> Result<(String, DestinationEntry), Problems> {
    let Some(number) = &destination.number else {
        return Err(problem(
            reason::INVALID,
            "A destination has neither destinationRef nor number; give it one of them.",
        ));
    };
    let number = fields::number("The number of an inline destination", number)?;
    let entry = DestinationEntry {
        target: DestinationTarget::Number(number.clone()),
        description: destination.description.clone().unwrap_or_default(),
        message: destination.message.clone(),
        trunk: None,
        by_refer: false,
        ring_timeout_seconds: DEFAULT_RING_TIMEOUT_SECONDS.unsigned_abs(),
        caller_id: CallerIdEntry::Preserve,
        headers: Vec::new(),
        schedule: None,
        then: Vec::new(),
        return_to_assistant: true,
    };
    Ok((number.to_string(), entry))
}
