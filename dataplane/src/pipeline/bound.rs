//! The fast path: a packet of a bound flow is translated in place and leaves. No allocation, no lock, no clock, no Lua.

use smoltcp::time::Instant;
use tcp::{Flags, Lifecycle, Segment, Side};

use super::end::Fate;
use super::{Pipeline, Verdict};
use crate::counters::DropReason;
use crate::flow::{self, Direction, Flow, FlowState};
use crate::flow_table::FlowId;
use crate::io::PacketBuf;
use crate::neighbor::NeighborId;
use crate::parse::{self, Headers};
use crate::policy::Policy;
use crate::rewrite::{self, Translation};

/// The end host that packets of this direction come from.
pub(super) fn side(direction: Direction) -> Side {
    match direction {
        Direction::FromClient => Side::Client,
        Direction::FromServer => Side::Server,
    }
}

impl<P: Policy> Pipeline<P> {
    /// A packet whose flow exists.
    pub(super) fn known<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: Headers,
        (id, direction): (FlowId, Direction),
    ) -> Verdict {
        let Some(flow) = self.flows.flow(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let (state, reopens) = (flow.state(), is_syn(headers.tcp_flags) && reopens(flow, direction));
        if state == FlowState::Bound
            && headers.tcp_flags & TURNING.0 != 0
            && !parse::l4_checksum_ok(buf.bytes(), &headers)
        {
            // What the end hosts will not believe must not change what weir thinks of them.
            return Verdict::Drop(DropReason::L4Checksum);
        }
        if reopens {
            self.end_by_lifecycle(now, id);
            return self.unknown(now, buf, headers);
        }
        match (flow.state(), flow.is_tcp()) {
            (FlowState::Bound, _) if flow.flags & flow::INSPECT == 0 => {
                self.translate(now, buf, headers, id, direction)
            }
            (FlowState::Bound, true) => self.inspect_segment(now, buf, headers, id, direction),
            (FlowState::Bound, false) => self.inspect_datagram(now, buf, headers, id, direction),
            (_, true) => self.binding_segment(now, buf, headers, id, direction),
            (_, false) => self.waiting_datagram(now, buf, headers, id),
        }
    }

    /// Translates a packet of a flow whose server is known and says where it leaves.
    pub(super) fn translate<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        mut headers: Headers,
        id: FlowId,
        direction: Direction,
    ) -> Verdict {
        let Some(flow) = self.flows.flow_mut(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let (key, hop) = match direction {
            Direction::FromClient => (*flow.server_key(), NeighborId::from_bits(flow.server_hop)),
            Direction::FromServer => (*flow.client_key(), NeighborId::from_bits(flow.client_hop)),
        };
        let Some((out, _)) = self.neighbors.next_hop(hop) else {
            return Verdict::Drop(DropReason::NoNeighbor);
        };
        let Some(settings) = self.ports.get(out.index()) else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        if let Err(reason) = rewrite::retag(buf, &mut headers, settings.vlan) {
            return Verdict::Drop(reason);
        }
        if flow.is_tcp()
            && let Err(reason) = splice_segment(now, flow, buf, &mut headers, direction)
        {
            return Verdict::Drop(reason);
        }
        if headers.end.saturating_sub(headers.l3) > settings.mtu {
            return Verdict::Drop(DropReason::TooBig);
        }
        let mac = self.neighbors.mac(hop);
        let translation = Translation {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            source_mac: settings.mac,
            destination_mac: mac.unwrap_or_default(),
            vlan: settings.vlan,
        };
        if let Err(reason) = rewrite::apply(buf.bytes_mut(), &headers, &translation) {
            return Verdict::Drop(reason);
        }
        flow.touch(now);
        flow.count(direction, u64::from(headers.end.saturating_sub(headers.payload)));
        if flow.is_tcp() && observe(flow, headers.tcp_flags, direction) {
            let both = flow.lifecycle() == Lifecycle::BothFin && flow.state() == FlowState::Bound;
            self.schedule_idle(now, id);
            if both {
                self.conclude(now, id, Fate::NORMAL);
            }
        }
        self.neighbors.want(now, hop);
        match mac {
            Some(_) => Verdict::Forward(out),
            None => Verdict::ForwardWhenResolved(out, hop),
        }
    }
}

