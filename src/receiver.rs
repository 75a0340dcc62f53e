//! Receivers: which of them is meant?
//!
//! Owns their names and numbers. The one at `WEBHOOK_URL` is [`ReceiverName::main`]: it decides about calls, and
//! answers for whether an event is accepted. The others get copies.
//!
//! Invariant: a [`ReceiverId`] is the place of a name in the process's one list of [`Receivers`]: those of the settings
//! first, the main one before all, then those that the journal still holds something for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in characters.
const LONGEST: usize = 20;

/// The main one and its copies.
pub const MOST_RECEIVERS: usize = 1 + 8;

/// In lower case, as logs, metrics and the inspector show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverName(Arc<str>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a name of 1 to 20 letters and digits, without _ or -")]
pub struct BadName;

impl ReceiverName {
    /// That of the receiver at `WEBHOOK_URL`.
    pub fn main() -> Self {
        Self("main".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one of its settings: `WEBHOOK_URL`, or `RECEIVER_CRM_URL`.
    pub fn variable(&self, suffix: &str) -> String {
        match self.as_str() {
            "main" => format!("WEBHOOK_{suffix}"),
            name => format!("RECEIVER_{}_{suffix}", name.to_ascii_uppercase()),
        }
    }
}

/// Takes upper case too, as variables have it.
impl FromStr for ReceiverName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let is_name = (1..=LONGEST).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_name { Ok(Self(text.to_ascii_lowercase().into())) } else { Err(BadName) }
    }
}

impl fmt::Display for ReceiverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A receiver's place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiverId(u8);

impl ReceiverId {
    pub const MAIN: Self = Self(0);

    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Clones share one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receivers(Arc<[ReceiverName]>);

impl Receivers {
    /// The main one alone.
    pub fn main() -> Self {
        Self::new([ReceiverName::main()])
    }

    /// Those beyond the 255th are left out: nobody ever had so many.
    pub fn new(names: impl IntoIterator<Item = ReceiverName>) -> Self {
        Self(names.into_iter().take(usize::from(u8::MAX)).collect())
    }

    /// # Panics
    /// For an id of another list.
    pub fn name(&self, id: ReceiverId) -> &ReceiverName {
        &self.0[id.index()]
    }

    pub fn id(&self, name: &str) -> Option<ReceiverId> {
        self.iter().find(|(_, known)| known.as_str() == name).map(|(id, _)| id)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ReceiverId, &ReceiverName)> {
        self.0.iter().enumerate().map(|(index, name)| {
            let id = u8::try_from(index).expect("a list of receivers is shorter than 256");
            (ReceiverId(id), name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_to_twenty_letters_and_digits_and_shown_in_lower_case() {
        let name: ReceiverName = "CRM2".parse().unwrap();
        assert_eq!((name.as_str(), &*name.variable("URL")), ("crm2", "RECEIVER_CRM2_URL"));
        assert_eq!(ReceiverName::main().variable("URL"), "WEBHOOK_URL");
        assert!("A".repeat(20).parse::<ReceiverName>().is_ok());
        let bad = ["", "A_B", "a-b", "é", " "].map(str::to_owned);
        for text in bad.into_iter().chain(["A".repeat(21)]) {
            assert_eq!(text.parse::<ReceiverName>(), Err(BadName), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_the_place_of_a_name() {
        let names = ["main", "crm", "old"].map(|name| name.parse().unwrap());
        let receivers = Receivers::new(names);
        assert_eq!(receivers.id("main"), Some(ReceiverId::MAIN));
        let old = receivers.id("old").unwrap();
        assert_eq!((old.index(), receivers.name(old).as_str()), (2, "old"));
        assert_eq!(receivers.id("new"), None);
        assert_eq!(receivers.iter().len(), 3);
    }
}
