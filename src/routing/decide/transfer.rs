//! How does this transfer go? The trunk rule, and what a trunk lets out.

use std::str::FromStr;

use crate::routing::normalise::normalise;
use crate::routing::schedule::State;
use crate::routing::table::{
    CallerIdEntry, CallerIdHeaderEntry, DestinationEntry, DestinationTarget, E164, Limits, NumberEntry,
    NumberFormatEntry, ObjectKey, ReferEntry, SipTarget, TrunkEntry,
};
use crate::routing::uri::{self, TargetError};

use super::{
    Authority, CallFacts, Elsewhere, Failover, Index, Now, PassedOver, Plan, TransferRefusal, TransferRoute,
    TrunkRule, Wanted,
};

/// Seconds that a number or URI which is no TransferDestination may ring.
const DEFAULT_RING_TIMEOUT_SECONDS: u32 = 30;

impl FromStr for Wanted {
    type Err = TargetError;

    /// Reads what a tool call, a REFER or the control API asks for: a SIP URI, a number in E.164 (visual separators and
    /// `tel:` are dropped), else a name. A national number is a name that nobody has: its country would be a guess.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        if matches!(scheme.as_deref(), Some("sip" | "sips")) {
            return uri::parse_target(text, None).map(Self::Uri);
        }
        let number = text.strip_prefix("tel:").unwrap_or(text);
        match normalise(&NumberFormatEntry::E164, number) {
            Some(read) if number.starts_with('+') => Ok(Self::Number(read)),
            _ => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl Index {
    /// How a transfer goes, or why it doesn't. Nothing is dialled that `authority` or the trunk's `outbound` rules don't let out.
    ///
    /// Which trunk: the destination's, else the number's transfer trunk, else the one that the call came in over; a SIP URI
    /// without a trunk of its own is dialled directly. `assistant` is the one that has the call, `now` what holds besides the table.
    pub fn transfer(
        &self,
        call: &CallFacts,
        assistant: Option<&ObjectKey>,
        wanted: &Wanted,
        authority: Authority,
        now: Now<'_>,
    ) -> Result<Plan, TransferRefusal> {
        let number =
            self.number(&call.number).ok_or_else(|| TransferRefusal::NumberGone(call.number.clone()))?;
        let entry = assistant.and_then(|key| self.table().assistants.get(key));
        let listed = entry.into_iter().flat_map(|entry| &entry.destinations).filter_map(|(name, key)| {
            self.table().destinations.get(key).map(|destination| Listed { name, key, destination })
        });
        if let Some(found) = best(listed.clone(), wanted) {
            return self.plan(call, number, found, now);
        }
        match (wanted, authority) {
            (Wanted::Number(wanted), Authority::Api) => self.to_number(call, number, wanted, now).map(alone),
            (Wanted::Uri(wanted), Authority::Api) => self.to_uri(call, number, wanted).map(alone),
            (wanted, _) => Err(TransferRefusal::UnknownDestination {
                wanted: label(wanted),
                assistant: assistant.map_or_else(|| "(none)".to_owned(), ToString::to_string),
                known: known(listed.map(|listed| listed.name.as_str())),
            }),
        }
    }

    /// How a caller gets to the number's fallback destination when the assistant can't be reached.
    pub fn fallback(
        &self,
        call: &CallFacts,
        fallback: &ObjectKey,
        now: Now<'_>,
    ) -> Result<Plan, TransferRefusal> {
        let number =
            self.number(&call.number).ok_or_else(|| TransferRefusal::NumberGone(call.number.clone()))?;
        let destination = self
            .table()
            .destinations
            .get(fallback)
            .ok_or_else(|| TransferRefusal::DestinationGone(fallback.clone()))?;
        let listed = Listed { name: &fallback.name, key: fallback, destination };
        let plan = self.plan(call, number, listed, now)?;
        // There is no assistant to return to.
        Ok(Plan { return_to_assistant: false, ..plan })
    }

    /// The first of these destinations that can be dialled now, with those after it; and those before it that can't be.
    pub fn next(
        &self,
        call: &CallFacts,
        chain: &[ObjectKey],
        now: Now<'_>,
    ) -> (Vec<PassedOver>, Option<(TransferRoute, Vec<ObjectKey>)>) {
        let mut passed_over = Vec::new();
        for (position, key) in chain.iter().enumerate() {
            let route = match (self.number(&call.number), self.table().destinations.get(key)) {
                (Some(number), Some(destination)) => {
                    self.to_destination(call, number, Listed { name: &key.name, key, destination }, now)
                }
                (None, _) => Err(TransferRefusal::NumberGone(call.number.clone())),
                (_, None) => Err(TransferRefusal::DestinationGone(key.clone())),
            };
            match route {
                Ok(route) => return (passed_over, Some((route, chain[position + 1..].to_vec()))),
                Err(refusal) => passed_over.push(PassedOver { label: key.name.clone(), refusal }),
            }
        }
        (passed_over, None)
    }

    /// How it goes with a destination and those that are tried after it. When none of them can be dialled, the refusal of
    /// the first says why.
    fn plan(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        listed: Listed<'_>,
        now: Now<'_>,
    ) -> Result<Plan, TransferRefusal> {
        let Listed { name, destination, .. } = listed;
        let return_to_assistant = destination.return_to_assistant;
        match self.to_destination(call, number, listed, now) {
            Ok(route) => {
                let then = destination.then.clone();
                Ok(Plan { passed_over: Vec::new(), route, then, return_to_assistant })
            }
            Err(refusal) => match self.next(call, &destination.then, now) {
                (_, None) => Err(refusal),
                (others, Some((route, then))) => {
                    let first = PassedOver { label: name.clone(), refusal };
                    let passed_over = std::iter::once(first).chain(others).collect();
                    Ok(Plan { passed_over, route, then, return_to_assistant })
                }
            },
        }
    }

    fn to_destination(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        Listed { name, key, destination }: Listed<'_>,
        now: Now<'_>,
    ) -> Result<TransferRoute, TransferRefusal> {
        if let Some(State::Closed(opens)) = destination.schedule.as_ref().map(|schedule| schedule.at(now.at))
        {
            return Err(TransferRefusal::Closed { destination: name.clone(), opens });
        }
        if let Some(way) = self.may_be_referred(call, number).filter(|_| destination.by_refer) {
            let refer_to = refer_to(call, way, &destination.target)?;
            let dialled = through(way.entry, |_, _| refer_to.clone());
            let route = route(name.clone(), dialled, Some(way));
            return Ok(TransferRoute {
                destination: Some(key.clone()),
                message: destination.message.clone(),
                refer_to: Some(refer_to),
                headers: destination.headers.clone(),
                ring_timeout_seconds: destination.ring_timeout_seconds,
                ..route
            });
        }
        let own_trunk = destination.trunk.as_ref();
        let (dialled, way) = match &destination.target {
            DestinationTarget::Number(wanted) => self.dial(call, number, own_trunk, wanted, now)?,
            DestinationTarget::Sip(target) => match own_trunk {
                Some(trunk) => {
                    let way = self.way(trunk, TrunkRule::Destination, name)?;
                    check_user(call, way, target)?;
                    has_room(way, now)?;
                    (through(way.entry, |_, _| target.uri.clone()), Some(way))
                }
                None => (directly(self.direct(call, number, target)?), None),
            },
        };
        Ok(TransferRoute {
            destination: Some(key.clone()),
            label: name.clone(),
            message: destination.message.clone(),
            caller_id: destination.caller_id.clone(),
            headers: destination.headers.clone(),
            ring_timeout_seconds: destination.ring_timeout_seconds,
            ..route(name.clone(), dialled, way)
        })
    }

    /// The caller's trunk, if it can be sent a REFER now.
    fn may_be_referred(&self, call: &CallFacts, number: &NumberEntry) -> Option<Way<'_>> {
        let way = self.way(&call.inbound_trunk, TrunkRule::Inbound, "").ok()?;
        let may = call.may_be_referred && way.entry.refer.is_some() && may_use(number, way.entry);
        may.then_some(way)
    }

    fn to_number(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        wanted: &E164,
        now: Now<'_>,
    ) -> Result<TransferRoute, TransferRefusal> {
        let (dialled, way) = self.dial(call, number, None, wanted, now)?;
        Ok(route(wanted.to_string(), dialled, way))
    }

    /// A URI that is listed nowhere.
    fn to_uri(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        wanted: &SipTarget,
    ) -> Result<TransferRoute, TransferRefusal> {
        let target = self.direct(call, number, wanted)?;
        Ok(route(wanted.uri.clone(), directly(target), None))
    }

    /// A number through the trunk that the rule chooses.
    fn dial(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        own_trunk: Option<&ObjectKey>,
        wanted: &E164,
        now: Now<'_>,
    ) -> Result<(Dialled, Option<Way<'_>>), TransferRefusal> {
        let way = self.choose(call, number, own_trunk, wanted.as_str())?;
        if *wanted == call.number {
            return Err(TransferRefusal::Loop(wanted.clone()));
        }
        if !lets_out(way.entry, wanted) {
            return Err(TransferRefusal::NotAllowed { trunk: way.key.clone(), wanted: wanted.to_string() });
        }
        has_room(way, now)?;
        let at = |host: &str, port| uri::format(Some(wanted.as_str()), host, port);
        Ok((through(way.entry, at), Some(way)))
    }

    /// A URI without a trunk. If its host is that of a trunk which the number's namespace may use (and which may well
    /// trust our address), that trunk's `outbound` rules hold as if the URI went through it. Trunks of strangers don't
    /// count: they could shut off other people's destinations.
    fn direct(
        &self,
        call: &CallFacts,
        number: &NumberEntry,
        target: &SipTarget,
    ) -> Result<SipTarget, TransferRefusal> {
        for (key, entry) in self.table().trunks.iter().filter(|(_, entry)| entry.is_at(&target.host)) {
            if may_use(number, entry) {
                check_user(call, Way { key, entry, rule: TrunkRule::Direct }, target)?;
            }
        }
        Ok(target.clone())
    }

    /// The trunk rule for numbers.
    fn choose<'a>(
        &'a self,
        call: &CallFacts,
        number: &NumberEntry,
        own_trunk: Option<&ObjectKey>,
        wanted: &str,
    ) -> Result<Way<'a>, TransferRefusal> {
        if let Some(trunk) = own_trunk {
            return self.way(trunk, TrunkRule::Destination, wanted);
        }
        if let Some(trunk) = &number.transfer_trunk {
            return self.way(trunk, TrunkRule::Number, wanted);
        }
        if number.transfer_trunk_unusable {
            return Err(TransferRefusal::TransferTrunkUnusable(number.object.clone()));
        }
        let way = self.way(&call.inbound_trunk, TrunkRule::Inbound, wanted)?;
        // The grant may have been withdrawn while the call was up.
        if may_use(number, way.entry) { Ok(way) } else { Err(TransferRefusal::NoRoute(wanted.to_owned())) }
    }

    fn way(&self, trunk: &ObjectKey, rule: TrunkRule, wanted: &str) -> Result<Way<'_>, TransferRefusal> {
        let (key, entry) = self
            .table()
            .trunks
            .get_key_value(trunk)
            .ok_or_else(|| TransferRefusal::NoRoute(wanted.to_owned()))?;
        if entry.credentials_missing {
            return Err(TransferRefusal::CredentialsMissing(key.clone()));
        }
        Ok(Way { key, entry, rule })
    }
}

