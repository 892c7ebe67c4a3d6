//! What people want, one wish after the other, and what compiling it comes to.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use serde_json::Map;

use crate::resources::routing_table::{Amendment, RoutingTableSpec, TableCounts};
use crate::routing::protocol::publisher::VaultWrite;
use crate::routing::table::CredentialId;

/// What people want, one after the other: slices and credentials of the compiled table. The first comes back in the end, as
/// when changes are taken back: its slice may be on its way out then, and a leader that saw nothing in between finds nothing
/// to write. Credentials that come back were never changed. The third is the second with a row more: a leader that knows the
/// rows of `b` tells it as an amendment of that slice.
const WISHES: [(&[&str], &[&str]); 4] =
    [(&["a"], &["k"]), (&["b"], &[]), (&["b", "c"], &["l"]), (&["a"], &["k"])];

pub(in super::super) struct Content {
    pub spec: Arc<RoutingTableSpec>,
    pub credentials: Arc<BTreeSet<CredentialId>>,
}

/// The compiled table of a wish.
pub(in super::super) fn content(wish: u8) -> &'static Content {
    static CONTENTS: OnceLock<Vec<Content>> = OnceLock::new();
    let make = |(slices, credentials): &(&[&str], &[&str])| Content {
        spec: Arc::new(RoutingTableSpec {
            generation: 0,
            hash: slices.concat(),
            slices: slices.iter().map(|name| (*name).to_owned()).collect(),
            amendments: Vec::new(),
            previous_slices: Vec::new(),
            credentials_secret: None,
            counts: TableCounts::default(),
        }),
        credentials: Arc::new(credentials.iter().map(|id| CredentialId((*id).to_owned())).collect()),
    };
    &CONTENTS.get_or_init(|| WISHES.iter().map(make).collect())[wish as usize]
}

/// How a leader that may or may not know the rows of `b` lays out a wish, as `routing::slice::layout` does; with the slices that
/// it could write.
pub(super) fn layout(
    wish: u8,
    head: Option<&RoutingTableSpec>,
    knows_rows: bool,
    is_present: impl Fn(&String) -> bool,
) -> (Arc<RoutingTableSpec>, BTreeSet<String>) {
    let mut spec = content(wish).spec.clone();
    if let Some(head) = head {
        if head.hash == spec.hash && head.slices.iter().all(&is_present) {
            let published = Arc::make_mut(&mut spec);
            (published.slices, published.amendments) = (head.slices.clone(), head.amendments.clone());
            return (spec, BTreeSet::new());
        }
        let base = "b".to_owned();
        if spec.hash == "bc" && knows_rows && head.slices.contains(&base) && is_present(&base) {
            let amended = Arc::make_mut(&mut spec);
            let amendment =
                Amendment { slice: base.clone(), hash: "bc".into(), rows: Map::new(), gone: Vec::new() };
            (amended.slices, amended.amendments) = (vec![base], vec![amendment]);
            return (spec, BTreeSet::new());
        }
    }
    let named = |name: &String| head.is_some_and(|head| head.slices.contains(name)) && is_present(name);
    let drafts = spec.slices.iter().filter(|name| !named(name)).cloned().collect();
    (spec, drafts)
}

/// The credentials that the table with this hash names.
pub(super) fn credentials(hash: &str) -> &'static BTreeSet<CredentialId> {
    let wish = (0_u8..).zip(WISHES).find(|(_, (slices, _))| slices.concat() == hash).unwrap().0;
    &content(wish).credentials
}

/// Whether the values that a write adds can be read: those of what isn't wanted any more may be gone.
pub(super) fn can_read(wish: u8, write: &VaultWrite) -> bool {
    write.add.iter().all(|id| id.0 == "k" || content(wish).credentials.contains(id))
}
