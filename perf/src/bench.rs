//! One worker with its end hosts on the other end of the wire, all on this thread.
//!
//! The work is done in windows: the end hosts put a window of frames on the wire, then weir (or the bare loop that is
//! the floor) gets rounds until it has received them all, then the end hosts take what was sent. Only the middle part
//! is measured. Time, as weir sees it, is made up: it goes on by a fixed step per round.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use dataplane::channel::{Answer, Capacities, ControlEnd, Query, channel};
use dataplane::header::Mac;
use dataplane::io::{Burst, PacketBuf, PacketIo};
use dataplane::mesh::Mesh;
use dataplane::parse::{frame_is_for, parse};
use dataplane::pipeline::Pipeline;
use dataplane::worker::Worker;
use hdrhistogram::Histogram;
use scripting::LuaPolicy;
use smoltcp::time::Instant;

use crate::peer::Peers;
use crate::scenario::{BATCH, Kind, Scenario};
use crate::tsc;
use crate::wire::{PORT, Wire};

/// Frames of a window. They and their buffers' headers fit into the second-level cache.
pub const WINDOW: usize = 256;
/// How far time goes on per round, microseconds.
const STEP: i64 = 2;
/// Makes the same random choice of flows in every run.
const SEED: u64 = 0x7765_6972;

/// See the module.
pub struct Bench<W: Wire> {
    scenario: Scenario,
    worker: Worker<W::Io, LuaPolicy>,
    wire: W,
    control: ControlEnd,
    peers: Peers,
    mac: Mac,
    time: Time,
    random: u64,
    next: u32,
}

/// weir's time, and the clock by which its rounds are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    micros: i64,
    clock: fn() -> u64,
}

/// A worker and its end hosts, for a loop of another kind.
pub struct Parts<W: Wire> {
    /// The worker.
    pub worker: Worker<W::Io, LuaPolicy>,
    /// Its port's other end.
    pub wire: W,
    /// Where it tells what became of its flows.
    pub control: ControlEnd,
    /// Who is there.
    pub peers: Peers,
}

/// What a measured window cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Ticks of the time stamp counter.
    pub ticks: u64,
    /// Packets, flows or connections; see [`Scenario::unit`].
    pub units: u64,
    /// Packets received.
    pub packets: u64,
}

impl<W: Wire> Bench<W> {
    /// A worker for the scenario at one end of the wire. `mac` is that of its port, `clock` counts nanoseconds.
    pub fn new(scenario: Scenario, io: W::Io, wire: W, mac: Mac, clock: fn() -> u64) -> anyhow::Result<Self> {
        Self::on_seat(scenario, io, wire, mac, clock, Mesh::alone())
    }

