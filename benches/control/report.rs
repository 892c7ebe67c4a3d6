//! What comes out: lines for people while it runs, a table at the end, and `target/bench/control.json` for programs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, sync::LazyLock};

use serde::Serialize;

use crate::bulk::Bulk;
use crate::change::{self, Changes};
use crate::churn::{Churn, RATE};
use crate::leader::Leader;
use crate::programs::Memory;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A line for people, with the seconds since the first one.
pub fn say(line: &str) {
    eprintln!("[{:4}s] {line}", BEGAN.elapsed().as_secs());
}

/// A pause of about this length: never in step with what is measured.
pub async fn rest(about: Duration) {
    tokio::time::sleep(about.mul_f64(rand::random_range(0.5..1.5))).await;
}

/// Times of one kind.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Extend<Duration> for Latencies {
    fn extend<I: IntoIterator<Item = Duration>>(&mut self, more: I) {
        self.0.extend(more);
        self.0.sort_unstable();
    }
}

impl Latencies {
    /// The time, in milliseconds, that this share of all stays within; 0 when there is none.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    /// The median, milliseconds.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What one in a hundred takes longer than, milliseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    fn shown(&self) -> String {
        format!("{:7.1} {:7.1} ms", self.p50(), self.p99())
    }
}

/// The figures, with the keys of the file. What a run didn't measure is absent.
#[derive(Default, Serialize)]
pub struct Figures {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    bare_chain: BTreeMap<String, Spread>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    change: BTreeMap<usize, ChangeFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bulk: Option<BulkFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cold_leader: Option<LeaderFigures>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    memory_mib: BTreeMap<String, MemoryFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    churn: Option<ChurnFigures>,
    /// Bare chains of all sizes.
    #[serde(skip)]
    chains: [Latencies; crate::bare::HOPS],
    /// The table.
    #[serde(skip)]
    rows: Vec<String>,
}

#[derive(Serialize)]
struct Spread {
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct ChangeFigures {
    acked_p50_ms: f64,
    acked_p99_ms: f64,
    ready_p50_ms: f64,
    ready_p99_ms: f64,
    acked_ratio_p50: f64,
    ready_ratio_p50: f64,
}

#[derive(Serialize)]
struct BulkFigures {
    objects: usize,
    bare_seconds: f64,
    ready_seconds: f64,
    ratio: f64,
    status_writes_per_object: f64,
    slice_writes_per_object: f64,
}

#[derive(Serialize)]
struct LeaderFigures {
    seconds: f64,
    writes: usize,
}

#[derive(Serialize)]
struct MemoryFigures {
    operator: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<f64>,
}

#[derive(Serialize)]
struct ChurnFigures {
    p50_ms: f64,
    p99_ms: f64,
    failed_lookups: usize,
}

impl Figures {
    /// Changes at a size of table. The ratios are to the bare chains that were made in between.
    pub fn changes(&mut self, numbers: usize, found: Changes) {
        let [three, four] = [change::ACKNOWLEDGED, change::READY].map(|hops| &found.bare[hops - 1]);
        let figures = ChangeFigures {
            acked_p50_ms: rounded(found.acknowledged.p50()),
            acked_p99_ms: rounded(found.acknowledged.p99()),
            ready_p50_ms: rounded(found.ready.p50()),
            ready_p99_ms: rounded(found.ready.p99()),
            acked_ratio_p50: rounded(found.acknowledged.p50() / three.p50()),
            ready_ratio_p50: rounded(found.ready.p50() / four.p50()),
        };
        let size = thousands(numbers);
        let hops: Vec<String> = found.bare.iter().map(|hops| format!("{:.1}", hops.p50())).collect();
        self.row(format!(
            "bare chain, 1 to 4 hops  beside {size:>7} numbers: {} ms (medians)",
            hops.join("  ")
        ));
        for (what, hops, latencies, ratio) in [
            ("acknowledged", three, &found.acknowledged, figures.acked_ratio_p50),
            ("Ready       ", four, &found.ready, figures.ready_ratio_p50),
        ] {
            let goal = goal(ratio <= 1.5);
            self.row(format!(
                "change → {what}     {size:>7} numbers: {}   {ratio:.2} × bare{}   (goal: 1.5){goal}",
                latencies.shown(),
                hops.shown()
            ));
        }
        if found.head.p50() > 0.0 {
            let (slice, head) = (found.slice.shown(), found.head.shown());
            self.row(format!("  seen on the way        {size:>7} numbers: slice {slice}, head {head}"));
        }
        self.change.insert(numbers, figures);
        for (hops, (all, these)) in self.chains.iter_mut().zip(found.bare).enumerate() {
            all.extend(these.0);
            let spread = Spread { p50_ms: rounded(all.p50()), p99_ms: rounded(all.p99()) };
            self.bare_chain.insert(format!("hops_{}", hops + 1), spread);
        }
    }

