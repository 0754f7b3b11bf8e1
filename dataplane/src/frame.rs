//! Building the packets that weir originates.

mod segment;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

pub use self::segment::segment;
pub(crate) use self::segment::{Short, short_segment};
use crate::address::Address;
use crate::checksum::{self, Sum};
use crate::counters::DropReason;
use crate::header::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6,
    Mac, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TAG_LEN, Tag,
};
use crate::io::PacketBuf;

/// Where the checksum is in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Don't fragment.
const DF: u16 = 0x4000;

/// The Ethernet side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The port's own address.
    pub source_mac: Mac,
    /// The next hop's address, a group or broadcast.
    pub destination_mac: Mac,
    /// The port's 802.1Q tag.
    pub vlan: Option<u16>,
}

impl Link {
    /// Length of the Ethernet header with its tag.
    #[must_use]
    pub fn header_len(&self) -> usize {
        ETHERNET_LEN + if self.vlan.is_some() { TAG_LEN } else { 0 }
    }

    /// Writes the Ethernet header at the front of `frame`. `None`, and `frame` undefined, when it is too short.
    #[must_use]
    pub fn write(&self, frame: &mut [u8], ethertype: u16) -> Option<()> {
        let outer = if self.vlan.is_some() { ETHERTYPE_VLAN } else { ethertype };
        let ethernet = Ethernet {
            destination: self.destination_mac,
            source: self.source_mac,
            ethertype: U16::new(outer),
        };
        ethernet.write_to_prefix(frame).ok()?;
        if let Some(vlan) = self.vlan {
            let tag = Tag { control: U16::new(vlan & 0x0fff), ethertype: U16::new(ethertype) };
            tag.write_to_prefix(frame.get_mut(ETHERNET_LEN..)?).ok()?;
        }
        Some(())
    }
}

/// The IP side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: Address,
    /// Destination address, of the same family.
    pub destination: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification (RFC 6864: free to choose, because DF is set); not used for IPv6.
    pub identification: u16,
}

impl Ip {
    /// Length of the IP header.
    fn header_len(&self) -> usize {
        if self.source.is_v4() { IPV4_LEN } else { IPV6_LEN }
    }

    fn ethertype(&self) -> u16 {
        if self.source.is_v4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
    }

    /// Writes the header for `l4_len` bytes above it.
    fn write(&self, packet: &mut [u8], l4_len: usize) -> Result<(), DropReason> {
        match (self.source.v4(), self.destination.v4()) {
            (Some(source), Some(destination)) => self.write_v4(packet, source, destination, l4_len),
            (None, None) => self.write_v6(packet, l4_len),
            _ => Err(DropReason::Malformed),
        }
    }

    fn write_v4(
        &self,
        packet: &mut [u8],
        source: [u8; 4],
        destination: [u8; 4],
        l4_len: usize,
    ) -> Result<(), DropReason> {
        let total = u16::try_from(IPV4_LEN + l4_len).map_err(|_| DropReason::TooBig)?;
        let header = header_v4((source, destination), (self.protocol, self.ttl), self.identification, total);
        header.write_to_prefix(packet).map_err(|_| DropReason::NoBuffer)
    }

    fn write_v6(&self, packet: &mut [u8], l4_len: usize) -> Result<(), DropReason> {
        let header = Ipv6 {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(u16::try_from(l4_len).map_err(|_| DropReason::TooBig)?),
            next_header: self.protocol,
            hop_limit: self.ttl,
            source: self.source.0,
            destination: self.destination.0,
        };
        header.write_to_prefix(packet).map_err(|_| DropReason::NoBuffer)
    }
}

/// The header of an IPv4 packet of `total` bytes.
#[inline]
fn header_v4(
    (source, destination): ([u8; 4], [u8; 4]),
    (protocol, ttl): (u8, u8),
    identification: u16,
    total: u16,
) -> Ipv4 {
    let mut header = Ipv4 {
        version_ihl: 0x45,
        traffic_class: 0,
        total_length: U16::new(total),
        identification: U16::new(identification),
        fragment: U16::new(DF),
        ttl,
        protocol,
        checksum: U16::ZERO,
        source,
        destination,
    };
    header.checksum = U16::new(Sum::default().ipv4(zerocopy::transmute!(header)).checksum());
    header
}

