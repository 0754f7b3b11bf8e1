//! End hosts that send at a given rate whatever comes back, and steer like a network card.
//!
//! Each packet has a moment at which it is to leave; it carries that moment, not the one at which it did leave. When the
//! generator, the wire or weir stands still, the packets that should have left meanwhile show it: no omission is coordinated.

use std::ops::Range;

use anyhow::{Context, bail, ensure};
use dataplane::header::Mac;
use dataplane::io::{Burst, PacketBuf, PacketIo};
use dataplane::parse::{Packet, parse};
use dataplane::steering::{Seat, Steering};
use dpdk::{DpdkIo, Mbuf};

use super::stops::{Account, STOP, Watch};
use super::tally::{LEAD, Load};
use super::template::{Read, Template, flow_of, read, since, stamp};
use crate::peer::Peers;
use crate::scenario::{Kind, Scenario};
use crate::tsc;
use crate::wire::PORT;

/// Packets that are sent together at most: less than weir takes at once, and the same whatever weir does.
const BATCH: u64 = 32;
/// Flows that are opened together.
const TOGETHER: u32 = 64;
/// Attempts at opening a flow, and nanoseconds for each.
const ATTEMPTS: usize = 10;
const PATIENCE: u64 = 1_000_000_000;
/// Nanoseconds without a packet after which nobody has anything to say: longer than any timer of a young connection.
const SILENCE: u64 = 400_000_000;
/// Nanoseconds without a packet after which those that are still missing at the end are lost: longer than a process has to
/// wait for a processor that it shares.
const DRAIN: u64 = 300_000_000;
/// The same where it is only counted how many come back.
const SHORT_DRAIN: u64 = 5_000_000;

/// All end hosts of a scenario, on a port with as many queues as weir has workers.
pub struct Generator {
    queues: Vec<DpdkIo>,
    staged: Vec<Burst<Mbuf>>,
    steering: Steering,
    scenario: Scenario,
    peers: Peers,
    templates: Vec<Template>,
    /// Templates of each flow.
    each: usize,
    random: u64,
    next: usize,
    /// Of 2^24 packets so many open a flow.
    opening: u32,
    opened: u32,
}

/// Packets of which a share is counted.
const SHARES: f64 = (1 << 24) as f64;
/// Numbers of flows that others open, beyond the established ones, before they come again.
const NUMBERS: u32 = 14_000_000;

impl Generator {
    /// On these queues of one port. `weir` is the link address of weir's port.
    pub fn new(queues: Vec<DpdkIo>, weir: Mac, scenario: Scenario) -> anyhow::Result<Generator> {
        let established = matches!(scenario.kind, Kind::Datagrams | Kind::Segments);
        ensure!(established, "{} is not of established flows", scenario.name);
        let of = u8::try_from(queues.len()).context("too many queues")?;
        Ok(Generator {
            staged: queues.iter().map(|_| Burst::new()).collect(),
            queues,
            steering: Steering::new(Seat { number: 0, of }),
            peers: Peers::new(weir, scenario.vip(), scenario.talk(), scenario.flows as usize)?,
            scenario,
            templates: Vec::new(),
            each: 1,
            random: 0x7765_6972,
            next: 0,
            opening: 0,
            opened: 0,
        })
    }

    /// From now on this share of the packets opens a flow, at random; the scenario has to be for that.
    pub fn open_flows(&mut self, share: f64) -> anyhow::Result<()> {
        ensure!(self.scenario.mixed || share == 0.0, "{} has no new flows", self.scenario.name);
        self.opening = (share * SHARES) as u32;
        Ok(())
    }

    /// Opens all flows of the scenario; weir has to run meanwhile.
    pub fn establish(&mut self) -> anyhow::Result<()> {
        let flows = self.scenario.flows;
        let mut number = 0;
        while number < flows {
            // The first few wait for ARP.
            let end = (number + if number == 0 { 4 } else { TOGETHER }).min(flows);
            self.open(number..end)?;
            number = end;
        }
        self.wait_for_silence()?;
        let kind = self.scenario.kind;
        self.each = if kind == Kind::Segments { 4 } else { 2 };
        for number in 0..flows {
            for place in 0..self.each {
                let frame = match (kind, place) {
                    (Kind::Segments, 0 | 2) => self.peers.client_segment(number, place == 0),
                    (Kind::Segments, _) => self.peers.server_segment(number, place == 1),
                    (_, 0) => self.peers.datagram(number),
                    _ => self.peers.server_datagram(number),
                };
                let frame = frame?.to_vec();
                self.templates.push(self.template(&frame)?);
            }
        }
        Ok(())
    }

