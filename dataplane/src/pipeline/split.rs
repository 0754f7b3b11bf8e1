//! A server that takes smaller segments than the client was promised: weir cuts the client's segments (RFC 9293, 3.7.1).

use tcp::Flags;
use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::{U16, U32};

use super::transmit::Originated;
use super::{Pipeline, Verdict};
use crate::address::Address;
use crate::checksum;
use crate::counters::DropReason;
use crate::flow::{Direction, Flow};
use crate::flow_table::FlowId;
use crate::header::{Ipv4, Ipv6, PROTOCOL_TCP, Tcp};
use crate::io::PortId;
use crate::parse::{Family, Headers};
use crate::policy::Policy;

/// TCP header without options; an MSS counts what is behind it (RFC 6691, 2).
const TCP_LEN: usize = 20;

/// True if the segment is larger than the server takes.
#[cold]
pub(super) fn too_large(flow: &Flow, headers: &Headers, direction: Direction) -> bool {
    let mss = usize::from(flow.splice.server_mss());
    let length = usize::from(headers.end.saturating_sub(headers.l4));
    direction == Direction::FromClient && length > mss.saturating_add(TCP_LEN) && flow.is_tcp()
}

/// Most bytes of options and payload in a piece: what the server takes, and what passes the port.
fn largest_piece(flow: &Flow, headers: &Headers, mtu: u16) -> u16 {
    let ip = headers.l4.saturating_sub(headers.l3);
    flow.splice.server_mss().min(mtu.saturating_sub(ip).saturating_sub(TCP_LEN as u16))
}

impl<P: Policy> Pipeline<P> {
    /// Sends a translated segment of this flow in pieces by the port `out`, in order. Its checksum must be right, because
    /// each piece gets one of its own.
    #[cold]
    pub(super) fn split(&mut self, frame: &[u8], headers: &Headers, id: FlowId, out: PortId) -> Verdict {
        let (flow, port) = (self.flows.flow(id), self.ports.get(out.index()));
        let mss = flow.zip(port).map_or(0, |(flow, port)| largest_piece(&flow, headers, port.mtu));
        match pieces(frame, headers, usize::from(mss)) {
            Some(pieces) => {
                for piece in pieces {
                    self.originate(Originated::Local(piece));
                }
                Verdict::Consumed
            }
            None => Verdict::Drop(DropReason::Malformed),
        }
    }
}

/// The IP packets that one becomes.
fn pieces(frame: &[u8], headers: &Headers, mss: usize) -> Option<Vec<Vec<u8>>> {
    let (l3, l4) = (usize::from(headers.l3), usize::from(headers.l4));
    let head = frame.get(l3..usize::from(headers.payload))?;
    let payload = frame.get(headers.payload_range())?;
    let options = usize::from(headers.payload).checked_sub(l4 + TCP_LEN)?;
    let size = mss.saturating_sub(options).max(1);
    let starts = (0..payload.len()).step_by(size);
    starts.map(|start| piece(head, l4.checked_sub(l3)?, headers.family, payload, (start, size))).collect()
}

/// The piece of `payload` that begins at `start`; `head` are the IP and TCP headers of the whole, `l4` bytes of them IP.
fn piece(
    head: &[u8],
    l4: usize,
    family: Family,
    payload: &[u8],
    (start, size): (usize, usize),
) -> Option<Vec<u8>> {
    let end = start.saturating_add(size).min(payload.len());
    let mut packet = [head, payload.get(start..end)?].concat();
    let length = u16::try_from(packet.len()).ok()?;
    let (ip, segment) = packet.split_at_mut_checked(l4)?;
    let addresses = shorten(ip, family, length, u16::try_from(start / size).ok()?)?;
    let (tcp, _) = Tcp::mut_from_prefix(segment).ok()?;
    tcp.sequence = U32::new(tcp.sequence.get().wrapping_add(u32::try_from(start).ok()?));
    place_flags(tcp, start, end == payload.len());
    tcp.checksum = U16::new(0);
    let pseudo = checksum::pseudo_header(addresses.0, addresses.1, PROTOCOL_TCP, segment.len() as u16);
    let sum = pseudo.bytes(segment).checksum();
    let (tcp, _) = Tcp::mut_from_prefix(segment).ok()?;
    tcp.checksum = U16::new(sum);
    Some(packet)
}

/// FIN and PSH belong to the last byte (RFC 9293, 3.9.1), CWR to the first segment after a reduction (RFC 3168, 6.1.2). The
/// urgent pointer keeps its place, and is left out behind it.
fn place_flags(tcp: &mut Tcp, start: usize, last: bool) {
    if !last {
        tcp.flags &= !(Flags::FIN | Flags::PSH).0;
    }
    if start > 0 {
        tcp.flags &= !Flags::CWR.0;
    }
    let urgent = usize::from(tcp.urgent.get()).saturating_sub(start);
    if tcp.flags & Flags::URG.0 != 0 {
        tcp.urgent = U16::new(urgent as u16);
        if urgent == 0 && start > 0 {
            tcp.flags &= !Flags::URG.0;
        }
    }
}

/// Writes the length of the whole packet, and an identification of its own, into an IP header; gives the addresses.
fn shorten(ip: &mut [u8], family: Family, length: u16, number: u16) -> Option<(Address, Address)> {
    match family {
        Family::V4 => {
            let whole = ip.len();
            let (v4, _) = Ipv4::mut_from_prefix(ip).ok()?;
            v4.total_length = U16::new(length);
            v4.identification = U16::new(v4.identification.get().wrapping_add(number));
            v4.checksum = U16::new(0);
            let addresses = (Address::from_v4(v4.source), Address::from_v4(v4.destination));
            let sum = checksum::Sum::default().bytes(ip.get(..whole)?).checksum();
            let (v4, _) = Ipv4::mut_from_prefix(ip).ok()?;
            v4.checksum = U16::new(sum);
            Some(addresses)
        }
        Family::V6 => {
            let (v6, _) = Ipv6::mut_from_prefix(ip).ok()?;
            v6.payload_length = U16::new(length.checked_sub(IPV6_HEADER)?);
            Some((Address(v6.source), Address(v6.destination)))
        }
    }
}

/// An IPv6 header without extensions; what follows it counts as payload.
const IPV6_HEADER: u16 = 40;