/// Flags that change where a connection stands.
const TURNING: Flags = Flags(Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0);

/// SYN without ACK or RST.
fn is_syn(flags: u8) -> bool {
    flags & (Flags::SYN | Flags::ACK | Flags::RST).0 == Flags::SYN.0
}

/// True if a SYN may start a new connection on the tuple of this flow: both ends are done with the old one.
fn reopens(flow: &Flow, direction: Direction) -> bool {
    let over = matches!(flow.lifecycle(), Lifecycle::BothFin | Lifecycle::Reset);
    direction == Direction::FromClient && flow.state() == FlowState::Bound && over
}

/// Sequence numbers, acknowledgements and options of a TCP segment. Keeps what a reset would need.
fn splice_segment<B: PacketBuf>(
    now: Instant,
    flow: &mut Flow,
    buf: &mut B,
    headers: &mut Headers,
    direction: Direction,
) -> Result<(), DropReason> {
    let from = side(direction);
    let segment = buf.bytes_mut().get_mut(headers.l4_range()).ok_or(DropReason::Truncated)?;
    if headers.tcp_flags & Flags::ACK.0 != 0
        && let Some(ack) = segment.get(8..12).and_then(|b| <[u8; 4]>::try_from(b).ok())
    {
        flow.note_ack(direction, u32::from_be_bytes(ack));
    }
    let missing = flow.splice.timestamps_missing_from(Side::Server);
    if missing
        && from == Side::Client
        && let Some(timestamps) = Segment::parse(segment).ok().and_then(|s| s.options.timestamps)
    {
        flow.client_timestamp = timestamps.value;
    }
    flow.splice.apply(from, segment).map_err(|_| DropReason::Malformed)?;
    if missing && from == Side::Server {
        return insert_timestamps(now, flow, buf, headers);
    }
    Ok(())
}

/// The server does not use the timestamps that the client was promised: weir puts its own in (RFC 7323, 3.2).
#[cold]
fn insert_timestamps<B: PacketBuf>(
    now: Instant,
    flow: &Flow,
    buf: &mut B,
    headers: &mut Headers,
) -> Result<(), DropReason> {
    let length = usize::from(headers.end.saturating_sub(headers.l4));
    if !buf.set_len(usize::from(headers.end) + OPTION) {
        return Err(DropReason::TooBig);
    }
    let segment = buf.bytes_mut().get_mut(usize::from(headers.l4)..).ok_or(DropReason::Truncated)?;
    let longer = flow.splice.insert_timestamps(now, Side::Server, flow.client_timestamp, segment, length);
    let added = longer.map_err(|_| DropReason::Malformed)?.saturating_sub(length) as u16;
    headers.end += added;
    headers.payload += added;
    if !buf.set_len(usize::from(headers.end)) {
        return Err(DropReason::Malformed);
    }
    rewrite::lengthen(buf.bytes_mut(), headers, added)
}

/// Bytes of a timestamps option behind two NOPs.
const OPTION: usize = 12;

/// Follows FIN and RST; true if the flow has become one that ends soon.
fn observe(flow: &mut Flow, flags: u8, direction: Direction) -> bool {
    if flags & TURNING.0 == 0 {
        return false;
    }
    let before = flow.lifecycle();
    if before == Lifecycle::BothFin {
        // Both have said that they are done: a late reset, as for an acknowledgement to a closed socket, changes nothing.
        return false;
    }
    let after = before.observe(side(direction), Flags(flags));
    if after == before {
        return false;
    }
    flow.set_lifecycle(after);
    if after == Lifecycle::Reset && direction == Direction::FromServer {
        flow.flags |= flow::RESET_BY_SERVER;
    }
    true
}