/// A destination under the name that it is asked for by.
#[derive(Clone, Copy)]
struct Listed<'a> {
    name: &'a String,
    key: &'a ObjectKey,
    destination: &'a DestinationEntry,
}

/// The trunk that carries a transfer, and why it.
#[derive(Clone, Copy)]
struct Way<'a> {
    key: &'a ObjectKey,
    entry: &'a TrunkEntry,
    rule: TrunkRule,
}

/// The listed destination that is wanted: by its name, else the first in the order of names that dials what is wanted.
fn best<'a>(mut listed: impl Iterator<Item = Listed<'a>> + Clone, wanted: &Wanted) -> Option<Listed<'a>> {
    match wanted {
        Wanted::Name(name) => listed.find(|listed| listed.name == name),
        Wanted::Number(number) => listed.clone().find(|listed| listed.name == number.as_str()).or_else(|| {
            listed.find(|listed| matches!(&listed.destination.target, DestinationTarget::Number(own) if own == number))
        }),
        Wanted::Uri(target) => {
            listed.find(|listed| matches!(&listed.destination.target, DestinationTarget::Sip(own) if own == target))
        }
    }
}

/// The route of something that no object describes; where one does, its own values replace these.
fn route(label: String, (target, failover): Dialled, way: Option<Way<'_>>) -> TransferRoute {
    TransferRoute {
        destination: None,
        label,
        message: None,
        target,
        refer_to: None,
        failover,
        trunk: way.map(|way| way.key.clone()),
        trunk_rule: way.map_or(TrunkRule::Direct, |way| way.rule),
        limits: way.map_or_else(Limits::default, |way| way.entry.limits),
        credential: way.and_then(|way| way.entry.credential.clone()),
        realm: way.and_then(|way| way.entry.realm.clone()),
        caller_id: CallerIdEntry::Preserve,
        caller_id_header: way.map_or(CallerIdHeaderEntry::From, |way| way.entry.caller_id_header),
        headers: Vec::new(),
        ring_timeout_seconds: DEFAULT_RING_TIMEOUT_SECONDS,
        session_timer: way.map(|way| way.entry.session_timer).unwrap_or_default(),
    }
}

