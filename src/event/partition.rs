//! Partition: the share of all calls that one node delivers.
//!
//! Invariant: a call's partition never changes, whichever node asks, and whichever version of callhook runs there: it is
//! written with the call's events. It is CRC-32 (as in zlib) of the id's sixteen bytes, modulo [`Partition::COUNT`].

use std::fmt;

/// One of [`Partition::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u8);

impl Partition {
    /// Enough that a few nodes share them fairly, few enough that all of them are read with each beat.
    pub const COUNT: usize = 64;

    /// Of the call with this id.
    pub fn of(call: [u8; 16]) -> Self {
        let rest = crc32(&call) % Self::COUNT as u32;
        Self(u8::try_from(rest).expect("there are fewer than 256"))
    }

    /// `None` for a number that none has.
    pub fn numbered(number: usize) -> Option<Self> {
        u8::try_from(number).ok().filter(|_| number < Self::COUNT).map(Self)
    }

    /// In the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).filter_map(Self::numbered)
    }

    /// From 0 on.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For each value of a byte, what it does to the sum.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            // The polynomial of zlib and Ethernet, its bits from right to left.
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ TABLE[usize::from(sum as u8 ^ byte)];
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926, "the check value of CRC-32/ISO-HDLC");
    }

    #[test]
    fn a_call_stays_in_its_partition_from_version_to_version() {
        // zlib.crc32(uuid.UUID(…).bytes) % 64
        for (call, number) in
            [([0; 16], 21), ([0xFF; 16], 26), (std::array::from_fn(|at| at as u8), 8)]
        {
            assert_eq!(Partition::of(call).number(), number);
        }
    }

    #[test]
    fn there_is_none_beyond_the_last() {
        assert_eq!(Partition::all().count(), Partition::COUNT);
        assert_eq!(Partition::all().last(), Partition::numbered(Partition::COUNT - 1));
        assert_eq!(Partition::numbered(Partition::COUNT), None);
        assert_eq!(Partition::numbered(usize::MAX), None);
    }
}
