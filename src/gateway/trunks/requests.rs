//! What a trunk is sent, and what its answers mean. Pure.

use std::time::Duration;

use super::probe::ProbeResult;
use super::registration::{Answer, Asking};
use crate::routing::table::{SipTarget, TrunkEntry};
use crate::routing::uri;
use crate::sip::event::Flow;
use crate::sip::outside::{Outcome, OutsideRequest};
use crate::sip::read;
use crate::sip::wire::{escaped_user, reason_phrase};

/// How long a request waits for its answer: over UDP it is sent five times in that.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest text that is reported, characters.
const LONGEST: usize = 160;

/// What is probed: the trunk itself, nobody at it.
pub(super) fn probed(entry: &TrunkEntry) -> SipTarget {
    entry.target(uri::format(None, &entry.host, entry.port), &entry.host, entry.port)
}

/// The trunk's host number `host` as a registrar: 0 is its first, then come those that take over from it.
pub(super) fn registrar(entry: &TrunkEntry, host: usize) -> SipTarget {
    let others = entry.failover.iter().flat_map(|failover| &failover.hosts);
    match host.checked_sub(1).and_then(|index| others.clone().nth(index)) {
        Some(other) => entry.target(uri::format(None, &other.host, other.port), &other.host, other.port),
        None => probed(entry),
    }
}

/// OPTIONS (RFC 3261 §11). `local` is how the peer reaches us.
pub(super) fn options(target: &SipTarget, flow: Flow, local: &str) -> OutsideRequest {
    let own = format!("sip:voicedock@{local}");
    OutsideRequest {
        flow,
        method: "OPTIONS",
        uri: target.uri.clone(),
        from: format!("<{own}>"),
        to: format!("<{}>", target.uri),
        call_id: None,
        cseq: 1,
        route: target.route.clone(),
        headers: vec![
            ("Contact", format!("<{own}{}>", flow.transport.parameter())),
            ("Accept", "application/sdp".to_owned()),
        ],
        patience: PATIENCE,
        authority: None,
    }
}

/// REGISTER (RFC 3261 §10.2) of `user` at the trunk's domain, whichever of its hosts is asked.
pub(super) fn register(
    entry: &TrunkEntry,
    target: &SipTarget,
    flow: Flow,
    local: &str,
    user: &str,
    asking: Asking,
) -> OutsideRequest {
    let user = escaped_user(user);
    let address = format!("<{}>", uri::format(Some(&user), &entry.host, None));
    let Asking { seconds, call_id, cseq, authority, .. } = asking;
    OutsideRequest {
        flow,
        method: "REGISTER",
        uri: target.uri.clone(),
        from: address.clone(),
        to: address,
        call_id: Some(call_id),
        cseq,
        route: target.route.clone(),
        headers: vec![
            ("Contact", format!("<sip:{user}@{local}{}>;expires={seconds}", flow.transport.parameter())),
            ("Expires", seconds.to_string()),
        ],
        patience: PATIENCE,
        authority,
    }
}

/// Every final answer to OPTIONS proves that somebody is there, but for 408 (it can't reach what is behind it) and 503 (it
/// takes nothing).
pub(super) fn probe_result(outcome: &Outcome) -> ProbeResult {
    let answered = |code: u16, reason: &str| ProbeResult {
        reached: !matches!(code, 408 | 503),
        said: shorten(&format!("OPTIONS was answered {code} {reason}")),
    };
    match outcome {
        Outcome::Response(response) => answered(response.status.code(), &read::reason(response)),
        Outcome::Challenged(code, _) => answered(*code, reason_phrase(*code)),
        Outcome::Timeout | Outcome::Transport => {
            ProbeResult { reached: false, said: nothing_came("OPTIONS", outcome) }
        }
    }
}

/// What an answer to the REGISTER of `user` means; `local` is how the peer reaches us.
pub(super) fn answer(outcome: &Outcome, user: &str, local: &str) -> Answer {
    match outcome {
        Outcome::Response(response) => {
            let code = response.status.code();
            let headers = &response.headers;
            let said = || shorten(&format!("REGISTER was answered {code} {}", read::reason(response)));
            match code {
                200..300 => Answer::Granted(read::granted(headers, user, local).unwrap_or_default()),
                423 => Answer::TooBrief(read::min_expires(headers).unwrap_or_default()),
                408 | 500..600 => Answer::NotHere(said(), read::retry_after(headers)),
                _ => Answer::Refused(said(), read::retry_after(headers)),
            }
        }
        Outcome::Challenged(code, why) => {
            let why = match why {
                Some(why) => why.to_string(),
                None => "it wants a user name and a password; set credentialsSecretRef".to_owned(),
            };
            Answer::Refused(shorten(&format!("REGISTER was answered {code}: {why}")), None)
        }
        Outcome::Timeout | Outcome::Transport => Answer::NotHere(nothing_came("REGISTER", outcome), None),
    }
}

fn nothing_came(method: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Transport => format!("{method} could not be sent: there is no connection"),
        _ => format!("{method} was not answered within {} s", PATIENCE.as_secs()),
    }
}

/// One line, and not a long one: what a peer says ends up in a status.
pub(super) fn shorten(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}
