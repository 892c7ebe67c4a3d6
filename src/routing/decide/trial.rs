//! A test of a destination: as a call to which number, over which trunk?

use std::sync::Arc;

use crate::routing::table::{E164, NumberEntry, ObjectKey, TrunkEntry};

use super::{Answer, Index};

/// Why a destination can't be tested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TestRefusal {
    /// The number.
    #[error("{0} is no number of this gateway that the key may use")]
    UnknownNumber(E164),
    /// The destination.
    #[error(
        "nobody who calls could be transferred to '{0}': it is the name of no destination that an assistant with a number lists \
         (a number without a name goes by itself, such as +31612345678), and no number's fallback"
    )]
    UnknownDestination(String),
    /// No calls.
    #[error("no trunk brings calls to {0}; give one inbound.allowedSources or inbound.authenticate")]
    NoCalls(E164),
}

impl Index {
    /// What a call would meet that is to be transferred to `destination`: a call to `number`, or to the first number, in order,
    /// whose assistant lists the destination or whose fallback it is. Only numbers of `namespace` count, if one is given. It comes in
    /// over the number's transfer trunk, or the first trunk that brings calls to the number.
    ///
    /// Without a number it takes time in proportion to how many there are.
    pub fn test(
        &self,
        destination: &str,
        number: Option<&E164>,
        namespace: Option<&str>,
    ) -> Result<Answer, TestRefusal> {
        let is_theirs = |entry: &NumberEntry| namespace.is_none_or(|own| entry.object.namespace == own);
        let (number, entry) = match number {
            Some(number) => {
                let entry = self.numbers.get(number).filter(|entry| is_theirs(entry));
                (number, entry.ok_or_else(|| TestRefusal::UnknownNumber(number.clone()))?)
            }
            None => (self.table.numbers.iter())
                .find(|(_, entry)| is_theirs(entry) && self.leads_to(entry, destination))
                .ok_or_else(|| TestRefusal::UnknownDestination(destination.to_owned()))?,
        };
        let trunk = self.trunk_of_calls(entry).ok_or_else(|| TestRefusal::NoCalls(number.clone()))?;
        Ok(self.answer((&Arc::new(trunk.0.clone()), trunk.1), number.clone(), entry))
    }

    /// Whether a caller of this number may end up there.
    fn leads_to(&self, number: &NumberEntry, destination: &str) -> bool {
        let assistant = number.assistant.as_ref().and_then(|key| self.table.assistants.get(key));
        assistant.is_some_and(|assistant| assistant.destinations.contains_key(destination))
            || number.fallback.as_ref().is_some_and(|fallback| fallback.name == destination)
    }

    fn trunk_of_calls(&self, number: &NumberEntry) -> Option<(&ObjectKey, &TrunkEntry)> {
        let trunks = &self.table.trunks;
        let own = number.transfer_trunk.as_ref().and_then(|key| trunks.get_key_value(key));
        let brings_calls = |trunk: &TrunkEntry| {
            let namespace = &number.object.namespace;
            trunk.brings_calls_in() && trunk.allowed_namespaces.binary_search(namespace).is_ok()
        };
        let found = own.or_else(|| trunks.iter().find(|(_, trunk)| brings_calls(trunk)));
        found.map(|(key, trunk)| (key, trunk.as_ref()))
    }
}
