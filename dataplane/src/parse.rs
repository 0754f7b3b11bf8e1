//! From the bytes of a frame to the offsets and the flow key of its packet.
//!
//! [`parse`] is the first step for every received frame and costs no memory: it checks what it reads and hands out
//! offsets. What is not verified here are the checksums above IP ([`l4_checksum_ok`]), because packets that weir only
//! translates keep theirs, right or wrong.

use std::ops::Range;

use zerocopy::FromBytes;

use crate::address::{Address, FlowKey};
use crate::checksum::{self, Sum};
use crate::counters::DropReason;
use crate::header::{
    BROADCAST, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN,
    ETHERTYPE_VLAN, Ethernet, IPV4_LEN, IPV6_LEN, Ipv4, Ipv6, Mac, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    PROTOCOL_TCP, PROTOCOL_UDP, TAG_LEN, TCP_LEN, Tag, Tcp, UDP_LEN, Udp,
};

/// Shortest ICMP or ICMPv6 message that is looked at.
const ICMP_LEN: usize = 8;
/// ICMPv6 type of a neighbour solicitation.
const NEIGHBOR_SOLICITATION: u8 = 135;
/// IPv6 extension headers that are skipped in one packet; no sane sender has more.
const EXTENSION_HEADERS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// An ARP message, not looked into; see [`crate::arp`].
    Arp {
        /// Where it begins in the frame.
        offset: u16,
    },
    /// TCP or UDP.
    Transport(Headers),
    /// ICMP or ICMPv6; ports of the key are 0.
    Icmp(Headers),
}

/// Where the parts of an IP packet are in its frame: `l3 < l4 < payload <= end <= frame.len()`.
///
/// Valid for the frame that it was parsed from, as long as nobody moves its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IP version.
    pub family: Family,
    /// Addresses, ports and protocol as in the packet.
    pub key: FlowKey,
    /// Offset of the IP header: 14, or 18 in a tagged frame.
    pub l3: u16,
    /// Offset of the TCP, UDP or ICMP header.
    pub l4: u16,
    /// Offset of what follows the TCP header with its options, the UDP header, or 8 bytes of ICMP.
    pub payload: u16,
    /// End of the payload: of the IP packet, or of the UDP datagram in it if that is shorter. Ethernet padding is
    /// behind it.
    pub end: u16,
    /// TCP flags, 0 for other protocols; see [`crate::header::Tcp::flags`].
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Headers {
    /// TCP, UDP or ICMP with its payload.
    #[must_use]
    pub fn l4_range(&self) -> Range<usize> {
        usize::from(self.l4)..usize::from(self.end)
    }

    /// The payload.
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        usize::from(self.payload)..usize::from(self.end)
    }

    /// True if the frame has an 802.1Q tag (also one with a priority only).
    #[must_use]
    pub fn tagged(&self) -> bool {
        usize::from(self.l3) > ETHERNET_LEN
    }
}

/// True if weir listens to the destination MAC address: its own, broadcast, or an IPv6 multicast group (RFC 2464, 7;
/// which group it is shows in the IPv6 header).
#[must_use]
pub fn frame_is_for(frame: &[u8], own: Mac) -> bool {
    match frame.first_chunk::<6>() {
        Some(destination) => {
            *destination == own || *destination == BROADCAST || matches!(destination, [0x33, 0x33, ..])
        }
        None => false,
    }
}

/// Reads the headers of a frame that arrived at a port with the tag `vlan` (`None`: untagged).
///
/// A tag with identifier 0 carries a priority only and counts as no tag.
///
/// # Errors
/// The reason to drop the frame.
pub fn parse(frame: &[u8], vlan: Option<u16>) -> Result<Packet, DropReason> {
    if u16::try_from(frame.len()).is_err() {
        return Err(DropReason::Malformed);
    }
    let (ethertype, l3) = link(frame, vlan)?;
    let packet = frame.get(l3..).ok_or(DropReason::Truncated)?;
    match ethertype {
        ETHERTYPE_IPV4 => upper(frame, ipv4(packet, l3)?),
        ETHERTYPE_IPV6 => upper(frame, ipv6(packet, l3)?),
        ETHERTYPE_ARP => Ok(Packet::Arp { offset: narrow(l3)? }),
        _ => Err(DropReason::EtherType),
    }
}

