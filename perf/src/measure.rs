//! A scenario on real DPDK devices, beside the floor, round by round.

use anyhow::Context;
use dataplane::header::Mac;
use dpdk::{DpdkIo, Eal, EalArguments, EalOptions, Mempool, MempoolConfig, Port, PortConfig, ring_pair};
use hdrhistogram::Histogram;

use crate::bench::{Bench, Sample};
use crate::sampler::Sampler;
use crate::scenario::Scenario;
use crate::surroundings::{Moment, Surroundings};
use crate::tsc;
use crate::wire::Ring;

/// Frames that fit into each direction of the wire, less one.
const SLOTS: u32 = 1024;

/// How long it takes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds; the result is the median of theirs.
    pub rounds: usize,
    /// Windows of each round; a round's result is their median.
    pub windows: usize,
}

/// What one scenario cost.
pub struct Row {
    /// Which.
    pub scenario: Scenario,
    /// Ticks per unit: the median, the lowest and the highest of the rounds.
    pub ticks: [f64; 3],
    /// Of the floor, per packet: the median.
    pub floor: f64,
    /// The rounds in which the machine was as quiet as it ever was.
    pub quiet: Quiet,
    /// All rounds.
    pub rounds: usize,
    /// Packets received per unit.
    pub packets: f64,
    /// Ticks over the floor's for as many packets: the median of the rounds.
    pub ratio: f64,
    /// Nanoseconds from rx burst to tx burst; empty where no worker ran.
    pub latency: Histogram<u64>,
    /// What the kernel did meanwhile.
    pub surroundings: Surroundings,
}

/// Rounds whose floor is at most a tenth above the lowest: chosen by what the bare loop cost, not by what weir did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// How many.
    pub rounds: usize,
    /// Ticks per packet of the floor: the median.
    pub floor: f64,
    /// Ticks per unit: the median.
    pub ticks: f64,
    /// The same: a quarter of them was as low.
    pub best_quarter: f64,
}

impl Quiet {
    fn of(rounds: &[Round]) -> Quiet {
        let lowest = rounds.iter().map(|round| round.floor).fold(f64::INFINITY, f64::min);
        let quiet: Vec<&Round> = rounds.iter().filter(|round| round.floor <= lowest * 1.1).collect();
        let ticks = sorted(quiet.iter().map(|round| round.ticks).collect());
        Quiet {
            rounds: quiet.len(),
            floor: middle(&sorted(quiet.iter().map(|round| round.floor).collect())),
            ticks: middle(&ticks),
            best_quarter: at(&ticks, ticks.len() / 4),
        }
    }
}

/// DPDK with buffers for one wire at a time.
pub struct Lab {
    pool: Mempool,
    eal: Eal,
}

impl Lab {
    /// Starts DPDK, once per process. `cpu` is the one to run on.
    pub fn open(cpu: Option<u32>) -> anyhow::Result<Self> {
        Self::open_on(1, cpu.into_iter().collect())
    }

    /// The same with so many lcores, on these processors in turn, or on any.
    pub fn open_on(lcores: u8, cpus: Vec<u32>) -> anyhow::Result<Self> {
        let arguments = EalArguments::new(&EalOptions { lcores, cpus, ..EalOptions::default() });
        if let Some(warning) = arguments.warning() {
            eprintln!("weir-perf: {warning}");
        }
        let eal = Eal::init(&arguments)?;
        let config = MempoolConfig { mbufs: 8191, ..MempoolConfig::default() };
        Ok(Lab { pool: Mempool::new(&eal, "frames", &config)?, eal })
    }

    /// A wire: weir's end, the link address of that, and the end hosts'.
    pub fn wire(&self, name: &str) -> anyhow::Result<(DpdkIo, Mac, DpdkIo)> {
        let (weir, peers) = ring_pair(&self.eal, name, SLOTS)?;
        let weir = self.started(weir)?;
        let mac = weir.mac()?;
        let ends = [weir, self.started(peers)?].map(|port| DpdkIo::new(vec![port], self.pool.clone()));
        let [weir, peers] = ends;
        Ok((weir?, mac, peers?))
    }

