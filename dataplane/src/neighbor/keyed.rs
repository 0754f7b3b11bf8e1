//! A keyed hash for small keys in a `HashMap`: cheaper than the standard library's, which a flow would pay for three times.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Each eight bytes are multiplied with a secret and folded. The secrets come from the operating system, so that nobody
/// outside can choose addresses that collide.
#[derive(Clone, Debug)]
pub(crate) struct Keyed {
    secret: [u64; 2],
}

impl Default for Keyed {
    fn default() -> Self {
        let random = RandomState::new();
        Keyed { secret: [random.hash_one(0u8), random.hash_one(1u8) | 1] }
    }
}

impl BuildHasher for Keyed {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { state: 0, secret: self.secret }
    }
}

/// A hash under way.
#[derive(Debug)]
pub(crate) struct Folding {
    state: u64,
    secret: [u64; 2],
}

impl Folding {
    #[inline]
    fn word(&mut self, word: u64) {
        let [a, b] = self.secret;
        let product = u128::from(self.state ^ word ^ a) * u128::from(b);
        self.state = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.word(u64::from(*byte)));
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.word(u64::from(number));
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.word(number as u64);
        self.word((number >> 64) as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let [a, b] = self.secret;
        let product = u128::from(self.state ^ b) * u128::from(a | 1);
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::io::PortId;

    #[test]
    fn neighbours_in_a_row_spread_over_both_ends_of_the_hash() {
        let keyed = Keyed { secret: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345] };
        let (mut high, mut low) = ([0u32; 64], [0u32; 64]);
        for n in 0..64_000u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let hash = keyed.hash_one((PortId(n as u8 & 1), Address::from_v4([10, a, b, c])));
            high[(hash >> 58) as usize] += 1;
            low[(hash & 63) as usize] += 1;
        }
        // 1000 expected, standard deviation 31.
        assert!(high.iter().chain(&low).all(|count| (840..1160).contains(count)), "{high:?} {low:?}");
    }

    #[test]
    fn every_byte_and_every_secret_counts() {
        let key = (PortId(1), Address([7; 16]));
        let keyed = Keyed::default();
        assert_eq!(keyed.hash_one(key), keyed.hash_one(key));
        assert_ne!(keyed.hash_one(key), Keyed::default().hash_one(key));
        assert_ne!(keyed.hash_one(key), keyed.hash_one((PortId(2), key.1)));
        for at in 0..16 {
            let mut other = key.1;
            other.0[at] ^= 1;
            assert_ne!(keyed.hash_one(key), keyed.hash_one((key.0, other)), "{at}");
        }
    }
}
