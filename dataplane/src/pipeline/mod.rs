//! The packet core: a burst, the time and the tables in; bytes and a [`Verdict`] per packet out.
//!
//! Read in this order, it is a packet's walk: [`Pipeline::process`] here (parse and look up the whole burst, then
//! act), `bound.rs` (the fast path: translate), `split.rs` (a server with a smaller MSS), `open.rs` (the first packet of a flow), `cookies.rs` (handshakes that are
//! not kept), `decide.rs` (the script and the
//! choice of a server), `binding.rs` (TCP before the splice), `datagram.rs` (UDP around scripts), `inspect.rs` (scripts on bound
//! flows), `local.rs` (ARP, ND, ping, packets for control), `errors.rs` (ICMP errors about flows), `transmit.rs` (what weir says by itself), `end.rs` (timers, and how flows end).
//!
//! Owned by one [`crate::worker::Worker`]. Per burst it calls [`Pipeline::process`], then
//! [`Pipeline::handle_timeout`], then [`Pipeline::poll_transmit`] until `None`.

mod binding;
mod bound;
mod connection;
mod cookies;
mod datagram;
mod decide;
mod end;
mod errors;
mod inspect;
mod local;
mod open;
mod split;
mod transmit;
mod vips;

pub use connection::{Connection, Held, Suspended};
pub use transmit::Output;

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use crate::address::Address;
use crate::balance::Balancer;
use crate::channel::ConnectionRecord;
use crate::counters::{Counters, DropReason};
use crate::flow_table::{FlowId, FlowTable};
use crate::io::{BURST, Burst, PacketBuf, PortId};
use crate::neighbor::{NeighborId, Neighbors};
use crate::parse::{self, Headers, Packet};
use crate::policy::Policy;
use crate::route::Routes;
use crate::snapshot::Snapshot;
use crate::snat::SnatPorts;
use crate::table::{Replica, TableStore};
use crate::wheel::Wheel;
use connection::Connections;
use transmit::Originated;
use vips::Vips;

/// What becomes of one received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Translated in place; leaves by this port.
    Forward(PortId),
    /// Translated in place; its destination MAC is written once this neighbour is known.
    ForwardWhenResolved(PortId, NeighborId),
    /// Turned into weir's own answer in place; leaves by this port.
    Reply(PortId),
    /// Taken in.
    Consumed,
    /// Not wanted.
    Drop(DropReason),
}

/// A port as the pipeline needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Own MAC address.
    pub mac: [u8; 6],
    /// 802.1Q tag, `None` for untagged.
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
}

/// Why a pipeline could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No memory for a table.
    #[error("no memory for a table of this worker: {0}")]
    Memory(#[from] arena::ArenaError),
    /// Ports and interfaces do not match.
    #[error("{interfaces} interfaces are configured, but {macs} MAC addresses were given")]
    Ports {
        /// In the configuration.
        interfaces: usize,
        /// Given to [`Pipeline::new`].
        macs: usize,
    },
}

/// Everything one worker knows, but for its devices.
pub struct Pipeline<P: Policy> {
    snapshot: Arc<Snapshot>,
    ports: Vec<PortSettings>,
    vips: Vips,
    own: Vec<(PortId, Address)>,
    routes: Routes,
    neighbors: Neighbors,
    flows: FlowTable,
    wheel: Wheel,
    snat: SnatPorts,
    balancer: Balancer,
    tables: TableStore,
    policy: P,
    connections: Connections,
    counters: Counters,
    /// Flows that may have something to send, in the order in which they asked.
    dirty: VecDeque<FlowId>,
    /// Packets that weir makes without a binding.
    originated: VecDeque<Originated>,
    /// Records of ended flows, until the worker takes them.
    records: VecDeque<ConnectionRecord>,
    /// IP packets for the control thread, until the worker takes them.
    punted: VecDeque<Vec<u8>>,
    /// Neighbours that became known since the worker last asked.
    resolved: VecDeque<NeighborId>,
    /// TCP flows whose handshake is not complete.
    embryonic: u32,
    /// The same in the order in which they began; flows that have gone on since are still in it.
    half_open: VecDeque<FlowId>,
    cookies: tcp::Cookies,
    /// Flows that wait for a script or a server.
    waiting: u32,
    /// Flows that have a server.
    attached: u32,
    /// ICMP errors that may still be sent.
    errors: errors::Allowance,
    isn: siphasher::sip::SipHasher13,
    identification: u16,
}

