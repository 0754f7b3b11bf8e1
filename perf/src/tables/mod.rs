//! How soon an insert of one worker can be read on another one, while both have all the packets that they can serve.
//!
//! Two workers of one weir are on two cores, each with its own end hosts and its own wire (`side`). Scripts of flows that
//! begin insert; the moment of an insert is when its script began, and it can be read from when the round of the other worker
//! ended in which it was heard. Turns are short, and the loads take turns, so that what the machine does meets all of them
//! alike; those in which no processor was taken away stand beside all of them (`turns`, `table`).

pub mod meeting;
pub mod side;
pub mod table;
pub mod turns;

use anyhow::{Context, ensure};
use dataplane::mesh::Mesh;

use crate::load::stops::Gap;
use crate::measure::Lab;
use crate::scenario::Scenario;
use meeting::Meeting;
use side::{Half, Side};
use turns::Turn;

/// Packets of which a load says how many open flows.
pub const OF: u64 = 64;

/// What both workers have to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What it is, for the table.
    pub text: &'static str,
    /// So many of [`OF`] packets open a flow, whose script inserts; the others are of established flows, and the wire is
    /// never empty. `None`: a flow that begins from time to time, and nothing else.
    pub opening: Option<u64>,
    /// Of so many inserts one is looked for on the other worker.
    pub every: usize,
}

/// From the lightest to the heaviest.
pub const LOADS: [Load; 4] = [
    Load { text: "a flow begins every 20 µs, nothing else", opening: None, every: 1 },
    Load { text: "full bursts, 1 packet in 64 opens a flow", opening: Some(1), every: 1 },
    Load { text: "full bursts, 1 packet in 4 opens a flow", opening: Some(16), every: 4 },
    Load { text: "full bursts, every packet opens a flow", opening: Some(64), every: 8 },
];

/// How long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; in each there is a turn of each load and one in which the processors only read the clock.
    pub rounds: usize,
    /// Nanoseconds of each turn.
    pub nanoseconds: u64,
}

impl Plan {
    /// Turns of a hundredth of a second: the shorter they are, the more of them nothing stops.
    #[must_use]
    pub fn new(quick: bool) -> Plan {
        Plan { rounds: if quick { 20 } else { 100 }, nanoseconds: 10_000_000 }
    }
}

/// What was measured.
pub struct Outcome {
    /// By load: its turns.
    pub turns: Vec<(Load, Vec<Turn>)>,
    /// Gaps of the processors that only read the clock, by round and worker.
    pub idle: Vec<[Vec<Gap>; 2]>,
}

/// What one worker's side has to say.
pub(super) struct Report {
    /// By round, and within it by load.
    halves: Vec<Half>,
    /// By round.
    idle: Vec<Vec<Gap>>,
}

type Job<'a> = Box<dyn FnOnce() -> anyhow::Result<Report> + Send + 'a>;

/// Measures; `lab` has two lcores.
pub fn run(lab: &Lab, plan: &Plan) -> anyhow::Result<Outcome> {
    let scenario = Scenario::named("udp-10k").and_then(Scenario::with_inserts);
    let scenario = scenario.context("no flows beside which others begin")?;
    let meeting = &Meeting::default();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (number, mesh) in Mesh::new(2, 1).into_iter().enumerate() {
        let wire = lab.wire(&format!("wire{number}"))?;
        jobs.push(Box::new(move || {
            let _guard = meeting.guard();
            Side::open(scenario, wire, mesh, meeting, plan.nanoseconds)?.run(plan)
        }));
    }
    let results = lab.eal().run_on_lcores(jobs)?;
    // Of two failures the first one is what happened, the other one that nobody came.
    let (reports, failures): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let mut failures: Vec<anyhow::Error> = failures.into_iter().filter_map(Result::err).collect();
    failures.sort_by_key(|failure| failure.is::<meeting::Alone>());
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure);
    }
    joined(reports.into_iter().filter_map(Result::ok).collect())
}

/// Puts together what both sides saw.
fn joined(reports: Vec<Report>) -> anyhow::Result<Outcome> {
    let [first, second] = <[Report; 2]>::try_from(reports).ok().context("not two workers")?;
    ensure!(first.halves.len() == second.halves.len(), "one worker had more turns than the other");
    let mut turns: Vec<(Load, Vec<Turn>)> = LOADS.map(|load| (load, Vec::new())).to_vec();
    for (place, halves) in first.halves.iter().zip(&second.halves).enumerate() {
        if let Some((load, turns)) = turns.get_mut(place % LOADS.len()) {
            turns.push(Turn::of(halves.into()).with_context(|| load.text)?);
        }
    }
    Ok(Outcome { turns, idle: first.idle.into_iter().zip(second.idle).map(|(a, b)| [a, b]).collect() })
}
