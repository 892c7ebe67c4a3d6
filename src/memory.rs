//! Memory that a peak of calls took is given back once the peak is over: a hash map keeps its room otherwise.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Below so many entries there is nothing worth giving back.
const SMALL: usize = 1_024;

/// Gives back most of a map's room when little of it is in use. To be called after each removal: costs nothing as a rule, and
/// when it does, as much as there are entries, after at least three times as many removals.
pub(crate) fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > SMALL && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_peak_is_given_back_and_what_is_left_stays() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|n| (n, n)).collect();
        for n in 10..100_000 {
            map.remove(&n);
            give_back(&mut map);
        }
        assert!(map.capacity() <= SMALL * 2, "{}", map.capacity());
        assert!((0..10).all(|n| map.get(&n) == Some(&n)));
    }
}
