//! Legs by their id: an index into a vector, guarded by a generation, so that an id that was once valid never means another leg.

use std::collections::VecDeque;

use super::event::LegId;

const INDEX_BITS: u32 = 22;
const GENERATION_BITS: u32 = 32;
const MAX_SLOTS: usize = 1 << INDEX_BITS;

/// Most shards of a process: their number has ten bits in a [`LegId`].
pub const MAX_SHARDS: u16 = 1 << 10;

/// The shard that made a leg id.
pub fn shard_of_leg(leg: LegId) -> u16 {
    // Ten bits are left, so the conversion keeps them all.
    (leg.0 >> (INDEX_BITS + GENERATION_BITS)) as u16
}

/// See the module. Slots are reused oldest first, which keeps generations low; a slot whose generations are used up retires.
#[derive(Debug)]
pub struct Slab<T> {
    shard: u64,
    slots: Vec<(u32, Option<T>)>,
    free: VecDeque<u32>,
    live: usize,
}

impl<T> Slab<T> {
    /// An empty slab of shard `shard` (below [`MAX_SHARDS`]; higher bits are cut off).
    pub fn new(shard: u16) -> Self {
        Self { shard: u64::from(shard % MAX_SHARDS), slots: Vec::new(), free: VecDeque::new(), live: 0 }
    }

    /// Puts in what `make` builds for its id; `None` when four million are live.
    pub fn insert_with(&mut self, make: impl FnOnce(LegId) -> T) -> Option<LegId> {
        let index = match self.free.pop_front() {
            Some(index) => index as usize,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push((0, None));
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index)?;
        slot.0 += 1;
        let id = LegId(
            (self.shard << (INDEX_BITS + GENERATION_BITS)) | (u64::from(slot.0) << INDEX_BITS) | index as u64,
        );
        slot.1 = Some(make(id));
        self.live += 1;
        Some(id)
    }

    /// An id of this shard that was never valid and never will be.
    pub fn void(&self) -> LegId {
        LegId((self.shard << (INDEX_BITS + GENERATION_BITS)) | (MAX_SLOTS as u64 - 1))
    }

    /// What `id` names.
    pub fn get_mut(&mut self, id: LegId) -> Option<&mut T> {
        let index = self.index(id)?;
        self.slots.get_mut(index)?.1.as_mut()
    }

    /// Takes out what `id` names.
    pub fn remove(&mut self, id: LegId) -> Option<T> {
        let index = self.index(id)?;
        let slot = self.slots.get_mut(index)?;
        let value = slot.1.take()?;
        self.live -= 1;
        if slot.0 < u32::MAX {
            self.free.push_back(index as u32);
        }
        Some(value)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Everything in it.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, value)| value.as_ref())
    }

    /// Everything in it, with its id.
    pub fn ids(&self) -> impl Iterator<Item = (LegId, &T)> {
        let id = |index: usize, generation: u32| {
            let shard = self.shard << (INDEX_BITS + GENERATION_BITS);
            LegId(shard | (u64::from(generation) << INDEX_BITS) | index as u64)
        };
        let slots = self.slots.iter().enumerate();
        slots.filter_map(move |(index, (generation, value))| Some((id(index, *generation), value.as_ref()?)))
    }

    fn index(&self, id: LegId) -> Option<usize> {
        let index = (id.0 & (MAX_SLOTS as u64 - 1)) as usize;
        let generation = (id.0 >> INDEX_BITS) as u32;
        let valid = u64::from(shard_of_leg(id)) == self.shard
            && self.slots.get(index).is_some_and(|slot| slot.0 == generation);
        valid.then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_means_a_later_leg() {
        let mut slab = Slab::new(3);
        let a = slab.insert_with(|id| id).unwrap();
        assert_eq!(shard_of_leg(a), 3);
        assert_eq!(slab.remove(a), Some(a));
        let b = slab.insert_with(|id| id).unwrap();
        assert_ne!(a, b);
        assert!(slab.get_mut(a).is_none());
        assert_eq!(slab.get_mut(b).copied(), Some(b));
        assert!(slab.get_mut(slab.void()).is_none());
        assert_eq!(Slab::<()>::new(4).remove(b), None);
    }
}
