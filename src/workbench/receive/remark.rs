//! Remarks: what is odd about a request among the others, in words for people and a name for
//! programs.

use std::fmt;
use std::ops::RangeInclusive;

use strum::IntoStaticStr;

/// Something that should not be, or is worth knowing. Its name in JSON is the variant's, in snake
/// case.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Remark {
    /// The event was answered with 2xx before.
    Duplicate,
    /// The same event came again before it was answered.
    Overlap,
    /// Another request of the call is not answered yet.
    AtOnce,
    AfterCallEnded,
    /// These numbers are missing.
    Gap(RangeInclusive<u64>),
    /// The number belongs before one that came already.
    OutOfOrder {
        /// The highest so far.
        after: u64,
    },
    /// Another event of the call had this number.
    NumberTwice(u64),
    /// The number is 1 again.
    NumbersAnew,
    /// The attempts do not count up by one.
    Attempt {
        before: u32,
        now: u32,
    },
    /// The event's id was one of another call's.
    OtherCall,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate => f.write_str("duplicate: it was answered with 2xx before"),
            Self::Overlap => f.write_str("it came again before it was answered"),
            Self::AtOnce => f.write_str("two at once: another of this call is not answered yet"),
            Self::AfterCallEnded => f.write_str("after call_ended"),
            Self::Gap(missing) if missing.start() == missing.end() => {
                write!(f, "gap: #{} is missing", missing.start())
            }
            Self::Gap(missing) => {
                write!(f, "gap: #{} to #{} are missing", missing.start(), missing.end())
            }
            Self::OutOfOrder { after } => write!(f, "out of order: #{after} came before"),
            Self::NumberTwice(number) => write!(f, "another event was #{number}"),
            Self::NumbersAnew => f.write_str("the numbers begin anew"),
            Self::Attempt { before, now } => write!(f, "attempt {now} follows attempt {before}"),
            Self::OtherCall => f.write_str("its webhook-id was another call's"),
        }
    }
}
