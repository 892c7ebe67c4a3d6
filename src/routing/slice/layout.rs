//! In which objects a table lies: slices that are there, changes of their rows in the head, and slices that are new.
//!
//! A change of a few rows rides in the head, as an [`Amendment`] of the slice that is there. A slice for it would be some
//! hundred rows that the API server has to store and every gateway to fetch, before and after the head: several times what
//! the head itself takes. Amendments are taken from the slice and not from one another, so a gateway needs the slice and the last head
//! only. When they have grown past [`AMENDMENTS_BYTES`], the largest become slices.
//!
//! The table and its hash are the same in every layout. Promise: with the rows of its amendment a slice has the content of
//! the table's slice, byte for byte; whoever [`amend`]s can check it by the hash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Map;
use serde_json::value::{RawValue, to_raw_value};

use super::hash_in;
use super::sliced::{Draft, Entry, Outline, SectionName, Sliced};
use crate::resources::routing_table::{Amendment, RoutingTableSpec};

/// How long the amendments of a head may be together, bytes of JSON. Every change writes them and every gateway reads them.
pub const AMENDMENTS_BYTES: usize = 8 * 1024;

/// What an amendment takes beside its rows.
const AMENDMENT_BYTES: usize = 160;

/// The objects that a table lies in.
#[derive(Debug, Default)]
pub struct Layout {
    /// Names of the slices, in the order of [`super::cut()`].
    pub slices: Vec<String>,
    /// What is different in them.
    pub amendments: Vec<Amendment>,
    /// Slices that the head doesn't name, or that aren't there.
    pub drafts: BTreeMap<String, Arc<Draft>>,
    /// Those of [`Self::slices`] that aren't there.
    pub absent: BTreeSet<String>,
    /// What the next layout can amend.
    pub bases: Bases,
}

/// The slices of a layout with their rows: what amendments are taken from. Whether a slice is still there and named, the head
/// and the watch have to tell.
#[derive(Clone, Debug, Default)]
pub struct Bases(BTreeMap<SectionName, Base>);

#[derive(Clone, Debug)]
struct Base {
    /// The slice.
    name: Arc<str>,
    rows: Arc<Draft>,
}

/// What there is already.
pub struct There<'a, P> {
    /// The published head, as far as it is known.
    pub head: Option<&'a RoutingTableSpec>,
    /// Its slices, as far as they are known.
    pub bases: &'a Bases,
    /// Whether there is a slice of that name.
    pub is_present: P,
}

