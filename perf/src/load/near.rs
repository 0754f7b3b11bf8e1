//! weir and a bare device loop on the second lcore of this process, each at the other end of a wire of its own; the
//! generator is on the first one. Only one of them runs at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, anyhow, bail};
use dataplane::channel::{Capacities, channel};
use dataplane::io::{Burst, PacketIo};
use dataplane::mesh::Mesh;
use dataplane::pipeline::Pipeline;
use dataplane::snapshot::Snapshot;
use dataplane::steering::Seat;
use dataplane::worker::Worker;
use dpdk::{DpdkIo, Mbuf};
use scripting::LuaPolicy;
use smoltcp::time::Instant;

use super::generator::{Generator, Load};
use super::{Curve, Plan, Subjects, measure};
use crate::measure::Lab;
use crate::scenario::Scenario;
use crate::tsc;
use crate::wire::PORT;

const WEIR: usize = 0;
const BARE: usize = 1;
const STOP: usize = 2;

/// The worker's side.
struct Far<'a> {
    snapshot: Arc<Snapshot>,
    mac: [u8; 6],
    weir: DpdkIo,
    bare: DpdkIo,
    turn: &'a AtomicUsize,
}

/// The generators, one for each wire.
struct Near<'a> {
    generators: [Generator; 2],
    turn: &'a AtomicUsize,
}

impl Subjects for Near<'_> {
    fn names(&self) -> Vec<String> {
        vec!["weir, in process".to_owned(), "bare device loop".to_owned()]
    }

    fn run(&mut self, subject: usize, rate: Option<f64>, nanoseconds: u64) -> anyhow::Result<Load> {
        self.turn.store(subject, Ordering::Release);
        let Some(generator) = self.generators.get_mut(subject) else { bail!("no subject {subject}") };
        generator.run(rate, nanoseconds)
    }
}

type Job<'a> = Box<dyn FnOnce() -> anyhow::Result<Vec<Curve>> + Send + 'a>;

/// Measures a scenario; `lab` has two lcores.
pub fn run(lab: &Lab, scenario: Scenario, plan: &Plan) -> anyhow::Result<Vec<Curve>> {
    let (weir, mac, peers) = lab.wire("wire")?;
    let (bare, _, bare_peers) = lab.wire("bare")?;
    let config = config::parse(&scenario.config(), "scenario", std::path::Path::new("."));
    let snapshot = config.map_err(|errors| anyhow!(errors.render(false)))?.snapshot;
    let turn = &AtomicUsize::new(WEIR);
    let far = Far { snapshot, mac, weir, bare, turn };
    let generators =
        [Generator::new(vec![peers], mac, scenario)?, Generator::new(vec![bare_peers], mac, scenario)?];
    let mut near = Near { generators, turn };
    let generate: Job<'_> = Box::new(move || {
        let curves = near.establish().and_then(|()| measure(&mut near, plan));
        turn.store(STOP, Ordering::Release);
        curves
    });
    let serve: Job<'_> = Box::new(move || far.serve().map(|()| Vec::new()));
    let results = lab.eal().run_on_lcores(vec![generate, serve])?;
    let mut curves = Vec::new();
    for result in results {
        curves.extend(result?);
    }
    Ok(curves)
}

impl Near<'_> {
    fn establish(&mut self) -> anyhow::Result<()> {
        let [weir, bare] = &mut self.generators;
        weir.establish().context("while flows were opened")?;
        bare.imitate(weir);
        Ok(())
    }
}

impl Far<'_> {
    /// Serves whose turn it is until there is nobody left; around weir's rounds is what `weir run` has there.
    fn serve(mut self) -> anyhow::Result<()> {
        // The other end of the channel takes no records and asks nothing: it only has to be there.
        let (end, _control) = channel(Capacities::default());
        let policy = LuaPolicy::new(&self.snapshot, tsc::nanoseconds)
            .map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<String>()))?;
        let mut now = tsc::nanoseconds();
        let pipeline =
            Pipeline::new(self.snapshot, Seat::ALONE, &[self.mac], policy, 0x7765_6972, instant(now))?;
        let mut worker = Worker::new(self.weir, pipeline, end, Mesh::alone())
            .map_err(|error| anyhow!("histogram: {error:?}"))?;
        loop {
            match self.turn.load(Ordering::Acquire) {
                WEIR => {
                    let round = worker.run_once(instant(now));
                    let done = tsc::nanoseconds();
                    if round.received > 0 {
                        worker.record_latency(done - now, round.received);
                    }
                    now = done;
                }
                BARE => {
                    reflect(&mut self.bare);
                    now = tsc::nanoseconds();
                }
                _ => return Ok(()),
            }
        }
    }
}

/// A turn of the bare loop, with the clock read as often as in weir's.
pub fn reflect(io: &mut DpdkIo) {
    let mut burst: Burst<Mbuf> = Burst::new();
    io.rx_burst(PORT, &mut burst);
    io.tx_burst(PORT, &mut burst);
}

fn instant(nanoseconds: u64) -> Instant {
    Instant::from_micros((nanoseconds / 1000) as i64)
}
