//! Rounds of short runs in turn, and what they say together: medians over rounds, and over the differences within them.

use hdrhistogram::Histogram;

use super::stops::{STOP, Stops};
use super::tally::Load;
use crate::measure::{middle, sorted};

/// The quantiles of a run that are kept.
pub const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What is kept of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Packets that were to be sent.
    pub scheduled: u64,
    /// Packets that came back.
    pub received: u64,
    /// By [`QUANTILES`], microseconds from the intended departure on; `None` if nothing came back.
    pub latency: Option<[f64; 3]>,
    /// The same of packets that open flows.
    pub first: Option<[f64; 3]>,
    /// The longest latency.
    pub most: f64,
    /// By how many microseconds one packet in a thousand left too late; `None` if none left.
    pub late: Option<f64>,
    /// Stops of both processors.
    pub stops: Stops,
}

impl Run {
    /// Of what became of its packets.
    #[must_use]
    pub fn new(load: &Load, stops: Stops) -> Run {
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
        let of = |latency: &Histogram<u64>| {
            let values = QUANTILES.map(|(_, quantile)| micros(latency.value_at_quantile(quantile)));
            (!latency.is_empty()).then_some(values)
        };
        let late = micros(load.late.value_at_quantile(0.999));
        Run {
            scheduled: load.scheduled,
            received: load.received,
            latency: of(&load.latency),
            first: of(&load.first),
            most: micros(load.latency.max().max(load.first.max())),
            late: (!load.late.is_empty()).then_some(late),
            stops,
        }
    }

    /// Whether the generator was stopped, or so slow that one packet in a thousand left as late as after a stop. It waits for
    /// nothing, so that this is never the other end's.
    #[must_use]
    pub fn generator_was_held_up(&self) -> bool {
        self.stops.generator > 0 || self.late.is_some_and(|late| late * 1000.0 > STOP as f64)
    }

    /// Whether either end was.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.stops.other > 0 || self.generator_was_held_up()
    }

    fn of(&self, packets: Packets) -> Option<[f64; 3]> {
        match packets {
            Packets::Established => self.latency,
            Packets::First => self.first,
        }
    }
}

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packets {
    /// Those of established flows.
    Established,
    /// Those that open a flow.
    First,
}

/// Values of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Their median; of an even number of rounds the mean of both in the middle.
    pub middle: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// `None` of nothing.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let values = sorted(values.into_iter().collect());
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let below = *values.get((values.len() - 1) / 2)?;
        Some(Spread { middle: f64::midpoint(below, middle(&values)), lowest, highest })
    }
}

/// Which rounds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// Those in which neither processor was stopped.
    WithoutStop,
}

/// One round at one load: a run of each subject, at the same rate.
#[derive(Clone, Debug)]
pub struct Round {
    /// Packets per second that were to be sent.
    pub offered: f64,
    /// By subject.
    pub runs: Vec<Run>,
}

/// All rounds at one load.
#[derive(Clone, Debug)]
pub struct Level {
    /// Per cent of the maximum.
    pub percent: u32,
    /// In their order.
    pub rounds: Vec<Round>,
}

/// Rounds of one subject, or of the difference of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many have figures: all but those of which nothing came back.
    pub rounds: usize,
    /// By [`QUANTILES`]; `None` of no rounds.
    pub latency: Option<[Spread; 3]>,
}

impl Level {
    /// Packets per second that were to be sent.
    #[must_use]
    pub fn offered(&self) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(|round| round.offered))
    }

    /// Runs of one subject.
    pub fn runs(&self, subject: usize, which: Which) -> impl Iterator<Item = &Run> {
        let runs = self.rounds.iter().filter_map(move |round| round.runs.get(subject));
        runs.filter(move |run| which == Which::All || !run.is_hit())
    }

    /// Latency of one subject.
    #[must_use]
    pub fn latency(&self, subject: usize, which: Which, packets: Packets) -> Summary {
        summary(&self.runs(subject, which).filter_map(|run| run.of(packets)).collect::<Vec<_>>())
    }

    /// What one subject has beyond another one in the same round; without a stop are rounds in which neither had one.
    #[must_use]
    pub fn added(&self, subject: usize, base: usize, which: Which, packets: Packets) -> Summary {
        let pairs =
            self.rounds.iter().filter_map(|round| Some((round.runs.get(subject)?, round.runs.get(base)?)));
        let counts = |(a, b): &(&Run, &Run)| which == Which::All || !(a.is_hit() || b.is_hit());
        let differences = pairs.filter(counts).filter_map(|(a, b)| {
            let [[a50, a99, a999], [b50, b99, b999]] = [a.of(packets)?, b.of(packets)?];
            Some([a50 - b50, a99 - b99, a999 - b999])
        });
        summary(&differences.collect::<Vec<_>>())
    }

    /// The share of packets that did not come back.
    #[must_use]
    pub fn loss(&self, subject: usize, which: Which) -> f64 {
        let sum = |of: fn(&Run) -> u64| self.runs(subject, which).map(of).sum::<u64>() as f64;
        1.0 - sum(|run| run.received) / sum(|run| run.scheduled).max(1.0)
    }

    /// By how many microseconds one packet in a thousand left too late.
    #[must_use]
    pub fn late(&self, subject: usize, which: Which) -> Option<Spread> {
        Spread::of(self.runs(subject, which).filter_map(|run| run.late))
    }
}

