//! A fault at every write of an operator.

use std::future::Future;

use futures::future::try_join_all;
use futures::{StreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use crate::scenario::{Party, ROUND, Scene, Step};
use crate::way::Fault;

/// Scenes that are played side by side: while one waits, another goes on.
fn side_by_side(fault: Fault) -> usize {
    match fault {
        // For the lease of the leader before to run out.
        Fault::Last | Fault::Stranded => 8,
        // For a call to be given up.
        Fault::Late => 6,
        Fault::Dropped | Fault::Unanswered | Fault::StaleWatches => 2,
    }
}

/// A scene in a task of its own.
async fn aside<T: Send + 'static>(
    scene: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    AbortOnDropHandle::new(tokio::spawn(scene)).await.expect("a scene that doesn't panic")
}

/// Lets the fault strike at every write from nothing to the first table, each in a scene of its own. Returns how many
/// writes there were.
async fn from_nothing(fault: Fault) -> Result<usize, String> {
    let from_nothing = |nth| {
        aside(async move { Scene::open(fault, Party::Operator, 1).await.play(nth, &[Step::Begin]).await })
    };
    let mut scenes = stream::iter(1..).map(from_nothing).buffered(side_by_side(fault)).boxed();
    let mut writes = 0;
    while let Some(struck) = scenes.next().await {
        if !struck? {
            break;
        }
        writes += 1;
    }
    Ok(writes)
}

/// Lets the fault strike at every write of a round of changes, one round after the other. Returns how many writes there were.
async fn round_by_round(fault: Fault, party: Party) -> Result<usize, String> {
    let stride = side_by_side(fault);
    let scenes = (1..=stride).map(|first| aside(every_nth_round(fault, party, first, stride)));
    Ok(try_join_all(scenes).await?.into_iter().min().unwrap_or_default())
}

async fn every_nth_round(fault: Fault, party: Party, first: usize, stride: usize) -> Result<usize, String> {
    let mut scene = Scene::open(fault, party, 2).await;
    scene.play_well(&[Step::Begin]).await?;
    let mut nth = first;
    while scene.play(nth, &ROUND).await? {
        nth += stride;
    }
    if first == 1 {
        scene.stays_quiet().await?;
    }
    Ok(nth - 1)
}

async fn at_every_write(fault: Fault) {
    let begun = std::time::Instant::now();
    let writes = tokio::try_join!(from_nothing(fault), round_by_round(fault, Party::Operator));
    let (first, round) = writes.unwrap_or_else(|error| panic!("{error}"));
    println!("{fault:?}: {first} writes from nothing, {round} in a round, {:?}", begun.elapsed());
    assert!(first > 15 && round > 8, "it goes on to the end: {first}, {round}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_never_lands_is_made_good() {
    at_every_write(Fault::Dropped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_made_good() {
    at_every_write(Fault::Unanswered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_any_two_writes_is_made_good_by_the_next_leader() {
    at_every_write(Fault::Last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_an_old_leader_that_lands_when_another_leads_breaks_nothing() {
    at_every_write(Fault::Stranded).await;
}

async fn in_a_round(fault: Fault, party: Party, at_least: usize) {
    let begun = std::time::Instant::now();
    let round = round_by_round(fault, party).await.unwrap_or_else(|error| panic!("{error}"));
    println!("{fault:?}: {round} writes in a round of a {party:?}, {:?}", begun.elapsed());
    assert!(round >= at_least, "it goes on to the end: {round}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lands_late_breaks_nothing() {
    in_a_round(Fault::Late, Party::Operator, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_watches_break_nothing() {
    in_a_round(Fault::StaleWatches, Party::Operator, 8).await;
}

async fn without_watch_of(kind: &str) -> Result<(), String> {
    let mut scene = Scene::open(Fault::Dropped, Party::Operator, 2).await;
    scene.play_well(&[Step::Begin]).await?;
    scene.way.silence(kind);
    scene.play_well(&ROUND).await.map_err(|error| format!("without the watch of {kind}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_falls_silent_is_taken_up_again() {
    let kinds = [
        "routingtables",
        "routingslices",
        "secrets",
        "leases",
        "siptrunks",
        "transferdestinations",
        "assistants",
    ];
    let played = try_join_all(kinds.map(|kind| aside(without_watch_of(kind)))).await;
    played.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_never_lands_is_made_good() {
    in_a_round(Fault::Dropped, Party::Gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_whose_answer_is_lost_is_made_good() {
    in_a_round(Fault::Unanswered, Party::Gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_lands_late_is_written_again() {
    in_a_round(Fault::Late, Party::Gateway, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_watches_are_stale_catches_up() {
    in_a_round(Fault::StaleWatches, Party::Gateway, 2).await;
}
