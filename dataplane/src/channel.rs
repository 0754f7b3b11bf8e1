//! How a worker and the control threads talk: bounded queues without locks, one pair of ends per worker.
//!
//! [`channel`] makes both ends. The worker never waits: it takes [`Command`]s between bursts, and what finds a full
//! queue on the way to control is lost and counted ([`crate::counters::Counters::records_lost`], [`crate::counters::DropReason::Punt`]).
//! Answers to a [`Query`] are owned copies, so that control may take its time with them.
//!
//! Control's own connections (health monitors) cross as raw IP packets, [`PuntedPacket`], both ways. The worker hands
//! over every packet to an address of [`crate::snapshot::Interface::addresses`] that is TCP or UDP to a port of
//! [`monitor_ports`], an ICMP echo reply, or an ICMP error that belongs to no flow of its own.

mod ended;
mod message;
mod record;
mod termination;
mod view;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crossbeam_queue::ArrayQueue;

use crate::address::Address;
use crate::snapshot::Snapshot;
pub use ended::{EndedFlow, Milestones, Notes};
pub use message::{Answer, Command, Live, Query, Reply};
pub use record::ConnectionRecord;
pub use termination::{EndedBy, Phase, Termination};
pub use view::{
    FlowState, FlowView, PoolView, PortView, ServerView, TableEntryView, TableStatsView, Traffic,
};

/// How many items each queue of a [`channel`] holds.
#[derive(Clone, Copy, Debug)]
pub struct Capacities {
    /// Commands to the worker.
    pub commands: usize,
    /// Ended flows on their way to the connection log; 112 bytes each, and 72 for addresses of IPv6.
    pub records: usize,
    /// Packets, in each direction; at most one MTU each.
    pub packets: usize,
}

impl Default for Capacities {
    fn default() -> Self {
        Capacities { commands: 256, records: 8192, packets: 256 }
    }
}

/// Makes the two ends. Capacities of 0 are taken as 1.
#[must_use]
pub fn channel(capacities: Capacities) -> (WorkerEnd, ControlEnd) {
    let commands = Arc::new(ArrayQueue::new(capacities.commands.max(1)));
    let records = Arc::new(Records::new(capacities.records.max(1)));
    let to_control = Arc::new(ArrayQueue::new(capacities.packets.max(1)));
    let to_worker = Arc::new(ArrayQueue::new(capacities.packets.max(1)));
    let control = ControlEnd {
        commands: CommandSender(Arc::clone(&commands)),
        records: RecordReceiver(Arc::clone(&records)),
        packets: PacketPair { incoming: Arc::clone(&to_control), outgoing: Arc::clone(&to_worker) },
    };
    let worker = WorkerEnd {
        commands,
        records: RecordSender(records),
        packets: PacketPair { incoming: to_worker, outgoing: to_control },
    };
    (worker, control)
}

/// The TCP and UDP ports that the monitors' own connections start from: those above [`crate::snapshot::SnatPool::last_port`].
/// Empty when the SNAT pool goes up to 65535.
#[must_use]
pub fn monitor_ports(snapshot: &Snapshot) -> RangeInclusive<u16> {
    match snapshot.snat.last_port.checked_add(1) {
        Some(first) => first.max(1024)..=u16::MAX,
        None => RangeInclusive::new(1, 0),
    }
}

/// The worker's side. Every method returns at once.
#[derive(Debug)]
pub struct WorkerEnd {
    commands: Arc<ArrayQueue<Command>>,
    records: RecordSender,
    packets: PacketPair,
}

impl WorkerEnd {
    /// The next command, if any; asked for between bursts.
    #[must_use]
    pub fn command(&mut self) -> Option<Command> {
        self.commands.pop()
    }

    /// Where records of ended flows go.
    #[must_use]
    pub fn records(&self) -> &RecordSender {
        &self.records
    }

    /// Hands over a copy of an IP packet. `false`: the queue is full; count [`crate::counters::DropReason::Punt`].
    /// Allocates; packets for control are few by nature and bounded by the queue.
    #[must_use]
    pub fn punt(&mut self, ip_packet: &[u8]) -> bool {
        !self.packets.outgoing.is_full() && self.packets.send(PuntedPacket(ip_packet.to_vec()))
    }