    /// The bulk load.
    pub fn bulk(&mut self, found: &Bulk) {
        let objects = found.objects as f64;
        let per_object = |wanted: &dyn Fn(&str) -> bool| {
            let writes = found.writes.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| count);
            rounded(writes.sum::<f64>() / objects)
        };
        let people =
            |kind: &str| crate::objects::KINDS.iter().any(|known| kind == format!("{}/status", known.0));
        let figures = BulkFigures {
            objects: found.objects,
            bare_seconds: rounded(found.bare.as_secs_f64()),
            ready_seconds: rounded(found.ready.as_secs_f64()),
            ratio: rounded(found.ready.as_secs_f64() / found.bare.as_secs_f64()),
            status_writes_per_object: per_object(&people),
            slice_writes_per_object: per_object(&|kind| kind == "RoutingSlice"),
        };
        self.row(format!(
            "bulk: {} objects: bare create + status {:.1} s ({:.0} objects/s), all Ready after {:.1} s: {:.2} × bare   (goal: 1.2){}",
            thousands(found.objects), figures.bare_seconds, objects / figures.bare_seconds, figures.ready_seconds, figures.ratio,
            goal(figures.ratio <= 1.2)
        ));
        self.row(format!(
            "  writes an object: {:.3} statuses   (goal: 1){}, {:.3} slices   (goal: 0.1){}",
            figures.status_writes_per_object,
            goal(figures.status_writes_per_object <= 1.0),
            figures.slice_writes_per_object,
            goal(figures.slice_writes_per_object <= 0.1)
        ));
        let writes: Vec<String> = found
            .writes
            .iter()
            .filter(|(_, count)| **count > 0.0)
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        self.row(format!("  writes by kind: {}; {} generations", writes.join(", "), found.generations));
        let [operator, gateways] = found.processor;
        self.row(format!("  processor time: operator {operator:.1} s, all gateways {gateways:.1} s"));
        self.bulk = Some(figures);
    }

    /// New leaders.
    pub fn leader(&mut self, numbers: usize, found: &Leader) {
        let (seconds, writes) = (rounded(found.verified.p50() / 1000.0), found.writes);
        self.row(format!(
            "new leader               {:>7} numbers: {seconds:.2} s to a verified table   (goal: 2){}, {writes} writes   (goal: 0){}",
            thousands(numbers), goal(seconds <= 2.0), goal(writes == 0)
        ));
        self.cold_leader = Some(LeaderFigures { seconds, writes });
    }

    /// Memory at a size of table.
    pub fn memory(&mut self, numbers: usize, (operator, gateway): (Memory, Memory)) {
        let limit = match numbers {
            ..=1_000 => Some(60.0),
            1_001..=100_000 => Some(250.0),
            _ => None,
        };
        let judged =
            limit.map_or(String::new(), |limit| format!("   (goal: {limit}){}", goal(operator.now <= limit)));
        self.row(format!(
            "memory                   {:>7} numbers: operator {:.0} MiB (peak {:.0}){judged}, gateway {:.0} MiB (peak {:.0})",
            thousands(numbers), operator.now, operator.peak, gateway.now, gateway.peak
        ));
        let figures = MemoryFigures { operator: rounded(operator.now), gateway: Some(rounded(gateway.now)) };
        self.memory_mib.insert(numbers.to_string(), figures);
    }

    /// Memory with Secrets that nothing names.
    pub fn secrets(&mut self, numbers: usize, count: usize, (operator, _): (Memory, Memory)) {
        let before = self.memory_mib.get(&numbers.to_string()).map(|before| before.operator);
        let before =
            before.map_or(String::new(), |before| format!(", {:+.0} MiB   (goal: 0)", operator.now - before));
        self.row(format!(
            "  and {count} Secrets of 500 KB that nothing names: operator {:.0} MiB (peak {:.0}){before}",
            operator.now, operator.peak
        ));
        let figures = MemoryFigures { operator: rounded(operator.now), gateway: None };
        self.memory_mib.insert("with_secrets".to_owned(), figures);
    }

    /// Churn.
    pub fn churn(&mut self, numbers: usize, found: &Churn) {
        for failed in found.failed.iter().take(5) {
            self.row(format!("  {failed}"));
        }
        self.row(format!(
            "{RATE} changes a second     {:>7} numbers: {} to the last acknowledgement; {} generations",
            thousands(numbers),
            found.acknowledged.shown(),
            found.generations
        ));
        self.row(format!(
            "  {} calls meanwhile ({}): {} found another than their number's assistant   (goal: 0){}",
            found.lookups,
            found.calls.shown(),
            found.failed.len(),
            goal(found.failed.is_empty())
        ));
        self.churn = Some(ChurnFigures {
            p50_ms: rounded(found.acknowledged.p50()),
            p99_ms: rounded(found.acknowledged.p99()),
            failed_lookups: found.failed.len(),
        });
    }

    /// A row of the table, shown at once as well.
    fn row(&mut self, row: String) {
        say(&row);
        self.rows.push(row);
    }

    /// Prints the table and writes the file.
    pub fn finish(&self, path: &Path) {
        println!("\nTimes are median and 99th percentile.\n\n{}\n", self.rows.join("\n"));
        let json = serde_json::to_string_pretty(self).expect("figures are JSON");
        let written =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, json + "\n"));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{}", path.display());
    }
}

fn goal(reached: bool) -> &'static str {
    if reached { "" } else { " MISSED" }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
