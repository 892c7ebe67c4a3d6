//! Addresses without the people in them: name-addr lists, URIs, user parts, and text in which a number may stand.

use super::{CUT, cut_parameter, is_token};

/// Parameters of addresses and URIs whose values name nobody.
const HARMLESS: &[&str] = &[
    "tag",
    "transport",
    "lr",
    "ob",
    "vd",
    "user",
    "maddr",
    "ttl",
    "method",
    "q",
    "expires",
    "reg-id",
    "index",
    "counter",
    "limit",
    "privacy",
    "screen",
    "party",
    "rport",
    "received",
    "alias",
    "nat",
    "r2",
    "ftag",
];
/// Parameters that are text for people.
const TEXTS: &[&str] = &["reason", "cause", "text"];
/// Users that are nobody.
const NOBODY: &[&str] = &["", "vd", "anonymous", "unavailable", "restricted"];
/// A number of fewer digits is an extension, of which two digits would be nearly all.
const LONG_ENOUGH: usize = 6;
/// So many digits, with nothing but single blanks and hyphens between them, are taken for a number in text.
const RUN: usize = 6;
/// Schemes of URIs that are named; what follows them is cut.
const SCHEMES: &[&str] = &["urn", "http", "https", "mailto", "im", "pres", "data", "cid"];

/// A list of `"display" <uri>;parameter` or `uri;parameter`.
pub(super) fn addresses(value: &str) -> String {
    let entries: Vec<String> =
        split_outside_quotes(value, ',').into_iter().map(|entry| address(entry.trim())).collect();
    entries.join(", ")
}

fn address(entry: &str) -> String {
    if entry == "*" {
        return entry.to_owned();
    }
    let quoted = end_of_quoted(entry);
    let Some(open) = entry.get(quoted..).and_then(|rest| rest.find('<')).map(|at| quoted + at) else {
        // Without brackets parameters are the header's (RFC 3261 §20.10).
        let (target, rest) = entry.split_at(entry.find(';').unwrap_or(entry.len()));
        return format!("{}{}", uri(target.trim()), parameters(rest));
    };
    let (display, rest) = entry.split_at(open);
    let (target, rest) = rest[1..].split_once('>').unwrap_or((&rest[1..], ""));
    let display = if display.trim().is_empty() { "" } else { "\"…\" " };
    format!("{display}<{}>{}", uri(target.trim()), parameters(rest.trim()))
}

/// Where a quoted string at the beginning ends.
fn end_of_quoted(entry: &str) -> usize {
    if !entry.starts_with('"') {
        return 0;
    }
    let mut escaped = false;
    for (at, c) in entry.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    entry.len()
}

/// `;name=value;name`, what is before the first semicolon left out.
pub(super) fn parameters(text: &str) -> String {
    let mut out = String::new();
    for parameter in split_outside_quotes(text, ';').into_iter().skip(1) {
        let parameter = parameter.trim();
        out.push(';');
        let Some((name, value)) = parameter.split_once('=') else {
            out.push_str(if is_token(parameter) && !is_number(parameter) { parameter } else { CUT });
            continue;
        };
        let name = name.trim();
        let is_one_of = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(name));
        let value = value.trim();
        if is_one_of(HARMLESS) && is_word(value) {
            out.push_str(&format!("{name}={value}"));
        } else if is_one_of(TEXTS) {
            out.push_str(&format!("{name}={}", self::text(value)));
        } else {
            out.push_str(&cut_parameter(name));
        }
    }
    out
}

/// A URI with its parameters; of what it embeds after `?` nothing.
pub(super) fn uri(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':') else { return CUT.to_owned() };
    let kind = scheme.to_ascii_lowercase();
    match &*kind {
        "sip" | "sips" => {
            let (rest, embedded) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?…"));
            let (whom, place) = match rest.rsplit_once('@') {
                Some((whom, place)) => (format!("{}@", userinfo(whom)), place),
                None => (String::new(), rest),
            };
            let host = place.split(';').next().unwrap_or_default();
            let name = if host.starts_with('[') { host } else { host.split(':').next().unwrap_or_default() };
            let shown = match is_number(name) {
                true => user(name) + &host[name.len()..],
                false if is_word(host) => host.to_owned(),
                false => CUT.to_owned(),
            };
            format!("{scheme}:{whom}{shown}{}{embedded}", parameters(&place[host.len()..]))
        }
        "tel" => {
            let number = rest.split(';').next().unwrap_or_default();
            format!("{scheme}:{}{}", user(number), parameters(&rest[number.len()..]))
        }
        _ if SCHEMES.contains(&&*kind) => format!("{scheme}:{CUT}"),
        _ => CUT.to_owned(),
    }
}

/// `user;parameters:password`.
fn userinfo(whom: &str) -> String {
    let (whom, password) = whom.split_once(':').map_or((whom, ""), |(whom, _)| (whom, ":…"));
    let (whom, more) = whom.split_once(';').map_or((whom, ""), |(whom, _)| (whom, ";…"));
    format!("{}{more}{password}", user(whom))
}

/// A user part: of a number its beginning and end, of a name nothing.
pub(super) fn user(user: &str) -> String {
    let user = user.trim();
    if NOBODY.iter().any(|nobody| nobody.eq_ignore_ascii_case(user)) {
        return user.to_owned();
    }
    let unescaped = user.replace("%2B", "+").replace("%2b", "+").replace("%23", "#");
    if !is_number(&unescaped) {
        return CUT.to_owned();
    }
    let digits: Vec<char> = unescaped.chars().filter(char::is_ascii_digit).collect();
    let plus = if unescaped.starts_with('+') { "+" } else { "" };
    if digits.len() < LONG_ENOUGH {
        return format!("{plus}{}", "*".repeat(digits.len()));
    }
    let zeros = digits.iter().take(2).take_while(|digit| **digit == '0').count();
    let last: String = digits[digits.len() - 2..].iter().collect();
    format!("{plus}{}{}{last}", "0".repeat(zeros), "*".repeat(digits.len() - zeros - 2))
}

/// Digits, and what people write between them. A host with dots is an address and no number.
pub(super) fn is_number(text: &str) -> bool {
    let separators = |c: char| "+-()*# /".contains(c);
    text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || separators(c) || c == '.')
        && text.parse::<std::net::IpAddr>().is_err()
}

/// Letters, digits and what names, tokens and IP addresses are made of besides.
fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~:[]".contains(&b))
}

/// Text for people, in which a number may stand: runs of digits are shown as numbers are.
pub(super) fn text(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        let run = &rest[at..];
        let end = run.find(|c: char| !(c.is_ascii_digit() || c == '-' || c == ' ')).unwrap_or(run.len());
        let run = run[..end].trim_end_matches(['-', ' ']);
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        out.push_str(&if digits >= RUN { user(run) } else { run.to_owned() });
        rest = &rest[at + run.len()..];
    }
    out.push_str(rest);
    // Somebody's address in a sentence.
    if out.contains('@') { CUT.to_owned() } else { out }
}

/// The parts between separators that stand neither in a quoted string nor in angle brackets.
pub(super) fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            c if c == separator && !quoted && !bracketed => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
