//! In what pieces, and in what order, the payloads of a case reach weir: [`Plan`].

use std::collections::BTreeMap;
use std::ops::Range;

/// Pieces of a payload in the order in which they are sent; may overlap and repeat, and together are all of it.
pub type Pieces = Vec<Range<usize>>;

/// How the payloads of a case are sent: those that are not named, in one piece. Payloads count from 0, in the order in
/// which the case sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(BTreeMap<usize, Pieces>);

/// Pieces of a payload in a random plan: fewer than weir keeps apart, so that nothing has to be sent again.
const MOST_PIECES: usize = 12;
/// Bytes that come one by one at most: a run whose script looks at all that it has after each byte takes its time.
const SINGLE_BYTES: usize = 64;
/// Bytes of a piece after them.
const PIECE: usize = 256;

/// The pieces of a payload that is not cut.
#[must_use]
pub fn in_one_piece(length: usize) -> Pieces {
    std::iter::once(0..length).collect()
}

impl Plan {
    /// The pieces of the payload `number`.
    #[must_use]
    pub fn pieces(&self, number: usize, length: usize) -> Pieces {
        let Some(pieces) = self.0.get(&number) else { return in_one_piece(length) };
        // A case that sends something else than the first time: its plan does not fit any more.
        if complete(pieces, length) { pieces.clone() } else { in_one_piece(length) }
    }

    /// One cut of one payload.
    #[must_use]
    pub fn cut(number: usize, at: usize, length: usize) -> Plan {
        Plan(BTreeMap::from([(number, vec![0..at, at..length])]))
    }

    /// The first [`SINGLE_BYTES`] bytes one by one, what follows in pieces of [`PIECE`].
    #[must_use]
    pub fn bytes(lengths: &[usize]) -> Plan {
        Self::each(lengths, |length| {
            let single = (0..length.min(SINGLE_BYTES)).map(|at| at..at + 1);
            let rest = (SINGLE_BYTES..length).step_by(PIECE);
            single.chain(rest.map(|at| at..length.min(at + PIECE))).collect()
        })
    }

    /// Random cuts; pieces change places, and some come twice.
    #[must_use]
    pub fn random(lengths: &[usize], random: &mut Random) -> Plan {
        Self::each(lengths, |length| {
            let cuts = 1 + random.below(MOST_PIECES.min(length) - 1);
            let mut places: Vec<usize> = (0..cuts).map(|_| 1 + random.below(length - 1)).collect();
            places.extend([0, length]);
            places.sort_unstable();
            places.dedup();
            let mut pieces: Pieces = places.iter().zip(places.iter().skip(1)).map(|(a, b)| *a..*b).collect();
            if random.below(3) > 0 {
                for place in (1..pieces.len()).rev() {
                    pieces.swap(place, random.below(place + 1));
                }
            }
            if random.below(2) == 0 {
                let again = pieces.get(random.below(pieces.len())).cloned();
                pieces.splice(pieces.len().., again);
            }
            pieces
        })
    }

    fn each(lengths: &[usize], mut pieces: impl FnMut(usize) -> Pieces) -> Plan {
        let long = lengths.iter().enumerate().filter(|(_, length)| **length > 1);
        Plan(long.map(|(number, length)| (number, pieces(*length))).collect())
    }

    /// The payloads that are not sent in one piece, with their pieces.
    pub fn cut_payloads(&self) -> impl Iterator<Item = (usize, &Pieces)> {
        self.0.iter().map(|(number, pieces)| (*number, pieces))
    }

    /// The smallest plan that still `breaks` the case, found by undoing one thing after the other.
    #[must_use]
    pub fn shrunk(self, most_tries: usize, mut breaks: impl FnMut(&Plan) -> bool) -> Plan {
        let mut smallest = self;
        let mut tries = 0;
        'again: loop {
            for simpler in smallest.simpler() {
                if tries == most_tries {
                    return smallest;
                }
                tries += 1;
                if breaks(&simpler) {
                    smallest = simpler;
                    continue 'again;
                }
            }
            return smallest;
        }
    }

    /// Plans with one cut, repetition or disorder less.
    fn simpler(&self) -> Vec<Plan> {
        let mut plans = Vec::new();
        for (number, pieces) in &self.0 {
            let mut whole = self.clone();
            whole.0.remove(number);
            plans.push(whole);
            for fewer in simpler_pieces(pieces) {
                let mut plan = self.clone();
                plan.0.insert(*number, fewer);
                plans.push(plan);
            }
        }
        plans
    }
}

fn simpler_pieces(pieces: &Pieces) -> Vec<Pieces> {
    let length = pieces.iter().map(|piece| piece.end).max().unwrap_or(0);
    let mut found = Vec::new();
    let mut sorted = pieces.clone();
    sorted.sort_by_key(|piece| piece.start);
    sorted.dedup();
    if sorted != *pieces {
        found.push(sorted.clone());
    }
    // Half of the cuts.
    let (early, late) = sorted.split_at(sorted.len() / 2);
    let joined = |pieces: &[Range<usize>]| {
        let (first, last) = (pieces.first()?, pieces.last()?);
        Some(first.start..last.end)
    };
    if sorted.len() > 3
        && let (Some(first), Some(last)) = (joined(early), joined(late))
    {
        found.push(std::iter::once(first).chain(late.iter().cloned()).collect());
        found.push(early.iter().cloned().chain([last]).collect());
    }
    for place in 0..pieces.len() {
        let mut fewer = pieces.clone();
        let taken = fewer.remove(place);
        if complete(&fewer, length) {
            found.push(fewer.clone());
        }
        // Together with the piece that goes on where this one ends.
        if let Some(next) = fewer.iter_mut().find(|piece| piece.start == taken.end) {
            next.start = taken.start;
            if fewer.len() > 1 && complete(&fewer, length) {
                found.push(fewer);
            }
        }
    }
    found
}

