//! One change: how long until every gateway acknowledges it, and until the object says `Ready`, side by side with bare chains.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::bare::{Bare, HOPS};
use crate::clients::within;
use crate::follow::Published;
use crate::objects::{Field, NUMBER, number_name};
use crate::report::{Latencies, rest};
use crate::stage::{GATEWAY, Stage};
use crate::support::api_server::SOON;

/// Hops of a bare chain to which the acknowledgement is compared: a change, a head, an acknowledgement.
pub const ACKNOWLEDGED: usize = 3;
/// Hops to which `Ready` is compared: the status on top.
pub const READY: usize = 4;

/// What was measured.
#[derive(Default)]
pub struct Changes {
    /// Bare chains of 1 to [`HOPS`] hops.
    pub bare: [Latencies; HOPS],
    /// From the change to the last gateway's acknowledgement.
    pub acknowledged: Latencies,
    /// From the change to `Ready` at the new generation.
    pub ready: Latencies,
    /// On the way: slices (of the few changes that write one) and heads, as a watch shows them. Empty unless they were asked for.
    pub slice: Latencies,
    pub head: Latencies,
}

/// Makes `samples` changes of one number each, one after another, and as many bare chains in between. With `steps`, slices and
/// heads are watched as well, which costs the API server some more.
pub async fn measure(stage: &mut Stage, bare: &mut Bare, samples: usize, steps: bool) -> Changes {
    let mut watches = JoinSet::new();
    let published = steps.then(|| Published::follow(&mut watches, &stage.client, &stage.namespace, GATEWAY));
    let mut changes = Changes::default();
    for sample in 0..samples {
        rest(Duration::from_millis(20)).await;
        // Far from each other, so that each is in another slice than the last.
        let turn = stage.turn(sample * 7919 % stage.office.numbers, Field::Trunk);
        let mut acknowledged = stage.acknowledged.clone();
        let mut readiness = stage.readiness.clone();
        let before = acknowledged.borrow_and_update().lowest();

        let start = Instant::now();
        let write = {
            let (turn, client, namespace) = (turn.clone(), stage.client.clone(), stage.namespace.clone());
            tokio::spawn(async move { turn.write(&client, &namespace).await })
        };
        let held = acknowledged.wait_for(|pods| pods.lowest() > before);
        let held = within(SOON, "the acknowledgement of a change", held)
            .await
            .expect("the Leases are watched")
            .when(before + 1);
        let generation = write.await.expect("a change is written");
        let name = number_name(turn.number);
        let is_ready = readiness.wait_for(|ready| ready.when(NUMBER, &name, generation).is_some());
        let ready = within(SOON, "Ready after a change", is_ready)
            .await
            .expect("the objects are watched")
            .when(NUMBER, &name, generation);

        changes.acknowledged.extend(held.map(|at| at - start));
        changes.ready.extend(ready.map(|at| at - start));
        if let Some(published) = &published {
            let mut published = published.clone();
            let shown = published.wait_for(|published| published.heads.contains_key(&(before + 1)));
            let shown = within(SOON, "the head of a change", shown).await.expect("heads are watched");
            changes.slice.extend(shown.slices.values().filter(|at| **at > start).min().map(|at| *at - start));
            changes.head.extend(shown.heads.get(&(before + 1)).map(|head| head.seen - start));
        }
        rest(Duration::from_millis(20)).await;
        for (latencies, time) in changes.bare.iter_mut().zip(bare.chain().await) {
            latencies.extend([time]);
        }
    }
    changes
}
