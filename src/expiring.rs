//! A map whose entries end: after a time, or when there are too many, the oldest first.
//!
//! Owns age and number. Leaves to its users what an entry weighs, and what follows from its end.
//!
//! Invariants:
//! - An entry that is too old is never found, whether it is still held or not.
//! - Every operation is O(1), however many entries there are, but for those that end with it.
//!
//! Limits: those given when it is made. Entries are not looked at until one is inserted: what is too old
//! by then is held until then.

use std::hash::{Hash, RandomState};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

/// Keys come from clients, so the hash is keyed: nobody can choose keys that collide.
#[derive(Debug)]
pub struct Expiring<K: Hash + Eq, V> {
    /// Only inserting an entry makes it the newest, so the least recently used one is the oldest.
    entries: LruCache<K, (Instant, V), RandomState>,
    kept: Duration,
    most: usize,
}

impl<K: Hash + Eq, V> Expiring<K, V> {
    /// An empty map whose entries end after `kept`, or when there are more than `most`.
    pub fn new(kept: Duration, most: usize) -> Self {
        Self { entries: LruCache::unbounded_with_hasher(RandomState::new()), kept, most }
    }

    /// The entry, unless it is too old by now.
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let (since, value) = self.entries.peek(key)?;
        (now.saturating_duration_since(*since) <= self.kept).then_some(value)
    }

    /// Makes an entry the newest, in place of one with this key; `ended` gets those that end by it, the
    /// replaced one not among them.
    pub fn insert(&mut self, key: K, value: V, now: Instant, mut ended: impl FnMut(K, V)) {
        self.entries.put(key, (now, value));
        while let Some((_, (since, _))) = self.entries.peek_lru() {
            let is_old = now.saturating_duration_since(*since) > self.kept;
            if !is_old && self.entries.len() <= self.most {
                return;
            }
            if let Some((key, value)) = self.pop_oldest() {
                ended(key, value);
            }
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.pop(key).map(|(_, value)| value)
    }

    /// Ends the oldest entry, for those who have to limit more than the number.
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
