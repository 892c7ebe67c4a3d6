//! Changes that never stop: how long each takes to every gateway, and whether every call finds its number meanwhile.
//!
//! Each change is asked after with an INVITE to the number that was just changed and one to a number that wasn't, over UDP
//! from an address that a trunk admits. A look-up has failed unless the gateway dials the agent as an assistant that the
//! number has or had, and passes the agent's refusal on.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::task::JoinSet;

use crate::calls::{Caller, Outcome};
use crate::clients::within;
use crate::follow::Published;
use crate::objects::{Field, e164, number_name};
use crate::report::Latencies;
use crate::stage::{GATEWAY, Stage, Turn};
use crate::support::api_server::SOON;

/// Changes a second.
pub const RATE: usize = 20;

/// What was measured.
#[derive(Default)]
pub struct Churn {
    /// From each change to the last gateway's acknowledgement of it.
    pub acknowledged: Latencies,
    /// Tables that were published.
    pub generations: i64,
    /// Calls that were made.
    pub lookups: usize,
    /// Those that didn't come where they should, in words.
    pub failed: Vec<String>,
    /// How long each call took to be refused by its agent.
    pub calls: Latencies,
}

/// Changes [`RATE`] numbers a second for so long.
pub async fn measure(stage: &mut Stage, length: Duration) -> Churn {
    let mut watches = JoinSet::new();
    let mut published = Published::follow(&mut watches, &stage.client, &stage.namespace, GATEWAY);
    let watched = published.wait_for(|published| !published.heads.is_empty());
    within(SOON, "the head in the bench's watch", watched).await.expect("it is watched");
    let before = stage.acknowledged.borrow().lowest();
    let caller = Caller::new(stage.agent.clone()).await;

    let count = RATE * usize::try_from(length.as_secs()).unwrap_or_default();
    assert!(count * 2 <= stage.office.numbers, "each number is changed once, and as many are left alone");
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    let (mut writes, mut calls) = (JoinSet::new(), JoinSet::new());
    // 7,919 is prime: each number comes once, in no order that the slices know.
    let place = |index: usize| index * 7919 % stage.office.numbers;
    let places: Vec<_> = (0..count * 2).map(place).collect();
    for index in 0..count {
        tick.tick().await;
        let turn = stage.turn(places[index], Field::Assistant);
        let gateway = stage.gateways[index % stage.gateways.len()].sip;
        let other = places[count + index];
        let asked = [
            (turn.number, vec![turn.from.clone(), turn.to.clone()]),
            (other, vec![stage.named(other, Field::Assistant)]),
        ];
        let (client, namespace) = (stage.client.clone(), stage.namespace.clone());
        writes.spawn(async move {
            let start = Instant::now();
            turn.write(&client, &namespace).await;
            (turn, start)
        });
        for (number, assistants) in asked {
            let caller = caller.clone();
            calls.spawn(async move { (number, assistants, caller.call(gateway, &e164(number)).await) });
        }
    }
    let written: Vec<(Turn, Instant)> = within(SOON, "the last changes", writes.join_all()).await;
    let called = within(SOON, "the last calls", calls.join_all()).await;

    let mut churn = Churn::default();
    let acknowledged = written.into_iter().map(async |(turn, start)| {
        let mut published = published.clone();
        let (number, mut pods) = (e164(turn.number), stage.acknowledged.clone());
        let found = published.wait_for(|published| published.first(&number, &turn.to, before).is_some());
        let what = format!("the publication of a change of {}", number_name(turn.number));
        let generation =
            within(SOON, &what, found).await.expect("it is watched").first(&number, &turn.to, before)?;
        let held = pods.wait_for(|pods| pods.when(generation).is_some());
        let at = within(SOON, "the acknowledgement of the last change", held)
            .await
            .expect("it is watched")
            .when(generation)?;
        Some(at - start)
    });
    churn.acknowledged.extend(join_all(acknowledged).await.into_iter().flatten());
    churn.generations = stage.acknowledged.borrow().lowest() - before;
    churn.lookups = called.len();
    for (number, assistants, Outcome { status, assistant, took }) in called {
        let number = e164(number);
        match (status, assistant) {
            (Some(480), Some(assistant)) if assistants.contains(&assistant) => churn.calls.extend([took]),
            (status, assistant) => churn.failed.push(format!(
                "a call to {number}, which has one of {assistants:?}, came to {assistant:?} and was answered {status:?} after {took:?}"
            )),
        }
    }
    churn
}
