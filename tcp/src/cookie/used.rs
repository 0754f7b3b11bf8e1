//! Cookies that have opened a connection, until nobody would believe them any more.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use smoltcp::time::Instant;

use super::PERIOD;
use crate::SeqNumber;

/// Entries of a bucket: two cache lines.
const WAYS: usize = 16;
/// Low bits of an entry: the second in which it was written. The others are a hash of connection and cookie.
const TIME_MASK: u64 = 0xFFFF;
/// Most buckets: 4,194,304 entries, 32 MiB.
const MOST_BUCKETS: usize = 1 << 18;

/// A set of fixed size, in buckets by hash. An entry is not looked at any more once every secret that could have made its
/// cookie is gone, and written over when its place is wanted. Where a bucket is full of entries that still count, the oldest
/// gives way. 48 bits of a keyed hash are compared with at most 16 entries, so a new cookie is taken for a used one
/// less than once in 10^12.
///
/// An entry of zero is none. The time wraps after 18 hours; an entry that is so old seems to count again for two
/// minutes, and then only for the choice of the oldest: its cookie is not believed.
#[derive(Debug)]
pub(super) struct Used {
    key: (u64, u64),
    buckets: Box<[[u64; WAYS]]>,
}

impl Used {
    /// Room for `entries`, rounded up. Memory that was not written yet is not taken.
    pub(super) fn new(key: (u64, u64), entries: usize) -> Self {
        let buckets = entries.div_ceil(WAYS).clamp(1, MOST_BUCKETS).next_power_of_two();
        Used { key, buckets: vec![[0; WAYS]; buckets].into_boxed_slice() }
    }

    pub(super) fn contains(&self, now: Instant, connection: &[u8], isn: SeqNumber) -> bool {
        let hash = self.hash(connection, isn);
        let bucket = self.buckets.get(self.place(hash)).map_or(&[][..], |bucket| &bucket[..]);
        bucket.iter().any(|entry| (entry ^ hash) & !TIME_MASK == 0 && counts(*entry, now))
    }

    /// True if an entry that still counts had to give way.
    pub(super) fn insert(&mut self, now: Instant, connection: &[u8], isn: SeqNumber) -> bool {
        let hash = self.hash(connection, isn);
        let place = self.place(hash);
        let oldest =
            self.buckets.get_mut(place).and_then(|bucket| bucket.iter_mut().max_by_key(|e| age(**e, now)));
        let Some(entry) = oldest else { return false };
        let gives_way = counts(*entry, now);
        *entry = hash & !TIME_MASK | u64::from(second(now));
        gives_way
    }

    /// Not zero without its lowest bits.
    fn hash(&self, connection: &[u8], isn: SeqNumber) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(connection);
        hasher.write_u32(isn.value());
        hasher.finish() | 1 << 63
    }

    /// By the lowest bits: those that an entry does not keep.
    fn place(&self, hash: u64) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }
}

fn second(now: Instant) -> u16 {
    now.secs() as u16
}

/// Seconds since it was written; an empty place is older than any entry.
fn age(entry: u64, now: Instant) -> u32 {
    if entry == 0 { u32::MAX } else { u32::from(second(now).wrapping_sub((entry & TIME_MASK) as u16)) }
}

/// A secret is believed for two periods, and its cookies were made before they were used.
fn counts(entry: u64, now: Instant) -> bool {
    u64::from(age(entry, now)) <= 2 * PERIOD.secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn at(seconds: i64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn isn(n: u32) -> SeqNumber {
        SeqNumber::new(n.wrapping_mul(0x9E37_79B9))
    }

    #[test]
    fn what_was_used_is_known_for_as_long_as_it_may_be_believed() {
        let mut used = Used::new((1, 2), 1024);
        assert!(!used.contains(at(0), b"key", isn(1)));
        assert!(!used.insert(at(5), b"key", isn(1)));
        for (now, known) in [(5, true), (64, true), (133, true), (134, false), (60_000, false)] {
            assert_eq!(used.contains(at(now), b"key", isn(1)), known, "at {now}");
        }
        assert!(!used.contains(at(5), b"kez", isn(1)));
        assert!(!used.contains(at(5), b"key", isn(2)));
    }

    /// Half full, a bucket has 8 entries on average; more than 16 are rare, and nothing else is forgotten.
    #[test]
    fn half_full_it_forgets_next_to_nothing() {
        let mut used = Used::new((1, 2), 1 << 16);
        let forgotten = (0..1u32 << 15).filter(|n| used.insert(at(1), &n.to_be_bytes(), isn(*n))).count();
        let unknown = (0..1 << 15).filter(|n: &u32| !used.contains(at(1), &n.to_be_bytes(), isn(*n))).count();
        assert_eq!(unknown, forgotten);
        assert!(forgotten < (1 << 15) / 100, "{forgotten}");
        let strangers = (1 << 15..1 << 20).filter(|n: &u32| used.contains(at(1), &n.to_be_bytes(), isn(*n)));
        assert_eq!(strangers.count(), 0);
    }

    /// One bucket against a queue: the newest 16 are known, whatever has gone before.
    #[test]
    fn a_full_bucket_forgets_its_oldest() {
        let mut used = Used::new((1, 2), 1);
        let mut newest = VecDeque::new();
        for n in 0..1000u32 {
            let now = at(i64::from(n));
            let gives_way = used.insert(now, b"key", isn(n));
            newest.push_back(n);
            assert_eq!(gives_way, newest.len() > WAYS, "{n}");
            if newest.len() > WAYS {
                let oldest = newest.pop_front().unwrap();
                assert!(!used.contains(now, b"key", isn(oldest)), "{oldest} at {n}");
            }
            assert!(newest.iter().all(|known| used.contains(now, b"key", isn(*known))), "at {n}");
        }
    }

    /// After a pause everything is free again, without a sweep.
    #[test]
    fn what_nobody_believes_any_more_makes_room_without_notice() {
        let mut used = Used::new((1, 2), 1);
        for n in 0..16 {
            assert!(!used.insert(at(0), b"key", isn(n)));
        }
        for n in 16..32 {
            assert!(!used.insert(at(129), b"key", isn(n)));
        }
        assert!(used.insert(at(129), b"key", isn(32)));
    }
}
