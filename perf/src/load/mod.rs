//! Latency and loss at a given load: an open-loop generator against weir in this process (`near`) or in one of its own
//! (`far`), each beside a bare device loop in weir's place.
//!
//! Runs are short and the subjects take turns, so that what the machine does meets all of them alike, and each pair of weir and
//! bare loop gives a difference of its own (`rounds`). What took a processor away meanwhile is noted by the loops at both
//! ends (`stops`), and rounds in which nothing did are shown beside all of them (`table`).

pub mod far;
pub mod generator;
pub mod near;
pub mod rounds;
pub mod stops;
pub mod table;
pub mod tally;
pub mod template;

use rounds::{Level, Round, Run};
use stops::{Gap, Stops, delay};
use tally::Load;

/// Nanoseconds of a run that finds the maximum; the best of several counts, because a stop only ever lowers it.
const PROBE: u64 = 20_000_000;
const PROBES: usize = 3;
const WEIR: usize = 0;
const BARE: usize = 1;

/// How long, and at which loads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Per cent of the most that came back when as much was sent as the wire took.
    pub loads: Vec<u32>,
    /// Nanoseconds of each run.
    pub nanoseconds: u64,
    /// Runs at each load and of each subject, in turn.
    pub rounds: usize,
    /// The share of packets that open a flow.
    pub new_flows: f64,
}

impl Plan {
    /// The usual loads, in runs of a twentieth of a second: the shorter they are, the more of them nothing stops, and one
    /// packet in a thousand is still dozens.
    #[must_use]
    pub fn new(quick: bool) -> Plan {
        let rounds = if quick { 15 } else { 61 };
        Plan { loads: vec![10, 25, 50, 75, 90], nanoseconds: 50_000_000, rounds, new_flows: 0.0 }
    }
}

/// What stands at the other end of the wire.
pub trait Subjects {
    /// Their names; the first one is weir, the second the bare loop.
    fn names(&self) -> Vec<String>;
    /// Sends to one of them, while the others rest. Returns also the gaps of its loop.
    fn run(
        &mut self,
        subject: usize,
        rate: Option<f64>,
        nanoseconds: u64,
    ) -> anyhow::Result<(Load, Vec<Gap>)>;
    /// The gaps of the processors while nobody does anything.
    fn idle(&mut self, nanoseconds: u64) -> anyhow::Result<Vec<Gap>>;
}

/// A time in which the processors only read the clock.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Stops in it.
    pub stops: usize,
    /// By the quantiles of the runs: microseconds by which a packet would have been held up.
    pub delay: [f64; 3],
}

/// What was measured.
pub struct Outcome {
    /// The subjects.
    pub names: Vec<String>,
    /// The most packets per second that came back, by subject and round.
    pub most: Vec<Vec<f64>>,
    /// Packets that the subject took at a time then.
    pub at_a_time: Vec<Vec<f64>>,
    /// By load.
    pub levels: Vec<Level>,
    /// By round.
    pub idle: Vec<Idle>,
}

/// In each round and at each load: finds weir's maximum, and sends a part of it to all subjects in turn. Each round begins
/// with another one.
pub fn measure(subjects: &mut dyn Subjects, plan: &Plan) -> anyhow::Result<Outcome> {
    let names = subjects.names();
    let mut most = vec![Vec::new(); names.len()];
    let mut at_a_time = most.clone();
    let mut levels: Vec<Level> =
        plan.loads.iter().map(|percent| Level { percent: *percent, rounds: Vec::new() }).collect();
    let mut idle = Vec::new();
    for round in 0..plan.rounds {
        for (subject, (rates, bursts)) in most.iter_mut().zip(&mut at_a_time).enumerate().skip(1) {
            let (rate, burst) = maximum(subjects, subject)?;
            rates.push(rate);
            bursts.extend(burst);
        }
        for level in &mut levels {
            let (full, burst) = maximum(subjects, WEIR)?;
            if let (Some(rates), Some(bursts)) = (most.get_mut(WEIR), at_a_time.get_mut(WEIR)) {
                rates.push(full);
                bursts.extend(burst);
            }
            let offered = full * f64::from(level.percent) / 100.0;
            level.rounds.push(turn(subjects, names.len(), round, offered, plan.nanoseconds)?);
        }
        idle.push(hiccups(&subjects.idle(plan.nanoseconds)?, plan.nanoseconds));
    }
    Ok(Outcome { names, most, at_a_time, levels, idle })
}

/// The most packets per second that came back, and how many of them the subject took at a time.
fn maximum(subjects: &mut dyn Subjects, subject: usize) -> anyhow::Result<(f64, Option<f64>)> {
    let mut best = (0.0_f64, None);
    for _ in 0..PROBES {
        let load = subjects.run(subject, None, PROBE)?.0;
        if load.rate() > best.0 {
            best = (load.rate(), load.at_a_time);
        }
    }
    Ok(best)
}

/// A run of each subject.
fn turn(
    subjects: &mut dyn Subjects,
    count: usize,
    round: usize,
    offered: f64,
    nanoseconds: u64,
) -> anyhow::Result<Round> {
    let mut runs = Vec::new();
    for place in 0..count {
        let subject = (place + round) % count;
        let (load, gaps) = subjects.run(subject, Some(offered), nanoseconds)?;
        let until = load.begin + load.nanoseconds;
        let stops = Stops::of(&load.gaps, &gaps, subject == BARE, until);
        runs.push((subject, Run::new(&load, stops)));
    }
    runs.sort_by_key(|(subject, _)| *subject);
    Ok(Round { offered, runs: runs.into_iter().map(|(_, run)| run).collect() })
}

fn hiccups(gaps: &[Gap], nanoseconds: u64) -> Idle {
    let stops = gaps.iter().filter(|gap| gap.nanoseconds > stops::STOP).count();
    let delay = rounds::QUANTILES.map(|(_, quantile)| delay(gaps, nanoseconds, quantile) as f64 / 1000.0);
    Idle { stops, delay }
}