/// A route that nothing follows.
fn alone(route: TransferRoute) -> Plan {
    Plan { passed_over: Vec::new(), route, then: Vec::new(), return_to_assistant: true }
}

/// Where an INVITE goes, and where else it can go.
type Dialled = (SipTarget, Failover);

/// To the trunk; `uri` writes the Request-URI for one of its hosts.
fn through(trunk: &TrunkEntry, uri: impl Fn(&str, Option<u16>) -> String) -> Dialled {
    let target = |host: &str, port| trunk.target(uri(host, port), host, port);
    let failover = trunk.failover.as_ref().map(|failover| Failover {
        elsewhere: failover
            .hosts
            .iter()
            .map(|backup| Elsewhere {
                target: target(&backup.host, backup.port),
                priority: backup.priority,
                weight: backup.weight,
            })
            .collect(),
        final_codes: failover.final_codes.clone(),
    });
    (target(&trunk.host, trunk.port), failover.unwrap_or_default())
}

fn directly(target: SipTarget) -> Dialled {
    (target, Failover::default())
}

/// The URI that the caller's trunk is asked to dial. It is its call, but it acts on our word: its `outbound` rules hold.
fn refer_to(call: &CallFacts, way: Way<'_>, target: &DestinationTarget) -> Result<String, TransferRefusal> {
    let number = match target {
        DestinationTarget::Number(number) => number,
        DestinationTarget::Sip(target) => {
            check_user(call, way, target)?;
            return Ok(target.uri.clone());
        }
    };
    if *number == call.number {
        return Err(TransferRefusal::Loop(number.clone()));
    }
    if !lets_out(way.entry, number) {
        return Err(TransferRefusal::NotAllowed { trunk: way.key.clone(), wanted: number.to_string() });
    }
    Ok(match &way.entry.refer {
        Some(ReferEntry::Sip { host }) => uri::format(Some(number.as_str()), host, None),
        Some(ReferEntry::Tel) | None => format!("tel:{number}"),
    })
}

