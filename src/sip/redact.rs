//! What is shown of a SIP message to somebody who looks at a call: enough to see what went wrong, nothing secret, nobody's number.
//! Pure.
//!
//! What isn't known to be harmless isn't shown: headers, parameters and SDP attributes are on a list or have their values cut (`…`).
//!
//! | | shown |
//! | --- | --- |
//! | telephone numbers, wherever an address stands | a leading `+`, up to two leading zeros, the last two of six or more digits: `+*********78`, `00********78` |
//! | other users, display names, passwords, embedded headers | `…` |
//! | hosts, ports, tags, branches, Call-IDs | whole: a call is found by them in the peer's own log |
//! | `Authorization` and challenges | scheme, realm, algorithm, qop, stale, nc |
//! | SDP | codecs, addresses, directions; of `a=crypto` the suite, no keys, no passwords of ICE |
//! | `message/sipfrag` | its status line |
//! | other bodies | their type and size |
//!
//! Line breaks are `\n`, folded headers one line, and control characters (also those that turn text around) are replaced: the text
//! can be printed. It is at most [`LONGEST`] bytes long.

mod address;
mod sdp;
#[cfg(test)]
mod tests;

use self::address::{addresses, is_number, split_outside_quotes, text, uri, user};

/// Bytes of one message's text at most; the rest is cut.
pub const LONGEST: usize = 16 * 1024;

/// What stands for something that isn't shown.
const CUT: &str = "…";

/// Headers that name nobody.
const PLAIN: &[&str] = &[
    "via",
    "call-id",
    "cseq",
    "max-forwards",
    "allow",
    "supported",
    "require",
    "proxy-require",
    "unsupported",
    "content-type",
    "content-length",
    "content-disposition",
    "content-encoding",
    "mime-version",
    "retry-after",
    "session-expires",
    "min-se",
    "rseq",
    "rack",
    "expires",
    "min-expires",
    "event",
    "subscription-state",
    "allow-events",
    "refer-sub",
    "accept",
    "accept-encoding",
    "accept-language",
    "date",
    "timestamp",
    "privacy",
    "p-early-media",
    "replaces",
    "x-voicedock-call-id",
    "x-voicedock-assistant",
];

/// Headers that are text for people.
const TEXTS: &[&str] = &["reason", "warning", "user-agent", "server"];

/// Headers that are addresses.
const ADDRESSES: &[&str] = &[
    "from",
    "to",
    "contact",
    "route",
    "record-route",
    "path",
    "service-route",
    "reply-to",
    "refer-to",
    "referred-by",
    "diversion",
    "history-info",
    "p-asserted-identity",
    "p-preferred-identity",
    "p-called-party-id",
    "remote-party-id",
];

/// Headers by which somebody proves who they are, or is asked to.
const CREDENTIALS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
];

/// What is shown of them.
const HARMLESS_CREDENTIALS: &[&str] = &["realm", "algorithm", "qop", "stale", "nc"];

/// One-letter names (RFC 3261 §7.3.3 and its extensions).
const COMPACT: &[(&str, &str)] = &[
    ("v", "via"),
    ("f", "from"),
    ("t", "to"),
    ("i", "call-id"),
    ("m", "contact"),
    ("k", "supported"),
    ("l", "content-length"),
    ("c", "content-type"),
    ("e", "content-encoding"),
    ("r", "refer-to"),
    ("b", "referred-by"),
    ("o", "event"),
    ("u", "allow-events"),
    ("x", "session-expires"),
];

/// The text of a message. Whatever the bytes are, it is one, and it never fails.
pub fn redact(message: &[u8]) -> String {
    let (head, body) = halves(message);
    let mut out = String::new();
    let mut content_type = String::new();
    for (number, line) in unfolded(&printable(head)).iter().enumerate() {
        if number == 0 {
            out.push_str(&start_line(line));
        } else {
            let Some((name, value)) = line.split_once(':') else {
                out.push_str(CUT);
                out.push('\n');
                continue;
            };
            let (name, value) = (name.trim(), value.trim());
            let lower = name.to_ascii_lowercase();
            let known = COMPACT.iter().find(|(short, _)| *short == lower).map_or(&*lower, |(_, long)| long);
            if known == "content-type" {
                content_type = value.to_owned();
            }
            out.push_str(if is_token(name) { name } else { CUT });
            out.push_str(": ");
            out.push_str(&header(known, value));
        }
        out.push('\n');
    }
    if !body.is_empty() {
        out.push('\n');
        out.push_str(&body_text(&content_type, body));
    }
    shortened(out)
}

