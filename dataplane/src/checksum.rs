//! The internet checksum (RFC 1071), in full and by increments (RFC 1624).
//!
//! Sums are kept in the byte order of the machine over the bytes as they are on the wire: the one's complement sum
//! does not depend on the byte order (RFC 1071, 2 B), so only the ends convert.

use crate::address::Address;
use crate::header::IPV4_LEN;

/// A one's complement sum under way.
///
/// ```
/// use dataplane::checksum::Sum;
/// assert_eq!(Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).checksum(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that start at an even offset of what is summed; an odd last byte counts as if a zero followed, so
    /// nothing may be added after it. At most 2^31 bytes per sum.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Two chains of additions, so that neither waits for the other.
        let (pairs, rest) = bytes.as_chunks::<16>();
        let (mut even, mut odd) = (0, 0);
        for pair in pairs {
            let [first, second]: [u64; 2] = zerocopy::transmute!(*pair);
            (even, odd) = (carried(even, first), carried(odd, second));
        }
        let (words, rest) = rest.as_chunks::<8>();
        if let [word] = words {
            even = carried(even, u64::from_ne_bytes(*word));
        }
        let last = match *rest {
            [] => 0,
            [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
            _ => tail(rest),
        };
        Sum(self.0 + halves(even) + halves(odd) + last)
    }

    /// Adds an IPv4 header without options.
    #[inline]
    pub(crate) fn ipv4(self, header: [u8; IPV4_LEN]) -> Self {
        let words: [u32; IPV4_LEN / 4] = zerocopy::transmute!(header);
        Sum(words.iter().fold(self.0, |sum, word| sum + u64::from(*word)))
    }

    /// Adds a number as its two bytes in network byte order.
    pub fn word(self, word: u16) -> Self {
        Sum(self.0 + u64::from(word.to_be()))
    }

    /// The checksum: complement of the sum, in host byte order. Zero when the summed bytes held a right checksum.
    #[must_use]
    pub fn checksum(self) -> u16 {
        u16::from_be(!fold(self.0))
    }
}

/// The sum of the pseudo header of RFC 9293, 3.1 or RFC 8200, 8.1. `length` is that of header and payload above IP.
///
/// The mapping prefix of IPv4 addresses may be summed or not: its sum is 0xffff, which
/// changes nothing.
#[inline]
pub fn pseudo_header(source: Address, destination: Address, protocol: u8, length: u16) -> Sum {
    if let (Some(source), Some(destination)) = (source.v4(), destination.v4()) {
        return pseudo_header_v4(source, destination, protocol, length);
    }
    Sum::default().bytes(&source.0).bytes(&destination.0).word(u16::from(protocol)).word(length)
}

/// The same for IPv4.
#[inline]
pub fn pseudo_header_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> Sum {
    let addresses = u64::from(u32::from_ne_bytes(source)) + u64::from(u32::from_ne_bytes(destination));
    Sum(addresses).word(u16::from(protocol)).word(length)
}

/// What changes of the summed bytes do to their checksum: collect all changes, then apply them once to each field.
///
/// A checksum that was wrong stays wrong, by the same difference.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// 16 bits at an even offset change from `old` to `new` (host byte order).
    pub fn u16(self, old: u16, new: u16) -> Self {
        Delta(self.0 + u64::from((!old).to_be()) + u64::from(new.to_be()))
    }

    /// 32 bits at an even offset change from `old` to `new` (host byte order).
    pub fn u32(self, old: u32, new: u32) -> Self {
        Delta(self.0 + u64::from((!old).to_be()) + u64::from(new.to_be()))
    }

    /// The four bytes of an IPv4 address change.
    pub fn v4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Delta(self.0 + u64::from(!u32::from_ne_bytes(old)) + u64::from(u32::from_ne_bytes(new)))
    }

    /// The 16 bytes of an IPv6 address change.
    pub fn v6(self, old: [u8; 16], new: [u8; 16]) -> Self {
        let (old, new) = (u128::from_ne_bytes(old), u128::from_ne_bytes(new));
        let (low, high) = (|word: u128| halves(word as u64), |word: u128| halves((word >> 64) as u64));
        Delta(self.0 + low(!old) + high(!old) + low(new) + high(new))
    }

    /// The eight bytes of two IPv4 addresses change, or any others, in the byte order of the machine.
    pub(crate) fn word(self, old: u64, new: u64) -> Self {
        Delta(self.0 + halves(!old) + halves(new))
    }

    /// The same for two IPv6 addresses.
    #[inline]
    pub(crate) fn words(self, old: [u64; 4], new: [u64; 4]) -> Self {
        let sum = |[a, b, c, d]: [u64; 4]| carried(carried(carried(a, b), c), d);
        self.word(sum(old), sum(new))
    }

    /// Four bytes change, in the byte order of the machine.
    pub(crate) fn half(self, old: u32, new: u32) -> Self {
        Delta(self.0 + u64::from(!old) + u64::from(new))
    }

    /// What others have summed up; see [`tcp::Splice::relay`].
    pub(crate) fn sum(self, sum: u64) -> Self {
        Delta(self.0 + sum)
    }

    /// The new value of a checksum field (RFC 1624, 3, equation 3), host byte order.
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        u16::from_be(!fold(self.0 + u64::from((!checksum).to_be())))
    }

    /// The new value of a UDP checksum field (RFC 768): 0 means "none" and stays, a computed 0 becomes 0xffff.
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        match (checksum, self.apply(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, new) => new,
        }
    }
}

