//! The configuration that is measured: per 1,000 numbers 10 assistants, 5 trunks with credentials and 50 destinations.
//!
//! What a number names depends on its place alone, so that a configuration that grows changes nothing of what is there.

use serde_json::{Value, json};

/// A kind that people write: its name and its plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub &'static str, pub &'static str);

pub const NUMBER: Kind = Kind("PhoneNumber", "phonenumbers");
pub const ASSISTANT: Kind = Kind("Assistant", "assistants");
pub const TRUNK: Kind = Kind("SipTrunk", "siptrunks");
pub const DESTINATION: Kind = Kind("TransferDestination", "transferdestinations");
/// Made once a stage.
pub const GATEWAY: Kind = Kind("SipGateway", "sipgateways");
/// Written by the operator.
pub const TABLE: Kind = Kind("RoutingTable", "routingtables");
pub const SLICE: Kind = Kind("RoutingSlice", "routingslices");
/// The kinds that are loaded.
pub const KINDS: [Kind; 4] = [TRUNK, DESTINATION, ASSISTANT, NUMBER];

/// Numbers that share an assistant.
const AN_ASSISTANT: usize = 100;
/// Numbers that share a trunk.
const A_TRUNK: usize = 200;
/// Numbers for which there is another destination.
const A_DESTINATION: usize = 20;
/// Destinations that an assistant may transfer to.
const LISTED: usize = 5;

/// An object to be created.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
    pub spec: Value,
}

/// What is changed of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Who answers.
    Assistant,
    /// What carries transfers.
    Trunk,
}

impl Field {
    /// In the spec.
    pub fn key(self) -> &'static str {
        match self {
            Self::Assistant => "assistantRef",
            Self::Trunk => "transferTrunkRef",
        }
    }

    /// What it names, by its place.
    pub fn name(self, index: usize) -> String {
        match self {
            Self::Assistant => assistant_name(index),
            Self::Trunk => trunk_name(index),
        }
    }
}

/// A configuration with so many numbers.
#[derive(Clone, Copy, Debug)]
pub struct Office {
    /// Phone numbers.
    pub numbers: usize,
    /// Port of this machine at which the agents of all assistants answer.
    pub agent_port: u16,
}

impl Office {
    /// Assistants.
    pub fn assistants(&self) -> usize {
        (self.numbers / AN_ASSISTANT).max(2)
    }

    /// Trunks: as many at least that ten numbers can be with them in any number of ways.
    pub fn trunks(&self) -> usize {
        (self.numbers / A_TRUNK).max(10)
    }

    /// Destinations.
    pub fn destinations(&self) -> usize {
        (self.numbers / A_DESTINATION).max(LISTED)
    }

    /// All objects.
    pub fn objects(&self) -> usize {
        self.numbers + self.assistants() + self.trunks() + self.destinations()
    }

    /// What this configuration has and `smaller` has not, in the order in which a person would write it.
    pub fn beyond(self, smaller: Option<Office>) -> impl Iterator<Item = Object> {
        let from = |count: fn(&Office) -> usize| smaller.as_ref().map_or(0, count);
        let trunks = (from(Office::trunks)..self.trunks()).map(trunk);
        let destinations =
            (from(Office::destinations)..self.destinations()).map(move |index| self.destination(index));
        let assistants =
            (from(Office::assistants)..self.assistants()).map(move |index| self.assistant(index));
        let numbers = (from(|office| office.numbers)..self.numbers).map(move |index| self.number(index));
        trunks.chain(destinations).chain(assistants).chain(numbers)
    }

    /// Which of those that a field of a number may name it names at first, and how many there are.
    pub fn first(&self, number: usize, field: Field) -> (usize, usize) {
        match field {
            Field::Assistant => (number / AN_ASSISTANT % self.assistants(), self.assistants()),
            Field::Trunk => (number / A_TRUNK % self.trunks(), self.trunks()),
        }
    }

    fn number(&self, index: usize) -> Object {
        let [assistant, trunk] = [Field::Assistant, Field::Trunk]
            .map(|field| json!({ "name": field.name(self.first(index, field).0) }));
        let spec = json!({ "number": e164(index), "assistantRef": assistant, "transferTrunkRef": trunk });
        Object { kind: NUMBER, name: number_name(index), spec }
    }

    fn assistant(&self, index: usize) -> Object {
        let listed: Vec<_> = (index * LISTED..(index + 1) * LISTED)
            .map(|listed| json!({ "destinationRef": { "name": destination_name(listed % self.destinations()) } }))
            .collect();
        let spec = json!({
            "agent": { "sip": { "uri": format!("sip:agent@127.0.0.1:{}", self.agent_port) } },
            "llmConfig": { "tools": [{ "type": "transfer_call", "destinations": listed }] },
        });
        Object { kind: ASSISTANT, name: assistant_name(index), spec }
    }

    fn destination(&self, index: usize) -> Object {
        let spec = json!({
            "type": "number", "number": format!("+316{index:08}"), "description": "Someone who knows",
            "trunkRef": { "name": trunk_name(index % self.trunks()) },
        });
        Object { kind: DESTINATION, name: destination_name(index), spec }
    }
}

/// Trunk number 0 takes calls from this machine.
fn trunk(index: usize) -> Object {
    let source = match index {
        0 => "127.0.0.1".to_owned(),
        _ => format!("10.{}.{}.1", index / 200, index % 200),
    };
    let spec = json!({
        "host": "pbx.example.com", "credentialsSecretRef": { "name": trunk_name(index) },
        "inbound": { "allowedSources": [source] },
    });
    Object { kind: TRUNK, name: trunk_name(index), spec }
}

/// Name of a PhoneNumber.
pub fn number_name(index: usize) -> String {
    format!("line-{index}")
}

/// The number of a PhoneNumber.
pub fn e164(index: usize) -> String {
    format!("+3120{index:07}")
}

/// Name of a SipTrunk and of the Secret with its credentials.
pub fn trunk_name(index: usize) -> String {
    format!("trunk-{index}")
}

fn assistant_name(index: usize) -> String {
    format!("assistant-{index}")
}

fn destination_name(index: usize) -> String {
    format!("destination-{index}")
}