/// True if the TCP, UDP or ICMP checksum is right, or absent where it may be (UDP over IPv4).
///
/// The addresses of the pseudo header are those of `headers`, so `headers` must come from this very frame.
#[must_use]
pub fn l4_checksum_ok(frame: &[u8], headers: &Headers) -> bool {
    let Some(l4) = frame.get(headers.l4_range()) else { return false };
    let (key, length) = (&headers.key, headers.end.saturating_sub(headers.l4));
    let pseudo = match (headers.family, key.protocol, l4) {
        (Family::V4, PROTOCOL_UDP, [_, _, _, _, _, _, 0, 0, ..]) => return true,
        (Family::V4, PROTOCOL_ICMP, _) => Sum::default(),
        (Family::V4, protocol, _) => {
            let [.., a, b, c, d] = key.source.0;
            let [.., e, f, g, h] = key.destination.0;
            checksum::pseudo_header_v4([a, b, c, d], [e, f, g, h], protocol, length)
        }
        (Family::V6, protocol, _) => checksum::pseudo_header(key.source, key.destination, protocol, length),
    };
    pseudo.bytes(l4).checksum() == 0
}

/// Offsets fit in 16 bits because the frame does.
fn narrow(offset: usize) -> Result<u16, DropReason> {
    u16::try_from(offset).map_err(|_| DropReason::Malformed)
}

/// EtherType and offset of what follows the Ethernet header and its tag.
pub(crate) fn link(frame: &[u8], vlan: Option<u16>) -> Result<(u16, usize), DropReason> {
    let (ethernet, rest) = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::Truncated)?;
    let (found, ethertype, l3) = match ethernet.ethertype.get() {
        ETHERTYPE_VLAN => {
            let (tag, _) = Tag::ref_from_prefix(rest).map_err(|_| DropReason::Truncated)?;
            (tag.vlan(), tag.ethertype.get(), ETHERNET_LEN + TAG_LEN)
        }
        untagged => (0, untagged, ETHERNET_LEN),
    };
    let second_tag = matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN);
    if found != vlan.unwrap_or(0) || second_tag {
        return Err(DropReason::Vlan);
    }
    Ok((ethertype, l3))
}