/// True if the pieces are all of a payload of `length` bytes and nothing beyond.
fn complete(pieces: &Pieces, length: usize) -> bool {
    let mut sorted: Vec<_> = pieces.iter().collect();
    sorted.sort_by_key(|piece| piece.start);
    let reached = sorted.iter().try_fold(0, |reached, piece| {
        (piece.start <= reached && piece.start < piece.end).then(|| piece.end.max(reached))
    });
    reached == Some(length)
}

/// The plans with one cut: all, or `most` of them spread evenly; and how many there are.
#[must_use]
pub fn single_cuts(lengths: &[usize], most: usize) -> (Vec<Plan>, usize) {
    let places = lengths
        .iter()
        .enumerate()
        .flat_map(|(number, length)| (1..*length).map(move |at| (number, at, *length)));
    let all: Vec<_> = places.collect();
    let wanted = all.len().min(most);
    let spread = (0..wanted).filter_map(|place| {
        let last = wanted.saturating_sub(1).max(1);
        let at = if wanted == all.len() { place } else { place * (all.len() - 1) / last };
        all.get(at).map(|(number, at, length)| Plan::cut(*number, *at, *length))
    });
    (spread.collect(), all.len())
}

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From the seed of the run and something that tells cases apart.
    #[must_use]
    pub fn new(seed: u64, salt: &str) -> Random {
        // FNV-1a.
        let hash = salt.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Random(seed ^ hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_cuts_are_all_or_spread_with_both_ends() {
        let (plans, all) = single_cuts(&[3, 1, 0, 2], 100);
        assert_eq!(plans, [Plan::cut(0, 1, 3), Plan::cut(0, 2, 3), Plan::cut(3, 1, 2)]);
        assert_eq!(all, 3);
        let (plans, all) = single_cuts(&[1001], 11);
        assert_eq!((plans.len(), all), (11, 1000));
        assert_eq!(
            (plans.first(), plans.last()),
            (Some(&Plan::cut(0, 1, 1001)), Some(&Plan::cut(0, 1000, 1001)))
        );
        assert_eq!(single_cuts(&[], 5), (vec![], 0));
    }

    #[test]
    fn random_plans_are_complete_and_follow_from_the_seed() {
        let mut random = Random::new(7, "case");
        let (mut disordered, mut repeated) = (0, 0);
        for length in 2..200 {
            let plan = Plan::random(&[length], &mut random);
            let (_, pieces) = plan.cut_payloads().next().unwrap();
            assert!(complete(pieces, length) && pieces.len() <= MOST_PIECES + 1, "{pieces:?}");
            let mut sorted = pieces.clone();
            sorted.sort_by_key(|piece| piece.start);
            disordered += usize::from(sorted != *pieces);
            sorted.dedup();
            repeated += usize::from(sorted.len() < pieces.len());
        }
        assert!(disordered > 50 && repeated > 50, "{disordered} {repeated}");
        let plan = |seed| Plan::random(&[300, 20], &mut Random::new(seed, "case"));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn a_plan_that_does_not_fit_sends_the_whole() {
        let plan = Plan::cut(1, 4, 10);
        assert_eq!(plan.pieces(1, 10), [0..4, 4..10]);
        assert_eq!(plan.pieces(1, 11), in_one_piece(11));
        assert_eq!(plan.pieces(0, 10), in_one_piece(10));
    }

    #[test]
    fn single_bytes_come_first_and_not_for_ever() {
        let pieces = Plan::bytes(&[1000]).pieces(0, 1000);
        assert_eq!(pieces.get(63..), Some(&[63..64, 64..320, 320..576, 576..832, 832..1000][..]));
        assert_eq!(Plan::bytes(&[3]).pieces(0, 3), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn shrinking_keeps_what_breaks() {
        let plan = Plan::bytes(&[20, 9]);
        let cut_at_7 = |plan: &Plan| plan.pieces(0, 20).iter().any(|piece| piece.end == 7);
        assert_eq!(plan.clone().shrunk(1000, cut_at_7), Plan::cut(0, 7, 20));
        assert_eq!(plan.clone().shrunk(0, cut_at_7), plan);
        let first_is_last =
            |plan: &Plan| plan.pieces(1, 9).last().is_some_and(|piece| piece.start == 0 && piece.end < 9);
        let disorder = Plan(BTreeMap::from([(0, vec![0..3, 3..20]), (1, vec![2..4, 4..9, 2..4, 0..2])]));
        assert_eq!(disorder.shrunk(1000, first_is_last), Plan(BTreeMap::from([(1, vec![2..9, 0..2])])));
    }
}
