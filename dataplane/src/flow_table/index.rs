//! The hash index of the flow table: from the hash of a key to a small number, in one or two cache lines.

mod growth;

use arena::{Arena, ArenaError};
use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of a bucket: as many as fit into a cache line.
const SLOTS: usize = 16;

/// Entries per bucket at most, on average: 56 % of the slots. One key of five hundred is not in its first bucket then.
const LOAD: u32 = 9;

/// The smallest number of buckets. Below this, chance alone could put too many keys into the same two buckets.
const MIN_BUCKETS: u32 = 64;

/// Buckets that one insertion looks at before it gives up. At this load a search of ten is rare.
const SEARCH: usize = 256;

/// One cache line of four bytes for each entry: the tag in the upper bits of the first, or 0 where the slot is free; the
/// entry in the rest, its uppermost bits beside the tag.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; SLOTS],
    entries: [[u8; 3]; SLOTS],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { tags: [0; SLOTS], entries: [[0; 3]; SLOTS] };

    #[inline]
    fn free_slot(&self) -> Option<usize> {
        let mask = arena::matches(&self.tags, u8::MAX, 0);
        (mask != 0).then(|| mask.trailing_zeros() as usize)
    }

    /// The entry in a slot, which `mask` cuts the tag from.
    #[inline]
    fn entry(&self, slot: usize, mask: u8) -> u32 {
        // Never out of bounds: a slot is the number of one of 16 bits.
        let slot = slot % SLOTS;
        match (self.tags.get(slot), self.entries.get(slot)) {
            (Some(tag), Some(&[low, middle, high])) => u32::from_le_bytes([low, middle, high, tag & !mask]),
            _ => 0,
        }
    }
}

/// There is no room for the key, even after moving others.
#[derive(Debug)]
pub(super) struct NoRoom;

/// Where an entry is: bucket and slot.
type Spot = (u32, usize);

/// A bucket on the way to a free slot.
#[derive(Clone, Copy)]
struct Step {
    bucket: u32,
    /// Place of the step before, and the slot of its bucket whose entry could move into this bucket.
    from: Option<(u16, u8)>,
}

/// Cuckoo hashing with two buckets per key and sixteen entries per bucket, which stand as close together however few they are:
/// the index begins with a few buckets and spreads over more of its memory as it fills (`growth`). It never gives them back.
///
/// A key is known by its two buckets and by at most 8 further bits of its hash, the tag; numbers above 2^24 take bits from it.
/// To move an entry its whole hash is needed, which the caller knows.
///
/// It does not compare keys: what [`find`](Self::find) comes across may, once in some thirty times, be the entry of another key.
pub(super) struct Index {
    buckets: Arena<Bucket>,
    /// Buckets that hashes above [`Index::boundary`] are spread over, and those that the others are.
    count: u32,
    before: u32,
    /// The largest hash that was not yet moved.
    boundary: u32,
    /// The bits of the tag.
    mask: u8,
    /// Entries.
    held: u32,
    /// Entries that found no room when their bucket was moved. Nearly always none.
    stray: ArrayVec<(u64, u32), SLOTS>,
}

impl Index {
    /// For `keys` keys with entries below `keys`.
    pub(super) fn new(keys: u32) -> Result<Self, ArenaError> {
        let buckets = keys.div_ceil(LOAD).max(MIN_BUCKETS);
        Ok(Index {
            buckets: Arena::zeroed(buckets as usize)?,
            count: MIN_BUCKETS,
            before: MIN_BUCKETS,
            boundary: u32::MAX,
            mask: tag_bits(keys),
            held: 0,
            stray: ArrayVec::new(),
        })
    }

