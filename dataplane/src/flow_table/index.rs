//! The hash index of the flow table: from the hash of a key to a small number, in one or two cache lines.

use arena::{Arena, ArenaError};
use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of a bucket: as many as fit into a cache line.
const SLOTS: usize = 8;

/// Entries per bucket when all keys are in: 75 % of the slots.
const LOAD: u32 = 6;

/// The smallest number of buckets. Below this, chance alone could put too many keys into the same two buckets.
const MIN_BUCKETS: u32 = 64;

/// Buckets that one insertion looks at before it gives up. At 75 % load a search of ten is rare.
const SEARCH: usize = 256;

/// One cache line: tags and, for each, the entry + 1, or 0 where the slot is free.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; SLOTS],
    entries: [u32; SLOTS],
}

impl Bucket {
    /// Bit n is set where slot n has the tag; a free slot has tag 0.
    #[inline]
    fn matches(&self, tag: u32) -> u32 {
        arena::matches(&self.tags, tag)
    }

    /// The entry of a tag; one of them if several have it. Without a branch per slot: which one it is cannot be foreseen.
    #[inline]
    fn entry_of(&self, tag: u32) -> Option<u32> {
        let mask = self.matches(tag);
        let slot = mask.trailing_zeros() as usize % SLOTS;
        if mask == 0 { None } else { self.entries.get(slot)?.checked_sub(1) }
    }

    #[inline]
    fn free_slot(&self) -> Option<usize> {
        let mask = arena::matches(&self.entries, 0);
        (mask != 0).then(|| mask.trailing_zeros() as usize)
    }
}

/// Bytes for two keys, rounded up.
pub(super) const BYTES_OF_TWO: usize = (2 * size_of::<Bucket>()).div_ceil(LOAD as usize);

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

/// Cuckoo hashing with two buckets per key and eight entries per bucket. A key is known by 32 bits of its hash, the tag;
/// from a tag and one of its two buckets follows the other, so entries can be moved without their keys.
///
/// It does not compare keys: [`find`](Self::find) may, with a chance of 2^-28, also come across the entry of another key.
pub(super) struct Index {
    buckets: Arena<Bucket>,
}

impl Index {
    /// For `keys` keys.
    pub(super) fn new(keys: u32) -> Result<Self, ArenaError> {
        let buckets = keys.div_ceil(LOAD).max(MIN_BUCKETS);
        Ok(Index { buckets: Arena::zeroed(buckets as usize)? })
    }

