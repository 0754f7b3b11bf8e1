//! The packet core: a burst, the time and the tables in; bytes and a [`Verdict`] per packet out.
//!
//! A packet whose flow is not found may be another worker's: [`crate::steering`].
//!
//! Read in this order, it is a packet's walk: [`Pipeline::process`] here, `fast.rs` (the stages of a burst, and the fast
//! path), `fast/wide.rs` (the same over IPv6), `finish.rs` (FINs on it), `bound.rs` (the long way to translate),
//! `split.rs` (a server with a smaller MSS), `open.rs` (the first packet of a flow), `terms.rs` (what a client is
//! offered), `cookies.rs` (handshakes that are not kept), `decide.rs` (the script and the choice of a server),
//! `destinations.rs` (where servers are), `binding.rs` (TCP before the splice), `proxied.rs` (PROXY headers),
//! `datagram.rs` (UDP around scripts), `single.rs` (datagrams balanced one by one), `inspect.rs` (scripts on bound
//! flows), `preserve.rs` (flows whose servers see the client's address), `fragments.rs` (packets in pieces), `local.rs`
//! (ARP, ND, ping, packets for control), `errors.rs` (ICMP errors about flows), `transmit.rs` (what weir says by itself),
//! `end.rs` (timers, and how flows end), `told.rs` (what is told of them), `reload.rs` (another configuration),
//! `traced.rs` (the same for somebody who watches); `access.rs` lends out the parts.
//!
//! Owned by one [`crate::worker::Worker`]. Per burst it calls [`Pipeline::process`], then
//! [`Pipeline::handle_timeout`], then [`Pipeline::poll_transmit`] until `None`.

mod access;
mod binding;
mod bound;
mod connection;
mod cookies;
mod datagram;
mod decide;
mod destinations;
mod end;
mod errors;
mod fast;
mod finish;
mod fragments;
mod inspect;
mod local;
mod open;
mod preserve;
mod proxied;
mod reload;
mod single;
mod split;
mod terms;
mod told;
mod traced;
mod transmit;
mod vips;

pub use crate::io::PortSettings;
pub use connection::{Connection, Held, Suspended};
pub use transmit::Output;

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use crate::address::Address;
use crate::balance::Balancer;
use crate::channel::RecordSender;
use crate::counters::{Counters, DropReason};
use crate::flow_table::{FlowId, FlowTable};
use crate::fragments::{Linear, Outgoing, Reassembly};
use crate::glance::{TAGGED, UNTAGGED};
use crate::io::{BURST, Burst, PacketBuf, PortId, SHORT_BURST};
use crate::mesh::News;
use crate::neighbor::{NeighborId, Neighbors};
use crate::parse::{self, Headers, Packet};
use crate::policy::{Policy, Record};
use crate::route::Routes;
use crate::snapshot::Snapshot;
use crate::snat::SnatPorts;
use crate::steering::{Seat, Steering};
use crate::table::TableStore;
use crate::trace::Tracer;
use crate::uses::Uses;
use crate::wheel::Wheel;
use connection::Connections;
use destinations::Destinations;
use preserve::Preserved;
use terms::Offers;
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
    /// Its flow is another worker's.
    HandOver(u8),
    /// Taken in.
    Consumed,
    /// Not wanted.
    Drop(DropReason),
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
    steering: Steering,
    /// What another worker has to know, or all (`None`), until the worker takes it.
    news: VecDeque<(Option<u8>, News)>,
    ports: Vec<PortSettings>,
    vips: Vips,
    offers: Offers,
    preserved: Preserved,
    own: Vec<(PortId, Address)>,
    routes: Routes,
    destinations: Destinations,
    neighbors: Neighbors,
    flows: FlowTable,
    wheel: Wheel,
    snat: SnatPorts,
    balancer: Balancer,
    tables: TableStore,
    policy: P,
    connections: Connections,
    /// Where a script decides on a datagram; empty in between.
    blank: Option<Box<Record>>,
    counters: Counters,
    /// Flows that may have something to send, in the order in which they asked.
    dirty: VecDeque<FlowId>,
    /// Packets that weir makes without a binding.
    originated: VecDeque<Originated>,
    /// Where records of ended flows go.
    records: RecordSender,
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
    /// By service and by server.
    uses: Uses,
    /// ICMP errors that may still be sent.
    errors: errors::Allowance,
    isn: siphasher::sip::SipHasher13,
    identification: u16,
    reassembly: Reassembly,
    /// Where a datagram is put together, and translated if no other buffer holds it.
    whole: Linear,
    outgoing: Outgoing,
    /// Somebody watches.
    tracer: Option<Box<Tracer>>,
    /// See [`Pipeline::take_most`].
    most: usize,
}

/// Most news that wait for the worker; it takes them after each round.
const NEWS: usize = 2 * BURST;
/// Most packets without a binding that wait for the worker to send them; as many flows may have something to send before the
/// list of them has to grow.
const QUEUE: usize = 4096;

