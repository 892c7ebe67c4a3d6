//! SipGateways.

use std::collections::BTreeMap;

use crate::routing::table::{AgentEntry, ObjectKey};

use super::verdict::{Checked, Problems};
use super::{Kind, Objects, fields, not_implemented};

/// A gateway that numbers can attach to.
pub(super) struct Gateway {
    /// The agent of Assistants that name none.
    pub default_agent: Option<AgentEntry>,
}

/// Checks every SipGateway.
pub(super) fn check(objects: &Objects) -> BTreeMap<ObjectKey, Checked<Gateway>> {
    let checked = objects.gateways.iter().map(|(key, gateway)| {
        let mut accepted =
            not_implemented::check(not_implemented::SIP_GATEWAY, Kind::SipGateway, key, &gateway.spec);
        let default_agent = gateway.spec.default_agent.as_ref();
        let default_agent =
            default_agent.and_then(|agent| accepted.take(fields::agent("defaultAgent", agent)));
        let usable = accepted.is_empty().then_some(Gateway { default_agent });
        (key.clone(), Checked { accepted, resolved: Problems::default(), usable })
    });
    checked.collect()
}
