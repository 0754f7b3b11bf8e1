//! One worker: its queues, its pipeline, its ends of the channel to control and of the lanes to the other workers. Run to
//! completion, never waits.

use std::sync::Arc;

use arrayvec::ArrayVec;
use hdrhistogram::Histogram;
use smoltcp::time::Instant;

use crate::channel::{Answer, Command, PortView, Query, Reply, WorkerEnd};
use crate::counters::DropReason;
use crate::io::{BURST, Burst, PacketBuf, PacketIo, PortId};
use crate::mesh::{Mesh, News};
use crate::neighbor::{NeighborId, Pending};
use crate::pipeline::{Output, Pipeline, Verdict};
use crate::policy::Policy;
use crate::report;
use crate::snapshot::Snapshot;

/// Longest latency that the histogram tells apart from longer ones: 10 s, in nanoseconds.
const MOST_LATENCY: u64 = 10_000_000_000;
/// Packets that wait for ARP or ND, all neighbours together.
const MOST_PENDING: usize = 256;
/// Attempts to hand a burst to a device before the rest of it is dropped.
const TX_ATTEMPTS: usize = 4;
/// Commands of control carried out between two bursts.
const COMMANDS: usize = 16;
/// Bursts of own packets sent between two bursts received.
const OWN_BURSTS: usize = 8;
/// News that are heard from each other worker, and told it of tables, between two bursts.
const NEWS: usize = 64;
/// Rounds of own packets sent at the end for each lot of connections that are reset.
const GOODBYE_ROUNDS: usize = 16;

/// One worker. [`Worker::run_once`] is all that its thread does, again and again.
pub struct Worker<I: PacketIo, P: Policy> {
    io: I,
    pipeline: Pipeline<P>,
    end: WorkerEnd,
    mesh: Mesh<I::Buf>,
    /// Boxed, so that a whole burst changes places with that of a queue.
    received: Box<Burst<I::Buf>>,
    verdicts: ArrayVec<Verdict, BURST>,
    ports: Vec<PortQueues<I::Buf>>,
    pending: Pending<(PortId, I::Buf)>,
    latency: Histogram<u64>,
    /// The configuration that control may have it go on with.
    prepared: Option<Arc<Snapshot>>,
    stopping: bool,
}

/// What leaves by one port in this round.
struct PortQueues<B> {
    forward: Box<Burst<B>>,
    own: Burst<B>,
}

/// What one round has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Packets received or taken over from other workers.
    pub received: usize,
    /// Packets that weir made itself and sent or tried to send.
    pub originated: usize,
}

impl Round {
    /// Nothing was there to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.received == 0 && self.originated == 0
    }
}

impl<I: PacketIo, P: Policy> Worker<I, P> {
    /// Puts the parts together. The ports of `io` are those of the pipeline's configuration, and the pipeline and the
    /// mesh have the same seat.
    ///
    /// # Errors
    /// If the latency histogram cannot be made.
    pub fn new(
        io: I,
        pipeline: Pipeline<P>,
        end: WorkerEnd,
        mesh: Mesh<I::Buf>,
    ) -> Result<Self, hdrhistogram::errors::CreationError> {
        let ports =
            (0..io.ports()).map(|_| PortQueues { forward: Box::default(), own: Burst::new() }).collect();
        Ok(Worker {
            io,
            pipeline,
            end,
            mesh,
            received: Box::default(),
            verdicts: ArrayVec::new(),
            ports,
            pending: Pending::new(MOST_PENDING),
            latency: Histogram::new_with_bounds(1, MOST_LATENCY, 2)?,
            prepared: None,
            stopping: false,
        })
    }

    /// Receives one burst from each port, acts on it, sends what it became, then what timers, neighbours, bindings and
    /// control want sent. `now` is the time of the round.
    pub fn run_once(&mut self, now: Instant) -> Round {
        let mut round = Round::default();
        for port in 0..self.ports.len() {
            round.received += self.receive(now, PortId(port as u8));
        }
        for peer in self.mesh.peers() {
            round.received += self.take_over(now, peer);
        }
        self.pipeline.handle_timeout(now);
        self.take_packets_of_control();
        self.release_resolved();
        round.originated = self.transmit_own(now);
        self.hand_over();
        self.tell_peers();
        self.pipeline.policy_mut().idle();
        self.pipeline.end_trace(now);
        self.obey(now);
        round
    }

    /// Notes that packets of a round spent `nanoseconds` between rx burst and tx burst.
    pub fn record_latency(&mut self, nanoseconds: u64, packets: usize) {
        self.latency.saturating_record_n(nanoseconds.max(1), packets as u64);
    }

