//! One timeline out of what several parties tell: JSON lines in, lines for people out, in the order of their times.
//!
//! Lines of different parties come over different pipes; each is held back for a moment, so that one that happened
//! earlier but arrives later still comes first.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::AsyncBufReadExt as _;

use super::SimulateError;
use super::report::{Line, for_people};

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long a line may be late
    #[arg(long, value_name = "TIME", default_value = "400ms", value_parser = super::rules::time)]
    pub late: Duration,
    /// Skip lines from before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Printed before each line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub indent: String,
}

/// Prints until standard input ends.
pub async fn run(args: &Args) -> Result<(), SimulateError> {
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    let mut timeline = Timeline { began: None, held: BTreeMap::new(), serial: 0 };
    loop {
        let due = timeline.held.first_key_value().map(|((at, _), _)| {
            let waited = Duration::try_from(Timestamp::now().duration_since(*at)).unwrap_or_default();
            args.late.saturating_sub(waited)
        });
        tokio::select! {
            line = lines.next_line() => match line.map_err(SimulateError::Input)? {
                // What isn't such a line is another program's and none of ours.
                Some(text) => if let Ok(line) = serde_json::from_str::<Line>(&text)
                    && args.since.is_none_or(|since| line.at >= since) {
                    timeline.hold(line);
                },
                None => break,
            },
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                print(args, timeline.take(Timestamp::now() - args.late));
            }
        }
    }
    print(args, timeline.take(Timestamp::MAX));
    Ok(())
}

struct Timeline {
    began: Option<Timestamp>,
    held: BTreeMap<(Timestamp, u64), Line>,
    serial: u64,
}

impl Timeline {
    fn hold(&mut self, line: Line) {
        self.serial += 1;
        self.held.insert((line.at, self.serial), line);
    }

    /// The lines that happened until then, in order, as people read them.
    fn take(&mut self, until: Timestamp) -> Vec<String> {
        let later = self.held.split_off(&(until, u64::MAX));
        let lines = std::mem::replace(&mut self.held, later).into_values();
        lines.map(|line| for_people(&line, *self.began.get_or_insert(line.at))).collect()
    }
}

/// Whoever reads may be gone: that is no reason to fail.
fn print(args: &Args, lines: Vec<String>) {
    for line in lines {
        let _ = writeln!(std::io::stdout(), "{}{line}", args.indent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_arrives_late_still_comes_in_its_place() {
        let mut timeline = Timeline { began: None, held: BTreeMap::new(), serial: 0 };
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (second, who) in [(10, "caller"), (12, "caller"), (11, "human"), (20, "agent")] {
            let (call, event, text) = (String::new(), "word".into(), "does".into());
            timeline.hold(Line { at: at(second), who: who.into(), call, event, text });
        }
        let expected = ["   0.00 s  caller              does", "   1.00 s  human               does"];
        assert_eq!(timeline.take(at(11)), expected);
        assert_eq!(timeline.take(at(12)), ["   2.00 s  caller              does"]);
        assert_eq!(timeline.take(at(19)), Vec::<String>::new(), "held back: an earlier one may still come");
        assert_eq!(timeline.take(Timestamp::MAX), ["  10.00 s  agent               does"]);
    }
}
