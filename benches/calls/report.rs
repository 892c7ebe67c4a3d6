//! What comes out: lines for people while it runs, a table at the end, and a file for programs. The bench says which rows there are
//! (`ROWS`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, sync::LazyLock};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A line for people, with the seconds since the first one.
pub fn say(line: &str) {
    eprintln!("[{:4}s] {line}", BEGAN.elapsed().as_secs());
}

/// Times of one kind, sorted.
pub struct Latencies(Vec<Duration>);

impl From<Vec<Duration>> for Latencies {
    fn from(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was timed; the logs are in {}", crate::DIRECTORY);
        times.sort_unstable();
        Self(times)
    }
}

impl Latencies {
    /// The median, milliseconds.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What one in a hundred takes longer than, milliseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1].as_secs_f64() * 1000.0
    }
}

/// The figures by the keys of the file: subject, then what. What a run didn't measure is absent.
#[derive(Default)]
pub struct Figures {
    found: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    notes: Vec<String>,
}

/// A row of the table: what, its unit, and the goal if there is one.
pub struct Row {
    subject: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: Option<Goal>,
}

/// What a figure has to be.
pub enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At most so many times another figure.
    Below(f64, &'static str, &'static str),
    /// At least so many times another figure.
    Above(f64, &'static str, &'static str),
}

/// A row.
pub const fn row(subject: &'static str, what: &'static str, unit: &'static str, goal: Option<Goal>) -> Row {
    Row { subject, what, unit, goal }
}

impl Figures {
    /// Adds a figure.
    pub fn set(&mut self, subject: &'static str, what: &'static str, value: f64) {
        say(&format!("{subject}.{what} = {}", rounded(value)));
        self.found.entry(subject).or_default().insert(what, rounded(value));
    }

    /// A figure that has been measured.
    pub fn get(&self, subject: &str, what: &str) -> Option<f64> {
        self.found.get(subject)?.get(what).copied()
    }

    /// A line below the table.
    pub fn note(&mut self, note: String) {
        say(&note);
        self.notes.push(note);
    }

    /// Prints the table and writes the file.
    pub fn finish(&self, path: &Path) {
        println!();
        for row in &crate::ROWS {
            if let Some(value) = self.get(row.subject, row.what) {
                let name = format!("{}.{}", row.subject, row.what);
                println!("{name:<34} {value:>10} {:<24}{}", row.unit, self.judged(row, value));
            }
        }
        println!("\n{}\n", self.notes.join("\n"));
        let json = serde_json::to_string_pretty(&self.found).expect("figures are JSON");
        let written = fs::write(path, json + "\n");
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{}", path.display());
    }

    fn judged(&self, row: &Row, value: f64) -> String {
        let (reached, goal) = match row.goal {
            None => return String::new(),
            Some(Goal::AtLeast(least)) => (value >= least, format!("at least {least}")),
            Some(Goal::AtMost(most)) => (value <= most, format!("at most {most}")),
            Some(Goal::Below(times, subject, what)) => match self.get(subject, what) {
                None => return format!("(goal: {times} × {subject}.{what}, which wasn't measured)"),
                Some(other) => (
                    value <= times * other,
                    format!("at most {times} × {subject}.{what}; it is {:.2} ×", value / other),
                ),
            },
            Some(Goal::Above(times, subject, what)) => match self.get(subject, what) {
                None => return format!("(goal: {times} × {subject}.{what}, which wasn't measured)"),
                Some(other) => (
                    value >= times * other,
                    format!("at least {times} × {subject}.{what}; it is {:.2} ×", value / other),
                ),
            },
        };
        format!("(goal: {goal}){}", if reached { "" } else { " MISSED" })
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
