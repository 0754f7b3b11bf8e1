//! Turns: what both sides saw of them, put together, and what many of them say.

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::side::{Half, LEAD};
use crate::load::rounds::Which;
use crate::load::stops::{STOP, Stops};

/// The longest delay that is told apart from longer ones, nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// Which of a turn's inserts are looked for: one in `every`, not always at the same place of a burst.
pub fn places(every: usize) -> impl Iterator<Item = usize> {
    let jitter = move |lot: usize| (lot.wrapping_mul(0x9e37_79b9) >> 16) % every.max(1);
    (0..).map(move |lot| lot * every.max(1) + jitter(lot))
}

/// How many of so many inserts are looked for.
#[must_use]
pub fn probes_of(inserts: usize, every: usize) -> usize {
    places(every).take_while(|place| *place < inserts).count()
}

/// A turn of both workers under one load.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Nanoseconds from an insert until it could be read on the other worker.
    pub delays: Vec<u64>,
    /// Stops of either thread that the kernel proves.
    pub stops: usize,
    /// The longest of them, nanoseconds.
    pub longest: u64,
    /// Other gaps of their threads: work of weir's, or a hypervisor that keeps silent.
    pub unproven: usize,
    /// The longest of them, nanoseconds.
    pub longest_unproven: u64,
    /// Packets per second of each worker, the mean of both.
    pub packets: f64,
    /// Inserts per second of each.
    pub inserts: f64,
    /// Microseconds of a round with packets in it, the mean of all.
    pub round: f64,
    /// Packets in such a round.
    pub burst: f64,
    /// News that a ring did not take at once.
    pub refused: u64,
    /// Times that a worker was told everything anew.
    pub resyncs: u64,
}

impl Turn {
    /// Counts the inserts that were made while both workers had their load, and had had it for some time.
    ///
    /// # Errors
    /// If one of them could not be read.
    pub fn of(halves: [&Half; 2]) -> anyhow::Result<Turn> {
        let [a, b] = halves;
        let (from, until) = (a.begin.max(b.begin) + LEAD, a.end.min(b.end));
        let mut delays = Vec::new();
        for (of, by) in [(a, b), (b, a)] {
            let (inserted, seen) = (of.inserted.len(), by.seen.len());
            ensure!(inserted == seen, "{inserted} probes were inserted, {seen} could be read");
            let pairs = of.inserted.iter().zip(&by.seen).filter(|(at, _)| (from..until).contains(*at));
            delays.extend(pairs.map(|(inserted, seen)| seen.saturating_sub(*inserted)));
        }
        // Neither is the generator of the other one: what they work in a turn of their loops is weir's.
        let stops = [a, b].map(|half| Stops::of(&[], &half.gaps, false, u64::MAX));
        let sum = |of: fn(&Half) -> u64| (of(a) + of(b)) as f64;
        let seconds = sum(|half| half.end - half.begin) / 1e9;
        Ok(Turn {
            delays,
            stops: stops.iter().map(|stops| stops.other).sum(),
            longest: stops.iter().map(|stops| stops.longest).max().unwrap_or(0),
            unproven: stops.iter().map(|stops| stops.unproven).sum(),
            longest_unproven: stops.iter().map(|stops| stops.longest_unproven).max().unwrap_or(0),
            packets: sum(|half| half.packets) / seconds,
            inserts: sum(|half| half.opened) / seconds,
            round: sum(|half| half.round_nanoseconds) / sum(|half| half.rounds).max(1.0) / 1000.0,
            burst: sum(|half| half.packets) / sum(|half| half.rounds).max(1.0),
            refused: a.refused + b.refused,
            resyncs: a.resyncs + b.resyncs,
        })
    }

    /// Whether a processor was taken away from either worker for more than [`STOP`].
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.stops > 0
    }
}

/// Those turns that count.
pub fn chosen(turns: &[Turn], which: Which) -> impl Iterator<Item = &Turn> {
    turns.iter().filter(move |turn| which == Which::All || !turn.is_hit())
}

/// The delays of all inserts of these turns.
pub fn histogram(turns: &[Turn], which: Which) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3)?;
    let delays = chosen(turns, which).flat_map(|turn| &turn.delays);
    delays.for_each(|delay| histogram.saturating_record((*delay).max(1)));
    Ok(histogram)
}

/// The share of delays that are not longer than so many microseconds.
#[must_use]
pub fn within(delays: &Histogram<u64>, micros: u64) -> Option<f64> {
    (!delays.is_empty()).then(|| delays.count_between(0, micros * 1000) as f64 / delays.len() as f64)
}

/// What a stop is, for people.
pub const STOP_MICROS: u64 = STOP / 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::stops::Gap;

    #[test]
    fn probes_are_one_in_so_many_and_in_all_places() {
        let of_eight: Vec<usize> = places(8).take(800).collect();
        assert!(of_eight.windows(2).all(|pair| pair[0] < pair[1]));
        let counts = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| of_eight.iter().filter(|p| *p % 8 == at).count());
        assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
        assert_eq!(probes_of(0, 8), 0);
        assert_eq!((probes_of(800, 8), probes_of(100, 1)), (100, 100));
    }

    fn half(begin: u64, end: u64, inserted: &[u64], seen: &[u64]) -> Half {
        let (inserted, seen) = (inserted.to_vec(), seen.to_vec());
        Half {
            begin,
            end,
            inserted,
            seen,
            rounds: 2,
            packets: 128,
            round_nanoseconds: 9_000,
            ..Half::default()
        }
    }

    #[test]
    fn what_is_inserted_while_only_one_works_is_not_counted() {
        let from = LEAD + 500;
        let a = half(0, 2_000_000, &[from - 1, from, 1_999_000, 2_000_000], &[from + 20_000]);
        let b = half(500, 3_000_000, &[from + 1], &[9, from + 7_000, 2_003_000, 9_000_000]);
        let turn = Turn::of([&a, &b]).unwrap();
        assert_eq!(turn.delays, [7_000, 4_000, 19_999]);
        assert_eq!((turn.round, turn.burst, turn.is_hit()), (4.5, 64.0, false));
        let missing = half(500, 3_000_000, &[], &[9, 10, 11, 12]);
        assert!(Turn::of([&a, &missing]).is_err(), "b read one that a never inserted");
    }

    #[test]
    fn only_what_the_kernel_proves_makes_a_turn_not_count() {
        let gap = |nanoseconds, idle| Gap { begin: 5, nanoseconds, idle };
        let own = Half { gaps: vec![gap(300_000, 0)], ..half(0, 9_000_000, &[2_000_000], &[]) };
        let other = half(0, 9_000_000, &[], &[2_150_000]);
        let slow = Turn::of([&own, &other]).unwrap();
        assert_eq!((slow.is_hit(), slow.unproven, slow.longest_unproven), (false, 1, 300_000));
        let stopped = Half { gaps: vec![gap(400_000, 390_000)], ..own };
        let stopped = Turn::of([&stopped, &other]).unwrap();
        assert!(stopped.is_hit() && stopped.longest == 400_000);
        let turns = [slow, stopped];
        let [all, rest] = [Which::All, Which::WithoutStop].map(|which| histogram(&turns, which).unwrap());
        assert_eq!((all.len(), rest.len()), (2, 1));
        assert_eq!((within(&all, 100), within(&all, 151)), (Some(0.0), Some(1.0)));
        assert_eq!(within(&histogram(&[], Which::All).unwrap(), 100), None);
    }
}
