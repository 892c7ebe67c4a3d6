//! The two questions of a gateway: who answers this call, and how does this transfer go? With the reasons.
//!
//! Pure look-ups over an [`Index`] of the table; every refusal says why, for logs, the API's answer and `explain`.

mod failover;
mod numbers;
mod sources;
mod transfer;
mod trial;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::normalise::normalise;
use super::schedule::Opening;
use super::table::{
    AgentEntry, AssistantEntry, CallerIdEntry, CallerIdHeaderEntry, CredentialId, E164, HookEntry, Limits,
    NumberEntry, ObjectKey, SessionTimerEntry, SipTarget, Table, TransportEntry, TrunkEntry,
};
pub use failover::{Elsewhere, Failover};
use numbers::Numbers;
use sources::Sources;
pub use trial::TestRefusal;

/// A table made ready for look-ups when a gateway switches to it: from the one before, at the cost of what changed.
///
/// The entries are those of the table (shared, not copied); a look-up of a number costs the same at any table size.
pub struct Index {
    table: Arc<Table>,
    numbers: Numbers,
    sources: Arc<Sources>,
}

/// Who answers a call. Shares the entries of the table: to make one costs no copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    number: E164,
    entry: Arc<NumberEntry>,
    trunk: Arc<ObjectKey>,
    session_timer: SessionTimerEntry,
    limits: Limits,
    proof: Option<Option<CredentialId>>,
    assistant: Option<Arc<AssistantEntry>>,
}

impl Answer {
    /// The number that was called.
    pub fn number(&self) -> &E164 {
        &self.number
    }

    /// The PhoneNumber object.
    pub fn object(&self) -> &ObjectKey {
        &self.entry.object
    }

    /// The trunk that the call came in over.
    pub fn trunk(&self) -> &ObjectKey {
        &self.trunk
    }

    /// That trunk's session timers.
    pub fn session_timer(&self) -> SessionTimerEntry {
        self.session_timer
    }

    /// How much is taken over that trunk.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What whoever calls must prove to know, if anything: `Some(None)` when that is missing, and nobody can.
    pub fn proof(&self) -> Option<Option<&CredentialId>> {
        self.proof.as_ref().map(Option::as_ref)
    }

    /// The assistant that answers and how it is reached; absent: straight to [`Self::fallback`].
    pub fn assistant(&self) -> Option<(&ObjectKey, &AgentEntry)> {
        let entry = self.assistant.as_ref()?;
        self.entry.assistant.as_ref().map(|key| (key, &entry.agent))
    }

    /// Gets the caller when the assistant can't be reached.
    pub fn fallback(&self) -> Option<&ObjectKey> {
        self.entry.fallback.as_ref()
    }
}

/// Why a call is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerRefusal {
    /// 403.
    #[error("no trunk takes calls from {0}; add it to a SipTrunk's inbound.allowedSources")]
    UnknownSource(IpAddr),
    /// 404.
    #[error(
        "no PhoneNumber of this gateway takes the called number over trunk {0}; check the trunk's inbound.numberFormat, and \
         that the PhoneNumber is in the trunk's namespace or names it as transferTrunkRef"
    )]
    UnknownNumber(ObjectKey),
}

/// What a transfer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A destination of the assistant, by name.
    Name(String),
    /// A number in E.164.
    Number(E164),
    /// A SIP URI.
    Uri(SipTarget),
}

/// Who asks for a transfer: an assistant may only have the destinations it lists, the API also what trunks let out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The assistant, by tool call or REFER.
    Assistant,
    /// The control API.
    Api,
}

/// The call that is to be transferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFacts {
    /// The number that the caller dialled.
    pub number: E164,
    /// The trunk that the call came in over.
    pub inbound_trunk: ObjectKey,
    /// Whether that trunk can be sent a REFER: not before the caller was answered.
    pub may_be_referred: bool,
}

/// What holds when a transfer is asked for, besides the table.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// The time of day.
    pub at: Timestamp,
    /// What trunks carry.
    pub lines: &'a dyn Lines,
}

/// What trunks carry at the moment, as whoever dials counts it.
pub trait Lines {
    /// The limit that lets no further call out through `trunk`, if there is one.
    fn full(&self, trunk: &ObjectKey, limits: Limits) -> Option<Limit>;
}

/// A limit of a trunk that is reached; in the words of calls that are dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Calls at once.
    #[error("it carries {0} calls, as many as its outbound.maxConcurrentCalls lets one gateway pod dial")]
    Calls(u32),
    /// New calls in a second.
    #[error(
        "{0} calls were dialled within a second, as many as its outbound.maxCallsPerSecond lets one gateway pod dial"
    )]
    PerSecond(u32),
}

