//! What a simulated party does: the texts given with `--rule`, as types.
//!
//! `NUMBER:behaviour[,behaviour…]`. The first rule whose number is the called or the calling one counts; `*` is any
//! number. Numbers are compared as text.

use std::str::FromStr;
use std::time::Duration;

/// One `--rule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A number, or `*`.
    pub number: String,
    /// What happens for that number.
    pub behaviour: Behaviour,
}

/// What a party does with a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// What the party calls itself; its role and the called number when left out.
    pub name: Option<String>,
    /// How it reacts to the ringing.
    pub pick_up: PickUp,
    /// The transfer that it asks for, if any.
    pub transfer: Option<Transfer>,
    /// Time from its answer after which it hangs up by itself.
    pub hang_up_after: Option<Duration>,
}

/// How a party reacts to the ringing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickUp {
    /// Answers after this time.
    Answer(Duration),
    /// Rings for ever.
    Never,
    /// Refuses with this SIP code, 400 to 699.
    Refuse(u16),
}

impl Default for PickUp {
    fn default() -> Self {
        Self::Answer(Duration::ZERO)
    }
}

/// A transfer that a party asks for with REFER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The name of a destination, a number, or a whole URI.
    pub to: String,
    /// Time from its answer.
    pub after: Duration,
}

/// Why a `--rule` can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No number, or no behaviour.
    #[error("'{0}' is no rule: write NUMBER:BEHAVIOUR, such as +31612345678:answer-after=1s or '*:busy'")]
    Shape(String),
    /// An unknown word.
    #[error(
        "'{0}' is no behaviour; there are: wait, name=NAME, answer-after=TIME, no-answer, busy, decline, offline, \
         refuse=CODE, transfer-to=DESTINATION, after=TIME, hang-up-after=TIME"
    )]
    Unknown(String),
    /// A duration that isn't one.
    #[error("'{0}' is no time: write one such as 2s, 500ms or 1m")]
    Time(String),
    /// A status code that refuses nothing.
    #[error("'{0}' refuses nothing: write a SIP code from 400 to 699")]
    Code(String),
    /// `after` without `transfer-to`.
    #[error(
        "'after' says when a transfer is asked for: add transfer-to=DESTINATION, or write answer-after or hang-up-after"
    )]
    AfterWhat,
}

impl Rule {
    /// The behaviour for a call: of the first rule that has one of the two numbers.
    pub fn choose(rules: &[Rule], called: &str, caller: &str) -> Option<Behaviour> {
        let matches = |rule: &&Rule| rule.number == "*" || rule.number == called || rule.number == caller;
        rules.iter().find(matches).map(|rule| rule.behaviour.clone())
    }
}

impl FromStr for Rule {
    type Err = RuleError;
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let shape = || RuleError::Shape(text.to_owned());
        let (number, behaviours) = text.split_once(':').ok_or_else(shape)?;
        if number.is_empty() || behaviours.is_empty() {
            return Err(shape());
        }
        Ok(Self { number: number.to_owned(), behaviour: behaviours.parse()? })
    }
}

impl FromStr for Behaviour {
    type Err = RuleError;
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let mut behaviour = Self::default();
        let (mut to, mut after) = (None, None);
        for word in text.split(',') {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            match (key, value) {
                ("wait", None) => {}
                ("name", Some(name)) => behaviour.name = Some(name.to_owned()),
                ("answer-after", Some(value)) => behaviour.pick_up = PickUp::Answer(time(value)?),
                ("no-answer", None) => behaviour.pick_up = PickUp::Never,
                ("busy", None) => behaviour.pick_up = PickUp::Refuse(486),
                ("decline", None) => behaviour.pick_up = PickUp::Refuse(603),
                ("offline", None) => behaviour.pick_up = PickUp::Refuse(480),
                ("refuse", Some(value)) => behaviour.pick_up = PickUp::Refuse(code(value)?),
                ("transfer-to", Some(value)) if !value.is_empty() => to = Some(value.to_owned()),
                ("after", Some(value)) => after = Some(time(value)?),
                ("hang-up-after", Some(value)) => behaviour.hang_up_after = Some(time(value)?),
                _ => return Err(RuleError::Unknown(word.to_owned())),
            }
        }
        behaviour.transfer = match (to, after) {
            (Some(to), after) => Some(Transfer { to, after: after.unwrap_or_default() }),
            (None, None) => None,
            (None, Some(_)) => return Err(RuleError::AfterWhat),
        };
        Ok(behaviour)
    }
}

