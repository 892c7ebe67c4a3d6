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
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => timeline.release(args, args.late),
        }
    }
    timeline.release(args, Duration::ZERO);
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

    /// Prints what has waited for long enough.
    fn release(&mut self, args: &Args, late: Duration) {
        let until = Timestamp::now() - late;
        while let Some(entry) = self.held.first_entry()
            && (entry.key().0 <= until || late.is_zero())
        {
            let line = entry.remove();
            let began = *self.began.get_or_insert(line.at);
            // Whoever reads may be gone.
            let _ = writeln!(std::io::stdout(), "{}{}", args.indent, for_people(&line, began));
        }
    }
}