impl Limit {
    /// The same of calls that come in.
    pub fn inbound(self) -> String {
        match self {
            Self::Calls(most) => {
                format!(
                    "{most} calls came in over it, as many as its inbound.maxConcurrentCalls lets one gateway pod take"
                )
            }
            Self::PerSecond(most) => format!(
                "{most} calls came in over it within a second, as many as its inbound.maxCallsPerSecond lets one gateway pod take"
            ),
        }
    }
}

/// How a transfer is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRoute {
    /// The destination, when one was named or matched.
    pub destination: Option<ObjectKey>,
    /// What the outcome calls it: the destination's name, the number or the URI.
    pub label: String,
    /// What the assistant says before it is dialled.
    pub message: Option<String>,
    /// The Request-URI and where it is sent.
    pub target: SipTarget,
    /// The Refer-To (a URI) with which the caller's trunk is asked to dial; absent when the gateway dials.
    pub refer_to: Option<String>,
    /// Where else it can be sent.
    pub failover: Failover,
    /// The trunk that carries it; absent for a SIP URI that is dialled directly.
    pub trunk: Option<ObjectKey>,
    /// Which rule chose the trunk, for `explain`.
    pub trunk_rule: TrunkRule,
    /// How much may be dialled through it.
    pub limits: Limits,
    /// Credentials and realm of the trunk.
    pub credential: Option<CredentialId>,
    /// The only realm whose challenge is answered.
    pub realm: Option<String>,
    /// Whose number is shown.
    pub caller_id: CallerIdEntry,
    /// The header that carries it; absent when dialled directly (From only).
    pub caller_id_header: CallerIdHeaderEntry,
    /// Headers on the INVITE.
    pub headers: Vec<(String, String)>,
    /// Seconds that it may ring.
    pub ring_timeout_seconds: u32,
    /// Session timers.
    pub session_timer: SessionTimerEntry,
}

/// Whom a transfer begins with, and who follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who comes before but can't be dialled now.
    pub passed_over: Vec<PassedOver>,
    /// Who is dialled.
    pub route: TransferRoute,
    /// Who is tried after that, in this order; see [`Index::next`].
    pub then: Vec<ObjectKey>,
    /// Whether a caller whom nobody took goes back to the assistant.
    pub return_to_assistant: bool,
}

/// A destination that is not dialled although its turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its name, the number or the URI.
    pub label: String,
    /// Why.
    pub refusal: TransferRefusal,
}

/// Which rule chose the trunk of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrunkRule {
    /// The destination's `trunkRef`.
    Destination,
    /// The number's `transferTrunkRef`.
    Number,
    /// The trunk that the call came in over.
    Inbound,
    /// A SIP URI without a trunk.
    Direct,
}

/// Why a transfer is refused before anything is dialled; the caller stays with the assistant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    /// The name is no destination of the assistant.
    #[error("'{wanted}' is not a destination of assistant {assistant}; it may transfer to: {known}")]
    UnknownDestination {
        /// What was asked for.
        wanted: String,
        /// Whose list was looked at.
        assistant: String,
        /// The names that would have worked, joined by commas.
        known: String,
    },
    /// The trunk's `outbound` rules don't let the number out.
    #[error("trunk {trunk} may not dial {wanted}; see its outbound.allowedPrefixes and deniedPrefixes")]
    NotAllowed {
        /// The trunk.
        trunk: ObjectKey,
        /// The number, or the user part of the SIP URI.
        wanted: String,
    },
    /// It is outside of the destination's hours.
    #[error(
        "destination {destination} is closed{}",
        opens.as_ref().map_or_else(|| "; see its schedule".to_owned(), |opening| format!("; it opens {opening}"))
    )]
    Closed {
        /// The destination.
        destination: String,
        /// When it opens next; absent when that is not within two weeks.
        opens: Option<Opening>,
    },
    /// The trunk carries as much as it may.
    #[error("trunk {trunk} takes no further call now: {limit}")]
    Full {
        /// The trunk.
        trunk: ObjectKey,
        /// Which limit.
        limit: Limit,
    },
    /// The caller would be put through to the number that the caller dialled.
    #[error("{0} is the number that the caller dialled; the transfer would come back here")]
    Loop(E164),
    /// The trunk names credentials that are not there; it is not dialled without them.
    #[error(
        "trunk {0} carries no calls out: its credentials are missing; see condition ResolvedRefs of the SipTrunk"
    )]
    CredentialsMissing(ObjectKey),
    /// The number's transfer trunk can't be used; no other trunk takes its place.
    #[error(
        "the transfer trunk of PhoneNumber {0} can't be used; see condition ResolvedRefs of the PhoneNumber"
    )]
    TransferTrunkUnusable(ObjectKey),
    /// No rule names a trunk.
    #[error("no trunk carries the transfer to {0}; set transferTrunkRef on the PhoneNumber")]
    NoRoute(String),
    /// The destination is not in the table any more.
    #[error("destination {0} is no longer in the table; see condition ResolvedRefs of what names it")]
    DestinationGone(ObjectKey),
    /// The number is not in the table any more.
    #[error("number {0} is no longer routed by this gateway")]
    NumberGone(E164),
}

