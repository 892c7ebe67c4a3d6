//! Many objects at once: how long until the last is `Ready`, and what is written for that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clients::Crowd;
use crate::stage::Stage;

/// What was measured.
pub struct Bulk {
    /// Objects that were created.
    pub objects: usize,
    /// A client's create and status write of as many bare objects, with nothing of ours running.
    pub bare: Duration,
    /// From the first create to the last `Ready`.
    pub ready: Duration,
    /// Writes of the operator, by kind.
    pub writes: BTreeMap<String, f64>,
    /// Tables that were published, with all that changed since the last.
    pub generations: i64,
    /// Processor seconds of the operator, and of all gateways.
    pub processor: [f64; 2],
}

/// Loads an empty stage.
pub async fn measure(stage: &mut Stage, crowd: &Crowd, numbers: usize, bare: Duration) -> Bulk {
    let before = (writes(stage).await, stage.acknowledged.borrow().lowest(), processor(stage));
    let ready = stage.grow(crowd, numbers).await;
    let mut writes = writes(stage).await;
    for (kind, count) in before.0 {
        *writes.entry(kind).or_default() -= count;
    }
    let generations = stage.acknowledged.borrow().lowest() - before.1;
    let after = processor(stage);
    let processor = [after[0] - before.2[0], after[1] - before.2[1]];
    Bulk { objects: stage.office.objects(), bare, ready, writes, generations, processor }
}

/// Writes that the operator counts, by kind.
pub async fn writes(stage: &Stage) -> BTreeMap<String, f64> {
    let metrics = stage.operator().metrics().await.expect("the operator answers");
    let samples = metrics.samples("voicedock_operator_writes_total");
    samples
        .map(|(labels, count)| (labels.trim_start_matches("kind=").trim_matches('"').to_owned(), count))
        .collect()
}

fn processor(stage: &Stage) -> [f64; 2] {
    [stage.operator().processor(), stage.gateways.iter().map(|gateway| gateway.program.processor()).sum()]
}
