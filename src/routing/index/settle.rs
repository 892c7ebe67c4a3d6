//! Looking again at what may be another now: kind by kind in the order in which they refer to each other, each object at most
//! once; then the tables, then the verdicts.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::routing::compile::agents::Agent;
use crate::routing::compile::grants;
use crate::routing::compile::numbers::{self, Targets};
use crate::routing::compile::verdict::{Checked, Failure};
use crate::routing::compile::verdicts;
use crate::routing::compile::{Kind, ObjectRef, Verdict, assistants, chains, destinations, gateways, trunks};
use crate::routing::table::{DestinationEntry, ObjectKey};

use super::dependants::Node;
use super::tables::{GatewayTable, Means};
use super::{Delta, Index};

/// How those that refer to an object see it.
fn standing<C>(checked: Option<&Checked<C>>) -> Result<(), Failure> {
    grants::usable(checked).map(|_| ())
}

impl Index {
    /// Brings everything up to date, in time that depends on what changed; says what is different.
    pub fn settle(&mut self) -> Delta {
        let mut delta = Delta::default();
        self.settle_gateways(&mut delta);
        self.settle_trunks();
        self.settle_destinations();
        self.settle_assistants();
        self.settle_numbers();
        self.settle_tables(&mut delta);
        self.settle_verdicts(&mut delta);
        delta
    }

    fn settle_gateways(&mut self, delta: &mut Delta) {
        for key in std::mem::take(&mut self.dirty.gateways) {
            let object = self.objects.gateways.get(&key);
            let after = object.map(|object| gateways::check_one(&self.objects, &key, &object.spec));
            let agent = |checked: Option<&Checked<gateways::Gateway>>| {
                checked.and_then(|checked| checked.usable.as_ref()?.default_agent.clone())
            };
            let before = match after {
                Some(after) => self.gateways.insert(key.clone(), after),
                None => self.gateways.remove(&key),
            };
            let after = self.gateways.get(&key);
            let (agent_before, agent_after) = (agent(before.as_ref()), agent(after));
            let seen = |agent: &Option<Agent>| {
                agent
                    .as_ref()
                    .map(|agent| (agent.is_told, agent.entry.openai().is_some(), agent.model.clone()))
            };
            let seen_before = (standing(before.as_ref()), seen(&agent_before));
            let is_usable = standing(after).is_ok();
            if seen_before != (standing(after), seen(&agent_after)) {
                self.mark_dependants(Kind::SipGateway, &key);
                for assistant in self.attachments.answered_by(&key) {
                    self.dirty.mark_verdict(Kind::Assistant, assistant);
                }
            }
            if is_usable && !self.tables.contains_key(&key) {
                self.tables.insert(key.clone(), GatewayTable::new(key.clone()));
                delta.tables.insert(key.clone());
            }
            if agent_before != agent_after
                && let Some(table) = self.tables.get_mut(&key)
            {
                table.mark_assistants();
            }
            self.dirty.mark_verdict(Kind::SipGateway, &key);
        }
    }

    pub(super) fn settle_trunks(&mut self) {
        for key in std::mem::take(&mut self.dirty.trunks) {
            let object = self.objects.trunks.get(&key);
            let after = object.map(|object| trunks::check_one(&self.objects, &key, &object.spec));
            let seen = standing(after.as_ref());
            let before = match after {
                Some(after) => self.trunks.insert(key.clone(), after),
                None => self.trunks.remove(&key),
            };
            if standing(before.as_ref()) != seen {
                self.mark_dependants(Kind::SipTrunk, &key);
            }
            // Also when the check says the same: the grant may be another.
            for table in self.tables.values_mut() {
                table.mark_trunk(&key);
            }
            self.dirty.mark_verdict(Kind::SipTrunk, &key);
        }
    }

