//! Incremental update of the Internet checksum (RFC 1624).

/// What a set of changes does to a checksum: `HC' = ~(~HC + ~m + m')` (RFC 1624, equation 3), summed over all words.
///
/// The update is relative, so that a checksum that was wrong stays wrong. Offsets count from the first byte that the
/// checksum covers; only their parity matters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Difference(u64);

impl Difference {
    /// An aligned 16-bit word changes.
    pub(crate) fn replace16(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// An aligned 32-bit word changes.
    pub(crate) fn replace32(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// A byte at `offset` changes.
    pub(crate) fn replace8(&mut self, offset: usize, old: u8, new: u8) {
        let shift = if offset.is_multiple_of(2) { 8 } else { 0 };
        self.replace16(u16::from(old) << shift, u16::from(new) << shift);
    }

    /// Bytes appear at an even offset, an even number of them.
    pub(crate) fn insert(&mut self, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            self.replace8(offset, 0, *byte);
        }
    }

    /// Bytes disappear from an even offset, an even number of them.
    pub(crate) fn remove(&mut self, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            self.replace8(offset, *byte, 0);
        }
    }

    /// The new value of the checksum field.
    pub(crate) fn apply(self, checksum: u16) -> u16 {
        let mut sum = u64::from(!checksum) + self.0;
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::Difference;
    use proptest::prelude::*;

    /// RFC 1071, written down as it is defined.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// The values at which the older equations of RFC 1624, section 3, go wrong.
    #[test]
    fn both_zeros_come_out_as_in_a_full_sum() {
        let edges = [0u16, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF];
        for (rest, old, new) in
            edges.iter().flat_map(|r| edges.iter().flat_map(move |o| edges.map(|n| (*r, *o, n))))
        {
            // A constant word: the sum is never all zeros, as that of no real segment is.
            let bytes = |field: u16| [[0x40, 0x06], rest.to_be_bytes(), field.to_be_bytes()].concat();
            let mut difference = Difference::default();
            difference.replace16(old, new);
            let changed = difference.apply(checksum(&bytes(old)));
            assert_eq!(changed, checksum(&bytes(new)), "{rest:#x}: {old:#x} to {new:#x}");
        }
    }

    proptest! {
        #![proptest_config(crate::seeded(256))]

        #[test]
        fn same_as_a_full_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..60),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..20),
            words: (u32, u16), error: u16,
        ) {
            bytes[0] |= 1;
            let right = checksum(&bytes);
            let mut difference = Difference::default();
            for (at, value) in changes {
                let at = 6 + at % (bytes.len() - 6);
                difference.replace8(at, bytes[at], value);
                bytes[at] = value;
            }
            difference.replace32(u32::from_be_bytes(bytes[..4].try_into().unwrap()), words.0 | 1);
            bytes[..4].copy_from_slice(&(words.0 | 1).to_be_bytes());
            difference.replace16(u16::from_be_bytes([bytes[4], bytes[5]]), words.1);
            bytes[4..6].copy_from_slice(&words.1.to_be_bytes());
            prop_assert_eq!(difference.apply(right), checksum(&bytes));
            let wrong = right.wrapping_add(error % 0xFFFE + 1);
            if wrong != right && !(wrong == 0xFFFF && right == 0) {
                prop_assert_ne!(difference.apply(wrong), checksum(&bytes));
            }
        }
    }
}
