//! A transfer from the request to its outcome: who may ask, who is dialled, who is tried next, and the one record of it.

use std::time::Duration;

use crate::routing::decide::{Authority, PassedOver, Plan, TransferRefusal, TransferRoute, Wanted};
use crate::routing::table::{E164, ObjectKey};
use crate::sip::event::{ReferTarget, RequestId};
use crate::sip::replaces::Replaces;

use super::attempt::{Failed, Failure, Purpose, next_host};
use super::identity::Retarget;
use super::input::{AskId, CommandRefusal, Conclusion, Context, Effect, LegKey, Record};
use super::machine::{Call, PeerKind};
use super::outcome::{AskedBy, Message, TransferRecord, Try};

/// A transfer that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Who is dialled.
    pub(super) route: TransferRoute,
    /// Who is tried next.
    then: Vec<ObjectKey>,
    /// What became of those before.
    tries: Vec<Try>,
    return_to_assistant: bool,
    pub(super) asker: Asker,
    /// The agent's own call with the destination, in whose place the caller's comes (RFC 5589 §7).
    replaces: Option<Replaces>,
    /// What the assistant still has to say before that.
    pub(super) message: Option<String>,
    /// What became of it.
    pub(super) announced: Option<Message>,
}

/// Who asked for a transfer, and is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// The control API.
    Api,
    /// The agent, with this REFER.
    Refer(LegKey, RequestId),
    /// The agent, by its session.
    Tool(LegKey, AskId),
}

impl Asker {
    fn asked_by(self) -> AskedBy {
        match self {
            Self::Api => AskedBy::Api,
            Self::Refer(..) | Self::Tool(..) => AskedBy::Agent,
        }
    }

    fn authority(self) -> Authority {
        match self {
            Self::Api => Authority::Api,
            Self::Refer(..) | Self::Tool(..) => Authority::Assistant,
        }
    }

    /// The REFER.
    pub(super) fn refer(self) -> Option<(LegKey, RequestId)> {
        match self {
            Self::Refer(leg, request) => Some((leg, request)),
            Self::Api | Self::Tool(..) => None,
        }
    }
}

impl Transfer {
    fn new(plan: Plan, asker: Asker) -> Self {
        let Plan { passed_over, route, then, return_to_assistant } = plan;
        let tries = passed_over.into_iter().map(Try::passed_over).collect();
        let message = route.message.clone();
        Self { route, then, tries, return_to_assistant, asker, replaces: None, message, announced: None }
    }

    /// What became of the one that was dialled.
    fn tried(&mut self, failure: Failure, rung: Duration) {
        self.tries.push(Try::dialled(&self.route, failure, rung, self.announced.take()));
    }
}

