//! A map whose entries expire: after a time, or when there are too many, oldest first.
//!
//! Owns the age and the number of entries. Leaves to its users how large an entry is, and what follows
//! when it expires.
//!
//! Invariants:
//! - An expired entry is never found, even while it is still in memory.
//! - Every operation is O(1) in the number of entries, plus the number that it expires.
//!
//! Limits: those given to [`Expiring::new`]. Expired entries are dropped only by the next insertion; until
//! then they stay in memory.

use std::hash::{Hash, RandomState};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// Keys come from clients, so hashing is seeded at random: nobody can construct keys that collide.
#[derive(Debug)]
pub struct Expiring<K: Hash + Eq, V> {
    /// Only insertion counts as use, so the least recently used entry is the oldest.
    entries: LruCache<K, (Instant, V), RandomState>,
    kept: Duration,
    most: usize,
}

impl<K: Hash + Eq, V> Expiring<K, V> {
    /// Entries expire when they are older than `kept`, or more than `most`.
    pub fn new(kept: Duration, most: usize) -> Self {
        Self { entries: LruCache::unbounded_with_hasher(RandomState::new()), kept, most }
    }

    /// The same with a table for `most` entries from the start, of a byte each until there are entries: one that grows
    /// is made anew, which takes milliseconds when it is large, and everybody waits meanwhile.
    pub fn with_room(kept: Duration, most: usize) -> Self {
        // An insertion expires what is too much only afterwards, and tells whoever inserts.
        let room = NonZeroUsize::MIN.saturating_add(most);
        Self { entries: LruCache::with_hasher(room, RandomState::new()), kept, most }
    }

    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let (since, value) = self.entries.peek(key)?;
        (now.saturating_duration_since(*since) <= self.kept).then_some(value)
    }

    /// Replaces an entry with the same key. `expired` gets the entries that this expires, but not the
    /// replaced one.
    pub fn insert(&mut self, key: K, value: V, now: Instant, mut expired: impl FnMut(K, V)) {
        self.entries.put(key, (now, value));
        while let Some((_, (since, _))) = self.entries.peek_lru() {
            let is_old = now.saturating_duration_since(*since) > self.kept;
            if !is_old && self.entries.len() <= self.most {
                return;
            }
            if let Some((key, value)) = self.pop_oldest() {
                expired(key, value);
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.pop(key).map(|(_, value)| value)
    }

    /// For users that limit more than the number of entries.
    pub fn pop_oldest(&mut self) -> Option<(K, V)> {
        self.entries.pop_lru().map(|(key, (_, value))| (key, value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);

    fn map(most: usize) -> Expiring<u32, &'static str> {
        Expiring::new(KEPT, most)
    }

    #[test]
    fn an_entry_is_found_until_its_time_is_over() {
        let (mut map, now) = (map(9), Instant::now());
        map.insert(1, "a", now, |_, _| {});
        assert_eq!(map.get(&1, now + KEPT), Some(&"a"));
        assert_eq!(map.get(&1, now + KEPT + MS), None);
    }

    #[test]
    fn the_oldest_end_beyond_the_limit_and_after_their_time_and_are_told() {
        let (mut map, now) = (map(2), Instant::now());
        let mut ended = Vec::new();
        map.insert(1, "a", now, |key, _| ended.push(key));
        map.insert(2, "b", now + MS, |key, _| ended.push(key));
        map.insert(1, "c", now + MS * 2, |key, _| ended.push(key));
        map.insert(3, "d", now + MS * 3, |key, _| ended.push(key));
        assert_eq!(map.get(&1, now + MS * 3), Some(&"c"), "it was made the newest");
        map.insert(4, "e", now + KEPT * 2, |key, _| ended.push(key));
        assert_eq!(ended, [2, 1, 3]);
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn one_key_is_taken_back_among_many_without_a_look_at_the_others() {
        let (mut map, now) = (map(200_000), Instant::now());
        for key in 0..200_000 {
            map.insert(key, "", now, |_, _| {});
        }
        let begun = std::time::Instant::now();
        for key in (0..200_000).rev() {
            assert!(map.remove(&key).is_some());
        }
        assert!(map.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(5), "2 * 10^10 steps take a minute");
    }
}