    /// The worker on one of several seats, with flows that a network card would give to it.
    pub fn on_seat(
        scenario: Scenario,
        io: W::Io,
        wire: W,
        mac: Mac,
        clock: fn() -> u64,
        mesh: Mesh<<W::Io as PacketIo>::Buf>,
    ) -> anyhow::Result<Self> {
        let config = config::parse(&scenario.config(), "scenario", std::path::Path::new("."));
        let snapshot = config.map_err(|errors| anyhow!(errors.render(false)))?.snapshot;
        let policy = LuaPolicy::new(&snapshot, clock)
            .map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<String>()))?;
        let time = Time { micros: 1_000_000, clock };
        let seat = mesh.seat();
        let pipeline =
            Pipeline::new(Arc::clone(&snapshot), seat, &[mac], policy, u128::from(SEED), time.now())?;
        let (worker_end, control) = channel(Capacities::default());
        let worker =
            Worker::new(io, pipeline, worker_end, mesh).map_err(|error| anyhow!("histogram: {error:?}"))?;
        let peers = Peers::new(mac, scenario.vip(), scenario.talk(), scenario.flows as usize)?;
        let peers = peers.on_seat(seat);
        Ok(Bench { scenario, worker, wire, control, peers, mac, time, random: SEED, next: 0 })
    }

    /// Opens the flows that are there from the start, and lets everything become warm.
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        // The first few wait for ARP.
        let (mut number, few) = (0, 8.min(self.scenario.flows));
        let flows = if self.scenario.kind == Kind::NewFlows { few } else { self.scenario.flows };
        while number < flows {
            let end = (number + if number == 0 { few } else { BATCH }).min(flows);
            for number in number..end {
                self.open(number)?;
            }
            self.settle()?;
            number = end;
        }
        self.next = flows;
        if matches!(self.scenario.kind, Kind::Datagrams | Kind::Segments) {
            let (established, flows) = (self.peers.established(), self.scenario.flows as usize);
            ensure!(established == flows, "{established} of {flows} flows came to be: {}", self.drops());
        }
        for _ in 0..self.scenario.warm_up(WINDOW) {
            self.work()?;
        }
        Ok(())
    }

    fn open(&mut self, number: u32) -> anyhow::Result<()> {
        let Bench { wire, worker, peers, .. } = self;
        let frame = match self.scenario.kind {
            Kind::Segments | Kind::Connections => peers.syn(number)?,
            _ => peers.datagram(number)?,
        };
        ensure!(wire.send(worker.io_mut(), frame), "no room on the wire");
        Ok(())
    }

    /// Lets both sides talk until nobody has anything to say.
    fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            ensure!(self.wire.flush(), "no room on the wire");
            while !W::round(&mut self.worker, self.time.now()).is_idle() {
                self.time.micros += STEP;
            }
            self.listen()?;
            if self.answer()? == 0 {
                return Ok(());
            }
        }
    }

    /// Gives the end hosts what weir has sent.
    fn listen(&mut self) -> anyhow::Result<()> {
        let Bench { wire, worker, peers, control, .. } = self;
        let mut result = Ok(());
        wire.collect(worker.io_mut(), &mut |frame| {
            if result.is_ok() {
                result = peers.receive(frame);
            }
        });
        while control.records.receive().is_some() {}
        result
    }

    /// Puts a window of what the end hosts say to that on the wire.
    fn answer(&mut self) -> anyhow::Result<usize> {
        let mut sent = 0;
        while sent < WINDOW
            && let Some(frame) = self.peers.next_answer()
        {
            ensure!(self.wire.send(self.worker.io_mut(), &frame), "no room on the wire");
            sent += 1;
        }
        Ok(sent)
    }

    /// Puts a window of the scenario's frames on the wire, behind those that are there.
    fn fill(&mut self, there: usize) -> anyhow::Result<()> {
        for place in there..WINDOW {
            self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let number = (((self.random >> 32) * u64::from(self.scenario.flows)) >> 32) as u32;
            let Bench { wire, worker, peers, .. } = self;
            let frame = match (self.scenario.kind, place % 4) {
                (Kind::Parse, _) => peers.datagram(number),
                (Kind::Datagrams, 0 | 2) => peers.datagram(number),
                (Kind::Datagrams, _) => peers.server_datagram(number),
                (Kind::Segments, 0 | 2) => peers.client_segment(number, place % 4 == 0),
                (Kind::Segments, _) => peers.server_segment(number, place % 4 == 1),
                (Kind::NewFlows | Kind::Connections, _) => {
                    self.next = self.next.wrapping_add(1);
                    peers.datagram(self.next)
                }
            };
            ensure!(wire.send(worker.io_mut(), frame?), "no room on the wire");
        }
        ensure!(self.wire.flush(), "no room on the wire");
        Ok(())
    }

    /// Gives up the windows. The worker's time has to go on from where it is: less than a minute.
    #[must_use]
    pub fn into_parts(self) -> Parts<W> {
        Parts { worker: self.worker, wire: self.wire, control: self.control, peers: self.peers }
    }

    /// The worker, to look at.
    pub fn worker(&self) -> &Worker<W::Io, LuaPolicy> {
        &self.worker
    }

    /// The end hosts.
    pub fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// One window of the bare loop.
    pub fn floor(&mut self) -> anyhow::Result<Sample> {
        self.bare(forward)
    }

    fn bare(&mut self, rounds: fn(&mut W::Io, Mac) -> usize) -> anyhow::Result<Sample> {
        // No answers: weir does not see this window.
        self.fill(0)?;
        let begin = tsc::ticks();
        let packets = rounds(self.worker.io_mut(), self.mac) as u64;
        let ticks = tsc::ticks() - begin;
        self.wire.collect(self.worker.io_mut(), &mut |_| {});
        ensure!(packets == WINDOW as u64, "{packets} packets crossed the wire, not {WINDOW}");
        Ok(Sample { ticks, units: packets, packets })
    }

    /// One window of the scenario.
    pub fn work(&mut self) -> anyhow::Result<Sample> {
        match self.scenario.kind {
            Kind::Parse => self.bare(forward_parsed),
            Kind::Connections => self.connections(),
            _ => self.packets(),
        }
    }

    fn packets(&mut self) -> anyhow::Result<Sample> {
        let answers = self.answer()?;
        self.fill(answers)?;
        let (forwarded, dropped) = self.outcome();
        let begin = tsc::ticks();
        let packets = serve::<W>(&mut self.worker, &mut self.time, WINDOW) as u64;
        let ticks = tsc::ticks() - begin;
        let (forwarded, dropped) = (self.outcome().0 - forwarded, self.outcome().1 - dropped);
        self.listen()?;
        // An answer to ARP takes a place from time to time.
        let whole = packets == WINDOW as u64 && dropped == 0 && forwarded + 8 >= packets;
        ensure!(whole, "of {WINDOW} packets {packets} arrived and {forwarded} left: {}", self.drops());
        self.time.micros += self.scenario.pause(WINDOW);
        Ok(Sample { ticks, units: packets, packets })
    }

    fn outcome(&self) -> (u64, u64) {
        let counters = self.worker.pipeline().counters();
        (counters.forwarded, counters.dropped_total())
    }

    /// A batch of connections from the first SYN to the last acknowledgement.
    fn connections(&mut self) -> anyhow::Result<Sample> {
        let finished = self.peers.finished();
        let received = self.worker.pipeline().counters().rx;
        for _ in 0..BATCH {
            self.next = self.next.wrapping_add(1);
            self.open(self.next)?;
        }
        let mut ticks = 0;
        loop {
            ensure!(self.wire.flush(), "no room on the wire");
            let begin = tsc::ticks();
            serve::<W>(&mut self.worker, &mut self.time, usize::MAX);
            ticks += tsc::ticks() - begin;
            self.listen()?;
            if self.answer()? == 0 {
                break;
            }
        }
        let (finished, resets) = (self.peers.finished() - finished, self.peers.resets());
        if finished != u64::from(BATCH) || resets != 0 {
            bail!("{finished} of {BATCH} connections finished, {resets} resets: {}", self.drops());
        }
        self.time.micros += self.scenario.pause(WINDOW);
        Ok(Sample { ticks, units: finished, packets: self.worker.pipeline().counters().rx - received })
    }

    /// The worker's latency histogram, as an operator would ask for it: nanoseconds from rx burst to tx burst.
    pub fn latency(&mut self) -> anyhow::Result<Histogram<u64>> {
        let answer = self.control.commands.query(Query::Latency).context("the worker takes no question")?;
        W::round(&mut self.worker, self.time.now());
        match answer.recv()? {
            Answer::Latency(histogram) => Ok(histogram),
            _ => bail!("the worker answered another question"),
        }
    }

    /// What was dropped, for messages.
    fn drops(&self) -> String {
        let counters = self.worker.pipeline().counters();
        let all = dataplane::counters::DropReason::ALL.iter().copied();
        let seen = all.filter(|reason| counters.dropped_for(*reason) > 0);
        let texts: Vec<String> =
            seen.map(|reason| format!("{} {}", counters.dropped_for(reason), reason.label())).collect();
        format!("dropped {}", if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") })
    }
}

