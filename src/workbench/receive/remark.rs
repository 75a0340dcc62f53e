//! Remarks: what is odd about a request among the others, in words for people and a name for
//! programs.

use std::fmt;
use std::ops::RangeInclusive;

/// Something that should not be, or is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The event was answered with 2xx before.
    Duplicate,
    /// The same event came again before it was answered.
    Overlap,
    /// Another request of the call is not answered yet.
    AtOnce,
    /// The call had ended.
    AfterEnd,
    /// These numbers are missing.
    Gap(RangeInclusive<u64>),
    /// The number belongs before one that came already.
    OutOfOrder {
        /// The highest so far.
        after: u64,
    },
    /// Another event of the call had this number.
    NumberTwice(u64),
    /// The call's numbers begin anew.
    Anew,
    /// The attempts do not count up by one.
    Attempt {
        /// The one before.
        before: u32,
        /// This one.
        now: u32,
    },
    /// The event's id was one of another call's.
    OtherCall,
}

impl Remark {
    /// Its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Overlap => "overlap",
            Self::AtOnce => "at_once",
            Self::AfterEnd => "after_call_ended",
            Self::Gap(_) => "gap",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::NumberTwice(_) => "number_twice",
            Self::Anew => "numbers_anew",
            Self::Attempt { .. } => "attempt",
            Self::OtherCall => "other_call",
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate => f.write_str("duplicate: it was answered with 2xx before"),
            Self::Overlap => f.write_str("it came again before it was answered"),
            Self::AtOnce => f.write_str("two at once: another of this call is not answered yet"),
            Self::AfterEnd => f.write_str("after call_ended"),
            Self::Gap(missing) if missing.start() == missing.end() => {
                write!(f, "gap: #{} is missing", missing.start())
            }
            Self::Gap(missing) => {
                write!(f, "gap: #{} to #{} are missing", missing.start(), missing.end())
            }
            Self::OutOfOrder { after } => write!(f, "out of order: #{after} came before"),
            Self::NumberTwice(number) => write!(f, "another event was #{number}"),
            Self::Anew => f.write_str("the numbers begin anew"),
            Self::Attempt { before, now } => write!(f, "attempt {now} follows attempt {before}"),
            Self::OtherCall => f.write_str("its webhook-id was another call's"),
        }
    }
}