    /// Fetches the first bucket of a hash, where most entries are.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.buckets.prefetch(self.first(hash) as usize);
    }

    /// Fetches the other bucket, and says which one it is.
    #[inline]
    pub(super) fn prefetch_other(&self, hash: u64) -> u32 {
        let (_, _, second) = self.split(hash);
        self.buckets.prefetch(second as usize);
        second
    }

    /// Fetches both buckets.
    #[inline]
    pub(super) fn prefetch_both(&self, hash: u64) {
        let (_, first, second) = self.split(hash);
        self.buckets.prefetch(first as usize);
        self.buckets.prefetch(second as usize);
    }

    /// An entry that was inserted with this hash and is in its first bucket.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<u32> {
        self.candidate_in(self.first(hash), hash)
    }

    /// The same for a bucket that is one of the two of this hash.
    #[inline]
    pub(super) fn candidate_in(&self, bucket: u32, hash: u64) -> Option<u32> {
        self.buckets.get(bucket as usize)?.entry_of(hash as u32)
    }

    /// True if no entry was inserted with this hash. A tag of 0, which free slots have, too, says nothing.
    #[inline]
    pub(super) fn lacks(&self, hash: u64) -> bool {
        let (tag, first, second) = self.split(hash);
        let may_have = |bucket: u32| self.buckets.get(bucket as usize).is_none_or(|b| b.matches(tag) != 0);
        !may_have(first) && !may_have(second)
    }

    /// The first of what `f` makes of the entries that were inserted with this hash.
    #[inline]
    pub(super) fn find<T>(&self, hash: u64, mut f: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let (tag, first, second) = self.split(hash);
        for bucket in [first, second] {
            let Some(bucket) = self.buckets.get(bucket as usize) else { continue };
            let mut mask = bucket.matches(tag);
            while mask != 0 {
                let entry = bucket.entries.get(mask.trailing_zeros() as usize);
                mask &= mask.wrapping_sub(1);
                if let Some(found) = entry.and_then(|entry| entry.checked_sub(1)).and_then(&mut f) {
                    return Some(found);
                }
            }
        }
        None
    }

    /// What it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The entries that were inserted with this hash.
    #[cfg(test)]
    fn candidates(&self, hash: u64) -> Vec<u32> {
        let mut all = Vec::new();
        let _: Option<()> = self.find(hash, |entry| {
            all.push(entry);
            None
        });
        all
    }

    /// Adds an entry (below `u32::MAX`). The same may be added twice.
    pub(super) fn insert(&mut self, hash: u64, entry: u32) -> Result<(), NoRoom> {
        let (tag, first) = (hash as u32, self.first(hash));
        let spot = match self.free_spot(first) {
            Some(spot) => spot,
            None => self.spot_elsewhere(first, self.other(first, tag)).ok_or(NoRoom)?,
        };
        self.write(spot, tag, entry.saturating_add(1));
        Ok(())
    }

    #[inline]
    fn free_spot(&self, bucket: u32) -> Option<Spot> {
        Some((bucket, self.buckets.get(bucket as usize)?.free_slot()?))
    }

    /// Where there is room for a key whose first bucket is full.
    fn spot_elsewhere(&mut self, first: u32, second: u32) -> Option<Spot> {
        self.free_spot(second).or_else(|| self.make_room(first, second))
    }

    /// Removes an entry that was inserted with this hash.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let (tag, first) = (hash as u32, self.first(hash));
        if !self.remove_from(first, tag, entry) {
            self.remove_from(self.other(first, tag), tag, entry);
        }
    }

    /// False if the entry is not there.
    #[inline]
    fn remove_from(&mut self, bucket: u32, tag: u32, entry: u32) -> bool {
        let Some(held) = self.buckets.get(bucket as usize) else { return false };
        let mask = held.matches(tag) & arena::matches(&held.entries, entry.saturating_add(1));
        if mask != 0 {
            self.write((bucket, mask.trailing_zeros() as usize), 0, 0);
        }
        mask != 0
    }

    /// The first bucket of a hash.
    #[inline]
    fn first(&self, hash: u64) -> u32 {
        scale((hash >> 32) as u32, self.count())
    }

    /// Tag and the two buckets of a hash.
    #[inline]
    fn split(&self, hash: u64) -> (u32, u32, u32) {
        let tag = hash as u32;
        let first = self.first(hash);
        (tag, first, self.other(first, tag))
    }

    /// The other bucket of a tag: `other(other(b)) = b`.
    #[inline]
    fn other(&self, bucket: u32, tag: u32) -> u32 {
        let (sum, count) = (scale(tag, self.count()), self.count());
        if sum >= bucket { sum - bucket } else { sum + (count - bucket) }
    }

    #[inline]
    fn count(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// Frees a slot in one of two full buckets: looks, breadth first, for the shortest row of entries that can each move
    /// to their other bucket, and moves them, the last one first. Without such a row nothing is moved.
    #[cold]
    fn make_room(&mut self, first: u32, second: u32) -> Option<Spot> {
        let mut steps = ArrayVec::<Step, SEARCH>::new();
        steps.push(Step { bucket: first, from: None });
        if second != first {
            steps.push(Step { bucket: second, from: None });
        }
        let mut at = 0;
        while let Some(&step) = steps.get(at) {
            for slot in 0..SLOTS {
                let next = self.other(step.bucket, self.read((step.bucket, slot)).0);
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

    /// Moves entries along the row that ends in `last`, into its free slot; gives the slot that is free then.
    fn shift(&mut self, steps: &[Step], last: Step, free: usize) -> Option<Spot> {
        let mut hole = (last.bucket, free);
        let mut from = last.from;
        while let Some((at, slot)) = from {
            let step = steps.get(usize::from(at))?;
            let source = (step.bucket, usize::from(slot));
            let (tag, entry) = self.read(source);
            self.write(hole, tag, entry);
            hole = source;
            from = step.from;
        }
        Some(hole)
    }

    fn read(&self, (bucket, slot): Spot) -> (u32, u32) {
        let held = self.buckets.get(bucket as usize);
        held.and_then(|b| Some((*b.tags.get(slot)?, *b.entries.get(slot)?))).unwrap_or_default()
    }

    fn write(&mut self, (bucket, slot): Spot, tag: u32, entry: u32) {
        let Some(bucket) = self.buckets.get_mut(bucket as usize) else { return };
        if let (Some(t), Some(e)) = (bucket.tags.get_mut(slot), bucket.entries.get_mut(slot)) {
            (*t, *e) = (tag, entry);
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("buckets", &self.buckets).finish()
    }
}

/// From all 32-bit numbers evenly to `0..count`.
#[inline]
fn scale(x: u32, count: u32) -> u32 {
    ((u64::from(x) * u64::from(count)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0x5eed;

    fn random(n: u32) -> u64 {
        let x = (u64::from(n) + SEED).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn holds(index: &Index, hash: u64, entry: u32) -> bool {
        index.candidates(hash).contains(&entry)
    }

    #[test]
    fn the_other_bucket_of_the_other_bucket_is_the_first() {
        for keys in [1, 1000, 4_000_001] {
            let index = Index::new(keys).unwrap();
            for n in 0..1000 {
                let (tag, first, second) = index.split(random(n));
                assert!(first < index.count() && second < index.count());
                assert_eq!(index.other(second, tag), first, "{n} of {keys}, seed {SEED}");
            }
        }
    }

    /// Far beyond the load that it is made for: entries must move, and none may get lost on the way.
    #[test]
    fn entries_move_out_of_the_way_and_stay_findable() {
        let mut index = Index::new(1200).unwrap();
        let slots = index.count() * SLOTS as u32;
        let mut held = 0;
        while index.insert(random(held), held).is_ok() {
            held += 1;
        }
        assert!(held > slots * 96 / 100, "{held} of {slots}, seed {SEED}");
        for n in 0..held {
            assert!(holds(&index, random(n), n), "{n} of {held}, seed {SEED}");
            assert!(!index.lacks(random(n)), "{n} of {held}, seed {SEED}");
        }
        assert!((held..2 * held).all(|n| index.lacks(random(n))), "no two of these have the same tag");
        for n in (0..held).step_by(2) {
            index.remove(random(n), n);
        }
        for n in 0..held {
            assert_eq!(holds(&index, random(n), n), n % 2 == 1, "{n} of {held}, seed {SEED}");
        }
    }

    /// Free slots have that tag, too.
    #[test]
    fn a_tag_of_zero_is_never_said_to_be_absent() {
        let mut index = Index::new(1000).unwrap();
        for hash in [0, 7 << 40, u64::MAX << 32] {
            assert!(!index.lacks(hash));
            index.insert(hash, 5).unwrap();
            assert!(!index.lacks(hash) && holds(&index, hash, 5));
        }
    }

    /// Keys that all have the same two buckets: the 17th finds no room, and the 16 others stay.
    #[test]
    fn without_room_nothing_is_lost() {
        let mut index = Index::new(1000).unwrap();
        let hash = random(1);
        for entry in 0..16 {
            index.insert(hash, entry).unwrap();
        }
        assert!(index.insert(hash, 16).is_err());
        let mut found = index.candidates(hash);
        found.sort_unstable();
        assert_eq!(found, (0..16).collect::<Vec<_>>());
        index.remove(hash, 3);
        index.insert(hash, 16).unwrap();
        assert!(holds(&index, hash, 16) && !holds(&index, hash, 3));
    }
}
