//! SipGateways.

use std::collections::BTreeMap;

use crate::resources::sip_gateway::SipGatewaySpec;
use crate::routing::table::{AgentEntry, ObjectKey};

use super::verdict::{Checked, Problems};
use super::{Kind, Objects, fields, not_implemented};

/// A gateway that numbers can attach to.
#[derive(PartialEq)]
pub(in crate::routing) struct Gateway {
    /// The agent of Assistants that name none.
    pub default_agent: Option<AgentEntry>,
}

/// Checks every SipGateway.
pub(in crate::routing) fn check(objects: &Objects) -> BTreeMap<ObjectKey, Checked<Gateway>> {
    objects.gateways.iter().map(|(key, gateway)| (key.clone(), check_one(key, &gateway.spec))).collect()
}

/// Checks one SipGateway.
pub(in crate::routing) fn check_one(key: &ObjectKey, spec: &SipGatewaySpec) -> Checked<Gateway> {
    let mut accepted = not_implemented::check(not_implemented::SIP_GATEWAY, Kind::SipGateway, key, spec);
    let default_agent = spec.default_agent.as_ref();
    let default_agent = default_agent.and_then(|agent| accepted.take(fields::agent("defaultAgent", agent)));
    let usable = accepted.is_empty().then_some(Gateway { default_agent });
    Checked { accepted, resolved: Problems::default(), usable }
}