    /// What is still being said about the last flows would be taken for an answer to what comes next.
    fn wait_for_silence(&mut self) -> anyhow::Result<()> {
        let mut last = tsc::nanoseconds();
        while tsc::nanoseconds() - last < SILENCE {
            if self.converse()? > 0 {
                last = tsc::nanoseconds();
            }
        }
        Ok(())
    }

    /// Sends the frames of another generator, whose flows are established: for something that knows no flows.
    pub fn imitate(&mut self, other: &Generator) {
        self.templates = other.templates.clone();
        (self.each, self.opening) = (other.each, other.opening);
        let queues = self.queues.len().max(1) as u8;
        self.templates.iter_mut().for_each(|template| template.queue %= queues);
    }

    /// Each established flow moves to the next queue, which is not the one of its worker.
    pub fn misdirect(&mut self) {
        let queues = self.queues.len().max(1) as u8;
        self.templates.iter_mut().for_each(|template| template.queue = (template.queue + 1) % queues);
    }

    fn template(&self, frame: &[u8]) -> anyhow::Result<Template> {
        Template::new(frame, self.queue_of(frame)).context("a frame that is no template")
    }

    /// Opens these flows, again those that do not come to be.
    fn open(&mut self, numbers: Range<u32>) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            for number in numbers.clone() {
                if self.peers.is_established(number) {
                    continue;
                }
                let frame = match self.scenario.kind {
                    Kind::Segments => self.peers.syn(number)?,
                    _ => self.peers.datagram(number)?,
                };
                let frame = frame.to_vec();
                self.send(&frame);
            }
            let end = tsc::nanoseconds() + PATIENCE;
            while tsc::nanoseconds() < end {
                self.converse()?;
                if numbers.clone().all(|number| self.peers.is_established(number)) {
                    return Ok(());
                }
            }
        }
        bail!("flows {numbers:?} do not come to be")
    }

    /// The end hosts hear what weir has sent, and answer. Returns how many packets that were.
    fn converse(&mut self) -> anyhow::Result<usize> {
        let (mut burst, mut heard) = (Burst::new(), 0);
        for queue in &mut self.queues {
            queue.rx_burst(PORT, &mut burst);
            heard += burst.len();
            for mbuf in burst.drain(..) {
                self.peers.receive(mbuf.bytes())?;
            }
        }
        while let Some(answer) = self.peers.next_answer() {
            self.send(&answer);
        }
        Ok(heard)
    }

    /// The queue into which a network card with weir's key would put it.
    fn queue_of(&self, frame: &[u8]) -> u8 {
        match parse(frame, None) {
            Ok(Packet::Transport(headers)) => self.steering.owner(&headers.key),
            _ => 0,
        }
    }

    /// At once; lost where there is no room.
    fn send(&mut self, frame: &[u8]) {
        let place = usize::from(self.queue_of(frame));
        let Some(queue) = self.queues.get_mut(place) else { return };
        let Some(mut mbuf) = queue.alloc() else { return };
        if mbuf.set_len(frame.len()) {
            mbuf.bytes_mut().copy_from_slice(frame);
            let mut burst = Burst::new();
            burst.push(mbuf);
            queue.tx_burst(PORT, &mut burst);
        }
    }

    /// Sends for so long at this rate, packets per second, or as fast as the wire takes them, and listens.
    pub fn run(&mut self, rate: Option<f64>, nanoseconds: u64) -> anyhow::Result<Load> {
        ensure!(!self.templates.is_empty(), "no flow is established");
        let mut load = Load::new()?;
        let mut watch = Watch::new(STOP, Account::now());
        loop {
            let now = tsc::nanoseconds();
            watch.pass(now, Account::now);
            let elapsed = now - load.begin;
            if elapsed >= LEAD + nanoseconds {
                load.nanoseconds = elapsed;
                break;
            }
            self.send_due(&mut load, rate, elapsed);
            self.listen(&mut load)?;
        }
        load.gaps = watch.into_gaps();
        self.drain(&mut load, if rate.is_some() { DRAIN } else { SHORT_DRAIN })?;
        Ok(load)
    }

    /// Sends what is to have left by now, but no more than a batch.
    fn send_due(&mut self, load: &mut Load, rate: Option<f64>, elapsed: u64) {
        let due = match rate {
            Some(rate) => (elapsed as f64 * rate / 1e9) as u64,
            None => load.scheduled + BATCH,
        };
        let packets = due.saturating_sub(load.scheduled).min(BATCH);
        let intended = |number: u64| rate.map_or(elapsed, |rate| (number as f64 * 1e9 / rate) as u64);
        if elapsed >= LEAD && packets > 0 {
            let late = elapsed.saturating_sub(intended(load.scheduled)).max(1);
            load.late.saturating_record_n(late, packets);
        }
        for _ in 0..packets {
            let intended = load.begin + intended(load.scheduled);
            load.scheduled += 1;
            load.refused += u64::from(!self.stage(stamp(intended)));
        }
        load.refused += self.flush();
    }

    /// Listens until all is there, or nothing has come for so long.
    fn drain(&mut self, load: &mut Load, patience: u64) -> anyhow::Result<()> {
        let (mut last, mut received) = (tsc::nanoseconds(), load.received);
        while load.received < load.scheduled - load.refused && tsc::nanoseconds() - last < patience {
            self.listen(load)?;
            if load.received > received {
                (last, received) = (tsc::nanoseconds(), load.received);
            }
        }
        Ok(())
    }

    /// The next frame, into the burst of its queue; `false` if there is no buffer.
    fn stage(&mut self, stamp: u32) -> bool {
        let flows = (self.templates.len() / self.each) as u64;
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let flow = (((self.random >> 32) * flows) >> 32) as usize;
        if ((self.random >> 8) as u32 & 0xff_ffff) < self.opening {
            return self.first_packet().is_some_and(|template| self.stage_template(&template, stamp));
        }
        self.next = (self.next + 1) % self.each;
        let template = self.templates.get(flow * self.each + self.next).copied();
        template.is_some_and(|template| self.stage_template(&template, stamp))
    }

    /// Of a flow that nobody has heard of for long.
    fn first_packet(&mut self) -> Option<Template> {
        let number = self.scenario.flows + self.opened;
        self.opened = (self.opened + 1) % NUMBERS;
        let frame = self.peers.datagram(number).ok()?.to_vec();
        self.template(&frame).ok()
    }

    fn stage_template(&mut self, template: &Template, stamp: u32) -> bool {
        let place = usize::from(template.queue);
        let (Some(queue), Some(staged)) = (self.queues.get_mut(place), self.staged.get_mut(place)) else {
            return false;
        };
        let Some(mut mbuf) = queue.alloc() else { return false };
        if !mbuf.set_len(template.len()) {
            return false;
        }
        template.write(mbuf.bytes_mut(), stamp);
        staged.try_push(mbuf).is_ok()
    }

    /// Sends what is staged; how many found no room.
    fn flush(&mut self) -> u64 {
        let mut refused = 0;
        for (queue, staged) in self.queues.iter_mut().zip(&mut self.staged) {
            if !staged.is_empty() {
                queue.tx_burst(PORT, staged);
                refused += staged.len() as u64;
                staged.clear();
            }
        }
        refused
    }

    fn listen(&mut self, load: &mut Load) -> anyhow::Result<()> {
        let mut burst = Burst::new();
        for place in 0..self.queues.len() {
            let Some(queue) = self.queues.get_mut(place) else { continue };
            queue.rx_burst(PORT, &mut burst);
            if burst.is_empty() {
                continue;
            }
            let now = tsc::nanoseconds();
            for mbuf in burst.drain(..) {
                match read(mbuf.bytes()) {
                    Read::Stamped(sent) => {
                        let is_opened = |number| number >= self.scenario.flows;
                        let is_first = self.opening > 0 && flow_of(mbuf.bytes()).is_some_and(is_opened);
                        load.receive(since(sent, now), now, is_first);
                    }
                    Read::Bare => load.received += 1,
                    Read::Other => self.peers.receive(mbuf.bytes())?,
                }
            }
        }
        while let Some(answer) = self.peers.next_answer() {
            self.send(&answer);
        }
        Ok(())
    }
}
