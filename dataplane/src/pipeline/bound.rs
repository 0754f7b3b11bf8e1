//! A packet of a bound flow is translated in place and leaves: all cases, those included that `fast.rs` leaves alone. No
//! allocation, no lock, no clock, no Lua.

use smoltcp::time::Instant;
use tcp::{Flags, Judgement, Lifecycle, Segment, SeqNumber, Side};

use super::end::Fate;
use super::split::too_large;
use super::transmit::Originated;
use super::{Pipeline, Verdict};
use crate::counters::DropReason;
use crate::flow::{self, Direction, Flow, FlowState};
use crate::flow_table::FlowId;
use crate::icmp;
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
    /// A packet whose flow exists. Part of its two callers: it does nothing but to send the packet on.
    #[inline(always)]
    pub(super) fn known<B: PacketBuf>(
        &mut self,
        now: Instant,
        buf: &mut B,
        headers: &Headers,
        (id, direction): (FlowId, Direction),
    ) -> Verdict {
        let Some(flow) = self.flows.flow(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let (bound, is_tcp) = (flow.state() == FlowState::Bound, flow.is_tcp());
        if bound && headers.tcp_flags & TURNING.0 != 0 {
            if !parse::l4_checksum_ok(buf.bytes(), headers) {
                // What the end hosts will not believe must not change what weir thinks of them.
                return Verdict::Drop(DropReason::L4Checksum);
            }
            if is_syn(headers.tcp_flags) && lingers(&flow, direction) {
                return self.reopen(now, buf, headers, id);
            }
        }
        match (bound, is_tcp) {
            (true, _) if flow.flags & flow::INSPECT == 0 => self.translate(now, buf, *headers, id, direction),
            (true, true) => self.inspect_segment(now, buf, *headers, id, direction),
            (true, false) => self.inspect_datagram(now, buf, *headers, id, direction),
            (false, true) => self.binding_segment(now, buf, headers, id, direction),
            (false, false) => self.waiting_datagram(now, buf, *headers, id),
        }
    }

    /// A SYN of the client on the tuple of a flow that is over. After a reset nobody remembers the old connection. After
    /// two FINs it begins a new one if its number cannot be one of the old (RFC 6191, 2; RFC 1122, 4.2.2.13); else it
    /// is answered as in TIME_WAIT, and a client that means it resets the old one and asks again.
    fn reopen<B: PacketBuf>(&mut self, now: Instant, buf: &mut B, headers: &Headers, id: FlowId) -> Verdict {
        let (Some(flow), Some(Ok(syn))) =
            (self.flows.flow(id), buf.bytes().get(headers.l4_range()).map(Segment::parse))
        else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let next = flow.track.next(Side::Client);
        if flow.lifecycle() == Lifecycle::Reset || (flow.track.is_settled() && is_newer(&flow, &syn)) {
            self.end_by_lifecycle(now, id);
            let hash = self.flows.hash(&headers.key);
            return self.unknown(now, buf, headers, hash);
        }
        let seq = flow.splice.to_client(flow.track.next(Side::Server));
        let segment = Segment { seq, ack: next, flags: Flags::ACK, ..Segment::default() };
        self.originate(Originated::Segment { key: headers.key.reversed(), segment });
        Verdict::Drop(DropReason::TcpUnacceptable)
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
        let Some(flow) = self.flows.flow(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let (key, hop) = match direction {
            Direction::FromClient => (flow.server_key(), NeighborId::from_bits(flow.server_hop)),
            Direction::FromServer => (flow.client_key(), NeighborId::from_bits(flow.client_hop)),
        };
        let Some(flow) = self.flows.flow_mut(id) else {
            return Verdict::Drop(DropReason::NoFlow);
        };
        let Some((out, mac)) = self.neighbors.way(hop) else {
            return Verdict::Drop(DropReason::NoNeighbor);
        };
        let Some(settings) = self.ports.get(out.index()) else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        if let Err(reason) = rewrite::retag(buf, &mut headers, settings.vlan) {
            return Verdict::Drop(reason);
        }
        let split = flow.splice.server_mss() != 0 && too_large(flow, &headers, direction);
        if split && !parse::l4_checksum_ok(buf.bytes(), &headers) {
            return Verdict::Drop(DropReason::L4Checksum);
        }
        let mtu = settings.mtu;
        if headers.end.saturating_sub(headers.l3) > mtu && !split && keeps_whole(buf, &headers) {
            self.report_too_big(now, buf, &headers, mtu);
            return Verdict::Drop(DropReason::TooBig);
        }
        let turning = headers.tcp_flags & TURNING.0 != 0;
        let before = if turning { flow.lifecycle() } else { Lifecycle::Established };
        if turning {
            let service = self.snapshot.services.get(usize::from(flow.service));
            clamp_mss(service.and_then(|service| service.tcp.mss), buf, &headers);
        }
        if flow.is_tcp()
            && let Err(reason) = splice_segment(now, flow, buf, &mut headers, direction, mtu)
        {
            return Verdict::Drop(reason);
        }
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
        if turning && flow.lifecycle() != before {
            self.turned(now, id);
        }
        self.neighbors.want(now, hop);
        if split {
            return self.split(buf.bytes(), &headers, id, out);
        }
        let verdict = match mac {
            Some(_) => Verdict::Forward(out),
            None => Verdict::ForwardWhenResolved(out, hop),
        };
        if headers.end.saturating_sub(headers.l3) > mtu {
            self.trace_leaving(now, buf.bytes(), verdict);
            return self.in_fragments(buf.bytes(), verdict);
        }
        verdict
    }
}

impl<P: Policy> Pipeline<P> {
    /// The connection stands elsewhere than before. A binding that is still there has a timer of its own.
    pub(super) fn turned(&mut self, now: Instant, id: FlowId) {
        let Some(flow) = self.flows.flow(id).filter(|flow| flow.state() == FlowState::Bound) else { return };
        let both = flow.lifecycle() == Lifecycle::BothFin;
        self.schedule_idle(now, id);
        if both {
            self.conclude(now, id, Fate::NORMAL);
        }
    }
}

/// True for a packet that must not be fragmented: its sender, or IPv6, forbids it.
#[cold]
fn keeps_whole<B: PacketBuf>(buf: &B, headers: &Headers) -> bool {
    buf.bytes().get(usize::from(headers.l3)..).is_none_or(icmp::may_not_be_fragmented)
}

/// Flags that change where a connection stands.
pub(super) const TURNING: Flags = Flags(Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0);

/// SYN without ACK or RST.
fn is_syn(flags: u8) -> bool {
    flags & (Flags::SYN | Flags::ACK | Flags::RST).0 == Flags::SYN.0
}

/// True if a SYN of this direction may want to start a new connection on the tuple of this flow: the old one is over.
fn lingers(flow: &Flow, direction: Direction) -> bool {
    let over = matches!(flow.lifecycle(), Lifecycle::BothFin | Lifecycle::Reset);
    direction == Direction::FromClient && over
}

/// Whether a SYN cannot be one of the connection that has finished: by its number, or by its clock (RFC 6191, 2), which was
/// noted with the client's FIN.
fn is_newer(flow: &Flow, syn: &Segment<'_>) -> bool {
    let clock = syn.options.timestamps.map(|timestamps| SeqNumber::new(timestamps.value));
    let newer = clock.is_some_and(|clock| clock.is_after(flow.client_timestamp().into()));
    newer || syn.seq.is_after(flow.track.next(Side::Client))
}

/// Sequence numbers, acknowledgements and options of a TCP segment.
fn splice_segment<B: PacketBuf>(
    now: Instant,
    flow: &mut Flow,
    buf: &mut B,
    headers: &mut Headers,
    direction: Direction,
    mtu: u16,
) -> Result<(), DropReason> {
    let from = side(direction);
    let length = u32::from(headers.end.saturating_sub(headers.payload));
    let segment = buf.bytes_mut().get_mut(headers.l4_range()).ok_or(DropReason::Truncated)?;
    track(flow, segment, headers.tcp_flags, length, direction)?;
    let missing = flow.splice.timestamps_missing_from(Side::Server);
    if missing
        && from == Side::Client
        && let Some(timestamps) = Segment::parse(segment).ok().and_then(|s| s.options.timestamps)
    {
        flow.set_client_timestamp(timestamps.value);
    }
    flow.splice.apply(from, segment).map_err(|_| DropReason::Malformed)?;
    if missing && from == Side::Server {
        return insert_timestamps(now, flow, buf, headers, mtu);
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
    mtu: u16,
) -> Result<(), DropReason> {
    let length = usize::from(headers.end.saturating_sub(headers.l4));
    if !buf.set_len(usize::from(headers.end) + OPTION) {
        return Err(DropReason::TooBig);
    }
    let segment = buf.bytes_mut().get_mut(usize::from(headers.l4)..).ok_or(DropReason::Truncated)?;
    let longer = flow.splice.insert_timestamps(now, Side::Server, flow.client_timestamp(), segment, length);
    let added = longer.map_err(|_| DropReason::Malformed)?.saturating_sub(length) as u16;
    headers.end += added;
    headers.payload += added;
    if headers.end.saturating_sub(headers.l3) > mtu && keeps_whole(buf, headers) {
        return Err(DropReason::TooBig);
    }
    if !buf.set_len(usize::from(headers.end)) {
        return Err(DropReason::Malformed);
    }
    rewrite::lengthen(buf.bytes_mut(), headers, added)
}

/// Bytes of a timestamps option behind two NOPs.
const OPTION: usize = 12;

/// The handshake passes: what it says of segment sizes is bounded by the service's.
#[cold]
fn clamp_mss<B: PacketBuf>(mss: Option<u16>, buf: &mut B, headers: &Headers) {
    if headers.tcp_flags & Flags::SYN.0 != 0
        && let (Some(mss), Some(segment)) = (mss, buf.bytes_mut().get_mut(headers.l4_range()))
    {
        tcp::clamp_mss(segment, mss);
    }
}

/// Notes where the connection stands, and follows SYN, FIN and RST as far as they are believed.
#[inline]
fn track(
    flow: &mut Flow,
    segment: &[u8],
    flags: u8,
    length: u32,
    direction: Direction,
) -> Result<(), DropReason> {
    let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, _, _, w0, w1] =
        *segment.first_chunk().ok_or(DropReason::Truncated)?;
    let seq = u32::from_be_bytes([s0, s1, s2, s3]);
    let ack = u32::from_be_bytes([a0, a1, a2, a3]);
    let ack =
        if direction == Direction::FromClient { flow.splice.to_server(ack.into()).value() } else { ack };
    if flags & TURNING.0 != 0 {
        turn(flow, segment, (seq, ack, length), direction)?;
    }
    if flags & (Flags::SYN | Flags::RST | Flags::ACK).0 == Flags::ACK.0 {
        let length = length + u32::from(flags & Flags::FIN.0);
        flow.track.note(side(direction), seq, ack, u16::from_be_bytes([w0, w1]), length);
    }
    Ok(())
}

/// A segment with SYN, FIN or RST. One that its connection would not believe changes nothing here either; where the end
/// host has to answer it (RFC 5961, 3.2 and 4.2), it passes.
#[cold]
fn turn(
    flow: &mut Flow,
    segment: &[u8],
    (seq, ack, length): (u32, u32, u32),
    direction: Direction,
) -> Result<(), DropReason> {
    let from = side(direction);
    let parsed = Segment::parse(segment).map_err(|_| DropReason::Malformed)?;
    let flags = parsed.flags;
    let before = flow.lifecycle();
    let opening = before == Lifecycle::SynSent;
    let believed = if flags.contains(Flags::RST) {
        let refusal = opening && from == Side::Server;
        let judgement = match (refusal, flow.track.judge_reset(from, seq)) {
            // RFC 9293, 3.10.7.3: it must acknowledge the SYN.
            (true, _) if ack == flow.track.next(Side::Client).value() => Judgement::Genuine,
            (true, _) => Judgement::Outside,
            (false, judgement) => judgement,
        };
        if judgement == Judgement::Outside {
            return Err(DropReason::TcpUnacceptable);
        }
        judgement == Judgement::Genuine
    } else if flags.contains(Flags::SYN) {
        let answer = flags.contains(Flags::ACK) && from == Side::Server;
        let believed = opening && (!answer || ack == flow.track.next(Side::Client).value());
        if believed {
            flow.track.note_syn(from, &parsed);
        }
        believed
    } else {
        flow.track.believes_fin(from, seq, ack, length + 1)
    };
    if !believed {
        return Ok(());
    }
    if let (Side::Client, Some(timestamps)) = (from, parsed.options.timestamps) {
        flow.set_client_timestamp(timestamps.value);
    }
    let after = before.observe(from, flags);
    flow.set_lifecycle(after);
    if after == Lifecycle::Reset && before != Lifecycle::Reset && from == Side::Server {
        flow.flags |= flow::RESET_BY_SERVER;
    }
    Ok(())
}
