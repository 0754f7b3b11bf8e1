//! TCP segments that weir originates.

use tcp::Segment;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{Ip, Link, TCP_CHECKSUM, header_v4, put_u16};
use crate::checksum;
use crate::counters::DropReason;
use crate::header::{ETHERTYPE_IPV4, IPV4_LEN, Ipv4, PROTOCOL_TCP};
use crate::io::PacketBuf;

/// Makes `buf` a whole frame with this segment between these ports (source, destination), checksums included.
///
/// Whatever `buf` held is gone. The MTU is the caller's business.
///
/// # Errors
/// `NoBuffer`: the buffer has no room. `TooBig`: more than IP can carry. `Malformed`: the addresses are of different
/// families.
pub fn segment<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    ip: &Ip,
    ports: (u16, u16),
    segment: &Segment<'_>,
) -> Result<(), DropReason> {
    let length = segment.wire_len();
    let l3 = link.header_len();
    let l4 = l3 + ip.header_len();
    if !buf.set_len(l4 + length) {
        return Err(DropReason::NoBuffer);
    }
    let (headers, out) = buf.bytes_mut().split_at_mut_checked(l4).ok_or(DropReason::NoBuffer)?;
    link.write(headers, ip.ethertype()).ok_or(DropReason::NoBuffer)?;
    ip.write(headers.get_mut(l3..).ok_or(DropReason::NoBuffer)?, length)?;
    let length = u16::try_from(length).map_err(|_| DropReason::TooBig)?;
    segment.emit(ports.0, ports.1, out).map_err(|_| DropReason::NoBuffer)?;
    let pseudo = checksum::pseudo_header(ip.source, ip.destination, ip.protocol, length);
    let checksum = pseudo.bytes(out).checksum();
    put_u16(out, TCP_CHECKSUM, checksum)
}

/// What nearly all segments leave by: IPv4, no tag, a neighbour that is known. In the order of the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Short {
    /// Destination and source.
    pub macs: [u8; 12],
    /// Source and destination.
    pub addresses: u64,
    /// Source and destination.
    pub ports: u32,
    pub ttl: u8,
    pub identification: u16,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Front {
    macs: [u8; 12],
    ethertype: U16,
    ip: Ipv4,
}

const FRONT: usize = size_of::<Front>();

/// As [`segment`], in fewer steps.
///
/// # Errors
/// `NoBuffer`, `TooBig`.
pub(crate) fn short_segment<B: PacketBuf>(
    buf: &mut B,
    way: &Short,
    segment: &Segment<'_>,
) -> Result<(), DropReason> {
    let length = segment.wire_len();
    let total = u16::try_from(IPV4_LEN + length).map_err(|_| DropReason::TooBig)?;
    if !buf.set_len(FRONT + length) {
        return Err(DropReason::NoBuffer);
    }
    let (front, out) = buf.bytes_mut().split_first_chunk_mut::<FRONT>().ok_or(DropReason::NoBuffer)?;
    let [source, destination]: [[u8; 4]; 2] = zerocopy::transmute!(way.addresses);
    let [source_port, destination_port]: [U16; 2] = zerocopy::transmute!(way.ports);
    let ip = header_v4((source, destination), (PROTOCOL_TCP, way.ttl), way.identification, total);
    *front = zerocopy::transmute!(Front { macs: way.macs, ethertype: U16::new(ETHERTYPE_IPV4), ip });
    segment.emit(source_port.get(), destination_port.get(), out).map_err(|_| DropReason::NoBuffer)?;
    let pseudo = checksum::pseudo_header_v4(source, destination, PROTOCOL_TCP, length as u16);
    let checksum = pseudo.bytes(out).checksum();
    put_u16(out, TCP_CHECKSUM, checksum)
}