impl Call {
    /// The control API asks for a transfer, or the agent does by its session.
    pub(super) fn transfer(
        &mut self,
        asker: Asker,
        wanted: &Wanted,
        message: Option<String>,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Result<(), CommandRefusal> {
        self.may_begin()?;
        if self.is_under_way() {
            return Err(CommandRefusal::TransferUnderWay);
        }
        match self.resolve(wanted, asker.authority(), true, context) {
            Ok(plan) => {
                let transfer = Transfer::new(plan, asker);
                let message = message.or_else(|| transfer.message.clone());
                self.begin(Transfer { message, ..transfer }, context, out);
                Ok(())
            }
            Err(refusal) => {
                refused(label(wanted), asker.asked_by(), &refusal, out);
                Err(refusal.into())
            }
        }
    }

    /// A party asks for a transfer with REFER; only the agent may.
    pub(super) fn refer(
        &mut self,
        leg: LegKey,
        request: RequestId,
        target: &ReferTarget,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let from_agent =
            self.peer.as_ref().is_some_and(|peer| peer.leg == leg && peer.kind == PeerKind::Agent);
        if !from_agent || self.farewell.is_some() {
            out.push(Effect::Respond(leg, request, 603, None));
            return;
        }
        if self.is_under_way() {
            out.push(Effect::Respond(leg, request, 491, None));
            return;
        }
        match self.resolve_refer(target, context) {
            Ok(plan) => {
                out.push(Effect::Respond(leg, request, 202, None));
                out.push(Effect::Notify { leg, request, code: 100, reason: "Trying", last: false });
                let transfer = Transfer::new(plan, Asker::Refer(leg, request));
                self.begin(Transfer { replaces: target.replaces.clone(), ..transfer }, context, out);
            }
            Err(refusal) => {
                let code = match &refusal {
                    TransferRefusal::UnknownDestination { .. } => 404,
                    TransferRefusal::NotAllowed { .. }
                    | TransferRefusal::Full { .. }
                    | TransferRefusal::Loop(_) => 403,
                    _ => 480,
                };
                let retry_after = match &refusal {
                    TransferRefusal::Closed { opens: Some(opens), .. } => {
                        Some(opens.seconds_after(context.wall))
                    }
                    _ => None,
                };
                out.push(Effect::Decline { leg, request, code, why: refusal.to_string(), retry_after });
                refused(target.user.clone(), AskedBy::Agent, &refusal, out);
            }
        }
    }

    fn resolve(
        &self,
        wanted: &Wanted,
        authority: Authority,
        may_be_referred: bool,
        context: Context<'_>,
    ) -> Result<Plan, TransferRefusal> {
        let facts = self.facts(may_be_referred);
        context.index.transfer(&facts, self.assistant(), wanted, authority, context.moment())
    }

    /// A Refer-To names a number, one of the assistant's destinations, or a SIP URI, in this order; last, a number whose `+` some
    /// agents leave out. A call that replaces the
    /// agent's own is dialled by us, whatever the destination's method: the caller's trunk doesn't know of it.
    fn resolve_refer(&self, target: &ReferTarget, context: Context<'_>) -> Result<Plan, TransferRefusal> {
        let may_be_referred = target.replaces.is_none();
        let resolve = |wanted: &Wanted| self.resolve(wanted, Authority::Assistant, may_be_referred, context);
        let digits: String =
            target.user.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')' | ' ')).collect();
        if let Ok(number) = digits.parse::<E164>() {
            return resolve(&Wanted::Number(number));
        }
        let by_name = resolve(&Wanted::Name(target.user.clone()));
        let Err(TransferRefusal::UnknownDestination { .. }) = by_name else { return by_name };
        if target.scheme != "tel"
            && let Ok(uri) = crate::routing::uri::parse_target(&target.uri, None)
            && let Ok(plan) = resolve(&Wanted::Uri(uri))
        {
            return Ok(plan);
        }
        match format!("+{digits}").parse::<E164>() {
            Ok(number) => resolve(&Wanted::Number(number)).or(by_name),
            Err(_) => by_name,
        }
    }

    /// Begins with the first destination; the caller stays with whom it has until one answers.
    fn begin(&mut self, transfer: Transfer, context: Context<'_>, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::TransferStarted { destination: transfer.route.label.clone() }));
        self.announce(transfer, context, out);
    }

    /// Dials, once everything was said.
    pub(super) fn dial_destination(&mut self, transfer: Transfer, out: &mut Vec<Effect>) {
        let destination = transfer.route.label.clone();
        out.push(Effect::Record(Record::TransferDialling { destination }));
        if let Some(target) = transfer.route.refer_to.clone() {
            return self.refer_away(transfer, target, out);
        }
        let why = Retarget::Transfer { by_refer: transfer.asker.refer().is_some() };
        let mut dial = self.dial_for(&transfer.route, why);
        // Not required: a phone that doesn't know it takes a second call, which is better than none.
        dial.headers.extend(transfer.replaces.iter().map(|it| ("Replaces".to_owned(), it.to_string())));
        let ring = Duration::from_secs(u64::from(transfer.route.ring_timeout_seconds));
        self.dial(Purpose::Transfer(Box::new(transfer)), dial, ring, out);
    }

    /// The destination rings: whoever asked with REFER is told.
    pub(super) fn transfer_rings(&self, transfer: &Transfer, out: &mut Vec<Effect>) {
        out.push(Effect::Record(Record::TransferRinging));
        self.tell_progress(transfer, 180, "Ringing", out);
    }

    fn tell_progress(&self, transfer: &Transfer, code: u16, reason: &'static str, out: &mut Vec<Effect>) {
        if let Some((leg, request)) = transfer.asker.refer().filter(|(leg, _)| self.live.contains(leg)) {
            out.push(Effect::Notify { leg, request, code, reason, last: false });
        }
    }

    /// A destination was not joined with the caller. As long as nobody has answered, the trunk's next host is tried, then the
    /// next destination. Else, or when there is no other, the caller goes back to the assistant, or the call ends.
    pub(super) fn transfer_failed(
        &mut self,
        mut transfer: Box<Transfer>,
        failed: Failed,
        context: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        let mut route = transfer.route.clone();
        if next_host(&mut route, &failed, context, out) {
            transfer.tried(failed.failure, failed.rung);
            return self.dial_destination(Transfer { route, ..*transfer }, out);
        }
        transfer.tried(failed.failure, failed.rung);
        if failed.unanswered {
            let (passed_over, next) = context.index.next(&self.facts(true), &transfer.then, context.moment());
            transfer.tries.extend(passed_over.into_iter().map(Try::passed_over));
            if let Some((route, then)) = next {
                out.push(Effect::Record(Record::TransferForwarded { destination: route.label.clone() }));
                self.tell_progress(&transfer, 181, "Call Is Being Forwarded", out);
                let message = route.message.clone();
                let next = Transfer { route, then, message, replaces: None, ..*transfer };
                return self.announce(next, context, out);
            }
        }
        let (back, asker) = (transfer.return_to_assistant, transfer.asker);
        let record = self.report_tries(*transfer, out);
        let what = record.map(|record| record.for_the_agent());
        if !back {
            self.end("transfer-failed", "SIP;cause=480;text=\"Transfer failed\"", out);
        } else if self.peer.is_none() {
            // The agent hung up while it waited: the assistant is called back, so that the caller isn't dropped.
            self.before = what;
            self.dial_agent_or_fallback(0, context, out);
        } else if let (Asker::Api, Some(what)) = (asker, what) {
            self.let_know(what, context, out);
        }
    }

    /// A destination's part in the transfer is over, and with it the transfer.
    pub(super) fn transfer_ended(
        &self,
        mut transfer: Box<Transfer>,
        failure: Failure,
        rung: Duration,
        out: &mut Vec<Effect>,
    ) {
        transfer.tried(failure, rung);
        self.report_tries(*transfer, out);
    }

    /// The transfer is over with this try.
    pub(super) fn report(&self, mut transfer: Transfer, last: Try, out: &mut Vec<Effect>) {
        transfer.tries.push(last);
        self.report_tries(transfer, out);
    }

    /// The one record of a transfer, and the last word to the agent that asked for it.
    fn report_tries(&self, transfer: Transfer, out: &mut Vec<Effect>) -> Option<TransferRecord> {
        let record = TransferRecord::new(transfer.asker.asked_by(), transfer.tries)?;
        match transfer.asker {
            Asker::Refer(leg, request) if self.live.contains(&leg) => {
                let (code, reason) = record.last.outcome.sipfrag(record.last.sip_code.unwrap_or(0));
                out.push(Effect::Notify { leg, request, code, reason, last: true });
            }
            Asker::Tool(leg, ask) => {
                self.conclude(leg, ask, Conclusion::Ended(Box::new(record.clone())), out);
            }
            Asker::Refer(..) | Asker::Api => {}
        }
        out.push(Effect::Record(Record::TransferEnded(Box::new(record.clone()))));
        Some(record)
    }
}

/// The record of a transfer that was refused before anything was dialled.
fn refused(label: String, asked_by: AskedBy, refusal: &TransferRefusal, out: &mut Vec<Effect>) {
    let refused = Try::passed_over(PassedOver { label, refusal: refusal.clone() });
    out.extend(
        TransferRecord::new(asked_by, vec![refused])
            .map(|record| Effect::Record(Record::TransferEnded(Box::new(record)))),
    );
}

fn label(wanted: &Wanted) -> String {
    match wanted {
        Wanted::Name(name) => name.clone(),
        Wanted::Number(number) => number.to_string(),
        Wanted::Uri(target) => target.uri.clone(),
    }
}
