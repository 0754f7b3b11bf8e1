//! One worker with its end hosts, which keep its wire full, and what it sees of the other one's inserts.

use std::cell::RefCell;

use anyhow::{Context, ensure};
use dataplane::header::Mac;
use dataplane::mesh::Mesh;
use dataplane::snapshot::ServiceId;
use dpdk::{DpdkIo, Mbuf};
use smoltcp::time::Instant;

use super::meeting::Meeting;
use super::turns::{places, probes_of};
use super::{LOADS, Load, OF, Plan, Report};
use crate::bench::{Bench, Parts};
use crate::load::stops::{self, Account, Gap, STOP, Watch};
use crate::load::template::{Read, Template, read};
use crate::peer;
use crate::scenario::Scenario;
use crate::tsc;
use crate::wire::{Ring, Wire};

/// Nanoseconds at the start of a turn whose inserts are not counted: the caches are those of another load.
pub const LEAD: u64 = 1_000_000;
/// The only service.
const SERVICE: ServiceId = ServiceId(0);
/// Frames on the wire to a worker: more than it takes at once.
const DEPTH: u64 = 512;
/// Nanoseconds between flows that begin where there is nothing else.
const PAUSE: u64 = 20_000;
/// Frames of flows that begin that are made ready for a millisecond: no worker opens as many.
const READY_PER_MILLISECOND: u64 = 3_000;
/// Numbers of flows that a side opens before they come again, long after their entries have ended.
const NUMBERS: u64 = 7_000_000;
/// Every so many frames of established flows one is sent: in other places of the caches, and each of them in its time.
const STRIDE: usize = 7_919;
/// The worker's time when it begins, and by how much it goes on between rounds: entries end after five minutes, so that in each
/// round about as many do as begin.
const BEGIN_MICROS: u64 = 60_000_000;
const JUMP_MICROS: u64 = 60_000_000;
/// Nanoseconds after which what has not arrived does not come.
const PATIENCE: u64 = 2_000_000_000;
/// Rounds in which what is still to be told and heard of no probe is.
const SETTLING: usize = 256;

thread_local! {
    /// When the clock was read that the worker's scripts are measured by: at the beginning and at the end of each run.
    static LOOKS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The clock of the scripts, and of nobody else while a turn is measured.
fn noting_clock() -> u64 {
    let now = tsc::nanoseconds();
    LOOKS.with_borrow_mut(|looks| looks.push(now));
    now
}

/// What one side saw of a turn.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// When its wire was kept full, first and last.
    pub begin: u64,
    /// The end of that.
    pub end: u64,
    /// When the scripts began that inserted its probes.
    pub inserted: Vec<u64>,
    /// When the probes of the other side could be read.
    pub seen: Vec<u64>,
    /// In which its thread did not come round.
    pub gaps: Vec<Gap>,
    /// Rounds of the worker with packets in them.
    pub rounds: u64,
    /// What these took in all, nanoseconds.
    pub round_nanoseconds: u64,
    /// Packets in them.
    pub packets: u64,
    /// Flows that began, and inserted.
    pub opened: u64,
    /// News that the ring to the other worker did not take at once.
    pub refused: u64,
    /// Times that the other worker had to be told everything anew.
    pub resyncs: u64,
}

/// See the module.
pub(super) struct Side<'a> {
    parts: Parts<Ring>,
    meeting: &'a Meeting,
    met: usize,
    number: u8,
    scenario: Scenario,
    established: Vec<Template>,
    place: usize,
    /// The first packets of the flows of this turn, and how many have been sent.
    ready: Vec<Template>,
    opened: usize,
    /// Keys of the other side's probes of this turn.
    keys: Vec<String>,
    turn: u64,
    random: u64,
    due: u64,
    sent: u64,
    received: u64,
    jumped: u64,
    per_turn: u64,
}