/// The sum of two numbers with its carry added back: the same remainder by 0xffff, and zero only if both are.
#[inline]
fn carried(sum: u64, word: u64) -> u64 {
    let (sum, carry) = sum.overflowing_add(word);
    sum.wrapping_add(u64::from(carry))
}

/// Fewer than eight bytes, as if a zero followed an odd one.
fn tail(bytes: &[u8]) -> u64 {
    let (fours, rest) = bytes.as_chunks::<4>();
    let (pairs, odd) = rest.as_chunks::<2>();
    let four = fours.first().map_or(0, |four| u64::from(u32::from_ne_bytes(*four)));
    let pair = pairs.first().map_or(0, |pair| u64::from(u16::from_ne_bytes(*pair)));
    let odd = odd.first().map_or(0, |odd| u64::from(u16::from_ne_bytes([*odd, 0])));
    four + pair + odd
}

/// The two halves of 64 bits, added: no carry is lost.
fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// The sum as 16 bits with all carries added back. The upper half of a number and its halves exchanged, added, is the sum
/// of the halves with the carry.
fn fold(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// The definition of RFC 1071, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// One's complement numbers are equal when their remainders are.
    fn remainder(checksum: u16) -> i32 {
        i32::from(checksum) % 0xffff
    }

    #[test]
    fn example_of_rfc_1624() {
        // Section 4: a header with checksum 0xDD2F whose field changes from 0x5555 to 0x3285.
        assert_eq!(Delta::default().u16(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn long_runs_of_ones_lose_no_carry() {
        for length in [0, 1, 7, 8, 9, 1500, 65_535, 70_001] {
            let bytes = vec![0xff; length];
            assert_eq!(Sum::default().bytes(&bytes).checksum(), reference(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn udp_zero() {
        assert_eq!(Delta::default().u16(1, 2).apply_udp(0), 0);
        assert_eq!(Delta::default().u16(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn full_equals_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).checksum(), reference(&bytes));
        }

        #[test]
        fn pseudo_header_equals_its_bytes(source: [u8; 4], destination: [u8; 4], protocol in 1u8.., length: u16) {
            let mut bytes = [source, destination].concat();
            bytes.extend([0, protocol]);
            bytes.extend(length.to_be_bytes());
            let sum = pseudo_header(Address::from_v4(source), Address::from_v4(destination), protocol, length);
            prop_assert_eq!(sum.checksum(), reference(&bytes));
            prop_assert_eq!(pseudo_header_v4(source, destination, protocol, length).checksum(), reference(&bytes));
        }

        #[test]
        fn addresses_change_a_sum_as_their_words_do(old: [u64; 4], new: [u64; 4], checksum: u16) {
            let one_by_one = old.iter().zip(new).fold(Delta::default(), |delta, (old, new)| delta.word(*old, new));
            prop_assert_eq!(Delta::default().words(old, new).apply(checksum), one_by_one.apply(checksum));
        }

        #[test]
        fn increments_equal_full_sum(mut bytes: [u8; 32], new4: [u8; 4], new16: [u8; 16], new: u16, wrong: u16) {
            let before = reference(&bytes).wrapping_add(wrong);
            let error = remainder(before) - remainder(reference(&bytes));
            let old4 = *bytes.first_chunk::<4>().unwrap();
            let old16 = *bytes[4..].first_chunk::<16>().unwrap();
            let old = u16::from_be_bytes([bytes[20], bytes[21]]);
            let old32 = u32::from_be_bytes(*bytes[22..].first_chunk::<4>().unwrap());
            let delta = Delta::default().v4(old4, new4).v6(old16, new16).u16(old, new).u32(old32, u32::from(new));
            bytes[..4].copy_from_slice(&new4);
            bytes[4..20].copy_from_slice(&new16);
            bytes[20..22].copy_from_slice(&new.to_be_bytes());
            bytes[22..26].copy_from_slice(&u32::from(new).to_be_bytes());
            let after = remainder(delta.apply(before)) - remainder(reference(&bytes));
            prop_assert_eq!(after.rem_euclid(0xffff), error.rem_euclid(0xffff));
        }
    }
}