/// Transport of a trunk's target (re-exported for the driver).
pub type TargetTransport = TransportEntry;

impl Index {
    /// Makes a table ready for look-ups; takes time in proportion to its size.
    pub fn new(table: Arc<Table>) -> Self {
        let numbers = Numbers::new(&table.numbers);
        let sources = Arc::new(Sources::new(&table.trunks));
        Self { table, numbers, sources }
    }

    /// Makes a table ready for look-ups that was made from this one's by changing it: takes time in proportion to what was
    /// changed, plus the number of trunks if one of them was.
    pub fn follow(&self, table: Arc<Table>) -> Self {
        let numbers = self.numbers.follow(&self.table.numbers, &table.numbers);
        let same = self.table.trunks.diff(&table.trunks).next().is_none();
        let sources = if same { self.sources.clone() } else { Arc::new(Sources::new(&table.trunks)) };
        Self { table, numbers, sources }
    }

    /// The table.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The entry of a number.
    pub fn number(&self, number: &E164) -> Option<&NumberEntry> {
        self.numbers.get(number).map(AsRef::as_ref)
    }

    /// Where the agent of an assistant is told what to say now, if it can be.
    pub fn hook(&self, assistant: &ObjectKey) -> Option<&HookEntry> {
        self.table.assistants.get(assistant)?.agent.hook()
    }

    /// Who answers a call from `source` (the address that the INVITE came from) to `called_raw` (the user part of its
    /// Request-URI, unescaped).
    ///
    /// Every trunk that admits the source reads the number in its own format; the number's namespace must be one that may
    /// use the trunk. A trunk in the number's own namespace comes first, then the order of keys decides.
    pub fn who_answers(&self, source: IpAddr, called_raw: &str) -> Result<Answer, AnswerRefusal> {
        self.among(self.sources.admitting(source), called_raw)
            .map_err(|first| first.map_or(AnswerRefusal::UnknownSource(source), AnswerRefusal::UnknownNumber))
    }

    /// The trunks that are recognised by what their callers know, wherever they call from, each with what that is; `None`
    /// when it is missing.
    pub fn by_digest(&self) -> impl Iterator<Item = (&ObjectKey, Option<&CredentialId>)> {
        self.sources.anywhere().map(|(key, trunk)| (key.as_ref(), trunk.credential.as_ref()))
    }

    /// Who answers a call from a trunk of [`Self::by_digest`] that was recognised.
    pub fn who_answers_over(&self, trunk: &ObjectKey, called_raw: &str) -> Result<Answer, AnswerRefusal> {
        let recognised = self.sources.anywhere().filter(|(key, _)| key.as_ref() == trunk);
        self.among(recognised, called_raw).map_err(|_| AnswerRefusal::UnknownNumber(trunk.clone()))
    }

    /// The answer over one of these trunks, or the first of them.
    fn among<'a>(
        &self,
        trunks: impl Iterator<Item = (&'a Arc<ObjectKey>, &'a TrunkEntry)>,
        called_raw: &str,
    ) -> Result<Answer, Option<ObjectKey>> {
        let mut first = None;
        let mut shared = None;
        for (key, trunk) in trunks {
            first.get_or_insert(key);
            let Some(number) = normalise(&trunk.number_format, called_raw) else { continue };
            let Some(found) = self.numbers.get(&number) else { continue };
            let namespace = &found.object.namespace;
            if trunk.allowed_namespaces.binary_search(namespace).is_err() {
                continue;
            }
            if *namespace == key.namespace {
                return Ok(self.answer((key, trunk), number, found));
            }
            shared.get_or_insert(((key, trunk), number, found));
        }
        match shared {
            Some((trunk, number, found)) => Ok(self.answer(trunk, number, found)),
            None => Err(first.map(|key| ObjectKey::clone(key))),
        }
    }

    /// Whether a trunk takes calls from there.
    pub fn knows(&self, source: IpAddr) -> bool {
        self.sources.admitting(source).next().is_some()
    }

    fn answer(
        &self,
        (trunk, entry): (&Arc<ObjectKey>, &TrunkEntry),
        number: E164,
        found: &Arc<NumberEntry>,
    ) -> Answer {
        let assistant = found.assistant.as_ref().and_then(|key| self.table.assistants.get(key)).cloned();
        let (trunk, session_timer, limits) = (trunk.clone(), entry.session_timer, entry.inbound_limits);
        let proof = entry.authenticates.then(|| entry.credential.clone());
        Answer { number, entry: found.clone(), trunk, session_timer, limits, proof, assistant }
    }
}

#[cfg(test)]
mod tests;