fn start_line(line: &str) -> String {
    if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/")) {
        return text(line);
    }
    let words = line.split_once(' ').and_then(|(method, rest)| Some((method, rest.rsplit_once(' ')?)));
    match words {
        Some((method, (target, version))) if is_token(method) && is_version(version) => {
            format!("{method} {} {version}", uri(target.trim()))
        }
        _ => CUT.to_owned(),
    }
}

/// The value of a header, whose name is in lower case and not compact.
fn header(name: &str, value: &str) -> String {
    if PLAIN.contains(&name) {
        value.to_owned()
    } else if TEXTS.contains(&name) {
        text(value)
    } else if ADDRESSES.contains(&name) {
        addresses(value)
    } else if CREDENTIALS.contains(&name) {
        credentials(value)
    } else if name == "x-voicedock-number" {
        user(value)
    } else {
        format!("{CUT} ({} bytes)", value.len())
    }
}

fn credentials(value: &str) -> String {
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("Digest") {
        // What follows another scheme is one secret.
        return if is_token(scheme) && !rest.is_empty() { format!("{scheme} {CUT}") } else { CUT.to_owned() };
    }
    let shown = split_outside_quotes(rest, ',').into_iter().map(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else { return CUT.to_owned() };
        let name = name.trim();
        let value = value.trim();
        let is_word = || value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_,\" ".contains(&b));
        match HARMLESS_CREDENTIALS.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(&"realm") => format!("{name}={}", text(value)),
            Some(_) if is_word() => format!("{name}={value}"),
            _ => cut_parameter(name),
        }
    });
    format!("{scheme} {}", shown.collect::<Vec<_>>().join(", "))
}

fn cut_parameter(name: &str) -> String {
    if is_token(name) && !is_number(name) { format!("{name}={CUT}") } else { CUT.to_owned() }
}

fn body_text(content_type: &str, body: &[u8]) -> String {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*kind {
        "application/sdp" => sdp::redacted(&printable(body)),
        "message/sipfrag" => {
            let text = printable(body);
            let first = text.lines().next().unwrap_or_default().trim_end();
            if first.starts_with("SIP/") { format!("{}\n", start_line(first)) } else { unshown(&kind, body) }
        }
        _ => unshown(&kind, body),
    }
}

fn unshown(kind: &str, body: &[u8]) -> String {
    let kind = if kind.is_empty() { "no type" } else { kind };
    format!("[{} bytes of {kind} are not shown]\n", body.len())
}

/// What comes before the first empty line, and after it.
fn halves(message: &[u8]) -> (&[u8], &[u8]) {
    let (mut start, mut begun) = (0, false);
    for line in message.split_inclusive(|&b| b == b'\n') {
        let end = start + line.len();
        let is_empty = line.trim_ascii().is_empty();
        // Line breaks before the start line are keep-alives (RFC 5626 §4.4.1).
        if is_empty && begun {
            return (&message[..start], &message[end..]);
        }
        begun |= !is_empty;
        start = end;
    }
    (message, &[])
}

/// The lines of a head; one that begins with white space belongs to the one before it.
fn unfolded(head: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in head.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            None if line.trim().is_empty() => {}
            _ => lines.push(line.trim_end().to_owned()),
        }
    }
    lines
}

/// As text that a terminal shows as it is.
fn printable(bytes: &[u8]) -> String {
    let harmless = |c: char| match c {
        '\n' => '\n',
        '\t' | '\r' => ' ',
        // Marks that change the direction of what follows.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    String::from_utf8_lossy(bytes).chars().map(harmless).collect()
}

/// RFC 3261 §25.1.
fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

fn is_version(text: &str) -> bool {
    text.len() <= 8 && text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/"))
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = text.floor_char_boundary(LONGEST - 32);
        text.truncate(end);
        text.push_str("\n[the rest is cut]\n");
    }
    text
}
