//! A session description without keys, passwords and names.

use super::{CUT, is_token};

/// Attributes that are shown whole.
const HARMLESS: &[&str] = &[
    "rtpmap",
    "fmtp",
    "ptime",
    "maxptime",
    "sendrecv",
    "sendonly",
    "recvonly",
    "inactive",
    "rtcp",
    "rtcp-mux",
    "rtcp-fb",
    "rtcp-rsize",
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "ice-lite",
    "ice-options",
    "group",
    "mid",
    "setup",
    "connection",
    "fingerprint",
    "extmap",
    "silencesupp",
    "direction",
];

/// Each line, as far as it is shown.
pub(super) fn redacted(text: &str) -> String {
    text.lines().map(|text| format!("{}\n", line(text.trim_end()))).collect()
}

fn line(line: &str) -> String {
    let Some((kind, value)) = line.split_once('=') else { return CUT.to_owned() };
    match kind {
        "v" | "c" | "b" | "t" | "r" | "z" | "m" => line.to_owned(),
        "o" => {
            let (whose, rest) = value.split_once(' ').unwrap_or((value, ""));
            format!("o={} {rest}", if whose == "-" { "-" } else { CUT })
        }
        "s" if matches!(value.trim(), "" | "-") => line.to_owned(),
        "a" => attribute(line, value),
        kind if is_token(kind) && kind.len() == 1 => format!("{kind}={CUT}"),
        _ => CUT.to_owned(),
    }
}

fn attribute(line: &str, value: &str) -> String {
    let (name, rest) = value.split_once(':').unwrap_or((value, ""));
    let lower = name.trim().to_ascii_lowercase();
    if HARMLESS.contains(&&*lower) || lower.starts_with("t38") {
        return line.to_owned();
    }
    if lower == "crypto" {
        // Its number and the suite (RFC 4568 §9.1), which both sides must agree on; the key follows.
        let mut words = rest.split_whitespace();
        if let (Some(number), Some(suite)) = (words.next(), words.next())
            && number.len() <= 9
            && number.bytes().all(|b| b.is_ascii_digit())
            && suite.len() <= 40
            && suite.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        {
            return format!("a=crypto:{number} {suite} {CUT}");
        }
    }
    if is_token(name) { format!("a={name}:{CUT}") } else { format!("a={CUT}") }
}
