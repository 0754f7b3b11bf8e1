//! One worker: its queues, its pipeline, its ends of the channel to control and of the lanes to the other workers. Run to
//! completion, never waits.

mod control;
mod peers;
mod transmit;

use std::sync::Arc;

use arrayvec::ArrayVec;
use hdrhistogram::Histogram;
use smoltcp::time::Instant;

use crate::channel::WorkerEnd;
use crate::counters::DropReason;
use crate::io::{BURST, Burst, PacketIo, PortId};
use crate::mesh::Mesh;
use crate::neighbor::Pending;
use crate::pipeline::{Pipeline, Verdict};
use crate::policy::Policy;
use crate::snapshot::Snapshot;

/// Longest latency that the histogram tells apart from longer ones: 10 s, in nanoseconds.
const MOST_LATENCY: u64 = 10_000_000_000;
/// Packets that wait for ARP or ND, all neighbours together.
const MOST_PENDING: usize = 256;
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
        mut pipeline: Pipeline<P>,
        end: WorkerEnd,
        mesh: Mesh<I::Buf>,
    ) -> Result<Self, hdrhistogram::errors::CreationError> {
        pipeline.report_to(end.records().clone());
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
        // The same for all, or a port whose packets are dear would take turns with one whose are not, and have more of them.
        let most = self.pipeline.take_most().min(self.io.most());
        for port in 0..self.ports.len() {
            round.received += self.receive(now, most, PortId(port as u8));
        }
        for peer in self.mesh.peers() {
            round.received += self.take_over(now, most, peer);
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

    /// Resets all TCP connections and ends all flows; the last call before the worker is dropped.
    pub fn shut_down(&mut self, now: Instant) {
        let mut told = None;
        loop {
            told = self.pipeline.say_goodbye(now, told);
            let _ = (0..GOODBYE_ROUNDS).find(|_| self.transmit_own(now) == 0);
            if told.is_none() {
                break;
            }
        }
        self.pipeline.end_all(now);
        self.hand_over();
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
    fn receive(&mut self, now: Instant, most: usize, port: PortId) -> usize {
        self.io.rx_up_to(most, port, &mut self.received);
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
}
