//! What weir sends by itself: segments of bindings, held datagrams, resets, ARP and ND, packets of control.

use smoltcp::time::Instant;
use tcp::{Segment, Side};

use super::connection::{Connection, Held};
use super::end::Fate;
use super::{Pipeline, QUEUE, Verdict};
use crate::address::{Address, FlowKey};
use crate::counters::DropReason;
use crate::flow::{self, Direction, FlowState};
use crate::flow_table::FlowId;
use crate::frame::{self, Ip, Link, Short};
use crate::header::PROTOCOL_TCP;
use crate::io::{PacketBuf, PortId};
use crate::neighbor::NeighborId;
use crate::policy::Policy;
use crate::{arp, nd};

/// Where a frame that [`Pipeline::poll_transmit`] filled in goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It leaves by this port.
    Send(PortId),
    /// It leaves by this port once the neighbour's MAC address is known and written into it.
    WhenResolved(PortId, NeighborId),
}

/// A packet that weir makes without a binding.
#[derive(Debug)]
pub(super) enum Originated {
    /// "This address is mine", to everybody on the link.
    Announcement { port: PortId, address: Address },
    /// A segment of no flow: RST, or the SYN-ACK of a handshake that is not kept. The key is that of the packet itself.
    Segment { key: FlowKey, segment: Segment<'static> },
    /// A whole IP packet of the control thread.
    Local(Vec<u8>),
}

/// TTL of packets that weir originates.
const TTL: u8 = 64;

impl<P: Policy> Pipeline<P> {
    /// Fills `buf` with the next frame that weir wants to send, or returns `None`. Call until then after each
    /// [`Pipeline::process`] and [`Pipeline::handle_timeout`].
    pub fn poll_transmit<B: PacketBuf>(&mut self, now: Instant, buf: &mut B) -> Option<Output> {
        loop {
            let mut silent = None;
            let built = if self.neighbors_ask(now)
                && let Some(question) = self.neighbors.poll_transmit(now)
            {
                self.build_solicitation(&question, buf).map(Some)
            } else if let Some(originated) = self.originated.pop_front() {
                self.build_originated(now, originated, buf).map(Some)
            } else if !self.outgoing.is_empty()
                && let Some(cut) = self.outgoing.poll(buf)
            {
                cut.and_then(|way| self.address_fragment(now, way, buf)).map(Some)
            } else {
                let id = *self.dirty.front()?;
                let (built, more) = self.transmit_flow(now, id, buf);
                silent = (!more).then_some(id);
                built
            };
            if let (Ok(Some(output)), true) = (&built, self.tracer.is_some()) {
                self.trace_output(now, *output, buf.bytes());
            }
            if let Some(id) = silent {
                self.dirty.pop_front();
                self.settle(now, id);
            }
            match built {
                Ok(Some(output)) => return Some(output),
                // There was nothing, or it was taken in pieces, which are next.
                Ok(None) => {}
                Err(_) => self.counters.originate_failed += 1,
            }
        }
    }

    /// True if [`Pipeline::poll_transmit`] may have something to send; cheaper than taking a buffer first.
    #[must_use]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        let waits = !self.dirty.is_empty() || !self.originated.is_empty() || !self.outgoing.is_empty();
        waits || self.neighbors_ask(now)
    }

