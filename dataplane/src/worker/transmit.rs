//! What leaves a worker by its ports.

use smoltcp::time::Instant;

use super::Worker;
use crate::counters::DropReason;
use crate::io::{Burst, PacketBuf, PacketIo, PortId, SHORT_BURST};
use crate::neighbor::NeighborId;
use crate::pipeline::Output;
use crate::policy::Policy;

/// Attempts to hand a burst to a device before the rest of it is dropped.
const TX_ATTEMPTS: usize = 4;
/// Bursts of own packets sent between two bursts received.
const OWN_BURSTS: usize = 8;

impl<I: PacketIo, P: Policy> Worker<I, P> {
    pub(super) fn flush(&mut self, now: Instant) {
        for port in 0..self.ports.len() {
            self.flush_forward(now, PortId(port as u8));
            self.flush_own(PortId(port as u8));
        }
    }

    /// Sends translated packets.
    pub(super) fn flush_forward(&mut self, now: Instant, port: PortId) {
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
    pub(super) fn flush_own(&mut self, port: PortId) -> usize {
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
    pub(super) fn transmit_own(&mut self, now: Instant) -> usize {
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

    /// Takes packets from the pipeline until it has no more (`false`) or a queue has enough of them (`true`).
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
            if queues.own.len() >= SHORT_BURST {
                return true;
            }
        }
        false
    }

    /// Sends what has waited for neighbours that are known now.
    pub(super) fn release_resolved(&mut self) {
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
                if queues.own.len() >= SHORT_BURST {
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
