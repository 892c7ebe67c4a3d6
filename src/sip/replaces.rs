//! Replaces (RFC 3891): the dialog in whose place a new call comes (RFC 5589 §7).
//!
//! Either way: a PBX that hands its side of a call to another phone sends us an INVITE with it; and an agent that talks with a human
//! asks with REFER that the caller take its place, which the human's phone is told in our INVITE. That one comes escaped in a
//! URI and goes out in a header of ours: what is read holds nothing that could begin another header or another parameter, and
//! is written anew.

use std::fmt;

/// Longest Call-ID or tag.
const LONGEST: usize = 256;

/// See the module. The tags are those of the one who gets the INVITE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    call_id: String,
    to_tag: String,
    from_tag: String,
    /// Only a dialog that isn't answered yet.
    early_only: bool,
}

/// There is a Replaces, but not one that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Replaces {
    /// The dialog's Call-ID.
    pub fn call_id(&self) -> &[u8] {
        self.call_id.as_bytes()
    }

    /// The tag of the one who gets the INVITE.
    pub fn to_tag(&self) -> &[u8] {
        self.to_tag.as_bytes()
    }

    /// The tag of the one who is replaced.
    pub fn from_tag(&self) -> &[u8] {
        self.from_tag.as_bytes()
    }

    /// Whether only a dialog is meant that isn't answered yet.
    pub fn early_only(&self) -> bool {
        self.early_only
    }

    /// Reads a header's value. Parameters that are none of its own are left out.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
        let call_id = word(parts.next()?)?;
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
                None => (part, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("to-tag", Some(tag)) if to_tag.is_none() => to_tag = Some(word(tag)?),
                ("from-tag", Some(tag)) if from_tag.is_none() => from_tag = Some(word(tag)?),
                ("to-tag" | "from-tag", _) => return None,
                ("early-only", None) => early_only = true,
                _ => {}
            }
        }
        Some(Self { call_id, to_tag: to_tag?, from_tag: from_tag?, early_only })
    }
}

/// A Call-ID or a tag: visible characters that end neither a value nor a parameter (RFC 3261 §25.1 allows fewer).
fn word(text: &str) -> Option<String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'=');
    ((1..=LONGEST).contains(&text.len()) && text.bytes().all(is_plain)).then(|| text.to_owned())
}

impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call_id, to_tag, from_tag, early_only } = self;
        write!(f, "{call_id};to-tag={to_tag};from-tag={from_tag}")?;
        if *early_only { f.write_str(";early-only") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        Replaces::parse(value.as_bytes()).map(|replaces| replaces.to_string())
    }

    #[test]
    fn what_is_read_is_written_again() {
        for value in
            ["12adf2f34456gs5@pbx.example;to-tag=12345;from-tag=54321", "a;to-tag=b;from-tag=0;early-only"]
        {
            assert_eq!(read(value).as_deref(), Some(value));
        }
        assert_eq!(
            read("a@[2001:db8::1] ; FROM-TAG = f ; x=y;to-tag=t").as_deref(),
            Some("a@[2001:db8::1];to-tag=t;from-tag=f")
        );
    }

    #[test]
    fn what_could_begin_another_header_or_names_no_dialog_is_refused() {
        let long = format!("{};to-tag=b;from-tag=c", "a".repeat(300));
        for value in [
            "",
            "a",
            "a;to-tag=b",
            "a;from-tag=b",
            "a;to-tag=;from-tag=c",
            "a;to-tag;from-tag=c",
            "a;to-tag=b;to-tag=c;from-tag=d",
            "a;to-tag=b\r\nX-Evil: 1;from-tag=c",
            "a\r\nX-Evil: 1;to-tag=b;from-tag=c",
            "a, b;to-tag=b;from-tag=c",
            "a b;to-tag=b;from-tag=c",
            "a;to-tag=b\u{0};from-tag=c",
            "a;to-tag=\u{e9};from-tag=c",
            &long,
        ] {
            assert_eq!(read(value), None, "{value:?}");
        }
    }
}
