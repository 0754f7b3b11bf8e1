//! ICMP destination unreachable: which probe it ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet,
};

/// The packet that an ICMP error complains about, as weir sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreachable {
    pub(super) protocol: IpProtocol,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Source port, or the identifier of an echo request.
    pub(super) local: u16,
}

/// `None` for anything but a whole ICMP or ICMPv6 destination unreachable with a correct checksum.
pub(super) fn parse(packet: &[u8]) -> Option<Unreachable> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

/// RFC 792: the IP header and at least 8 bytes of the packet. Code 4 (fragmentation needed) is no refusal.
fn parse_v4(packet: &[u8]) -> Option<Unreachable> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Icmp || !ip.verify_checksum() {
        return None;
    }
    let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
    let code = u8::from(Icmpv4DstUnreachable::FragRequired);
    if icmp.msg_type() != Icmpv4Message::DstUnreachable || icmp.msg_code() == code || !icmp.verify_checksum()
    {
        return None;
    }
    let inner = icmp.data();
    let header = usize::from(inner.first()? & 0x0f) * 4;
    let protocol = IpProtocol::from(*inner.get(9)?);
    let source = Ipv4Addr::from(array::<4>(inner, 12)?);
    let destination = Ipv4Addr::from(array::<4>(inner, 16)?);
    let local = local(protocol, inner.get(header..)?)?;
    Some(Unreachable { protocol, source: source.into(), destination: destination.into(), local })
}

/// RFC 4443, 3.1.
fn parse_v6(packet: &[u8]) -> Option<Unreachable> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    if icmp.msg_type() != Icmpv6Message::DstUnreachable
        || !icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr())
    {
        return None;
    }
    let inner = icmp.payload();
    let protocol = IpProtocol::from(*inner.get(6)?);
    let source = Ipv6Addr::from(array::<16>(inner, 8)?);
    let destination = Ipv6Addr::from(array::<16>(inner, 24)?);
    let local = local(protocol, inner.get(40..)?)?;
    Some(Unreachable { protocol, source: source.into(), destination: destination.into(), local })
}

fn local(protocol: IpProtocol, transport: &[u8]) -> Option<u16> {
    match protocol {
        IpProtocol::Tcp | IpProtocol::Udp => array::<2>(transport, 0),
        IpProtocol::Icmp | IpProtocol::Icmpv6 => array::<2>(transport, 4),
        _ => None,
    }
    .map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