    pub(super) fn settle_destinations(&mut self) {
        let changed = std::mem::take(&mut self.dirty.destinations);
        let mut stale = changed.clone();
        for key in changed {
            let object = self.objects.destinations.get(&key);
            let after = object
                .map(|object| destinations::check_alone(&self.objects, &self.trunks, &key, &object.spec));
            let leads_to = |checked: Option<&Checked<Arc<DestinationEntry>>>| {
                grants::usable(checked).map(|entry| entry.then.clone())
            };
            let leads = leads_to(after.as_ref());
            let before = match after {
                Some(after) => self.alone.insert(key.clone(), after),
                None => self.alone.remove(&key),
            };
            if leads_to(before.as_ref()) != leads {
                self.mark_chains_through(key, &mut stale);
            }
        }
        for key in stale {
            let object = self.objects.destinations.get(&key);
            let after = object.and_then(|object| chains::link(&self.alone, &key, &object.spec));
            let seen = |checked: Option<&Checked<Arc<DestinationEntry>>>| {
                grants::usable(checked).map(|entry| entry.message.is_some())
            };
            let seen_after = seen(after.as_ref());
            let before = match after {
                Some(after) => self.destinations.insert(key.clone(), after),
                None => self.destinations.remove(&key),
            };
            if seen(before.as_ref()) != seen_after {
                // The destinations that lead here are among those that are linked anew.
                let node = Node::Object(Kind::TransferDestination, key.clone());
                let dependants = self.dependants.of(&node);
                for (kind, dependant) in dependants.filter(|(kind, _)| *kind != Kind::TransferDestination) {
                    self.dirty.mark(*kind, dependant);
                }
            }
            if before.as_ref() != self.destinations.get(&key) {
                for table in self.tables.values_mut() {
                    table.mark_destination(&key);
                }
            }
            self.dirty.mark_verdict(Kind::TransferDestination, &key);
        }
    }