impl<'a> Side<'a> {
    /// Opens the established flows.
    pub(super) fn open(
        scenario: Scenario,
        (io, mac, peers): (DpdkIo, Mac, DpdkIo),
        mesh: Mesh<Mbuf>,
        meeting: &'a Meeting,
        nanoseconds: u64,
    ) -> anyhow::Result<Side<'a>> {
        let number = mesh.seat().number;
        let mut bench = Bench::on_seat(scenario, io, Ring::new(peers), mac, noting_clock, mesh)?;
        bench.prepare().context("while the flows were opened")?;
        let mut parts = bench.into_parts();
        let mut established = Vec::new();
        for flow in 0..scenario.flows {
            let [client, server] =
                [parts.peers.datagram(flow)?.to_vec(), parts.peers.server_datagram(flow)?.to_vec()];
            established.extend([client, server].iter().filter_map(|frame| Template::new(frame, 0)));
        }
        Ok(Side {
            parts,
            meeting,
            met: 0,
            number,
            scenario,
            established,
            place: 0,
            ready: Vec::new(),
            opened: 0,
            keys: Vec::new(),
            turn: 0,
            random: u64::from(number),
            due: 0,
            sent: 0,
            received: 0,
            jumped: 0,
            per_turn: READY_PER_MILLISECOND * (nanoseconds + LEAD) / 1_000_000,
        })
    }

    /// All turns.
    pub(super) fn run(mut self, plan: &Plan) -> anyhow::Result<Report> {
        let mut report = Report { halves: Vec::new(), idle: Vec::new() };
        self.settle()?;
        for _ in 0..plan.rounds {
            for load in LOADS {
                report.halves.push(self.turn(load, plan.nanoseconds)?);
            }
            self.meeting.meet(&mut self.met, || Ok(()))?;
            report.idle.push(stops::idle(plan.nanoseconds));
            self.go_on()?;
        }
        Ok(report)
    }

    /// One load.
    fn turn(&mut self, load: Load, nanoseconds: u64) -> anyhow::Result<Half> {
        self.make_ready(load)?;
        let before = self.parts.worker.pipeline().tables().stats(SERVICE);
        self.meeting.meet(&mut self.met, || Ok(()))?;
        LOOKS.with_borrow_mut(Vec::clear);
        let mut watch = Watch::new(STOP, Account::now());
        let mut half = Half { begin: tsc::nanoseconds(), ..Half::default() };
        half.end = half.begin;
        while half.end < half.begin + LEAD + nanoseconds {
            self.fill(load, half.end)?;
            let (begin, received) = (tsc::nanoseconds(), self.received);
            half.end = self.round(&mut half.seen)?;
            watch.pass(half.end, Account::now);
            if self.received > received {
                half.rounds += 1;
                half.round_nanoseconds += half.end - begin;
                half.packets += self.received - received;
            }
        }
        self.finish(load, &mut half, &mut watch)?;
        half.gaps = watch.into_gaps();
        half.inserted = self.insert_times(load)?;
        half.opened = self.opened as u64;
        let after = self.parts.worker.pipeline().tables().stats(SERVICE);
        half.refused = after.news_refused - before.news_refused;
        half.resyncs = after.resyncs - before.resyncs;
        Ok(half)
    }

    /// The number of a side's first flow of this turn.
    fn first(&self, side: u8) -> u64 {
        let turns = (NUMBERS / self.per_turn).max(1);
        u64::from(self.scenario.flows) + u64::from(side) * NUMBERS + self.turn % turns * self.per_turn
    }

    fn make_ready(&mut self, load: Load) -> anyhow::Result<()> {
        self.ready.clear();
        let first = self.first(self.number);
        for number in first..first + self.per_turn {
            let frame = self.parts.peers.datagram(number as u32)?;
            self.ready.extend(Template::new(frame, 0));
        }
        let theirs = self.first(1 - self.number);
        let key = |place: usize| {
            peer::client(self.scenario.family, (theirs + place as u64) as u32).ip().to_string()
        };
        self.keys = places(load.every).take_while(|place| *place < self.per_turn as usize).map(key).collect();
        self.opened = 0;
        self.turn += 1;
        Ok(())
    }

    /// Puts on the wire what the load is.
    fn fill(&mut self, load: Load, now: u64) -> anyhow::Result<()> {
        match load.opening {
            None if now >= self.due => {
                self.due = now + PAUSE;
                self.send_first()?;
            }
            None => {}
            Some(opening) => {
                while self.sent < self.received + DEPTH {
                    self.random =
                        self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    if ((self.random >> 32) * OF) >> 32 < opening {
                        self.send_first()?;
                    } else {
                        self.send_established()?;
                    }
                }
            }
        }
        ensure!(self.parts.wire.flush(), "no room on the wire");
        Ok(())
    }

    fn send_first(&mut self) -> anyhow::Result<()> {
        let template = self.ready.get(self.opened).context("more flows than were made ready")?;
        let Parts { wire, worker, .. } = &mut self.parts;
        ensure!(wire.send(worker.io_mut(), template.frame()), "no room on the wire");
        self.opened += 1;
        self.sent += 1;
        Ok(())
    }

    fn send_established(&mut self) -> anyhow::Result<()> {
        self.place = (self.place + STRIDE) % self.established.len().max(1);
        let template = self.established.get(self.place).context("no flow is established")?;
        let Parts { wire, worker, .. } = &mut self.parts;
        ensure!(wire.send(worker.io_mut(), template.frame()), "no room on the wire");
        self.sent += 1;
        Ok(())
    }

    /// A round of the worker, and a look for probes right after it; returns when it ended.
    fn round(&mut self, seen: &mut Vec<u64>) -> anyhow::Result<u64> {
        let now = self.instant();
        let round = engine::run_once(&mut self.parts.worker, now);
        let done = tsc::nanoseconds();
        self.received += round.received as u64;
        let tables = self.parts.worker.pipeline_mut().tables_mut();
        while let Some(key) = self.keys.get(seen.len())
            && let Some((value, _)) = tables.lookup(now, SERVICE, None, key.as_bytes(), 0)
        {
            ensure!(value == key.as_bytes(), "{key} has a value that nobody inserted");
            seen.push(done);
        }
        self.listen()?;
        Ok(done)
    }

    /// The worker's time.
    fn instant(&self) -> Instant {
        Instant::from_micros((BEGIN_MICROS + self.jumped + tsc::nanoseconds() / 1000) as i64)
    }

    /// The end hosts look only at what is not of their flows.
    fn listen(&mut self) -> anyhow::Result<()> {
        let Parts { worker, wire, control, peers } = &mut self.parts;
        let mut result = Ok(());
        wire.collect(worker.io_mut(), &mut |frame| {
            if read(frame) == Read::Other && result.is_ok() {
                result = peers.receive(frame);
            }
        });
        while let Some(answer) = peers.next_answer() {
            ensure!(wire.send(worker.io_mut(), &answer), "no room on the wire");
            self.sent += 1;
        }
        while control.records.receive().is_some() {}
        result
    }

    /// Rounds until all probes of both have arrived.
    fn finish(&mut self, load: Load, half: &mut Half, watch: &mut Watch) -> anyhow::Result<()> {
        let mut now = half.end;
        let patience = now + PATIENCE;
        while self.received < self.sent && now < patience {
            now = self.round(&mut half.seen)?;
            watch.pass(now, Account::now);
        }
        ensure!(self.received >= self.sent, "{} packets were lost", self.sent - self.received);
        self.meeting.tell(self.number, self.opened);
        self.meet(&mut half.seen, watch)?;
        let probes = probes_of(self.meeting.heard(1 - self.number), load.every);
        while half.seen.len() < probes && now < patience {
            now = self.round(&mut half.seen)?;
            watch.pass(now, Account::now);
        }
        ensure!(half.seen.len() == probes, "{} of {probes} probes could be read", half.seen.len());
        self.meet(&mut half.seen, watch)?;
        for _ in 0..SETTLING {
            self.round(&mut half.seen)?;
        }
        Ok(())
    }

    /// Takes in what the other side told while its flows were opened, and begins as between rounds.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut nothing = Vec::new();
        self.meet(&mut nothing, &mut Watch::new(STOP, Account::now()))?;
        for _ in 0..SETTLING * 16 {
            self.round(&mut nothing)?;
        }
        self.go_on()
    }

    /// Rounds until the other side has come as far.
    fn meet(&mut self, seen: &mut Vec<u64>, watch: &mut Watch) -> anyhow::Result<()> {
        let (meeting, mut met) = (self.meeting, self.met);
        meeting.meet(&mut met, || {
            watch.pass(self.round(seen)?, Account::now);
            Ok(())
        })?;
        self.met = met;
        Ok(())
    }

    /// When the scripts of the probes began: those of all flows ran in the order in which these were sent.
    fn insert_times(&self, load: Load) -> anyhow::Result<Vec<u64>> {
        LOOKS.with_borrow(|looks| {
            let (looked, flows) = (looks.len(), self.opened);
            ensure!(looked == 2 * flows, "the scripts of {flows} flows looked {looked} times at the clock");
            let probes = places(load.every).take_while(|place| *place < flows);
            Ok(probes.filter_map(|place| looks.get(2 * place).copied()).collect())
        })
    }

    /// A packet of each established flow, in both directions: none of them ends.
    fn refresh(&mut self) -> anyhow::Result<()> {
        let (until, mut nothing) = (self.sent + self.established.len() as u64, Vec::new());
        while self.received < until {
            while self.sent < until.min(self.received + DEPTH) {
                self.send_established()?;
            }
            ensure!(self.parts.wire.flush(), "no room on the wire");
            self.round(&mut nothing)?;
        }
        Ok(())
    }

    /// Lets time go on for both, and flows that are there stay.
    fn go_on(&mut self) -> anyhow::Result<()> {
        self.keys.clear();
        self.refresh()?;
        self.meeting.meet(&mut self.met, || Ok(()))?;
        self.jumped += JUMP_MICROS;
        self.refresh()
    }
}