/// Most records and punted packets that wait for the worker to take them.
const QUEUE: usize = 4096;

/// What stage one found out about a packet.
enum Parsed {
    Transport(Headers, u64),
    Other(Packet),
    Drop(DropReason),
}

impl<P: Policy> Pipeline<P> {
    /// A worker's state for this configuration. `macs` are the ports' own addresses in the order of the interfaces;
    /// `seed` keys all hashes and initial sequence numbers and must be unpredictable outside tests.
    pub fn new(
        snapshot: Arc<Snapshot>,
        macs: &[[u8; 6]],
        policy: P,
        seed: u128,
        now: Instant,
    ) -> Result<Self, SetupError> {
        let interfaces = snapshot.interfaces.len();
        if macs.len() != interfaces {
            return Err(SetupError::Ports { interfaces, macs: macs.len() });
        }
        let ports = snapshot.interfaces.iter().zip(macs);
        let ports = ports.map(|(i, mac)| PortSettings { mac: *mac, vlan: i.vlan, mtu: i.mtu }).collect();
        let own = own_addresses(&snapshot);
        let limits = snapshot.limits;
        let mut pipeline = Pipeline {
            ports,
            vips: Vips::new(&snapshot),
            own,
            routes: Routes::new(&snapshot),
            neighbors: Neighbors::new(limits.neighbors),
            flows: FlowTable::new(limits.flows, seed as u64)?,
            wheel: Wheel::new(limits.flows, now)?,
            snat: SnatPorts::new(&snapshot.snat, (seed >> 64) as u64),
            balancer: Balancer::new(&snapshot),
            tables: TableStore::new(&snapshot, Replica::ALONE),
            policy,
            connections: Connections::new(),
            counters: Counters::default(),
            dirty: VecDeque::with_capacity(QUEUE),
            originated: VecDeque::with_capacity(QUEUE),
            records: VecDeque::with_capacity(QUEUE),
            punted: VecDeque::new(),
            resolved: VecDeque::new(),
            embryonic: 0,
            half_open: VecDeque::new(),
            cookies: tcp::Cookies::new(seed, now),
            waiting: 0,
            attached: 0,
            errors: errors::Allowance::new(now),
            isn: siphasher::sip::SipHasher13::new_with_keys(seed as u64, (seed >> 64) as u64),
            identification: 0,
            snapshot,
        };
        pipeline.announce_addresses();
        Ok(pipeline)
    }

