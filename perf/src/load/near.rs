//! weir and a bare device loop on the second lcore of this process, each at the other end of a wire of its own; the
//! generator is on the first one. Only one of them runs at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel as messages};

use anyhow::{Context, anyhow, bail};
use dataplane::channel::{Capacities, ControlEnd, channel};
use dataplane::io::{Burst, PacketIo};
use dataplane::mesh::Mesh;
use dataplane::pipeline::Pipeline;
use dataplane::snapshot::Snapshot;
use dataplane::steering::Seat;
use dataplane::worker::Worker;
use dpdk::{DpdkIo, Mbuf};
use scripting::LuaPolicy;
use smoltcp::time::Instant;

use super::generator::Generator;
use super::stops::{self, Account, Gap, STOP, Watch};
use super::tally::Load;
use super::{Outcome, Plan, Subjects, measure};
use crate::measure::Lab;
use crate::scenario::Scenario;
use crate::tsc;
use crate::wire::PORT;

/// Whose turn it is on the worker's side.
const WEIR: usize = 0;
const BARE: usize = 1;
/// Only the clock is read.
const IDLE: usize = 2;
/// Nothing, until the next one.
const REST: usize = 3;
const STOP_SERVING: usize = 4;

/// What the worker's side says of a turn.
enum Told {
    Begun,
    Ended(Turn),
}

/// A turn that is over.
struct Turn {
    gaps: Vec<Gap>,
    /// Rounds in which there were packets, and these.
    rounds: u64,
    packets: u64,
}

impl Turn {
    fn at_a_time(&self) -> Option<f64> {
        (self.rounds > 0).then(|| self.packets as f64 / self.rounds as f64)
    }
}

/// The worker's side.
struct Far<'a> {
    worker: Worker<DpdkIo, LuaPolicy>,
    control: ControlEnd,
    bare: DpdkIo,
    turn: &'a AtomicUsize,
    told: Sender<Told>,
}

/// The generators, one for each wire.
struct Near<'a> {
    generators: [Generator; 2],
    turn: &'a AtomicUsize,
    told: Receiver<Told>,
}

impl Subjects for Near<'_> {
    fn names(&self) -> Vec<String> {
        vec!["weir, in process".to_owned(), "bare device loop".to_owned()]
    }

    fn run(
        &mut self,
        subject: usize,
        rate: Option<f64>,
        nanoseconds: u64,
    ) -> anyhow::Result<(Load, Vec<Gap>)> {
        self.begin(subject)?;
        let Some(generator) = self.generators.get_mut(subject) else { bail!("no subject {subject}") };
        let load = generator.run(rate, nanoseconds);
        let turn = self.end()?;
        Ok((Load { at_a_time: turn.at_a_time(), ..load? }, turn.gaps))
    }

    /// Of both threads: a packet meets either's.
    fn idle(&mut self, nanoseconds: u64) -> anyhow::Result<Vec<Gap>> {
        self.begin(IDLE)?;
        let mut gaps = stops::idle(nanoseconds);
        gaps.extend(self.end()?.gaps);
        Ok(gaps)
    }
}

type Job<'a> = Box<dyn FnOnce() -> anyhow::Result<Option<Outcome>> + Send + 'a>;

/// Measures a scenario; `lab` has two lcores.
pub fn run(lab: &Lab, scenario: Scenario, plan: &Plan) -> anyhow::Result<Outcome> {
    let (weir, mac, peers) = lab.wire("wire")?;
    let (bare, _, bare_peers) = lab.wire("bare")?;
    let config = config::parse(&scenario.config(), "scenario", std::path::Path::new("."));
    let snapshot = config.map_err(|errors| anyhow!(errors.render(false)))?.snapshot;
    let turn = &AtomicUsize::new(REST);
    let generators =
        [Generator::new(vec![peers], mac, scenario)?, Generator::new(vec![bare_peers], mac, scenario)?];
    let (tell, told) = messages();
    let mut near = Near { generators, turn, told };
    let generate: Job<'_> = Box::new(move || {
        let outcome = near.establish(plan.new_flows).and_then(|()| measure(&mut near, plan));
        turn.store(STOP_SERVING, Ordering::Release);
        outcome.map(Some)
    });
    let serve: Job<'_> = Box::new(move || {
        // Its Lua state must not leave this thread.
        let (worker, control) = worker(snapshot, weir, mac)?;
        Far { worker, control, bare, turn, told: tell }.serve();
        Ok(None)
    });
    let results = lab.eal().run_on_lcores(vec![generate, serve])?;
    let mut outcome = None;
    for result in results {
        outcome = outcome.or(result?);
    }
    outcome.context("nothing was measured")
}

