//! What a key may do: `assistants:read`, `numbers:write` and so on. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What can be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// `/assistants`.
    Assistants,
    /// `/numbers`.
    Numbers,
    /// `/sip-trunks`.
    SipTrunks,
    /// `/calls`; to write is to control them.
    Calls,
    /// `/traces`: what calls say on the wire.
    Traces,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// GET.
    Read,
    /// Everything.
    Write,
}

/// One permission. To write includes to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub Subject, pub Access);

/// All permissions of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// A key without scopes may do everything in its namespace.
    All,
    /// These and nothing else.
    Only(BTreeSet<Scope>),
}

/// A text is not a list of scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no scope; write assistants, numbers, sip-trunks, calls or traces, then :read or :write, such as calls:write"
)]
pub struct NotAScope(String);

impl Subject {
    const ALL: [Self; 5] = [Self::Assistants, Self::Numbers, Self::SipTrunks, Self::Calls, Self::Traces];

    /// As in paths and scopes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistants => "assistants",
            Self::Numbers => "numbers",
            Self::SipTrunks => "sip-trunks",
            Self::Calls => "calls",
            Self::Traces => "traces",
        }
    }

    /// The subject of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.as_str() == name)
    }
}

impl Scopes {
    /// Whether a key with these may do that.
    pub fn allow(&self, Scope(subject, access): Scope) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => {
                scopes.contains(&Scope(subject, Access::Write)) || scopes.contains(&Scope(subject, access))
            }
        }
    }
}

impl FromStr for Scope {
    type Err = NotAScope;
    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let read = || {
            let (subject, access) = text.split_once(':')?;
            let access = match access {
                "read" => Access::Read,
                "write" => Access::Write,
                _ => return None,
            };
            Some(Self(Subject::named(subject)?, access))
        };
        read().ok_or_else(|| NotAScope(text.to_owned()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.1 == Access::Read { "read" } else { "write" };
        write!(f, "{}:{access}", self.0.as_str())
    }
}

/// Separated by commas or white space.
impl FromStr for Scopes {
    type Err = NotAScope;
    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let words = text.split([',', ' ', '\n', '\t']).filter(|word| !word.is_empty());
        let scopes: BTreeSet<Scope> = words.map(str::parse).collect::<Result<_, _>>()?;
        if scopes.is_empty() { Err(NotAScope(text.to_owned())) } else { Ok(Self::Only(scopes)) }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Only(scopes) => {
                let words: Vec<String> = scopes.iter().map(Scope::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lets_in_what_it_names_and_writing_includes_reading() {
        let scopes: Scopes = "numbers:read, calls:write".parse().unwrap();
        for (subject, access, allowed) in [
            (Subject::Numbers, Access::Read, true),
            (Subject::Numbers, Access::Write, false),
            (Subject::Calls, Access::Read, true),
            (Subject::Calls, Access::Write, true),
            (Subject::Assistants, Access::Read, false),
        ] {
            assert_eq!(scopes.allow(Scope(subject, access)), allowed, "{subject:?} {access:?}");
            assert!(Scopes::All.allow(Scope(subject, access)));
        }
        assert_eq!(scopes.to_string().parse(), Ok(scopes));
    }

    #[test]
    fn what_is_no_scope_is_refused_and_never_means_everything() {
        for wrong in ["", "numbers", "numbers:all", "trunks:read", "numbers:read;calls:read"] {
            assert!(wrong.parse::<Scopes>().is_err(), "{wrong}");
        }
    }
}
