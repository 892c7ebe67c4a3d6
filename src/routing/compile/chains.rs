//! Who is tried after a destination: those that its `onFailure.then` names and, after each, those that its own names.
//!
//! The whole chain is put into the destination's entry, none in it twice, so that a gateway can't go round in a circle. What
//! leads back to the destination itself is cut there and named in its status; so is what can't be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::resources::conditions::reason;
use crate::resources::transfer_destination::TransferDestinationSpec;
use crate::routing::table::{DestinationEntry, ObjectKey};

use super::verdict::{Checked, Problems};
use super::{Kind, grants};

/// Destinations that are tried after one: a caller isn't led through more.
const MOST: usize = 16;

/// Destinations that were checked each by itself; the entry's `then` are those that its own spec names.
pub(in crate::routing) type Alone = BTreeMap<ObjectKey, Checked<Arc<DestinationEntry>>>;

/// The destinations that a spec in `namespace` names.
pub(in crate::routing) fn named(namespace: &str, spec: &TransferDestinationSpec) -> Vec<ObjectKey> {
    let then = spec.on_failure.iter().flat_map(|on_failure| &on_failure.then);
    then.map(|named| ObjectKey::new(namespace, &named.name)).collect()
}

/// The destination of `alone` with its whole chain.
pub(in crate::routing) fn link(
    alone: &Alone,
    key: &ObjectKey,
    spec: &TransferDestinationSpec,
) -> Option<Checked<Arc<DestinationEntry>>> {
    let mut checked = alone.get(key)?.clone();
    let mut walk =
        Walk { alone, root: key, chain: Vec::new(), path: Vec::new(), problems: Problems::default() };
    walk.follow(&named(&key.namespace, spec));
    if walk.chain.len() > MOST {
        walk.chain.truncate(MOST);
        walk.problems.invalid(format!(
            "onFailure.then of TransferDestination {key} leads to more than {MOST} destinations one after the other; those \
             after {} are left out.",
            walk.chain[MOST - 1]
        ));
    }
    checked.resolved.extend(walk.problems);
    if let Some(entry) = &mut checked.usable
        && entry.then != walk.chain
    {
        Arc::make_mut(entry).then = walk.chain;
    }
    Some(checked)
}

struct Walk<'a> {
    alone: &'a Alone,
    root: &'a ObjectKey,
    chain: Vec<ObjectKey>,
    /// From the root, exclusive, to whose `then` is followed.
    path: Vec<ObjectKey>,
    problems: Problems,
}

impl Walk<'_> {
    fn follow(&mut self, then: &[ObjectKey]) {
        for key in then {
            if key == self.root {
                self.cut();
            } else if !self.chain.contains(key) && self.chain.len() <= MOST {
                match grants::local(self.alone, key) {
                    Ok(entry) => {
                        self.chain.push(key.clone());
                        self.path.push(key.clone());
                        self.follow(&entry.then);
                        self.path.pop();
                    }
                    // What others name is in their own status.
                    Err(failure) if self.path.is_empty() => {
                        self.problems.extend(failure.of("onFailure.then", Kind::TransferDestination, key));
                    }
                    Err(_) => {}
                }
            }
        }
    }

    fn cut(&mut self) {
        let way: Vec<String> =
            [self.root].into_iter().chain(&self.path).chain([self.root]).map(ToString::to_string).collect();
        let holder = self.path.last().unwrap_or(self.root);
        self.problems.add(
            reason::FALLBACK_LOOP,
            format!(
                "onFailure.then leads back to where it began: {}. It is cut there; remove {} from onFailure.then of {holder}.",
                way.join(", then "),
                self.root.name
            ),
        );
    }
}
