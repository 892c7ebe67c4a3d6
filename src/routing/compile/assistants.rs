//! Assistants and the destinations that they list.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::assistant::{AssistantSpec, ToolDestination, ToolType};
use crate::resources::conditions::reason;
use crate::routing::table::{AgentEntry, CallerIdEntry, DestinationEntry, DestinationTarget, ObjectKey};

use super::destinations::DEFAULT_RING_TIMEOUT_SECONDS;
use super::verdict::{Checked, Problems, problem};
use super::{Kind, Objects, fields, grants, not_implemented};

/// An assistant that can answer.
pub(super) struct Assistant {
    /// How the AI is reached; absent: as the gateway's default agent.
    pub agent: Option<AgentEntry>,
    /// The name that the assistant uses → the destination; only those of use.
    pub destinations: BTreeMap<String, ObjectKey>,
    /// Destinations that are written in the assistant itself.
    pub inline: BTreeMap<ObjectKey, Arc<DestinationEntry>>,
}

/// Checks every Assistant. A destination that is of no use is left out and named in `ResolvedRefs`; the assistant
/// answers all the same.
pub(super) fn check(
    objects: &Objects,
    destinations: &BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>,
) -> BTreeMap<ObjectKey, Checked<Assistant>> {
    let checked = objects.assistants.iter().map(|(key, assistant)| {
        let spec = &assistant.spec;
        let mut accepted = not_implemented::check(not_implemented::ASSISTANT, Kind::Assistant, key, spec);
        let agent = spec.agent.as_ref().and_then(|agent| accepted.take(fields::agent("agent", agent)));
        let mut resolved = Problems::default();
        let (listed, inline) = listed(key, spec, destinations, &mut resolved);
        let usable = accepted.is_empty().then_some(Assistant { agent, destinations: listed, inline });
        (key.clone(), Checked { accepted, resolved, usable })
    });
    checked.collect()
}

/// How the status names the agent.
pub(super) fn agent_name(spec: &AssistantSpec) -> Option<&'static str> {
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
    let tools = spec.llm_config.iter().flat_map(|llm_config| &llm_config.tools);
    let transfers = tools.filter(|tool| tool.type_ == ToolType::TransferCall);
    for (index, destination) in transfers.flat_map(|tool| &tool.destinations).enumerate() {
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
        // No object's name can hold a '#'.
        let own = ObjectKey::new(&key.namespace, format!("{}#{index}", key.name));
        listed.insert(name, own.clone());
        inline.insert(own, Arc::new(entry));
    }
    (listed, inline)
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
        trunk: None,
        ring_timeout_seconds: DEFAULT_RING_TIMEOUT_SECONDS.unsigned_abs(),
        caller_id: CallerIdEntry::Preserve,
        headers: Vec::new(),
        return_to_assistant: true,
    };
    Ok((number.to_string(), entry))
}