/// Makes `buf` a whole frame: `fill` gets `l4_len` zeroed bytes, writes the TCP, UDP or ICMP header and the payload,
/// and returns how many of them it used. The L4 checksum (and the length of UDP) is filled in afterwards.
///
/// Whatever `buf` held is gone. The MTU is the caller's business.
///
/// # Errors
/// `NoBuffer`: the buffer has no room. `TooBig`: more than IP can carry. `Malformed`: the addresses are of different
/// families, or what `fill` wrote is shorter than its header.
pub fn build<B: PacketBuf>(
    buf: &mut B,
    link: &Link,
    ip: &Ip,
    l4_len: usize,
    fill: impl FnOnce(&mut [u8]) -> usize,
) -> Result<(), DropReason> {
    let l3 = link.header_len();
    let l4 = l3 + ip.header_len();
    if !buf.set_len(l4 + l4_len) {
        return Err(DropReason::NoBuffer);
    }
    let segment = buf.bytes_mut().get_mut(l4..).ok_or(DropReason::NoBuffer)?;
    segment.fill(0);
    let used = fill(segment).min(l4_len);
    if !buf.set_len(l4 + used) {
        return Err(DropReason::NoBuffer);
    }
    let (headers, segment) = buf.bytes_mut().split_at_mut_checked(l4).ok_or(DropReason::NoBuffer)?;
    link.write(headers, ip.ethertype()).ok_or(DropReason::NoBuffer)?;
    ip.write(headers.get_mut(l3..).ok_or(DropReason::NoBuffer)?, used)?;
    seal(segment, ip)
}

/// Makes `buf` a frame around a whole IP packet, whose checksums are right already (as those of smoltcp are).
///
/// # Errors
/// `NoBuffer`: the buffer has no room. `Malformed`: `packet` is neither IPv4 nor IPv6.
pub fn encapsulate<B: PacketBuf>(buf: &mut B, link: &Link, packet: &[u8]) -> Result<(), DropReason> {
    let ethertype = match packet.first().map(|first| first >> 4) {
        Some(4) => ETHERTYPE_IPV4,
        Some(6) => ETHERTYPE_IPV6,
        _ => return Err(DropReason::Malformed),
    };
    let l3 = link.header_len();
    if !buf.set_len(l3 + packet.len()) {
        return Err(DropReason::NoBuffer);
    }
    let (header, payload) = buf.bytes_mut().split_at_mut_checked(l3).ok_or(DropReason::NoBuffer)?;
    link.write(header, ethertype).ok_or(DropReason::NoBuffer)?;
    packet.write_to(payload).map_err(|_| DropReason::NoBuffer)
}

/// Writes the MAC addresses of a frame that is complete but for them.
///
/// # Errors
/// `Truncated`: `frame` is shorter than an Ethernet header.
pub fn set_macs(frame: &mut [u8], source: Mac, destination: Mac) -> Result<(), DropReason> {
    let (ethernet, _) = Ethernet::mut_from_prefix(frame).map_err(|_| DropReason::Truncated)?;
    ethernet.source = source;
    ethernet.destination = destination;
    Ok(())
}

/// The Ethernet group of an IPv6 multicast address (RFC 2464, 7).
#[must_use]
pub fn multicast_mac(group: Address) -> Mac {
    let [.., a, b, c, d] = group.0;
    [0x33, 0x33, a, b, c, d]
}

/// Fills in the L4 checksum of `segment`, and the length field of UDP.
fn seal(segment: &mut [u8], ip: &Ip) -> Result<(), DropReason> {
    let length = u16::try_from(segment.len()).map_err(|_| DropReason::TooBig)?;
    let (at, pseudo) = match ip.protocol {
        PROTOCOL_TCP => (TCP_CHECKSUM, true),
        PROTOCOL_UDP => (6, true),
        PROTOCOL_ICMP => (2, false),
        PROTOCOL_ICMPV6 => (2, true),
        _ => return Ok(()),
    };
    if ip.protocol == PROTOCOL_UDP {
        put_u16(segment, 4, length)?;
    }
    put_u16(segment, at, 0)?;
    let sum = match pseudo {
        true => checksum::pseudo_header(ip.source, ip.destination, ip.protocol, length),
        false => Sum::default(),
    };
    let checksum = match sum.bytes(segment).checksum() {
        0 if ip.protocol == PROTOCOL_UDP => 0xffff,
        other => other,
    };
    put_u16(segment, at, checksum)
}

fn put_u16(segment: &mut [u8], at: usize, value: u16) -> Result<(), DropReason> {
    U16::new(value)
        .write_to_prefix(segment.get_mut(at..).ok_or(DropReason::Malformed)?)
        .map_err(|_| DropReason::Malformed)
}

#[cfg(test)]
pub(crate) mod tests;