    /// True once control has asked for the end.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping
    }

    /// Resets all TCP connections, ends all flows and hands their records over; the last call before the worker is
    /// dropped.
    pub fn shut_down(&mut self, now: Instant) {
        let mut told = None;
        loop {
            told = self.pipeline.say_goodbye(now, told);
            let _ = (0..GOODBYE_ROUNDS).find(|_| self.transmit_own(now) == 0);
            if told.is_none() {
                break;
            }
        }
        let mut ended = None;
        loop {
            ended = self.pipeline.end_some(now, ended);
            self.hand_over();
            if ended.is_none() {
                break;
            }
        }
    }

    /// The pipeline, for tests and reports.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline<P> {
        &self.pipeline
    }

    /// The pipeline, for tests.
    pub fn pipeline_mut(&mut self) -> &mut Pipeline<P> {
        &mut self.pipeline
    }

    /// The devices, for tests.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// One burst from rx to tx.
    fn receive(&mut self, now: Instant, port: PortId) -> usize {
        self.io.rx_burst(port, &mut self.received);
        let count = self.received.len();
        if count == 0 {
            return 0;
        }
        match self.pipeline.process(now, port, &mut self.received, &mut self.verdicts) {
            Some(out) => self.forward_all(out, port),
            None => self.carry_out(port),
        }
        self.flush(now);
        count
    }

    /// One burst that another worker handed over, for each port by which its packets came in; and what it told.
    fn take_over(&mut self, now: Instant, peer: u8) -> usize {
        let mut taken = 0;
        for port in (0..self.ports.len()).map(|port| PortId(port as u8)) {
            self.mesh.take_over(peer, port, &mut self.received);
            let count = self.received.len();
            if count == 0 {
                continue;
            }
            taken += count;
            self.pipeline.counters_mut().taken_over += count as u64;
            match self.pipeline.process_handed_over(now, port, &mut self.received, &mut self.verdicts) {
                Some(out) => self.forward_all(out, port),
                None => self.carry_out(port),
            }
            self.flush(now);
        }
        for _ in 0..NEWS {
            let Some(news) = self.mesh.hear(peer) else { break };
            self.pipeline.hear(now, news);
        }
        taken
    }

    /// Tells other workers what they have to know.
    fn tell_peers(&mut self) {
        while let Some((whom, news)) = self.pipeline.poll_news() {
            match (whom, news) {
                (Some(worker), news @ News::Whole { .. }) => self.hand_over_whole(worker, news),
                (_, news) => self.tell(whom, &news),
            }
        }
        for peer in self.mesh.peers() {
            self.tell_of_tables(peer);
        }
    }

    /// What the queue has no room for is told later.
    fn tell_of_tables(&mut self, peer: u8) {
        for _ in 0..NEWS {
            let Some(news) = self.pipeline.tables_mut().poll_news(peer) else { return };
            if let Err(News::Table(news)) = self.mesh.tell(peer, News::Table(news)) {
                self.pipeline.tables_mut().news_refused(peer, news);
                return;
            }
        }
    }

    fn tell(&mut self, whom: Option<u8>, news: &News) {
        for peer in self.mesh.peers().filter(|peer| whom.is_none_or(|whom| whom == *peer)) {
            if self.mesh.tell(peer, news.clone()).is_err() {
                self.pipeline.counters_mut().news_lost += 1;
            }
        }
    }

    /// The last of its fragments was counted as consumed.
    fn hand_over_whole(&mut self, worker: u8, whole: News) {
        let told = self.mesh.tell(worker, whole).is_ok();
        let counters = self.pipeline.counters_mut();
        counters.consumed -= 1;
        if told {
            counters.handed_over += 1;
        } else {
            counters.drop(DropReason::HandOver);
        }
    }

    fn flush(&mut self, now: Instant) {
        for port in 0..self.ports.len() {
            self.flush_forward(now, PortId(port as u8));
            self.flush_own(PortId(port as u8));
        }
    }

    /// The whole burst leaves by this port.
    fn forward_all(&mut self, port: PortId, from: PortId) {
        match self.ports.get_mut(port.index()) {
            Some(queues) if queues.forward.is_empty() => {
                std::mem::swap(&mut self.received, &mut queues.forward);
            }
            _ => {
                self.verdicts = self.received.iter().map(|_| Verdict::Forward(port)).collect();
                self.carry_out(from);
            }
        }
    }

    /// Gives each packet of a burst that came in by `from` to where its verdict says, and counts it there.
    fn carry_out(&mut self, from: PortId) {
        for (buf, verdict) in self.received.drain(..).zip(self.verdicts.drain(..)) {
            let counters = self.pipeline.counters_mut();
            match verdict {
                Verdict::Consumed => counters.consumed += 1,
                Verdict::Drop(reason) => counters.drop(reason),
                // A packet that waits is taken in; when it leaves it is one that weir sends.
                Verdict::ForwardWhenResolved(port, neighbor) => {
                    counters.consumed += 1;
                    if self.pending.push(neighbor, (port, buf)).is_some() {
                        self.pipeline.counters_mut().originate_failed += 1;
                    }
                }
                // Verdicts name ports of the configuration, and a queue has room for the whole burst.
                Verdict::Forward(port) => {
                    let queues = self.ports.get_mut(port.index());
                    if queues.is_none_or(|queues| queues.forward.try_push(buf).is_err()) {
                        counters.drop(DropReason::TxFull);
                    }
                }
                Verdict::HandOver(worker) => match self.mesh.hand_over(worker, from, buf) {
                    Ok(()) => counters.handed_over += 1,
                    Err(_) => counters.drop(DropReason::HandOver),
                },
                Verdict::Reply(port) => {
                    counters.consumed += 1;
                    let queues = self.ports.get_mut(port.index());
                    if queues.is_none_or(|queues| queues.own.try_push(buf).is_err()) {
                        counters.originate_failed += 1;
                    }
                }
            }
        }
    }

    /// Sends translated packets.
    fn flush_forward(&mut self, now: Instant, port: PortId) {
        let Some(queues) = self.ports.get_mut(port.index()) else { return };
        let (sent, bytes) = send(&mut self.io, port, &mut queues.forward);
        let counters = self.pipeline.counters_mut();
        counters.forwarded += sent;
        counters.tx_bytes += bytes;
        for lost in queues.forward.drain(..) {
            self.pipeline.counters_mut().drop(DropReason::TxFull);
            self.pipeline.trace_unsent(now, port, lost.bytes());
        }
    }

    /// Sends packets that weir made.
    fn flush_own(&mut self, port: PortId) -> usize {
        let Some(queues) = self.ports.get_mut(port.index()) else { return 0 };
        let total = queues.own.len();
        let (sent, bytes) = send(&mut self.io, port, &mut queues.own);
        let lost = queues.own.len();
        queues.own.clear();
        let counters = self.pipeline.counters_mut();
        counters.originated += sent;
        counters.tx_bytes += bytes;
        counters.originate_failed += lost as u64;
        total
    }

    /// Packets of the pipeline's own, as many as it has, up to a bound per round.
    fn transmit_own(&mut self, now: Instant) -> usize {
        let mut total = 0;
        for _ in 0..OWN_BURSTS {
            let filled = self.fill_own(now);
            for port in 0..self.ports.len() {
                total += self.flush_own(PortId(port as u8));
            }
            self.drop_unresolved();
            if !filled {
                break;
            }
        }
        total
    }

    /// Takes packets from the pipeline until it has no more (`false`) or a queue is full (`true`).
    fn fill_own(&mut self, now: Instant) -> bool {
        while self.pipeline.wants_transmit(now) {
            let Some(mut buf) = self.io.alloc() else {
                return false;
            };
            let port = match self.pipeline.poll_transmit(now, &mut buf) {
                None => return false,
                Some(Output::Send(port)) => port,
                Some(Output::WhenResolved(port, neighbor)) => {
                    if self.pending.push(neighbor, (port, buf)).is_some() {
                        self.pipeline.counters_mut().originate_failed += 1;
                    }
                    continue;
                }
            };
            let Some(queues) = self.ports.get_mut(port.index()) else { continue };
            let _ = queues.own.try_push(buf);
            if queues.own.is_full() {
                return true;
            }
        }
        false
    }

    /// Sends what has waited for neighbours that are known now.
    fn release_resolved(&mut self) {
        while let Some(neighbor) = self.pipeline.poll_resolved() {
            self.release(neighbor);
        }
    }

    fn release(&mut self, neighbor: NeighborId) {
        let Some(mac) = self.pipeline.neighbor_mac(neighbor) else { return };
        for (port, mut buf) in self.pending.take(neighbor) {
            if let Some(destination) = buf.bytes_mut().get_mut(..6) {
                destination.copy_from_slice(&mac);
            }
            if let Some(queues) = self.ports.get_mut(port.index()) {
                let _ = queues.own.try_push(buf);
                if queues.own.is_full() {
                    self.flush_own(port);
                }
            }
        }
    }

    /// Drops what has waited for neighbours that did not answer.
    fn drop_unresolved(&mut self) {
        while let Some(neighbor) = self.pipeline.neighbors_mut().poll_failed() {
            let lost = self.pending.take(neighbor).len();
            self.pipeline.counters_mut().originate_failed += lost as u64;
        }
    }

    fn take_packets_of_control(&mut self) {
        while let Some(packet) = self.end.packet() {
            self.pipeline.send_local(packet.0);
        }
    }

    /// Records and packets for control.
    fn hand_over(&mut self) {
        let lost =
            self.pipeline.take_records().map(|record| u64::from(!self.end.record(record))).sum::<u64>();
        self.pipeline.counters_mut().records_lost += lost;
        while let Some(packet) = self.pipeline.poll_punted() {
            if !self.end.punt(&packet) {
                let counters = self.pipeline.counters_mut();
                counters.consumed -= 1;
                counters.drop(DropReason::Punt);
            }
        }
    }

    /// Carries out what control asks for.
    fn obey(&mut self, now: Instant) {
        for _ in 0..COMMANDS {
            match self.end.command() {
                None => return,
                Some(Command::Stop) => self.stopping = true,
                Some(Command::ServerHealth { server, up }) => {
                    self.pipeline.balancer_mut().set_health(server, up);
                }
                Some(Command::ServerEnabled { server, enabled }) => {
                    self.pipeline.balancer_mut().set_enabled(server, enabled);
                }
                Some(Command::StartProfile { set, event }) => {
                    self.pipeline.policy_mut().start_profile(set, event);
                }
                Some(Command::Prepare(snapshot, reply)) => {
                    let prepared = self.pipeline.policy_mut().prepare(&snapshot);
                    self.prepared = prepared.is_ok().then_some(snapshot);
                    reply.send(Answer::Prepared(prepared));
                }
                Some(Command::Adopt(reply)) => {
                    let snapshot = self.prepared.take();
                    reply.send(Answer::Adopted(snapshot.map(|new| self.pipeline.adopt(new)).is_some()));
                }
                Some(Command::Abandon) => {
                    self.prepared = None;
                    self.pipeline.policy_mut().abandon();
                }
                Some(Command::Query(query, reply)) => self.answer(now, query, reply),
                Some(Command::Trace(order)) => self.pipeline.trace(now, *order),
            }
        }
    }

    fn answer(&mut self, now: Instant, query: Query, reply: Reply) {
        let answer = match query {
            Query::Ping => Answer::Pong,
            Query::EndProfile => Answer::Profile(self.pipeline.policy_mut().end_profile()),
            Query::Time => Answer::Time(now),
            Query::ServicesInUse { first, count } => {
                Answer::ServicesInUse(self.pipeline.services_in_use(first..first.saturating_add(count)))
            }
            Query::Live { service, limit } => {
                Answer::Live(Box::new(report::live(&self.pipeline, now, service, limit)))
            }
            Query::Latency => Answer::Latency(self.latency.clone()),
            Query::Ports => Answer::Ports(self.port_views()),
            Query::Counters => Answer::Counters(Box::new(self.pipeline.counters().clone())),
            Query::Scripts => Answer::Scripts(self.pipeline.policy().report()),
            Query::Pools => Answer::Pools(report::servers(&self.pipeline), report::pools(&self.pipeline)),
            Query::Flows { limit, service, client } => {
                Answer::Flows(report::flows(&self.pipeline, now, limit, service, client))
            }
            Query::Tables { service, limit } => {
                let (entries, stats) = report::tables(&self.pipeline, now, service, limit);
                Answer::Tables(entries, stats)
            }
        };
        reply.send(answer);
    }

    fn port_views(&self) -> Vec<PortView> {
        let interfaces = self.pipeline.snapshot().interfaces.iter().zip(0u8..);
        let views = interfaces.map(|(interface, port)| PortView {
            name: interface.name.clone(),
            mac: self.pipeline.port(PortId(port)).map(|settings| settings.mac).unwrap_or_default(),
            link: self.io.link(PortId(port)),
            stats: self.io.port_stats(PortId(port)),
        });
        views.collect()
    }
}

/// Hands a burst to a device, with a few more attempts when its queue is full. What is left in `burst` was not taken.
/// Returns packets and bytes that were.
fn send<I: PacketIo>(io: &mut I, port: PortId, burst: &mut Burst<I::Buf>) -> (u64, u64) {
    if burst.is_empty() {
        return (0, 0);
    }
    let length = |burst: &Burst<I::Buf>| burst.iter().map(|buf| buf.bytes().len() as u64).sum::<u64>();
    let (packets, bytes) = (burst.len(), length(burst));
    for _ in 0..TX_ATTEMPTS {
        io.tx_burst(port, burst);
        if burst.is_empty() {
            break;
        }
    }
    ((packets - burst.len()) as u64, bytes - length(burst))
}