    /// Fetches the first bucket of a hash, where most entries are.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.first(hash) as usize);
    }

    /// Fetches the other bucket.
    #[inline]
    pub(super) fn prefetch_other(&self, hash: u64) {
        self.buckets.prefetch(self.second(hash) as usize);
    }

    /// An entry in the first bucket of this hash that may be the one inserted with it, and whether it is the only one. Without a
    /// branch per slot: which one it is cannot be foreseen.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> (Option<u32>, bool) {
        self.candidate_in(self.first(hash), hash)
    }

    /// The same for the other bucket.
    #[inline]
    pub(super) fn candidate_in_other(&self, hash: u64) -> (Option<u32>, bool) {
        self.candidate_in(self.second(hash), hash)
    }

    #[inline]
    fn candidate_in(&self, bucket: u32, hash: u64) -> (Option<u32>, bool) {
        let Some(bucket) = self.buckets.get(bucket as usize) else { return (None, false) };
        let mask = arena::matches(&bucket.tags, self.mask, self.tag(hash));
        let entry = bucket.entry(mask.trailing_zeros() as usize, self.mask);
        ((mask != 0).then_some(entry), mask != 0 && mask & mask.wrapping_sub(1) == 0)
    }

    /// The first of what `f` makes of the entries in one bucket that may have been inserted with this hash.
    #[inline]
    fn find_in<T>(&self, bucket: u32, hash: u64, f: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        let bucket = self.buckets.get(bucket as usize)?;
        let mut mask = arena::matches(&bucket.tags, self.mask, self.tag(hash));
        while mask != 0 {
            if let Some(found) = f(bucket.entry(mask.trailing_zeros() as usize, self.mask)) {
                return Some(found);
            }
            mask &= mask.wrapping_sub(1);
        }
        None
    }

    /// As [`find`](Self::find), but in the first bucket alone.
    #[inline]
    pub(super) fn find_near<T>(&self, hash: u64, mut f: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.find_in(self.first(hash), hash, &mut f)
    }

    /// The first of what `f` makes of the entries that may have been inserted with this hash.
    #[inline]
    pub(super) fn find<T>(&self, hash: u64, mut f: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let found = self.find_in(self.first(hash), hash, &mut f);
        let found = found.or_else(|| self.find_in(self.second(hash), hash, &mut f));
        if found.is_some() || self.stray.is_empty() { found } else { self.find_stray(hash, f) }
    }

    #[cold]
    fn find_stray<T>(&self, hash: u64, mut f: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.stray.iter().filter(|stray| stray.0 == hash).find_map(|stray| f(stray.1))
    }

    /// Adds an entry. The same entry may be there with another hash. `hash_of` gives the hash of each entry that is there.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        entry: u32,
        hash_of: impl Fn(u32) -> u64,
    ) -> Result<(), NoRoom> {
        self.place(hash, entry, &hash_of).ok_or(NoRoom)?;
        self.held += 1;
        Ok(())
    }

    /// Removes an entry that was inserted with this hash.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let tag = self.tag(hash);
        for bucket in [self.first(hash), self.second(hash)] {
            let Some(held) = self.buckets.get_mut(bucket as usize) else { continue };
            let mut mask = arena::matches(&held.tags, self.mask, tag);
            while mask != 0 {
                let slot = mask.trailing_zeros() as usize;
                if held.entry(slot, self.mask) == entry {
                    held.tags.iter_mut().skip(slot).take(1).for_each(|tag| *tag = 0);
                    self.held = self.held.saturating_sub(1);
                    return;
                }
                mask &= mask.wrapping_sub(1);
            }
        }
        if let Some(place) = self.stray.iter().position(|stray| *stray == (hash, entry)) {
            self.stray.swap_remove(place);
            self.held = self.held.saturating_sub(1);
        }
    }

    /// The first bucket of a hash.
    #[inline]
    fn first(&self, hash: u64) -> u32 {
        self.bucket((hash >> 32) as u32)
    }

    /// Its other bucket, which may be the same.
    #[inline]
    fn second(&self, hash: u64) -> u32 {
        self.bucket(hash as u32)
    }

    /// Where a half of a hash belongs.
    #[inline]
    fn bucket(&self, half: u32) -> u32 {
        scale(half, if half > self.boundary { self.count } else { self.before })
    }

    /// The bits that an entry is known by: the lowest of its hash, of which the second bucket says least; not all 0.
    #[inline]
    fn tag(&self, hash: u64) -> u8 {
        (hash as u8 & self.mask).max(self.mask & self.mask.wrapping_neg())
    }

    /// Puts an entry into one of its buckets. `None`: they are full, and nothing in them can move.
    fn place(&mut self, hash: u64, entry: u32, hash_of: &impl Fn(u32) -> u64) -> Option<()> {
        let (first, second) = (self.first(hash), self.second(hash));
        let free = |bucket: u32| Some((bucket, self.buckets.get(bucket as usize)?.free_slot()?));
        let spot = free(first).or_else(|| free(second));
        let spot = spot.or_else(|| self.make_room(first, second, hash_of))?;
        self.write(spot, self.tag(hash), entry);
        Some(())
    }

    /// Frees a slot in one of two full buckets: looks, breadth first, for the shortest row of entries that can each move
    /// to their other bucket, and moves them, the last one first. Without such a row nothing is moved.
    #[cold]
    fn make_room(&mut self, first: u32, second: u32, hash_of: &impl Fn(u32) -> u64) -> Option<Spot> {
        let mut steps = ArrayVec::<Step, SEARCH>::new();
        steps.push(Step { bucket: first, from: None });
        if second != first {
            steps.push(Step { bucket: second, from: None });
        }
        let mut at = 0;
        while let Some(&step) = steps.get(at) {
            for slot in 0..SLOTS {
                let next = self.other((step.bucket, slot), hash_of)?;
                if steps.iter().any(|step| step.bucket == next) {
                    continue;
                }
                let next_step = Step { bucket: next, from: Some((at as u16, slot as u8)) };
                match self.buckets.get(next as usize)?.free_slot() {
                    Some(free) => return self.shift(&steps, next_step, free),
                    // Once the list is full, only the buckets in it are still looked at.
                    None => drop(steps.try_push(next_step)),
                }
            }
            at += 1;
        }
        None
    }

    /// The other bucket of the entry in a slot.
    fn other(&self, (bucket, slot): Spot, hash_of: &impl Fn(u32) -> u64) -> Option<u32> {
        let hash = hash_of(self.buckets.get(bucket as usize)?.entry(slot, self.mask));
        let (first, second) = (self.first(hash), self.second(hash));
        Some(if bucket == first { second } else { first })
    }

    /// Moves entries along the row that ends in `last`, into its free slot; gives the slot that is free then.
    fn shift(&mut self, steps: &[Step], last: Step, free: usize) -> Option<Spot> {
        let mut hole = (last.bucket, free);
        let mut from = last.from;
        while let Some((at, slot)) = from {
            let step = steps.get(usize::from(at))?;
            let source = (step.bucket, usize::from(slot));
            let held = self.buckets.get(source.0 as usize)?;
            let (tag, entry) = (held.tags.get(source.1)? & self.mask, held.entry(source.1, self.mask));
            self.write(hole, tag, entry);
            hole = source;
            from = step.from;
        }
        Some(hole)
    }

    fn write(&mut self, (bucket, slot): Spot, tag: u8, entry: u32) {
        let Some(bucket) = self.buckets.get_mut(bucket as usize) else { return };
        if let (Some(t), Some(e)) = (bucket.tags.get_mut(slot), bucket.entries.get_mut(slot)) {
            let [low, middle, high, above] = entry.to_le_bytes();
            (*t, *e) = (tag | above, [low, middle, high]);
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("buckets", &self.buckets).field("held", &self.held).finish()
    }
}

/// The bits of the first byte that entries below `keys` leave to the tag.
fn tag_bits(keys: u32) -> u8 {
    let above = (u32::BITS - keys.saturating_sub(1).leading_zeros()).saturating_sub(24);
    u8::MAX << above.min(7)
}

/// From all 32-bit numbers evenly to `0..count`, in their order.
#[inline]
fn scale(x: u32, count: u32) -> u32 {
    ((u64::from(x) * u64::from(count)) >> 32) as u32
}

#[cfg(test)]
mod tests;
