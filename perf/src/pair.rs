//! Two workers at the same time against each of them alone: what they take from each other.
//!
//! Each is on a core of its own with its own end hosts and its own wire, as in the other scenarios, and the two are joined
//! as the workers of one weir are. Flows are those that a network card would give to each of them. Slices of time with both
//! and with one of them follow one another, so that what else the machine does meets all three alike.

use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context, ensure};
use dataplane::header::Mac;
use dataplane::mesh::Mesh;
use dpdk::{DpdkIo, Mbuf};

use crate::bench::Bench;
use crate::measure::{Lab, middle, sorted};
use crate::scenario::Scenario;
use crate::tsc;
use crate::wire::Ring;

/// Nanoseconds of a slice: many turns of the kernel's scheduler.
const SLICE: u64 = 100_000_000;
/// Slices in turn: both, the first, the second.
const TURNS: u64 = 3;
const NAP: Duration = Duration::from_micros(200);

/// Ticks of one worker per unit, and of the bare loop per packet: the median of the windows in each slice.
#[derive(Clone, Debug, Default)]
struct Slices {
    work: Vec<Vec<f64>>,
    floor: Vec<Vec<f64>>,
}

/// What both have done.
pub struct Pair {
    /// Ticks per unit of each worker alone, median of the rounds.
    pub alone: [f64; 2],
    /// The same while the other one worked.
    pub together: [f64; 2],
    /// Ticks of the bare loop per packet alone and together, both workers' mean.
    pub floor: [f64; 2],
    /// Throughput of both over that of one, by round: 2 if they take nothing from each other.
    pub ratios: Vec<f64>,
}

type Job<'a> = Box<dyn FnOnce() -> anyhow::Result<Slices> + Send + 'a>;

/// Measures a scenario in so many rounds; `lab` has two lcores.
pub fn run(lab: &Lab, scenario: Scenario, rounds: u64) -> anyhow::Result<Pair> {
    let ready = &Barrier::new(2);
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (number, mesh) in Mesh::new(2, 1).into_iter().enumerate() {
        let wire = lab.wire(&format!("wire{number}"))?;
        jobs.push(Box::new(move || worker(scenario, wire, mesh, number as u64, ready, rounds)));
    }
    let results = lab.eal().run_on_lcores(jobs)?;
    let slices = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let [first, second] = slices.as_slice() else { anyhow::bail!("not two workers") };
    let of = |slices: &Slices, turn: u64, floor: bool| -> Vec<f64> {
        let all = if floor { &slices.floor } else { &slices.work };
        let chosen = all.iter().skip(turn as usize).step_by(TURNS as usize);
        chosen.map(|slice| middle(&sorted(slice.clone()))).collect()
    };
    let both = [of(first, 0, false), of(second, 0, false)];
    let alone = [of(first, 1, false), of(second, 2, false)];
    let floors = [[of(first, 1, true), of(second, 2, true)], [of(first, 0, true), of(second, 0, true)]];
    let share =
        |both: &[f64], alone: &[f64]| -> Vec<f64> { alone.iter().zip(both).map(|(a, b)| a / b).collect() };
    let [a, b] =
        [0, 1].map(|n: usize| share(both.get(n).map_or(&[], |v| v), alone.get(n).map_or(&[], |v| v)));
    let median = |values: &Vec<f64>| middle(&sorted(values.clone()));
    let mean = |[a, b]: &[Vec<f64>; 2]| (median(a) + median(b)) / 2.0;
    Ok(Pair {
        alone: [median(&alone[0]), median(&alone[1])],
        together: [median(&both[0]), median(&both[1])],
        floor: [mean(&floors[0]), mean(&floors[1])],
        ratios: a.iter().zip(&b).map(|(a, b)| a + b).filter(|ratio| ratio.is_finite()).collect(),
    })
}

fn worker(
    scenario: Scenario,
    (io, mac, peers): (DpdkIo, Mac, DpdkIo),
    mesh: Mesh<Mbuf>,
    number: u64,
    ready: &Barrier,
    rounds: u64,
) -> anyhow::Result<Slices> {
    let bench =
        Bench::on_seat(scenario, io, Ring::new(peers), mac, tsc::nanoseconds, mesh).and_then(|mut bench| {
            bench.prepare().context("while the flows were opened")?;
            Ok(bench)
        });
    // Also when it failed: the other one waits.
    ready.wait();
    let mut bench = bench?;
    let total = rounds * TURNS;
    let empty = || (0..total).map(|_| Vec::new()).collect::<Vec<Vec<f64>>>();
    let mut slices = Slices { work: empty(), floor: empty() };
    let begin = tsc::nanoseconds();
    let slice_now = || (tsc::nanoseconds() - begin) / SLICE;
    loop {
        let slice = slice_now();
        if slice >= total {
            break;
        }
        if slice % TURNS == 2 - number {
            std::thread::sleep(NAP);
            continue;
        }
        let floor = bench.floor()?;
        let work = bench.work()?;
        // What has gone on into the next slice belongs to none.
        if slice_now() == slice
            && let Some(place) = usize::try_from(slice).ok()
        {
            let push = |all: &mut Vec<Vec<f64>>, value: f64| {
                if let Some(values) = all.get_mut(place) {
                    values.push(value);
                }
            };
            push(&mut slices.work, work.ticks as f64 / work.units as f64);
            push(&mut slices.floor, floor.ticks as f64 / floor.units as f64);
        }
    }
    ensure!(slices.work.iter().any(|slice| !slice.is_empty()), "no window fitted into a slice");
    Ok(slices)
}

/// The result as lines of Markdown.
#[must_use]
pub fn table(pair: &Pair, scenario: &Scenario) -> String {
    let ratios = sorted(pair.ratios.clone());
    let (lowest, highest) = (ratios.first().copied(), ratios.last().copied());
    let ([a0, a1], [t0, t1], [f0, f1]) = (pair.alone, pair.together, pair.floor);
    format!(
        "| two workers, {} | cycles per {} alone | together | floor alone | floor together | times one worker (lowest-highest) |\n\
         |---|---|---|---|---|---|\n\
         | first, second | {a0:.0}, {a1:.0} | {t0:.0}, {t1:.0} | {f0:.1} | {f1:.1} | {:.2} ({:.2}-{:.2}) |\n",
        scenario.text,
        scenario.unit(),
        middle(&ratios),
        lowest.unwrap_or(f64::NAN),
        highest.unwrap_or(f64::NAN),
    )
}
