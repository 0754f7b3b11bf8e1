//! How the index comes to be spread over more buckets, bucket by bucket.
//!
//! Buckets are in the order of the hashes that belong there. To spread them over a quarter more, the last bucket is emptied into
//! those that its hashes have among the larger number, then the one before it, and so on: each goes to where it is or further
//! back, where all buckets are free of what was not yet moved. So there is always one boundary: hashes above it are spread
//! over the larger number, the others over the smaller one.

use super::{Bucket, Index, LOAD, SLOTS};

/// By which part of itself the number of buckets grows: entries stand 7 to 9 to a bucket.
const PART: u32 = 4;

impl Index {
    /// To be called before each insertion: moves a bucket if the index is about to fill. An insertion after another moves the
    /// index on more than twice as fast as it fills. Costs two comparisons if there is nothing to do, else about as many hashes as
    /// there are entries in a bucket.
    #[inline]
    pub(in crate::flow_table) fn make_way(&mut self, hash_of: impl Fn(u32) -> u64) {
        let calm = self.before == self.count && self.stray.is_empty();
        if !(calm && (self.held < self.count * LOAD || self.count as usize == self.buckets.len())) {
            self.move_on(&hash_of);
        }
    }

    /// The entries of the bucket that is moved next.
    pub(in crate::flow_table) fn next_to_move(&self) -> impl Iterator<Item = u32> {
        let next = (self.before != self.count).then(|| self.bucket_below()).flatten();
        let slots = |bucket: Bucket| (0..SLOTS).filter(move |slot| bucket.tags.get(*slot) != Some(&0));
        let entries = move |bucket: Bucket| slots(bucket).map(move |slot| bucket.entry(slot, self.mask));
        next.into_iter().flat_map(entries)
    }

    #[cold]
    fn move_on(&mut self, hash_of: &impl Fn(u32) -> u64) {
        if let Some((hash, entry)) = self.stray.pop_at(0) {
            self.settle(hash, entry, hash_of);
        } else if self.before == self.count {
            let most = u32::try_from(self.buckets.len()).unwrap_or(u32::MAX);
            self.count = (self.count + self.count / PART).min(most);
        } else {
            self.move_bucket(hash_of);
        }
    }

    /// Moves the bucket below the boundary. There are no strays, so that there is room for all of its entries.
    fn move_bucket(&mut self, hash_of: &impl Fn(u32) -> u64) {
        let entries: arrayvec::ArrayVec<u32, SLOTS> = self.next_to_move().collect();
        let bucket = self.below();
        if let Some(bucket) = self.buckets.get_mut(bucket as usize) {
            *bucket = Bucket::EMPTY;
        }
        match first_half(bucket, self.before).checked_sub(1) {
            Some(boundary) => self.boundary = boundary,
            None => (self.before, self.boundary) = (self.count, u32::MAX),
        }
        if let Some(next) = self.below().checked_sub(1) {
            self.buckets.prefetch(next as usize);
        }
        for entry in entries {
            self.settle(hash_of(entry), entry, hash_of);
        }
    }

    /// Puts an entry where it belongs, or among the strays.
    fn settle(&mut self, hash: u64, entry: u32, hash_of: &impl Fn(u32) -> u64) {
        if self.place(hash, entry, hash_of).is_none() {
            let _ = self.stray.try_push((hash, entry));
        }
    }

    /// The last bucket that was not yet moved.
    fn below(&self) -> u32 {
        super::scale(self.boundary, self.before)
    }

    fn bucket_below(&self) -> Option<Bucket> {
        self.buckets.get(self.below() as usize).copied()
    }
}

/// The lowest half of a hash that belongs into this one of `count` buckets.
pub(super) fn first_half(bucket: u32, count: u32) -> u32 {
    // Below 2^32, because `bucket` is below `count`.
    (u64::from(bucket) << 32).div_ceil(u64::from(count.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::super::scale;
    use super::*;

    #[test]
    fn a_bucket_begins_with_its_first_half() {
        for count in [1, 2, 3, 64, 80, 1000, 12_345_677] {
            for bucket in (0..count).step_by(count as usize / 50 + 1).chain([count - 1]) {
                let first = first_half(bucket, count);
                assert_eq!(scale(first, count), bucket, "of {count}");
                assert!(bucket == 0 || scale(first - 1, count) == bucket - 1, "{bucket} of {count}");
            }
        }
    }
}
