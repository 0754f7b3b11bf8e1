use std::collections::HashMap;

use super::*;

const SEED: u64 = 0x5eed;

fn random(n: u32) -> u64 {
    let x = (u64::from(n) + SEED).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An index and the hashes of its entries, whose numbers begin at `base`.
struct Filled {
    index: Index,
    base: u32,
    hashes: HashMap<u32, u64>,
}

impl Filled {
    fn new(keys: u32) -> Self {
        Filled { index: Index::new(keys).unwrap(), base: 0, hashes: HashMap::new() }
    }

    /// With entries that take bits from the tag: an index for so many keys, though it has room for a few.
    fn above(keys: u32, base: u32) -> Self {
        let mut filled = Filled { base, ..Filled::new(20_000) };
        filled.index.mask = tag_bits(keys);
        filled
    }

    fn insert(&mut self, hash: u64, n: u32) -> bool {
        let (entry, hashes) = (self.base + n, &self.hashes);
        self.index.make_way(|entry| hashes[&entry]);
        let done = self.index.insert(hash, entry, |entry| hashes[&entry]).is_ok();
        if done {
            self.hashes.insert(entry, hash);
        }
        done
    }

    fn remove(&mut self, n: u32) {
        let hash = self.hashes.remove(&(self.base + n)).unwrap();
        self.index.remove(hash, self.base + n);
    }

    fn holds(&self, hash: u64, n: u32) -> bool {
        self.index.find(hash, |entry| (entry == self.base + n).then_some(())).is_some()
    }

    /// Every entry is found, and there are no others.
    fn check(&self) {
        assert_eq!(self.index.held as usize, self.hashes.len());
        for (entry, hash) in &self.hashes {
            assert!(self.holds(*hash, entry - self.base), "{entry}, seed {SEED}");
        }
        let buckets = self.index.buckets.iter().flat_map(|bucket| bucket.tags);
        let taken = buckets.filter(|tag| *tag != 0).count();
        assert_eq!(taken + self.index.stray.len(), self.hashes.len());
    }
}

#[test]
fn entries_stay_findable_while_the_index_grows() {
    for mut filled in [Filled::new(20_000), Filled::above(1 << 26, 0x3ff_0000)] {
        let mut sizes = Vec::new();
        for n in 0..20_000 {
            assert!(filled.insert(random(n), n), "{n}, seed {SEED}");
            if filled.index.count != *sizes.last().unwrap_or(&0) {
                sizes.push(filled.index.count);
            }
            // Close together at all times.
            let room = filled.index.before * LOAD;
            assert!(room <= MIN_BUCKETS * LOAD || filled.index.held * 14 > room * 10, "{n}: {room}");
            if n % 499 == 0 {
                filled.check();
            }
        }
        filled.check();
        assert_eq!(sizes[..5], [64, 80, 100, 125, 156]);
        assert_eq!(sizes.last(), Some(&2223));
        for n in (0..20_000).step_by(2) {
            filled.remove(n);
        }
        filled.check();
        assert!((0..20_000).step_by(2).all(|n| !filled.holds(random(n), n)));
    }
}

#[test]
fn nearly_all_entries_are_in_their_first_bucket() {
    let mut filled = Filled::new(90_000);
    for n in 0..90_000 {
        assert!(filled.insert(random(n), n), "{n}, seed {SEED}");
    }
    let near = |n: &u32| {
        let found = filled.index.find_near(random(*n), |entry| (entry == *n).then_some(()));
        found.is_some()
    };
    let far = (0..90_000).filter(|n| !near(n)).count();
    assert!(far < 400, "{far} of 90000, seed {SEED}");
    let sure = (0..90_000).filter(|n| filled.index.candidate(random(*n)) == (Some(*n), true)).count();
    assert!(sure > 86_000, "{sure} of 90000, seed {SEED}");
}

/// Far beyond the load that it is made for: entries must move, and none may get lost on the way.
#[test]
fn entries_move_out_of_the_way_and_stay_findable() {
    let mut filled = Filled::new(1200);
    let slots = 134 * SLOTS as u32;
    let mut held = 0;
    while filled.insert(random(held), held) {
        held += 1;
    }
    assert_eq!(filled.index.count, 134);
    assert!(held > slots * 96 / 100, "{held} of {slots}, seed {SEED}");
    filled.check();
    for n in (0..held).step_by(2) {
        filled.remove(n);
    }
    filled.check();
}

/// Keys that all have the same two buckets: the 33rd finds no room, and the 32 others stay.
#[test]
fn without_room_nothing_is_lost() {
    let mut filled = Filled::new(1000);
    for n in 0..32 {
        assert!(filled.insert(random(1), n));
    }
    assert!(!filled.insert(random(1), 32));
    filled.check();
    filled.remove(3);
    assert!(filled.insert(random(1), 32));
    assert!(filled.holds(random(1), 32) && !filled.holds(random(1), 3));
    filled.check();
}

/// Two crowds in two buckets each that belong into the same two when there are more buckets: what finds no room is found all
/// the same, and comes in once there is room.
#[test]
fn strays_are_found_until_they_have_a_place() {
    // The last hashes of buckets 32 and 48 of 64, and the ones after them: of 80 they are all in 41 and 61.
    let (first, second) = (growth::first_half(33, 64), growth::first_half(49, 64));
    let crowd = |n: u32| u64::from(first - n % 2) << 32 | u64::from(second - n % 2);
    let mut filled = Filled::new(20_000);
    for n in 0..36 {
        assert!(filled.insert(crowd(n), n));
    }
    let mut next = 1000;
    let mut one_more = |filled: &mut Filled| {
        assert!(filled.insert(random(next), next), "{next}, seed {SEED}");
        next += 1;
        filled.check();
    };
    while filled.index.stray.len() < 4 && filled.index.count < 100 {
        one_more(&mut filled);
    }
    assert!((4..8).contains(&filled.index.stray.len()), "{}, seed {SEED}", filled.index.stray.len());
    assert_eq!((filled.index.count, filled.index.before), (80, 64));
    for n in 0..12 {
        filled.remove(n);
    }
    while filled.index.count < 100 {
        one_more(&mut filled);
    }
    assert!(filled.index.stray.is_empty());
}

#[test]
fn large_numbers_take_bits_from_the_tag() {
    for (keys, bits) in
        [(1, 0xff), (1 << 24, 0xff), ((1 << 24) + 1, 0xfe), (25_000_000, 0xfe), (1 << 31, 0x80)]
    {
        assert_eq!(tag_bits(keys), bits, "{keys}");
        let index = Index { mask: tag_bits(keys), ..Index::new(1).unwrap() };
        assert!((0..1000).all(|n| index.tag(random(n)) & bits != 0));
    }
}
