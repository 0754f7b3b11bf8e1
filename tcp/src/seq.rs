//! Sequence numbers (RFC 9293, 3.4).

use std::fmt;

/// A TCP sequence number: arithmetic modulo 2^32 that never panics.
///
/// Comparisons are those of RFC 9293, 3.4: `a` is before `b` when the way from `a` up to `b` is shorter than 2^31.
/// There is no `Ord`, because that relation is not transitive over the whole circle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(u32);

impl SeqNumber {
    /// The number on the wire, in host byte order.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        SeqNumber(value)
    }

    /// The value for the wire.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// `count` further up the circle.
    #[must_use]
    pub const fn advanced(self, count: u32) -> Self {
        SeqNumber(self.0.wrapping_add(count))
    }

    /// `count` further down the circle.
    #[must_use]
    pub const fn receded(self, count: u32) -> Self {
        SeqNumber(self.0.wrapping_sub(count))
    }

    /// How far up from `origin` this number is.
    #[must_use]
    pub const fn since(self, origin: SeqNumber) -> u32 {
        self.0.wrapping_sub(origin.0)
    }

    /// `self < other`.
    #[must_use]
    pub const fn is_before(self, other: SeqNumber) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self > other`.
    #[must_use]
    pub const fn is_after(self, other: SeqNumber) -> bool {
        other.is_before(self)
    }

    /// `start <= self < end`, for a window shorter than 2^31.
    #[must_use]
    pub const fn is_within(self, start: SeqNumber, end: SeqNumber) -> bool {
        !self.is_before(start) && self.is_before(end)
    }

    /// The later of the two.
    #[must_use]
    pub const fn later(self, other: SeqNumber) -> SeqNumber {
        if self.is_before(other) { other } else { self }
    }
}

impl From<u32> for SeqNumber {
    fn from(value: u32) -> Self {
        SeqNumber(value)
    }
}

impl From<SeqNumber> for u32 {
    fn from(number: SeqNumber) -> Self {
        number.0
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::SeqNumber;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::seeded(256))]

        #[test]
        fn addition_and_distance_agree(start: u32, count: u32) {
            let origin = SeqNumber::new(start);
            let modulo = (u64::from(start) + u64::from(count)) % (1 << 32);
            prop_assert_eq!(u64::from(origin.advanced(count).value()), modulo);
            prop_assert_eq!(origin.advanced(count).since(origin), count);
            prop_assert_eq!(origin.advanced(count).receded(count), origin);
        }

        #[test]
        fn order_holds_on_half_the_circle(start: u32, count in 1u32..0x8000_0000) {
            let (a, b) = (SeqNumber::new(start), SeqNumber::new(start).advanced(count));
            prop_assert!(a.is_before(b) && b.is_after(a) && !b.is_before(a));
            prop_assert_eq!(a.later(b), b);
            prop_assert_eq!(b.later(a), b);
        }

        /// Numbers of a stream that never wraps, and what is left of them on the wire.
        #[test]
        fn same_as_numbers_that_do_not_wrap(
            turns in 1i64..4, near in -70_000i64..70_000, ahead in -0x3FFF_FFFFi64..0x3FFF_FFFF, size in 0i64..0x4000_0000,
        ) {
            let on_wire = |number: i64| SeqNumber::new(number.rem_euclid(1 << 32) as u32);
            let start = (turns << 32) + near;
            let number = start + ahead;
            prop_assert_eq!(on_wire(number).is_before(on_wire(start)), number < start);
            prop_assert_eq!(on_wire(number).is_after(on_wire(start)), number > start);
            prop_assert_eq!(on_wire(number).later(on_wire(start)), on_wire(number.max(start)));
            let inside = start <= number && number < start + size;
            prop_assert_eq!(on_wire(number).is_within(on_wire(start), on_wire(start + size)), inside);
        }

        #[test]
        fn window_membership_matches_distances(start: u32, size in 0u32..0x4000_0000, offset in 0u32..0x4000_0000) {
            let a = SeqNumber::new(start);
            prop_assert_eq!(a.advanced(offset).is_within(a, a.advanced(size)), offset < size);
            prop_assert!(!a.receded(offset.max(1)).is_within(a, a.advanced(size)));
        }
    }
}
