//! What a publisher decides, step by step.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::world::content;
use crate::routing::ack::Held;
use crate::routing::protocol::publisher::{HeadWrite, Offer, Publisher, Step, Stuck};
use crate::routing::protocol::{Head, Vault, Version, Written};

fn offer(wish: u8) -> Offer {
    let content = content(wish);
    Offer {
        spec: content.spec.clone(),
        credentials: content.credentials.clone(),
        held: Vec::new(),
        absent: BTreeSet::new(),
        seal: false,
    }
}

fn version(number: u8) -> Version {
    Version { uid: "uid".to_owned(), resource_version: number.to_string() }
}

fn head(number: u8, generation: i64, wish: u8) -> Head {
    let mut spec = (*content(wish).spec).clone();
    spec.generation = generation;
    Head { version: version(number), owned: true, deleting: false, spec: Arc::new(spec) }
}

fn vault(number: u8, ids: impl IntoIterator<Item = &'static str>) -> Vault {
    let sizes = ids.into_iter().map(|id| (crate::routing::table::CredentialId(id.to_owned()), 1)).collect();
    Vault { version: version(number), owned: true, sizes }
}

/// A publisher that has found this head, with the table of wish 0, to be what was compiled.
fn verified(found: Head) -> Publisher {
    let mut publisher = Publisher::default();
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadHead);
    publisher.head_read(Some(found));
    assert_eq!(publisher.step(), Step::ReadVault);
    publisher.vault_read(Some(vault(1, ["k"])));
    assert_eq!(publisher.step(), Step::Done { written: false }, "what is published costs no write");
    publisher
}

#[test]
fn a_first_table_is_claimed_then_filled_then_named() {
    let mut publisher = Publisher::default();
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadHead);
    publisher.head_read(None);
    assert_eq!(publisher.step(), Step::ClaimSlices(vec!["a".to_owned()]));
    publisher.slice_claimed("a".to_owned());
    assert_eq!(publisher.step(), Step::ReadVault);
    publisher.vault_read(None);
    assert!(
        matches!(publisher.step(), Step::WriteVault(write) if write.on.is_none() && write.add.len() == 1)
    );
    publisher.vault_written(Written::Landed(vault(1, ["k"])));
    assert!(
        matches!(publisher.step(), Step::WriteHead(HeadWrite { on: None, spec }) if spec.generation == 1)
    );
    publisher.head_written(Written::Landed(head(1, 1, 0)));
    assert_eq!(publisher.step(), Step::Done { written: true });
    assert!(publisher.is_sealed());
}

#[test]
fn a_watch_that_lags_is_not_somebody_else() {
    let mut publisher = verified(head(7, 5, 0));
    assert!(publisher.observe_head(&head(3, 4, 1)), "an older generation");
    assert!(publisher.observe_head(&head(8, 5, 0)), "only the status was written");
    assert!(publisher.observe_head_gone("an older one"));
    assert!(publisher.observe_vault(&version(1)));
    assert!(publisher.is_verified());
}

#[test]
fn what_somebody_else_writes_or_deletes_is_noticed() {
    assert!(!verified(head(7, 5, 0)).observe_head(&head(9, 6, 1)));
    assert!(!verified(head(7, 5, 0)).observe_head(&head(9, 5, 1)), "an edit");
    assert!(!verified(head(7, 5, 0)).observe_head_gone("uid"));
    assert!(!verified(head(7, 5, 0)).observe_vault(&version(2)));
    assert!(!verified(head(7, 5, 0)).observe_vault_gone("uid"));
    assert!(!verified(head(7, 5, 0)).observe_loss("a"));
    assert!(verified(head(7, 5, 0)).observe_loss("b"), "nothing names it");
}

#[test]
fn a_secret_that_somebody_else_wrote_is_filled_anew() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.observe_vault(&version(2));
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadVault);
    publisher.vault_read(Some(vault(2, ["k"])));
    assert!(matches!(publisher.step(), Step::WriteVault(write) if write.add.len() == 1));
}