    /// True if a question about a neighbour may be due.
    fn neighbors_ask(&self, now: Instant) -> bool {
        self.neighbors.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Queues an IP packet of the control thread.
    pub fn send_local(&mut self, packet: Vec<u8>) {
        self.originate(Originated::Local(packet));
    }

    /// Gratuitous ARP and unsolicited advertisements for all own addresses.
    pub fn announce_addresses(&mut self) {
        for index in 0..self.own.len() {
            if let Some((port, address)) = self.own.get(index).copied() {
                self.originate(Originated::Announcement { port, address });
            }
        }
    }

    /// Queues a packet; false, and counted, if there is no room.
    pub(super) fn originate(&mut self, packet: Originated) -> bool {
        let room = self.originated.len() < QUEUE;
        if room {
            self.originated.push_back(packet);
        } else {
            self.counters.originate_failed += 1;
        }
        room
    }

    /// Puts a flow on the list of those that may have something to send.
    pub(super) fn mark_dirty(&mut self, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        if flow.flags & flow::DIRTY == 0 {
            flow.flags |= flow::DIRTY;
            self.dirty.push_back(id);
        }
    }

    /// The next packet of a flow, if it has one, and whether it may have more.
    fn transmit_flow<B: PacketBuf>(
        &mut self,
        now: Instant,
        id: FlowId,
        buf: &mut B,
    ) -> (Result<Option<Output>, DropReason>, bool) {
        let Some((index, mut connection)) = self.borrow_connection(id) else { return (Ok(None), false) };
        let turn = match connection.binding.as_mut() {
            Some(binding) => {
                let transmit = binding.poll_transmit(now);
                let built = transmit.as_ref().map(|transmit| {
                    self.counters.retransmitted += u64::from(transmit.again);
                    self.build_segment(now, id, transmit.to, &transmit.segment, buf)
                });
                drop(transmit);
                let more = built.is_some() && binding.wants_transmit();
                (built.transpose(), more)
            }
            None => match next_held(&mut connection) {
                Some(held) => (self.build_held(now, id, &held, buf), true),
                None => (Ok(None), false),
            },
        };
        self.connections.put(index, connection);
        turn
    }

    /// The flow has said all it had to say for now.
    fn settle(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow_mut(id) else { return };
        flow.flags &= !flow::DIRTY;
        let state = flow.state();
        let Some(connection) = self.connections.peek_mut(flow.connection) else { return };
        let (over, spliced, fate) = (connection.over, connection.spliced, connection.fate);
        let released = connection.release && connection.held.is_empty();
        connection.release &= !released;
        let binding = connection.binding.as_ref().filter(|_| !over && !spliced);
        let due = binding.and_then(|binding| binding.poll_timeout());
        if over {
            self.end(now, id, fate.unwrap_or(Fate::NORMAL));
        } else if spliced {
            self.complete_splice(now, id);
        } else if due.is_some_and(|due| due <= now) {
            self.binding_timeout(now, id);
        } else if binding.is_some() {
            if !connection.fires_before(due) {
                self.schedule_binding(id, now, due);
            }
        } else if state == FlowState::Closing {
            self.end(now, id, fate.unwrap_or(Fate::NORMAL));
        } else if released {
            self.refresh_inspection(id);
        }
    }

    fn build_solicitation<B: PacketBuf>(
        &mut self,
        question: &crate::neighbor::Solicitation,
        buf: &mut B,
    ) -> Result<Output, DropReason> {
        let settings = self.ports.get(question.port.index()).ok_or(DropReason::NoRoute)?;
        let source = self.routes.lookup(question.target).ok_or(DropReason::NoRoute)?.source;
        question.build(buf, settings.mac, settings.vlan, source)?;
        Ok(Output::Send(question.port))
    }

    fn build_originated<B: PacketBuf>(
        &mut self,
        now: Instant,
        originated: Originated,
        buf: &mut B,
    ) -> Result<Output, DropReason> {
        match originated {
            Originated::Announcement { port, address } => {
                let settings = self.ports.get(port.index()).ok_or(DropReason::NoRoute)?;
                if address.is_v4() {
                    arp::announce(buf, settings.mac, settings.vlan, address)?;
                } else {
                    nd::announce(buf, settings.mac, settings.vlan, address)?;
                }
                Ok(Output::Send(port))
            }
            Originated::Segment { key, segment } => {
                let (link, output) = self.link_to(now, key.destination)?;
                self.build_tcp(&link, &key, &segment, buf)?;
                Ok(output)
            }
            Originated::Local(packet) => {
                let destination = destination(&packet).ok_or(DropReason::Malformed)?;
                let (link, output) = self.link_to(now, destination)?;
                frame::encapsulate(buf, &link, &packet)?;
                Ok(output)
            }
        }
    }

    /// How to reach an address that no flow keeps a next hop for.
    fn link_to(&mut self, now: Instant, destination: Address) -> Result<(Link, Output), DropReason> {
        let hop = self.routes.lookup(destination).ok_or(DropReason::NoRoute)?;
        let id = self.neighbors.resolve(now, (hop.port, hop.address)).ok_or(DropReason::NoNeighbor)?;
        self.link_over(now, id)
    }

    /// The Ethernet side of packets to a neighbour.
    pub(super) fn link_over(&mut self, now: Instant, id: NeighborId) -> Result<(Link, Output), DropReason> {
        if let Some(door) = self.neighbors.door(id.bits()) {
            return Ok((door.link(), Output::Send(door.port)));
        }
        let (port, _) = self.neighbors.next_hop(id).ok_or(DropReason::NoNeighbor)?;
        let settings = self.ports.get(port.index()).ok_or(DropReason::NoRoute)?;
        self.neighbors.want(now, id);
        let mac = self.neighbors.mac(id);
        let link =
            Link { source_mac: settings.mac, destination_mac: mac.unwrap_or_default(), vlan: settings.vlan };
        Ok((link, if mac.is_some() { Output::Send(port) } else { Output::WhenResolved(port, id) }))
    }

    /// A segment of a binding.
    fn build_segment<B: PacketBuf>(
        &mut self,
        now: Instant,
        id: FlowId,
        to: Side,
        segment: &Segment<'_>,
        buf: &mut B,
    ) -> Result<Output, DropReason> {
        let flow = self.flows.flow(id).ok_or(DropReason::NoFlow)?;
        let direction = match to {
            Side::Client => Direction::FromServer,
            Side::Server => Direction::FromClient,
        };
        if let Some((addresses, ports, hop)) = flow.narrow_onward(direction)
            && let Some(door) = self.neighbors.door(hop).filter(|door| !door.tagged)
        {
            self.identification = self.identification.wrapping_add(1);
            let (macs, identification) = (door.macs, self.identification);
            let way = Short { macs, addresses, ports, ttl: TTL, identification };
            frame::short_segment(buf, &way, segment)?;
            return Ok(Output::Send(door.port));
        }
        let (key, hop) = match to {
            Side::Client => (flow.client_key().reversed(), flow.client_hop),
            Side::Server => (flow.server_key().reversed(), flow.server_hop),
        };
        let (link, output) = self.link_over(now, NeighborId::from_bits(hop))?;
        self.build_tcp(&link, &key, segment, buf)?;
        Ok(output)
    }

    /// A TCP packet around a segment.
    fn build_tcp<B: PacketBuf>(
        &mut self,
        link: &Link,
        key: &FlowKey,
        segment: &Segment<'_>,
        buf: &mut B,
    ) -> Result<(), DropReason> {
        self.identification = self.identification.wrapping_add(1);
        let ip = Ip {
            source: key.source,
            destination: key.destination,
            protocol: PROTOCOL_TCP,
            ttl: TTL,
            identification: self.identification,
        };
        frame::segment(buf, link, &ip, (key.source_port, key.destination_port), segment)
    }

    /// A datagram that waited for a script.
    fn build_held<B: PacketBuf>(
        &mut self,
        now: Instant,
        id: FlowId,
        held: &Held,
        buf: &mut B,
    ) -> Result<Option<Output>, DropReason> {
        let flow = self.flows.flow(id).ok_or(DropReason::NoFlow)?;
        let from_client = flow.client_key().source == held.headers.key.source
            && flow.client_key().source_port == held.headers.key.source_port;
        let direction = if from_client { Direction::FromClient } else { Direction::FromServer };
        let verdict = if buf.set_len(held.frame.len()) {
            buf.bytes_mut().copy_from_slice(&held.frame);
            self.translate(now, buf, held.headers, id, direction)
        } else {
            self.translate_whole(now, held, id, direction)
        };
        match verdict {
            Verdict::Forward(port) => Ok(Some(Output::Send(port))),
            Verdict::ForwardWhenResolved(port, neighbor) => Ok(Some(Output::WhenResolved(port, neighbor))),
            Verdict::Consumed => Ok(None),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Reply(_) | Verdict::HandOver(_) => Err(DropReason::Malformed),
        }
    }
}

/// The oldest held datagram, once they may leave.
fn next_held(connection: &mut Connection) -> Option<Held> {
    if !connection.release {
        return None;
    }
    connection.held.pop_front()
}

/// Destination of a raw IP packet.
fn destination(packet: &[u8]) -> Option<Address> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.try_into().ok().map(Address::from_v4),
        6 => packet.get(24..40)?.try_into().ok().map(Address),
        _ => None,
    }
}