impl Near<'_> {
    fn establish(&mut self, new_flows: f64) -> anyhow::Result<()> {
        self.begin(WEIR)?;
        let [weir, bare] = &mut self.generators;
        weir.establish().context("while flows were opened")?;
        weir.open_flows(new_flows)?;
        bare.imitate(weir);
        self.end().map(|_| ())
    }

    /// Waits until the other side is at it.
    fn begin(&self, turn: usize) -> anyhow::Result<()> {
        self.turn.store(turn, Ordering::Release);
        match self.told.recv().context("the worker has ended")? {
            Told::Begun => Ok(()),
            Told::Ended(_) => bail!("a turn ended before it began"),
        }
    }

    fn end(&self) -> anyhow::Result<Turn> {
        self.turn.store(REST, Ordering::Release);
        match self.told.recv().context("the worker has ended")? {
            Told::Ended(turn) => Ok(turn),
            Told::Begun => bail!("a turn began twice"),
        }
    }
}

fn worker(
    snapshot: Arc<Snapshot>,
    io: DpdkIo,
    mac: [u8; 6],
) -> anyhow::Result<(Worker<DpdkIo, LuaPolicy>, ControlEnd)> {
    let (end, control) = channel(Capacities::default());
    let policy = LuaPolicy::new(&snapshot, tsc::nanoseconds)
        .map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<String>()))?;
    let now = instant(tsc::nanoseconds());
    let pipeline = Pipeline::new(snapshot, Seat::ALONE, &[mac], policy, 0x7765_6972, now)?;
    let worker = Worker::new(io, pipeline, end, Mesh::alone());
    Ok((worker.map_err(|error| anyhow!("histogram: {error:?}"))?, control))
}

impl Far<'_> {
    /// Serves whose turn it is until there is nobody left.
    fn serve(mut self) {
        loop {
            match self.turn.load(Ordering::Acquire) {
                REST => std::hint::spin_loop(),
                STOP_SERVING => return,
                turn => {
                    // Nobody listens only when the generator has failed, and then the turn is over.
                    let _ = self.told.send(Told::Begun);
                    let turn = match turn {
                        WEIR => self.weir(),
                        BARE => self.bare(),
                        _ => self.idle(),
                    };
                    let _ = self.told.send(Told::Ended(turn));
                }
            }
        }
    }

    /// Around weir's rounds is what `weir run` has there.
    fn weir(&mut self) -> Turn {
        let mut watch = Watch::new(STOP, Account::now());
        let (mut rounds, mut packets) = (0, 0);
        let mut now = tsc::nanoseconds();
        while self.turn.load(Ordering::Acquire) == WEIR {
            let round = engine::run_once(&mut self.worker, instant(now));
            let done = tsc::nanoseconds();
            if round.received > 0 {
                self.worker.record_latency(done - now, round.received);
                rounds += 1;
                packets += round.received as u64;
            }
            watch.pass(done, Account::now);
            now = done;
        }
        // So that there is room for those of the next turn.
        while self.control.records.receive().is_some() {}
        Turn { gaps: watch.into_gaps(), rounds, packets }
    }

    /// With the clock read as often as in weir's turn.
    fn bare(&mut self) -> Turn {
        let mut watch = Watch::new(STOP, Account::now());
        let (mut rounds, mut packets) = (0, 0);
        while self.turn.load(Ordering::Acquire) == BARE {
            let received = reflect(&mut self.bare);
            rounds += u64::from(received > 0);
            packets += received as u64;
            watch.pass(tsc::nanoseconds(), Account::now);
        }
        Turn { gaps: watch.into_gaps(), rounds, packets }
    }

    fn idle(&mut self) -> Turn {
        let mut watch = Watch::new(stops::HICCUP, Account::now());
        while self.turn.load(Ordering::Acquire) == IDLE {
            watch.pass(tsc::nanoseconds(), Account::now);
        }
        Turn { gaps: watch.into_gaps(), rounds: 0, packets: 0 }
    }
}

/// A turn of the bare loop; returns how many packets there were.
pub fn reflect(io: &mut DpdkIo) -> usize {
    let mut burst: Burst<Mbuf> = Burst::new();
    io.rx_burst(PORT, &mut burst);
    let received = burst.len();
    io.tx_burst(PORT, &mut burst);
    received
}

fn instant(nanoseconds: u64) -> Instant {
    Instant::from_micros((nanoseconds / 1000) as i64)
}
