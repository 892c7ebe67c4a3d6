//! What a simulated party tells: lines for people, or one JSON object a line for scripts.

use std::collections::HashMap;
use std::io::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing that happened, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, UTC.
    pub at: Timestamp,
    /// Who tells it: `caller`, `assistant support`, `human sales`.
    pub who: String,
    /// The call: its VoiceDock id where the party knows it, else the SIP Call-ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call: String,
    /// A word for scripts, such as `answered` or `moved`.
    pub event: String,
    /// A sentence for people.
    pub text: String,
}

/// Takes what a party tells.
#[derive(Debug)]
pub struct Report {
    form: Form,
    /// When each call began.
    began: HashMap<String, Timestamp>,
    /// What was told, with [`Form::Kept`].
    kept: Vec<Line>,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Printed for people.
    People,
    /// Printed as JSON.
    Json,
    /// Kept in memory.
    Kept,
    /// Forgotten.
    Silent,
}

impl Form {
    /// As `--json` says.
    pub fn printed(json: bool) -> Self {
        if json { Self::Json } else { Self::People }
    }
}

impl Report {
    /// In this form.
    pub fn new(form: Form) -> Self {
        Self { form, began: HashMap::new(), kept: Vec::new() }
    }

    /// Tells what happened, with the time since the call's first line.
    pub fn tell(&mut self, who: &str, call: &str, event: &str, text: impl Into<String>) {
        if self.form == Form::Silent {
            return;
        }
        let line = Line {
            at: Timestamp::now(),
            who: who.into(),
            call: call.into(),
            event: event.into(),
            text: text.into(),
        };
        let began = *self.began.entry(call.to_owned()).or_insert(line.at);
        let text = match self.form {
            Form::People => for_people(&line, began),
            Form::Json => serde_json::to_string(&line).unwrap_or_default(),
            Form::Kept => return self.kept.push(line),
            Form::Silent => return,
        };
        // Whoever reads may be gone: that is no reason to drop a call.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// The events of what was kept so far, in order.
    pub fn events(&self) -> Vec<&str> {
        self.kept.iter().map(|line| line.event.as_str()).collect()
    }

    /// Forgets a call that is over.
    pub fn forget(&mut self, call: &str) {
        self.began.remove(call);
    }
}

/// `  1.25 s  human sales        answers`.
pub fn for_people(line: &Line, began: Timestamp) -> String {
    let elapsed = line.at.duration_since(began).as_secs_f64().max(0.0);
    format!("{elapsed:7.2} s  {:<18}  {}", line.who, line.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people_are_aligned_and_start_with_the_elapsed_seconds() {
        let began: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let line = |at: &str, who: &str| Line {
            at: at.parse().unwrap(),
            who: who.into(),
            call: "1".into(),
            event: "answered".into(),
            text: "answers".into(),
        };
        assert_eq!(
            for_people(&line("2026-01-01T10:00:01.25Z", "human sales"), began),
            "   1.25 s  human sales         answers"
        );
        assert_eq!(
            for_people(&line("2026-01-01T10:01:40Z", "caller"), began),
            " 100.00 s  caller              answers"
        );
    }
}