    /// Acts on a burst received on `port`. `verdicts` has one entry per packet, in order. The counters of the
    /// verdicts are the worker's to move, because only it knows what the device took.
    pub fn process<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) {
        verdicts.clear();
        let mut parsed: ArrayVec<Parsed, BURST> = ArrayVec::new();
        for buf in burst.iter() {
            let _ = parsed.try_push(self.parse_one(port, buf.bytes()));
        }
        for packet in &parsed {
            if let Parsed::Transport(_, hash) = packet {
                self.flows.prefetch_entry(*hash);
            }
        }
        for (buf, packet) in burst.iter_mut().zip(parsed) {
            let verdict = match packet {
                Parsed::Drop(reason) => Verdict::Drop(reason),
                Parsed::Other(packet) => self.local(now, port, buf, packet),
                Parsed::Transport(headers, hash) => self.transport(now, buf, headers, hash),
            };
            let _ = verdicts.try_push(verdict);
        }
    }

    /// Stage one: headers, key, hash; the flow's bucket is on its way from memory when it returns.
    fn parse_one(&self, port: PortId, frame: &[u8]) -> Parsed {
        let Some(settings) = self.ports.get(port.index()) else {
            return Parsed::Drop(DropReason::NotForUs);
        };
        if !parse::frame_is_for(frame, settings.mac) {
            return Parsed::Drop(DropReason::NotForUs);
        }
        match parse::parse(frame, settings.vlan) {
            Err(reason) => Parsed::Drop(reason),
            Ok(Packet::Transport(headers)) => {
                let hash = self.flows.hash(&headers.key);
                self.flows.prefetch_bucket(hash);
                Parsed::Transport(headers, hash)
            }
            Ok(other) => Parsed::Other(other),
        }
    }

    /// A TCP or UDP packet: to its flow, or to the service that opens one.
    fn transport<B: PacketBuf>(&mut self, now: Instant, buf: &mut B, headers: Headers, hash: u64) -> Verdict {
        match self.flows.find(hash, &headers.key) {
            Some(found) => self.known(now, buf, headers, found),
            None => self.unknown(now, buf, headers),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Counters; the worker moves those of verdicts and transmissions.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Server states.
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Server states, for control's commands.
    pub fn balancer_mut(&mut self) -> &mut Balancer {
        &mut self.balancer
    }

    /// Script tables.
    #[must_use]
    pub fn tables(&self) -> &TableStore {
        &self.tables
    }

    /// Flows.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Neighbours.
    pub fn neighbors_mut(&mut self) -> &mut Neighbors {
        &mut self.neighbors
    }

    /// The MAC address of a neighbour, if it is known.
    #[must_use]
    pub fn neighbor_mac(&self, id: NeighborId) -> Option<[u8; 6]> {
        self.neighbors.mac(id)
    }

    /// The scripts.
    #[must_use]
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// The scripts, for their housekeeping.
    pub fn policy_mut(&mut self) -> &mut P {
        &mut self.policy
    }

    /// The port's own MAC address and tag.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&PortSettings> {
        self.ports.get(port.index())
    }

    /// The next record of an ended flow.
    pub fn poll_record(&mut self) -> Option<ConnectionRecord> {
        self.records.pop_front()
    }

    /// The next IP packet for the control thread.
    pub fn poll_punted(&mut self) -> Option<Vec<u8>> {
        self.punted.pop_front()
    }

    /// The next neighbour that became known; packets that wait for it can leave.
    pub fn poll_resolved(&mut self) -> Option<NeighborId> {
        self.resolved.pop_front()
    }

    /// Slow-path records in use; 0 when nothing but bound, silent flows is left.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.in_use()
    }

    /// TCP flows whose handshake is not complete, and flows that wait for a script or a server: what the limits of
    /// these names are about.
    #[must_use]
    pub fn undecided(&self) -> (u32, u32) {
        (self.embryonic, self.waiting)
    }

    /// Neighbours that flows refer to.
    #[must_use]
    pub fn neighbors_in_use(&self) -> usize {
        self.neighbors.in_use()
    }

    /// Timers that will fire.
    #[must_use]
    pub fn timers(&self) -> u32 {
        self.wheel.len()
    }
}

/// The addresses that weir answers ARP and ND for, with their ports: interface addresses, SNAT addresses and VIPs
/// that lie in an interface's subnet.
fn own_addresses(snapshot: &Snapshot) -> Vec<(PortId, Address)> {
    let mut own: Vec<(PortId, Address)> = Vec::new();
    let interfaces = snapshot.interfaces.iter().zip(0u8..);
    for (interface, port) in interfaces {
        own.extend(interface.addresses.iter().map(|p| (PortId(port), Address::from(p.address))));
    }
    let vips = snapshot.services.iter().flat_map(|s| s.addresses.iter());
    for address in vips.chain(&snapshot.snat.addresses) {
        if let Some((port, _)) = snapshot.connected(*address) {
            own.push((port, (*address).into()));
        }
    }
    own.sort_by_key(|(port, address)| (*port, address.0));
    own.dedup();
    own
}
