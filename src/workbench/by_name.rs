//! Something for each name, of which only so many are told apart: names come from peers, and memory
//! must not grow with what they make up.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::Serialize;

/// The name under which all names beyond the limit are taken together; no event type or host is
/// written so.
const OTHERS: &str = "(others)";

/// At most `MOST` names, and [`OTHERS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ByName<T, const MOST: usize>(BTreeMap<String, T>);

impl<T: Default, const MOST: usize> ByName<T, MOST> {
    /// What belongs to this name, or to the others where there is no room for one more.
    pub fn of(&mut self, name: &str) -> &mut T {
        let told_apart = self.0.len() < MOST || self.0.contains_key(name);
        let name = if told_apart { name } else { OTHERS };
        self.0.entry(name.to_owned()).or_default()
    }
}

impl<T, const MOST: usize> Deref for ByName<T, MOST> {
    type Target = BTreeMap<String, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_are_counted_together() {
        let mut counts = ByName::<u64, 2>::default();
        for name in ["a", "b", "c", "d", "a"] {
            *counts.of(name) += 1;
        }
        let counts: Vec<(&str, u64)> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(counts, [("(others)", 2), ("a", 2), ("b", 1)]);
    }
}