    /// The next packet that control wants sent. The worker finds route and neighbour from its destination address.
    #[must_use]
    pub fn packet(&mut self) -> Option<PuntedPacket> {
        self.packets.receive()
    }
}

/// Control's side; its parts go to the threads that need them.
#[derive(Debug)]
pub struct ControlEnd {
    /// Commands to the worker.
    pub commands: CommandSender,
    /// Ended flows from the worker.
    pub records: RecordReceiver,
    /// Packets of the health monitors.
    pub packets: PacketPair,
}

/// Sends commands to one worker; cheap to clone.
#[derive(Clone, Debug)]
pub struct CommandSender(Arc<ArrayQueue<Command>>);

impl CommandSender {
    /// Queues a command; gives it back when the queue is full.
    pub fn send(&self, command: Command) -> Result<(), Command> {
        self.0.push(command)
    }

    /// Queues a query and returns where its answer will arrive, or `None` when the queue is full. The receiver
    /// reports a disconnect if the worker is gone before it answered.
    #[must_use]
    pub fn query(&self, query: Query) -> Option<Receiver<Answer>> {
        let (reply, receiver) = Reply::pair();
        self.send(Command::Query(query, reply)).ok().map(|()| receiver)
    }
}

/// Hands over what is to be recorded of the ended flows of one worker.
#[derive(Clone, Debug)]
pub struct RecordSender(Arc<Records>);

/// Ended flows on their way.
#[derive(Debug)]
struct Records {
    flows: ArrayQueue<EndedFlow>,
    /// Those of the flows on their way that have any, in the same order. What is there is read after its flow, so there is
    /// room for those of all flows that there is room for.
    addresses: ArrayQueue<[Address; 4]>,
}

impl Records {
    fn new(capacity: usize) -> Self {
        // One more: the receiver takes a flow before its addresses.
        Records { flows: ArrayQueue::new(capacity), addresses: ArrayQueue::new(capacity + 1) }
    }
}

impl RecordSender {
    /// One to nobody: it has room for one record, which is never taken.
    #[must_use]
    pub fn unheard() -> Self {
        RecordSender(Arc::new(Records::new(1)))
    }

    /// Hands one over, with its [addresses](crate::flow::FlowRef::addresses). `false`: the queue is full and the record is lost;
    /// count it. Only one thread does this at a time. Not inlined: what is handed on by address is copied once, into the queue.
    #[inline(never)]
    #[must_use]
    pub fn send(&self, flow: EndedFlow, addresses: Option<[Address; 4]>) -> bool {
        addresses.is_none_or(|addresses| self.send_addresses(addresses)) && self.0.flows.push(flow).is_ok()
    }

    /// Addresses must be there when their flow is, and without a flow they must not be there.
    #[inline(never)]
    fn send_addresses(&self, addresses: [Address; 4]) -> bool {
        !self.0.flows.is_full() && self.0.addresses.push(addresses).is_ok()
    }
}

/// Takes the records of ended flows of one worker.
#[derive(Debug)]
pub struct RecordReceiver(Arc<Records>);

impl RecordReceiver {
    /// Records that there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.flows.capacity()
    }

    /// The next record, if any.
    #[must_use]
    pub fn receive(&self) -> Option<ConnectionRecord> {
        let flow = self.0.flows.pop()?;
        let addresses = if flow.is_wide() { self.0.addresses.pop() } else { None };
        Some(flow.record(addresses))
    }
}

/// A queue of IP packets in each direction.
#[derive(Debug)]
pub struct PacketPair {
    incoming: Arc<ArrayQueue<PuntedPacket>>,
    outgoing: Arc<ArrayQueue<PuntedPacket>>,
}

impl PacketPair {
    /// `false`: the queue is full and the packet is lost.
    #[must_use]
    pub fn send(&self, packet: PuntedPacket) -> bool {
        self.outgoing.push(packet).is_ok()
    }

    /// The next packet from the other side, if any.
    #[must_use]
    pub fn receive(&self) -> Option<PuntedPacket> {
        self.incoming.pop()
    }
}

/// A whole IP packet, from its IP header on, without Ethernet header; checksums are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PuntedPacket(pub Vec<u8>);

#[cfg(test)]
mod tests;