#[test]
fn a_slice_that_comes_back_into_use_is_claimed_although_it_is_there() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.begin(offer(2));
    assert_eq!(publisher.step(), Step::ClaimSlices(vec!["b".to_owned(), "c".to_owned()]));
}

#[test]
fn a_head_is_sealed_once_by_its_own_table_under_the_next_generation() {
    let mut publisher = verified(head(7, 5, 0));
    assert!(!publisher.is_sealed(), "somebody else wrote it");
    publisher.begin(Offer { seal: true, ..offer(0) });
    assert!(matches!(publisher.step(), Step::WriteHead(write) if write.spec.generation == 6));
    publisher.head_written(Written::Landed(head(8, 6, 0)));
    assert_eq!(publisher.step(), Step::Done { written: true });
    publisher.begin(Offer { seal: true, ..offer(0) });
    assert_eq!(publisher.step(), Step::Done { written: false });
}

#[test]
fn after_a_write_of_which_nobody_knows_everything_is_read_and_sealed_again() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.begin(offer(1));
    publisher.slice_claimed("b".to_owned());
    assert!(matches!(publisher.step(), Step::WriteHead(_)));
    publisher.head_written(Written::Unknown);
    assert!(!publisher.is_verified());
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadHead);
    publisher.head_read(Some(head(7, 5, 0)));
    assert_eq!(publisher.step(), Step::Done { written: false });
    assert!(!publisher.is_sealed());
}

#[test]
fn a_secret_is_read_again_after_a_write_of_which_nobody_knows() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.vault_written(Written::Unknown);
    assert!(!publisher.knows_vault());
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadVault);
    publisher.vault_read(Some(vault(2, ["k", "l"])));
    assert_eq!(publisher.step(), Step::Done { written: false });
    assert_eq!(publisher.surplus().map(|write| write.drop.len()), Some(1));
}

#[test]
fn values_are_written_again_after_a_write_that_somebody_else_was_ahead_of() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.vault_written(Written::Refused);
    publisher.begin(offer(0));
    assert_eq!(publisher.step(), Step::ReadVault);
    publisher.vault_read(Some(vault(2, ["k", "l"])));
    assert!(matches!(publisher.step(), Step::WriteVault(write) if write.add.len() == 1));
    publisher.vault_written(Written::Landed(vault(3, ["k"])));
    assert_eq!(publisher.step(), Step::Done { written: false });
}

#[test]
fn a_table_that_only_a_pod_knows_of_is_exceeded() {
    let mut publisher = verified(head(7, 5, 0));
    let held = vec![Held { generation: 8, hash: "b".to_owned() }];
    assert!(publisher.is_exceeded(&held));
    publisher.begin(Offer { held, ..offer(0) });
    assert!(matches!(publisher.step(), Step::WriteHead(write) if write.spec.generation == 9));
}

#[test]
fn somebody_who_keeps_writing_the_head_is_told_of() {
    let mut publisher = verified(head(7, 5, 0));
    publisher.begin(offer(1));
    publisher.slice_claimed("b".to_owned());
    for round in 0..4 {
        assert!(matches!(publisher.step(), Step::WriteHead(_)));
        publisher.head_written(Written::Refused);
        assert_eq!(publisher.step(), Step::ReadHead);
        publisher.head_read(Some(head(8 + round, 5, 0)));
    }
    assert_eq!(publisher.step(), Step::Stuck(Stuck::HeadContended));
}

#[test]
fn a_head_that_is_being_deleted_is_waited_for() {
    let mut publisher = Publisher::default();
    publisher.begin(offer(0));
    publisher.head_read(Some(Head { deleting: true, ..head(7, 5, 0) }));
    assert_eq!(publisher.step(), Step::Stuck(Stuck::Deleting));
}