/// The IPv4 header (RFC 791) at `l3`.
fn ipv4(packet: &[u8], l3: usize) -> Result<Headers, DropReason> {
    let (ip, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
    let header_len = usize::from(ip.version_ihl & 0x0f) * 4;
    let total = usize::from(ip.total_length.get());
    if ip.version_ihl >> 4 != 4 || header_len < IPV4_LEN || total < header_len {
        return Err(DropReason::Malformed);
    }
    if packet.len() < total {
        return Err(DropReason::Truncated);
    }
    let header = packet.get(..header_len).ok_or(DropReason::Truncated)?;
    if Sum::default().bytes(header).checksum() != 0 {
        return Err(DropReason::IpChecksum);
    }
    if !is_host(ip.source) {
        return Err(DropReason::Malformed);
    }
    // MF or an offset; DF and the reserved bit do not matter. See [`crate::fragments`].
    if ip.fragment.get() & 0x3fff != 0 {
        return Err(DropReason::Fragment);
    }
    let (source, destination) = (Address::from_v4(ip.source), Address::from_v4(ip.destination));
    Ok(Headers {
        family: Family::V4,
        key: FlowKey { source, destination, protocol: ip.protocol, ..FlowKey::default() },
        l3: narrow(l3)?,
        l4: narrow(l3 + header_len)?,
        payload: 0,
        end: narrow(l3 + total)?,
        tcp_flags: 0,
        ttl: ip.ttl,
    })
}

/// RFC 1122, 3.2.1.3: not this network, loopback, multicast, limited broadcast.
#[inline]
pub(crate) fn is_host(source: [u8; 4]) -> bool {
    !matches!(source, [0 | 127 | 224..=239, ..] | [255, 255, 255, 255])
}

/// The IPv6 header (RFC 8200) at `l3` with its extension headers.
fn ipv6(packet: &[u8], l3: usize) -> Result<Headers, DropReason> {
    let (ip, rest) = Ipv6::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
    let payload_len = usize::from(ip.payload_length.get());
    if ip.version_class_flow.get() >> 28 != 6 {
        return Err(DropReason::Malformed);
    }
    let rest = rest.get(..payload_len).ok_or(DropReason::Truncated)?;
    let (source, destination) = (Address(ip.source), Address(ip.destination));
    if !v6_source_ok(source) || destination.is_v4() {
        return Err(DropReason::Malformed);
    }
    let (protocol, skipped) = extension_headers(ip.next_header, rest)?;
    Ok(Headers {
        family: Family::V6,
        key: FlowKey { source, destination, protocol, ..FlowKey::default() },
        l3: narrow(l3)?,
        l4: narrow(l3 + IPV6_LEN + skipped)?,
        payload: 0,
        end: narrow(l3 + IPV6_LEN + payload_len)?,
        tcp_flags: 0,
        ttl: ip.hop_limit,
    })
}

/// RFC 4291, 2.5 and 2.7: no group, not loopback; and no mapped IPv4 address, which never is on the wire and
/// would look like an IPv4 packet's key. The unspecified address is up to [`icmp`].
fn v6_source_ok(source: Address) -> bool {
    const LOOPBACK: [u8; 16] = 1u128.to_be_bytes();
    !matches!(source.0, [0xff, ..] | LOOPBACK) && !source.is_v4()
}

/// Protocol above IPv6 and the length of the extension headers before it.
fn extension_headers(first: u8, rest: &[u8]) -> Result<(u8, usize), DropReason> {
    let (mut next, mut skipped) = (first, 0usize);
    for place in 0..=EXTENSION_HEADERS_MAX {
        let routing = match next {
            HOP_BY_HOP if place == 0 => false,
            HOP_BY_HOP => return Err(DropReason::Malformed),
            DESTINATION_OPTIONS => false,
            ROUTING => true,
            FRAGMENT => return Err(DropReason::Fragment),
            protocol => return Ok((protocol, skipped)),
        };
        let Some([following, length, _, segments_left]) = rest.get(skipped..).and_then(<[u8]>::first_chunk)
        else {
            return Err(DropReason::Truncated);
        };
        // weir is no waypoint: only a route that has been travelled may be ignored (RFC 8200, 4.4).
        if routing && *segments_left != 0 {
            return Err(DropReason::Malformed);
        }
        next = *following;
        skipped += (usize::from(*length) + 1) * 8;
    }
    Err(DropReason::Malformed)
}

/// Completes `headers` from what is above IP.
fn upper(frame: &[u8], headers: Headers) -> Result<Packet, DropReason> {
    let l4 = frame.get(headers.l4_range()).ok_or(DropReason::Truncated)?;
    let protocol = headers.key.protocol;
    if headers.key.source == Address::default() && protocol != PROTOCOL_ICMPV6 {
        return Err(DropReason::Malformed);
    }
    match (protocol, headers.family) {
        (PROTOCOL_TCP, _) => tcp(l4, headers),
        (PROTOCOL_UDP, _) => udp(l4, headers),
        (PROTOCOL_ICMP, Family::V4) | (PROTOCOL_ICMPV6, Family::V6) => icmp(l4, headers),
        _ => Err(DropReason::Protocol),
    }
}

fn tcp(l4: &[u8], mut headers: Headers) -> Result<Packet, DropReason> {
    let (tcp, _) = Tcp::ref_from_prefix(l4).map_err(|_| DropReason::Truncated)?;
    let header_len = usize::from(tcp.data_offset >> 4) * 4;
    if header_len < TCP_LEN {
        return Err(DropReason::Malformed);
    }
    if header_len > l4.len() {
        return Err(DropReason::Truncated);
    }
    headers.key.source_port = tcp.source_port.get();
    headers.key.destination_port = tcp.destination_port.get();
    headers.payload = narrow(usize::from(headers.l4) + header_len)?;
    headers.tcp_flags = tcp.flags;
    Ok(Packet::Transport(headers))
}

fn udp(l4: &[u8], mut headers: Headers) -> Result<Packet, DropReason> {
    let (udp, _) = Udp::ref_from_prefix(l4).map_err(|_| DropReason::Truncated)?;
    let length = usize::from(udp.length.get());
    if length < UDP_LEN || length > l4.len() {
        return Err(DropReason::Malformed);
    }
    if headers.family == Family::V6 && udp.checksum.get() == 0 {
        return Err(DropReason::L4Checksum); // RFC 8200, 8.1
    }
    headers.key.source_port = udp.source_port.get();
    headers.key.destination_port = udp.destination_port.get();
    headers.payload = narrow(usize::from(headers.l4) + UDP_LEN)?;
    headers.end = narrow(usize::from(headers.l4) + length)?;
    Ok(Packet::Transport(headers))
}

fn icmp(l4: &[u8], mut headers: Headers) -> Result<Packet, DropReason> {
    if l4.len() < ICMP_LEN {
        return Err(DropReason::Truncated);
    }
    // A host that does not have its address yet asks whether somebody else has it (RFC 4862, 5.4.2).
    if headers.key.source == Address::default() && l4.first() != Some(&NEIGHBOR_SOLICITATION) {
        return Err(DropReason::Protocol);
    }
    headers.payload = narrow(usize::from(headers.l4) + ICMP_LEN)?;
    Ok(Packet::Icmp(headers))
}

#[cfg(test)]
mod tests;