/// What stage one found out about a packet.
#[derive(Clone, Copy)]
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
        seat: Seat,
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
        let ports = ports.map(|(i, mac)| PortSettings { mac: *mac, vlan: i.vlan, mtu: i.mtu });
        let ports: Vec<PortSettings> = ports.collect();
        let own = own_addresses(&snapshot);
        let (limits, routes) = (snapshot.limits, Routes::new(&snapshot));
        let mut pipeline = Pipeline {
            steering: Steering::of(seat, &snapshot),
            news: VecDeque::new(),
            neighbors: Neighbors::new(limits.neighbors).with_ports(&ports),
            ports,
            vips: Vips::new(&snapshot),
            offers: Offers::new(&snapshot),
            preserved: Preserved::new(&snapshot),
            own,
            destinations: Destinations::new(&snapshot, &routes),
            routes,
            flows: FlowTable::new(limits.flows, seed as u64, snapshot.expects_ipv6())?,
            wheel: Wheel::new(limits.flows, now)?,
            snat: SnatPorts::new(&snapshot.snat, seat.of, (seed >> 64) as u64),
            balancer: Balancer::on(&snapshot, seat),
            tables: TableStore::new(&snapshot, seat),
            policy,
            connections: Connections::new(),
            blank: None,
            counters: Counters::default(),
            dirty: VecDeque::with_capacity(QUEUE),
            originated: VecDeque::with_capacity(QUEUE),
            records: RecordSender::unheard(),
            punted: VecDeque::new(),
            resolved: VecDeque::new(),
            embryonic: 0,
            half_open: VecDeque::new(),
            cookies: tcp::Cookies::new(seed, now, cookies::REMEMBERED_PER_FLOW * limits.flows as usize),
            waiting: 0,
            attached: 0,
            uses: Uses::new(&snapshot),
            errors: errors::Allowance::new(now),
            isn: siphasher::sip::SipHasher13::new_with_keys(seed as u64, (seed >> 64) as u64),
            identification: 0,
            reassembly: Reassembly::new(limits.fragment_memory, seed.rotate_left(32) as u64),
            whole: Linear::new(),
            outgoing: Outgoing::new(seed.rotate_right(32) as u64),
            tracer: None,
            most: BURST,
            snapshot,
        };
        // Once is enough.
        if seat.number == 0 {
            pipeline.announce_addresses();
        }
        Ok(pipeline)
    }

    /// Packets that each burst of the next round should have at most, by what those since the last call were like.
    #[inline]
    pub fn take_most(&mut self) -> usize {
        std::mem::replace(&mut self.most, BURST)
    }

    /// Lets the bursts of the next round be short: other workers wait for something, or tell of something that scripts wait for.
    #[inline]
    pub(crate) fn shorten(&mut self) {
        self.most = SHORT_BURST;
    }

    /// Acts on a burst received on `port` and counts it as received. `verdicts` has one entry per packet, in order, or
    /// none: then all packets leave by the port that is the result, as [`Verdict::Forward`] says. The counters of the
    /// verdicts are the worker's to move, because only it knows what the device took.
    pub fn process<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> Option<PortId> {
        verdicts.clear();
        if self.tracer.is_some() {
            self.process_traced(now, port, burst, verdicts);
            self.most = SHORT_BURST;
            return None;
        }
        let tagged = self.ports.get(port.index()).is_some_and(|settings| settings.vlan.is_some());
        match tagged {
            false => self.stages::<UNTAGGED, B>(now, port, burst, verdicts),
            true => self.stages::<TAGGED, B>(now, port, burst, verdicts),
        }
    }

    /// As [`Pipeline::process`], for packets that another worker handed over and has counted as received.
    pub fn process_handed_over<B: PacketBuf>(
        &mut self,
        now: Instant,
        port: PortId,
        burst: &mut Burst<B>,
        verdicts: &mut ArrayVec<Verdict, BURST>,
    ) -> Option<PortId> {
        let (rx, rx_bytes) = (self.counters.rx, self.counters.rx_bytes);
        self.steering.set_handed_over(true);
        let common = self.process(now, port, burst, verdicts);
        self.steering.set_handed_over(false);
        (self.counters.rx, self.counters.rx_bytes) = (rx, rx_bytes);
        common
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

    /// What becomes of a packet, by what the parser said of it.
    fn act_on<B: PacketBuf>(&mut self, now: Instant, port: PortId, buf: &mut B, parsed: Parsed) -> Verdict {
        match parsed {
            Parsed::Drop(DropReason::Fragment) => self.fragment(now, port, buf.bytes()),
            Parsed::Drop(reason) => Verdict::Drop(reason),
            Parsed::Other(packet) => self.local(now, port, buf, packet),
            Parsed::Transport(headers, hash) => self.transport(now, buf, &headers, hash),
        }
    }

    /// A TCP or UDP packet: to its flow, to the worker that may have it, or to the service that opens one. What the stages of a
    /// burst saw of the index is long ago: an earlier packet may have begun the flow.
    #[inline(never)]
    fn transport<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        hash: u64,
    ) -> Verdict {
        // Nearly all that come here have no flow, and this is half of a look-up.
        if !self.flows.lacks(hash)
            && let Some(found) = self.flows.find(hash, &headers.key)
        {
            return self.known(now, buf, headers, found);
        }
        match self.steering.elsewhere(&headers.key) {
            Some(worker) => Verdict::HandOver(worker),
            None => self.unknown(now, buf, headers, hash),
        }
    }

    /// Takes in what another worker told.
    pub fn hear(&mut self, now: Instant, news: News) {
        match news {
            News::Neighbor(seen) => self.resolved.extend(self.neighbors.learn(now, &seen)),
            News::Whole { port, frame } => self.take_whole(now, port, &frame),
            News::Table(news) => self.tables.hear(now, news),
        }
    }

    /// The next thing to tell, and whom: a worker, or all others.
    pub fn poll_news(&mut self) -> Option<(Option<u8>, News)> {
        self.news.pop_front()
    }

    /// Leaves something for other workers to know; `false`: too much waits already.
    fn tell(&mut self, whom: Option<u8>, news: News) -> bool {
        let room = self.news.len() < NEWS;
        if room {
            self.news.push_back((whom, news));
        }
        room
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