/// Whether the trunk's limits let one more call out.
fn has_room(way: Way<'_>, now: Now<'_>) -> Result<(), TransferRefusal> {
    match now.lines.full(way.key, way.entry.limits) {
        Some(limit) => Err(TransferRefusal::Full { trunk: way.key.clone(), limit }),
        None => Ok(()),
    }
}

fn may_use(number: &NumberEntry, trunk: &TrunkEntry) -> bool {
    trunk.allowed_namespaces.binary_search(&number.object.namespace).is_ok()
}

/// Whether the trunk's `outbound` rules let a number out; a denied prefix wins.
fn lets_out(trunk: &TrunkEntry, number: &E164) -> bool {
    let begins =
        |prefixes: &[String]| prefixes.iter().any(|prefix| number.as_str().starts_with(prefix.as_str()));
    !begins(&trunk.denied_prefixes) && (trunk.allowed_prefixes.is_empty() || begins(&trunk.allowed_prefixes))
}

/// A user part that a trunk could dial as a number is held to the trunk's `outbound` rules like a number. Digits that
/// can't be read as E.164 (an extension, a short code) are let out only where the trunk has no such rules.
fn check_user(call: &CallFacts, way: Way<'_>, target: &SipTarget) -> Result<(), TransferRefusal> {
    let user = uri::user(target).unwrap_or_default();
    let dialled = user.split(';').next().unwrap_or_default();
    let is_phone_like = dialled.chars().any(|character| character.is_ascii_digit())
        && dialled.chars().all(|character| character.is_ascii_digit() || "+-.() /*#".contains(character));
    if !is_phone_like {
        return Ok(());
    }
    let refusal = TransferRefusal::NotAllowed { trunk: way.key.clone(), wanted: user.clone() };
    match normalise(&way.entry.number_format, dialled) {
        Some(number) if number == call.number => Err(TransferRefusal::Loop(number)),
        Some(number) if lets_out(way.entry, &number) => Ok(()),
        None if way.entry.allowed_prefixes.is_empty() && way.entry.denied_prefixes.is_empty() => Ok(()),
        _ => Err(refusal),
    }
}

fn label(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Name(name) => name.clone(),
        Wanted::Number(number) => number.to_string(),
        Wanted::Uri(target) => target.uri.clone(),
    }
}

fn known<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "(no destination)".to_owned() } else { names.join(", ") }
}