    /// DPDK.
    pub fn eal(&self) -> &Eal {
        &self.eal
    }

    /// Runs a scenario; perf samples its rounds if there is a sampler.
    pub fn measure(
        &self,
        scenario: Scenario,
        effort: Effort,
        mut sampler: Option<Sampler>,
    ) -> anyhow::Result<Row> {
        let (io, mac, peers) = self.wire("wire")?;
        let wire = Ring::new(peers);
        let mut bench = Bench::new(scenario, io, wire, mac, tsc::nanoseconds)?;
        bench.prepare().with_context(|| format!("while scenario {} was prepared", scenario.name))?;
        let mut sampling = |on| sampler.as_mut().map_or(Ok(()), |sampler| sampler.set(on));
        sampling(true)?;
        let (mut rounds, begin) = (Vec::new(), Moment::now());
        for _ in 0..effort.rounds {
            rounds.push(round(&mut bench, effort.windows)?);
        }
        let surroundings = begin.until(&Moment::now());
        sampling(false)?;
        let of = |value: fn(&Round) -> f64| sorted(rounds.iter().map(value).collect());
        let ticks = of(|round| round.ticks);
        let bounds = [middle(&ticks), at(&ticks, 0), at(&ticks, ticks.len().saturating_sub(1))];
        Ok(Row {
            scenario,
            ticks: bounds,
            floor: middle(&of(|round| round.floor)),
            quiet: Quiet::of(&rounds),
            rounds: rounds.len(),
            packets: middle(&of(|round| round.packets)),
            ratio: middle(&of(|round| round.ticks / (round.floor * round.packets))),
            latency: bench.latency()?,
            surroundings,
        })
    }

    fn started(&self, mut port: Port) -> anyhow::Result<Port> {
        port.configure(&PortConfig::default(), &self.pool)?;
        port.start()?;
        Ok(port)
    }
}

struct Round {
    ticks: f64,
    floor: f64,
    packets: f64,
}

/// Windows of floor and scenario in turn.
fn round(bench: &mut Bench<Ring>, windows: usize) -> anyhow::Result<Round> {
    let (mut ticks, mut floor, mut packets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..windows {
        let per_unit = |sample: Sample| sample.ticks as f64 / sample.units as f64;
        floor.push(per_unit(bench.floor()?));
        let sample = bench.work()?;
        packets.push(sample.packets as f64 / sample.units as f64);
        ticks.push(per_unit(sample));
    }
    let middle = |values| middle(&sorted(values));
    Ok(Round { ticks: middle(ticks), floor: middle(floor), packets: middle(packets) })
}

/// In rising order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The median of values in rising order.
pub fn middle(sorted: &[f64]) -> f64 {
    at(sorted, sorted.len() / 2)
}

fn at(values: &[f64], place: usize) -> f64 {
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_rounds_are_chosen_by_the_floor_alone() {
        let round = |(floor, ticks)| Round { floor, ticks, packets: 1.0 };
        // The cheapest and the dearest round are not quiet; one that is has 300 ticks all the same.
        let rounds =
            [(6.0, 95.0), (10.0, 60.0), (6.59, 300.0), (6.1, 90.0), (6.61, 80.0), (6.3, 99.0), (12.0, 900.0)];
        let quiet = Quiet::of(&rounds.map(round));
        assert_eq!(quiet, Quiet { rounds: 4, floor: 6.3, ticks: 99.0, best_quarter: 95.0 });
        let same = Quiet::of(&[round((5.0, 70.0))]);
        assert_eq!(same, Quiet { rounds: 1, floor: 5.0, ticks: 70.0, best_quarter: 70.0 });
    }
}