fn summary(rounds: &[[f64; 3]]) -> Summary {
    let spread = |of: fn(&[f64; 3]) -> f64| Spread::of(rounds.iter().map(of));
    let of = || Some([spread(|[p50, ..]| *p50)?, spread(|[_, p99, _]| *p99)?, spread(|[.., p999]| *p999)?]);
    Summary { rounds: rounds.len(), latency: of() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(latency: [f64; 3], stopped: bool, received: u64) -> Run {
        let stops = Stops { generator: usize::from(stopped), ..Stops::default() };
        Run {
            scheduled: 1000,
            received,
            latency: Some(latency),
            first: None,
            most: 0.0,
            late: Some(latency[0] / 2.0),
            stops,
        }
    }

    /// weir and the bare loop; the machine becomes slower from round to round, and takes the processor away twice.
    fn level() -> Level {
        let rounds = [
            (run([3.0, 6.0, 9.0], false, 1000), run([2.0, 4.0, 8.0], false, 1000)),
            (run([13.0, 16.0, 900.0], true, 900), run([12.0, 14.0, 18.0], false, 1000)),
            (run([23.0, 27.0, 29.0], false, 1000), run([20.0, 24.0, 7000.0], true, 500)),
            (run([34.0, 36.0, 40.0], false, 990), run([31.0, 35.0, 38.0], false, 1000)),
        ];
        let round = |(weir, bare)| Round { offered: 1e6, runs: vec![weir, bare] };
        Level { percent: 50, rounds: rounds.into_iter().map(round).collect() }
    }

    #[test]
    fn medians_are_over_rounds_not_over_packets() {
        let all = level().latency(0, Which::All, Packets::Established);
        let [p50, p99, p999] = all.latency.unwrap();
        assert_eq!((all.rounds, p50.middle, p99.middle, p999.middle), (4, 18.0, 21.5, 34.5));
        assert_eq!((p999.lowest, p999.highest), (9.0, 900.0));
        let quiet = level().latency(0, Which::WithoutStop, Packets::Established);
        let [p50, _, p999] = quiet.latency.unwrap();
        assert_eq!((quiet.rounds, p50.middle, p999.middle, p999.highest), (3, 23.0, 29.0, 40.0));
    }

    #[test]
    fn differences_are_within_rounds_and_both_runs_must_have_been_left_alone() {
        let all = level().added(0, 1, Which::All, Packets::Established);
        let [p50, p99, p999] = all.latency.unwrap();
        // 1, 1, 3, 3 and 2, 2, 3, 1: that the rounds are 10 apart is in none of them.
        assert_eq!((all.rounds, p50.middle, p50.lowest, p50.highest), (4, 2.0, 1.0, 3.0));
        assert_eq!((p99.middle, p99.lowest, p99.highest), (2.0, 1.0, 3.0));
        assert_eq!((p999.lowest, p999.highest), (-6971.0, 882.0));
        let quiet = level().added(0, 1, Which::WithoutStop, Packets::Established);
        let [.., p999] = quiet.latency.unwrap();
        assert_eq!((quiet.rounds, p999.lowest, p999.highest), (2, 1.0, 2.0));
    }

    #[test]
    fn losses_are_of_all_packets_of_the_rounds_that_count() {
        assert!((level().loss(0, Which::All) - 110.0 / 4000.0).abs() < 1e-9);
        assert!((level().loss(0, Which::WithoutStop) - 10.0 / 3000.0).abs() < 1e-9);
        assert_eq!(level().late(1, Which::WithoutStop).unwrap().highest, 15.5);
    }

    #[test]
    fn of_no_rounds_there_is_no_figure() {
        let none = Level { percent: 50, rounds: level().rounds.split_off(1).drain(..1).collect() };
        let quiet = none.added(0, 1, Which::WithoutStop, Packets::Established);
        assert_eq!(quiet, Summary { rounds: 0, latency: None });
        assert_eq!(none.latency(0, Which::WithoutStop, Packets::Established).latency, None);
    }

    #[test]
    fn a_run_of_which_nothing_came_back_is_lost_but_not_fast() {
        let mut level = level();
        level.rounds[0].runs[0] = Run { latency: None, late: None, ..run([0.0; 3], false, 0) };
        let latency = level.latency(0, Which::WithoutStop, Packets::Established);
        assert_eq!((latency.rounds, latency.latency.unwrap()[0].middle), (2, 28.5));
        assert_eq!(level.added(0, 1, Which::WithoutStop, Packets::Established).rounds, 1);
        assert!((level.loss(0, Which::WithoutStop) - 1010.0 / 3000.0).abs() < 1e-9);
    }

    #[test]
    fn a_generator_that_is_as_late_as_after_a_stop_was_held_up() {
        let late = |late| Run { late: Some(late), ..run([3.0, 6.0, 9.0], false, 1000) };
        assert!(!late(100.0).is_hit());
        assert!(late(101.0).is_hit());
        let other = Run { stops: Stops { other: 1, ..Stops::default() }, ..late(1.0) };
        assert!(other.is_hit() && !other.generator_was_held_up());
    }

    #[test]
    fn packets_that_open_flows_are_apart() {
        let mut level = level();
        level.rounds[0].runs[0].first = Some([50.0, 60.0, 70.0]);
        let first = level.latency(0, Which::All, Packets::First);
        assert_eq!((first.rounds, first.latency.unwrap()[2].middle), (1, 70.0));
        assert_eq!(level.added(0, 1, Which::All, Packets::First).rounds, 0);
        assert_eq!(level.latency(0, Which::All, Packets::Established).latency.unwrap()[2].lowest, 9.0);
    }
}
