//! The caller's signed identity (STIR, RFC 8224): passed on to the agent as long as it is true there.
//!
//! A PASSporT says who calls whom, and when. A verifier holds `orig` against From, `dest` against To and `iat` against Date
//! (RFC 8224 §6.2); of telephone numbers only the digits count (§8.3), so that our own host, tag and Call-ID change nothing.
//! It is passed on verbatim, with the Date that it came with, when our INVITE names the same two numbers. Otherwise it is left
//! out: to another number it would be true only with a `div` PASSporT of ours (RFC 8946), and we have no certificate to
//! sign one. Whoever is called instead is told by Diversion and History-Info.

use crate::sip::event::{IncomingCall, Party};

/// The headers of an INVITE to `uri` in the name of `from`.
pub(super) fn headers(incoming: &IncomingCall, from: &Party, uri: &str) -> Vec<(String, String)> {
    let same = |one: &str, other: &str| digits(one).is_some_and(|number| digits(other) == Some(number));
    if !same(&incoming.from.user, &from.user) || !same(&incoming.to.user, user(uri)) {
        return Vec::new();
    }
    let identities = incoming.identity.iter().map(|value| ("Identity".to_owned(), value.clone()));
    let date = incoming.date.iter().map(|value| ("Date".to_owned(), value.clone()));
    if incoming.identity.is_empty() { Vec::new() } else { identities.chain(date).collect() }
}

/// The user part of a SIP URI, without its parameters.
fn user(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or("", |(_, rest)| rest);
    let user = rest.split_once('@').map_or("", |(user, _)| user);
    user.split(';').next().unwrap_or_default()
}

/// A telephone number in the form in which it is signed: its digits.
fn digits(user: &str) -> Option<String> {
    let number = user.strip_prefix('+').unwrap_or(user);
    let visual = |c: char| matches!(c, '-' | '.' | '(' | ')' | ' ');
    let digits: String = number.chars().filter(|c| !visual(*c)).collect();
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}
