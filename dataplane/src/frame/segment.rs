//! TCP segments that weir originates.

use tcp::Segment;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::{Ip, Link, TCP_CHECKSUM, put_u16};
use crate::checksum::{self, Sum};
use crate::counters::DropReason;
use crate::header::{ETHERTYPE_IPV4, Ethernet, IPV4_LEN, Ipv4};
use crate::io::PacketBuf;

/// What most frames begin with: no tag, IPv4.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Front {
    ethernet: Ethernet,
    ip: Ipv4,
}

const FRONT: usize = size_of::<Front>();

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
    let sum = match (link.vlan, ip.source.v4(), ip.destination.v4()) {
        (None, Some(source), Some(destination)) => usual(buf, link, ip, (source, destination), length)?,
        _ => any(buf, link, ip, length)?,
    };
    let place = buf.bytes().len() - length;
    let out = buf.bytes_mut().get_mut(place..).ok_or(DropReason::NoBuffer)?;
    segment.emit(ports.0, ports.1, out).map_err(|_| DropReason::NoBuffer)?;
    let checksum = sum.bytes(out).checksum();
    put_u16(out, TCP_CHECKSUM, checksum)
}

/// Makes room for a segment of `length` bytes, writes the headers in front of it, and sums up its pseudo header.
#[inline]
fn usual<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    ip: &Ip,
    (source, destination): ([u8; 4], [u8; 4]),
    length: usize,
) -> Result<Sum, DropReason> {
    let total = u16::try_from(IPV4_LEN + length).map_err(|_| DropReason::TooBig)?;
    if !buf.set_len(FRONT + length) {
        return Err(DropReason::NoBuffer);
    }
    let front = buf.bytes_mut().first_chunk_mut::<FRONT>().ok_or(DropReason::NoBuffer)?;
    let ethernet = Ethernet {
        destination: link.destination_mac,
        source: link.source_mac,
        ethertype: U16::new(ETHERTYPE_IPV4),
    };
    let header = Front { ethernet, ip: ip.header_v4(source, destination, total) };
    *front = zerocopy::transmute!(header);
    Ok(checksum::pseudo_header_v4(source, destination, ip.protocol, length as u16))
}

/// The same for any frame.
fn any<B: PacketBuf>(buf: &mut B, link: &Link, ip: &Ip, length: usize) -> Result<Sum, DropReason> {
    let l3 = link.header_len();
    let l4 = l3 + ip.header_len();
    if !buf.set_len(l4 + length) {
        return Err(DropReason::NoBuffer);
    }
    let frame = buf.bytes_mut();
    link.write(frame, ip.ethertype()).ok_or(DropReason::NoBuffer)?;
    ip.write(frame.get_mut(l3..l4).ok_or(DropReason::NoBuffer)?, length)?;
    let length = u16::try_from(length).map_err(|_| DropReason::TooBig)?;
    Ok(checksum::pseudo_header(ip.source, ip.destination, ip.protocol, length))
}