    /// Adds the destinations whose chains lead to `key`.
    fn mark_chains_through(&self, key: ObjectKey, stale: &mut BTreeSet<ObjectKey>) {
        let mut seen = BTreeSet::from([key.clone()]);
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            for (kind, dependant) in self.dependants.of(&Node::Object(Kind::TransferDestination, key)) {
                if *kind == Kind::TransferDestination && seen.insert((**dependant).clone()) {
                    open.push((**dependant).clone());
                }
            }
        }
        stale.extend(seen);
    }

    pub(super) fn settle_assistants(&mut self) {
        for key in std::mem::take(&mut self.dirty.assistants) {
            let object = self.objects.assistants.get(&key);
            let after = object
                .map(|object| assistants::check_one(&self.objects, &self.destinations, &key, &object.spec));
            let seen = |checked: Option<&Checked<assistants::Assistant>>| {
                let usable = checked.and_then(|checked| checked.usable.as_ref());
                (standing(checked), usable.is_some_and(|assistant| assistant.agent.is_some()))
            };
            let before = match after {
                Some(after) => self.assistants.insert(key.clone(), after),
                None => self.assistants.remove(&key),
            };
            let after = self.assistants.get(&key);
            let changed = before.as_ref() != after;
            if seen(before.as_ref()) != seen(after) {
                self.mark_dependants(Kind::Assistant, &key);
            }
            if changed {
                for table in self.tables.values_mut() {
                    table.mark_assistant(&key);
                }
            }
            self.dirty.mark_verdict(Kind::Assistant, &key);
        }
    }

    fn settle_numbers(&mut self) {
        for key in &self.dirty.numbers {
            let Some(object) = self.objects.numbers.get(key) else { continue };
            let gateway = numbers::attached(&self.objects, key, object);
            if self.attachments.gateway(key) != gateway.as_ref() {
                self.attachments.withdraw(key, object);
                if let Some(gateway) = gateway {
                    self.attachments.enter(key, object, gateway);
                }
            }
        }
        for key in self.attachments.take_contested() {
            self.dirty.mark(Kind::PhoneNumber, &key);
        }
        for assistant in self.attachments.take_moved() {
            self.dirty.mark_verdict(Kind::Assistant, &assistant);
        }
        let targets = Targets {
            gateways: &self.gateways,
            assistants: &self.assistants,
            destinations: &self.destinations,
            trunks: &self.trunks,
        };
        for key in std::mem::take(&mut self.dirty.numbers) {
            self.dirty.mark_verdict(Kind::PhoneNumber, &key);
            let after = self.objects.numbers.get(&key).map(|object| {
                let holder = self.attachments.holder(&key, object);
                numbers::check_one(&self.objects, &targets, holder, &key, object)
            });
            if self.numbers.get(&key) == after.as_ref() {
                continue;
            }
            if let Some(number) = self.numbers.get(&key).and_then(|checked| checked.usable.as_ref())
                && let Some(table) = self.tables.get_mut(&number.gateway)
            {
                table.take(number);
            }
            if let Some(number) = after.as_ref().and_then(|checked| checked.usable.as_ref())
                && let Some(table) = self.tables.get_mut(&number.gateway)
            {
                table.add(number);
            }
            match after {
                Some(after) => self.numbers.insert(key, after),
                None => self.numbers.remove(&key),
            };
        }
    }

    fn settle_tables(&mut self, delta: &mut Delta) {
        let means = Means {
            objects: &self.objects,
            gateways: &self.gateways,
            trunks: &self.trunks,
            destinations: &self.destinations,
            assistants: &self.assistants,
        };
        let mut moved = BTreeSet::new();
        let gateways = &self.gateways;
        for (key, table) in &mut self.tables {
            if table.is_stale() && table.settle(&means, &mut moved) {
                delta.tables.insert(key.clone());
            }
        }
        // Every number has left the table of a gateway that isn't accepted any more.
        let gone = self.tables.extract_if(.., |key, _| standing(gateways.get(key)).is_err());
        delta.tables.extend(gone.map(|(key, _)| key));
        self.dirty.verdicts.extend(moved);
    }

    fn settle_verdicts(&mut self, delta: &mut Delta) {
        for object in std::mem::take(&mut self.dirty.verdicts) {
            let after = self.verdict(&object);
            let before = self.verdicts.get(&object);
            if before.map(AsRef::as_ref) == after.as_ref() {
                continue;
            }
            match after {
                Some(after) => {
                    self.verdicts.insert(object.clone(), Arc::new(after));
                    delta.verdicts.insert(object);
                }
                None => {
                    self.verdicts.remove(&object);
                    delta.gone.insert(object);
                }
            }
        }
    }

    /// The verdict about an object; `None` if it isn't there.
    fn verdict(&self, object: &ObjectRef) -> Option<Verdict> {
        let (kind, key) = (object.kind, &object.key);
        let holding = self.tables.iter().filter(|(_, table)| table.holds(kind, key));
        let holding = holding.map(|(gateway, _)| gateway.clone()).collect();
        Some(match kind {
            Kind::SipGateway => {
                verdicts::of_gateway(self.objects.gateways.get(key)?, self.gateways.get(key)?, holding)
            }
            Kind::SipTrunk => {
                verdicts::of_trunk(self.objects.trunks.get(key)?, self.trunks.get(key)?, holding)
            }
            Kind::TransferDestination => {
                let checked = self.destinations.get(key)?;
                verdicts::of_destination(self.objects.destinations.get(key)?, checked, holding)
            }
            Kind::Assistant => {
                let checked = self.assistants.get(key)?;
                let answering = self.attachments.answering(key);
                let problems = numbers::without_agent_on(&self.gateways, key, Some(checked), answering);
                let answering = self.attachments.answering(key);
                let remarks = verdicts::Remarks::of(&self.gateways, checked, answering);
                let numbers = self.dependants.count(&Node::Object(kind, key.clone()));
                let numbers = i64::try_from(numbers).unwrap_or(i64::MAX);
                let found = verdicts::OfNumbers { problems, remarks, numbers };
                verdicts::of_assistant(self.objects.assistants.get(key)?, checked, found, holding)
            }
            Kind::PhoneNumber => {
                let checked = self.numbers.get(key)?;
                let attached = self.attachments.gateway(key).cloned();
                let held = checked.usable.iter().map(|number| number.gateway.clone()).collect();
                verdicts::of_number(self.objects.numbers.get(key)?, checked, attached, held)
            }
        })
    }

    fn mark_dependants(&mut self, kind: Kind, key: &ObjectKey) {
        for (kind, dependant) in self.dependants.of(&Node::Object(kind, key.clone())) {
            self.dirty.mark(*kind, dependant);
        }
    }
}