/// Reads a time as people write it: `2s`, `500ms`, `1m 30s`. Not negative.
pub fn time(text: &str) -> Result<Duration, RuleError> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    parsed.ok_or_else(|| RuleError::Time(text.to_owned()))
}

fn code(text: &str) -> Result<u16, RuleError> {
    match text.parse() {
        Ok(code @ 400..=699) => Ok(code),
        _ => Err(RuleError::Code(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rule_says_what_happens_for_its_number() {
        let rule: Rule =
            "+31201234567:name=support,transfer-to=sales,after=2s,hang-up-after=1m".parse().unwrap();
        assert_eq!(rule.number, "+31201234567");
        assert_eq!(
            rule.behaviour,
            Behaviour {
                name: Some("support".into()),
                pick_up: PickUp::Answer(Duration::ZERO),
                transfer: Some(Transfer { to: "sales".into(), after: 2 * SECOND }),
                hang_up_after: Some(60 * SECOND),
            }
        );
    }

    #[test]
    fn each_way_of_not_answering_has_its_word() {
        for (word, pick_up) in [
            ("busy", PickUp::Refuse(486)),
            ("decline", PickUp::Refuse(603)),
            ("offline", PickUp::Refuse(480)),
            ("refuse=503", PickUp::Refuse(503)),
            ("no-answer", PickUp::Never),
            ("answer-after=500ms", PickUp::Answer(SECOND / 2)),
            ("wait", PickUp::Answer(Duration::ZERO)),
        ] {
            assert_eq!(word.parse::<Behaviour>().unwrap().pick_up, pick_up, "{word}");
        }
    }

    #[test]
    fn a_transfer_may_go_to_a_whole_uri() {
        let rule: Rule = "*:transfer-to=sip:+31612345678@pbx.example.com:5070".parse().unwrap();
        assert_eq!(rule.behaviour.transfer.unwrap().to, "sip:+31612345678@pbx.example.com:5070");
    }

    #[test]
    fn a_rule_that_cannot_be_read_says_what_to_write() {
        for (text, said) in [
            ("", "NUMBER:BEHAVIOUR"),
            ("busy", "NUMBER:BEHAVIOUR"),
            ("+316:", "NUMBER:BEHAVIOUR"),
            (":busy", "NUMBER:BEHAVIOUR"),
            ("+316:sleep", "there are: wait"),
            ("+316:busy=1", "there are: wait"),
            ("+316:transfer-to=", "there are: wait"),
            ("+316:answer-after=soon", "such as 2s"),
            ("+316:hang-up-after=-2s", "such as 2s"),
            ("+316:refuse=200", "400 to 699"),
            ("+316:after=2s", "transfer-to=DESTINATION"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_first_rule_with_the_called_or_the_calling_number_counts() {
        let rules: Vec<Rule> =
            ["+3120:busy", "+3161:decline", "*:offline"].map(|text| text.parse().unwrap()).to_vec();
        let refusal = |called, caller| Rule::choose(&rules, called, caller).unwrap().pick_up;
        assert_eq!(refusal("+3120", "+3161"), PickUp::Refuse(486));
        assert_eq!(refusal("+3199", "+3161"), PickUp::Refuse(603));
        assert_eq!(refusal("+3199", "+3199"), PickUp::Refuse(480));
        assert_eq!(Rule::choose(&rules[..2], "+3199", "+3199"), None);
    }
}