impl Layout {
    /// Lays out a table, where `name` is what a slice is called.
    pub fn new<P: Fn(&str) -> bool>(
        sliced: &Sliced,
        there: &There<'_, P>,
        name: impl Fn(&Outline<'_>) -> String,
    ) -> Self {
        match there.head {
            Some(head)
                if head.hash == sliced.hash() && head.slices.iter().all(|name| (there.is_present)(name)) =>
            {
                Self::published(sliced, head, there.bases)
            }
            head => Self::amended(sliced, head, there, name),
        }
    }

    /// The layout of a head that has the same table.
    fn published(sliced: &Sliced, head: &RoutingTableSpec, bases: &Bases) -> Self {
        let amended: BTreeSet<&String> = head.amendments.iter().map(|amendment| &amendment.slice).collect();
        let mut known = Bases::default();
        for (outline, name) in sliced.outlines().zip(&head.slices) {
            known.keep(bases, &outline, name, || !amended.contains(name), sliced);
        }
        Self {
            slices: head.slices.clone(),
            amendments: head.amendments.clone(),
            bases: known,
            ..Self::default()
        }
    }

    fn amended<P: Fn(&str) -> bool>(
        sliced: &Sliced,
        head: Option<&RoutingTableSpec>,
        there: &There<'_, P>,
        name: impl Fn(&Outline<'_>) -> String,
    ) -> Self {
        let named: BTreeSet<&str> = head.iter().flat_map(|head| &head.slices).map(String::as_str).collect();
        let usable = |name: &str| named.contains(name) && (there.is_present)(name);
        let outlines: Vec<(Outline<'_>, String)> = sliced
            .outlines()
            .map(|outline| {
                let name = name(&outline);
                (outline, name)
            })
            .collect();
        let mut amendments = BTreeMap::new();
        for (at, (outline, name)) in outlines.iter().enumerate() {
            let base = outline.section.as_ref().and_then(|section| there.bases.0.get(section));
            if let Some(base) = base.filter(|base| !usable(name) && usable(&base.name)) {
                amendments.insert(at, amendment(base, &sliced.draft(outline)));
            }
        }
        fold(&mut amendments);

        let mut layout = Self::default();
        for (at, (outline, name)) in outlines.into_iter().enumerate() {
            if let Some((amendment, _)) = amendments.remove(&at) {
                layout.bases.keep(there.bases, &outline, &amendment.slice, || false, sliced);
                layout.slices.push(amendment.slice.clone());
                layout.amendments.push(amendment);
                continue;
            }
            layout.bases.keep(there.bases, &outline, &name, || true, sliced);
            let present = (there.is_present)(&name);
            if !present || !named.contains(&*name) {
                let known = layout.bases.of(&outline).map(|base| base.rows.clone());
                layout.drafts.insert(name.clone(), known.unwrap_or_else(|| Arc::new(sliced.draft(&outline))));
            }
            if !present {
                layout.absent.insert(name.clone());
            }
            layout.slices.push(name);
        }
        layout
    }
}

impl Bases {
    fn of(&self, outline: &Outline<'_>) -> Option<&Base> {
        self.0.get(outline.section.as_ref()?)
    }

    /// Keeps what `before` knows of the slice `name` of a section; or, if `is_current`, what the table has, which is the same.
    fn keep(
        &mut self,
        before: &Bases,
        outline: &Outline<'_>,
        name: &str,
        is_current: impl FnOnce() -> bool,
        sliced: &Sliced,
    ) {
        let Some(section) = outline.section.clone() else { return };
        let known = before.0.get(&section).filter(|base| *base.name == *name).cloned();
        let base = known.or_else(|| {
            let draft = || Base { name: name.into(), rows: Arc::new(sliced.draft(outline)) };
            is_current().then(draft)
        });
        if let Some(base) = base {
            self.0.insert(section, base);
        }
    }
}

/// What makes the rows of `base` those of `now`, and how many bytes it takes.
fn amendment(base: &Base, now: &Draft) -> (Amendment, usize) {
    let (mut rows, mut gone, mut bytes) = (Map::new(), Vec::new(), AMENDMENT_BYTES);
    let mut old = base.rows.rows.iter().peekable();
    let mut is_gone = |key: &Arc<str>, bytes: &mut usize| {
        *bytes += key.len() + 3;
        gone.push(key.to_string());
    };
    for (key, entry) in &now.rows {
        while let Some((key, _)) = old.next_if(|(before, _)| before < key) {
            is_gone(key, &mut bytes);
        }
        // An unchanged row is the same piece of memory.
        let before = old.next_if(|(before, _)| before == key);
        if before.is_none_or(|(_, before)| !Arc::ptr_eq(before, entry)) {
            bytes += row_bytes(key, &**entry);
            rows.insert(key.to_string(), entry.value());
        }
    }
    old.for_each(|(key, _)| is_gone(key, &mut bytes));
    let amendment = Amendment { slice: base.name.to_string(), hash: now.hash.clone(), rows, gone };
    (amendment, bytes)
}

fn row_bytes(key: &str, entry: &dyn Entry) -> usize {
    let mut text = Vec::new();
    entry.push(&mut text);
    key.len() + text.len() + 4
}

/// Drops the largest amendments when there is more than a head should carry: to half of it, so that it lasts for a while.
fn fold(amendments: &mut BTreeMap<usize, (Amendment, usize)>) {
    let mut total: usize = amendments.values().map(|(_, bytes)| bytes).sum();
    if total <= AMENDMENTS_BYTES {
        return;
    }
    let mut largest: Vec<(usize, usize)> = amendments.iter().map(|(at, (_, bytes))| (*bytes, *at)).collect();
    largest.sort_unstable();
    while let Some((bytes, at)) = largest.pop().filter(|_| total > AMENDMENTS_BYTES / 2) {
        amendments.remove(&at);
        total -= bytes;
    }
}

/// What an amendment makes of the content of its slice, in canonical JSON both. The content may be what an earlier amendment of
/// the same slice has made; whether it comes to the amendment's hash is for the caller to check.
pub fn amend(content: &str, amendment: &Amendment) -> Result<String, serde_json::Error> {
    let rows: Vec<(&String, Box<RawValue>)> = (amendment.rows.iter())
        .map(|(key, row)| Ok((key, to_raw_value(row)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    let mut parts: BTreeMap<String, BTreeMap<String, &RawValue>> = serde_json::from_str(content)?;
    for part in parts.values_mut() {
        for key in &amendment.gone {
            part.remove(key);
        }
        part.extend(rows.iter().map(|(key, row)| ((*key).clone(), &**row)));
    }
    serde_json::to_string(&parts)
}

/// The hashes that a head's table hash is over, with the name of each slice and what amends it.
pub fn hashes(head: &RoutingTableSpec) -> impl Iterator<Item = (&str, &str, Option<&Amendment>)> {
    let amendments: BTreeMap<&str, &Amendment> =
        head.amendments.iter().map(|amendment| (&*amendment.slice, amendment)).collect();
    head.slices.iter().map(move |name| {
        let amendment = amendments.get(&**name).copied();
        (&**name, amendment.map_or_else(|| hash_in(name), |amendment| &amendment.hash), amendment)
    })
}

#[cfg(test)]
mod tests;