impl Time {
    fn now(&self) -> Instant {
        Instant::from_micros(self.micros)
    }
}

/// Rounds of the worker until `packets` have arrived or there is nothing more to do, with all that weir does around
/// them: one look at the clock per round and a record of the latency.
#[inline(never)]
pub fn serve<W: Wire>(worker: &mut Worker<W::Io, LuaPolicy>, time: &mut Time, packets: usize) -> usize {
    let (mut received, mut begin) = (0, (time.clock)());
    while received < packets {
        let round = W::round(worker, time.now());
        time.micros += STEP;
        let done = (time.clock)();
        if round.received > 0 {
            worker.record_latency(done - begin, round.received);
        }
        begin = done;
        received += round.received;
        if round.is_idle() {
            break;
        }
    }
    received
}

/// The floor: receives and sends.
#[inline(never)]
fn forward<I: PacketIo>(io: &mut I, _: Mac) -> usize {
    let mut received = 0;
    let mut burst = Burst::new();
    loop {
        io.rx_burst(PORT, &mut burst);
        received += burst.len();
        if burst.is_empty() || received >= WINDOW {
            io.tx_burst(PORT, &mut burst);
            return received;
        }
        io.tx_burst(PORT, &mut burst);
    }
}

/// The same with a look at the headers of each packet.
#[inline(never)]
fn forward_parsed<I: PacketIo>(io: &mut I, mac: Mac) -> usize {
    let mut received = 0;
    let mut burst: Burst<I::Buf> = Burst::new();
    loop {
        io.rx_burst(PORT, &mut burst);
        for buf in &burst {
            let frame = buf.bytes();
            if frame_is_for(frame, mac) {
                let _ = std::hint::black_box(parse(frame, None));
            }
        }
        received += burst.len();
        if burst.is_empty() || received >= WINDOW {
            io.tx_burst(PORT, &mut burst);
            return received;
        }
        io.tx_burst(PORT, &mut burst);
    }
}
