//! From a captured packet to the segment or datagram in it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpHeader, TransportSlice};

use super::capture::{self, Captured};
use crate::packet::{Joiner, Packet, Transport};

/// A TCP segment or UDP datagram of a capture.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// `None`: UDP.
    pub(super) tcp: Option<TcpHeader>,
    /// The bytes that were kept.
    pub(super) payload: Vec<u8>,
    /// How many there were.
    pub(super) length: usize,
}

/// What a captured packet holds.
pub(super) enum Content {
    Seen(Box<Seen>),
    /// A part of a datagram whose other parts are still to come.
    Fragment,
    /// Something else, or not enough of it.
    Not(&'static str),
    /// A link type that is not understood.
    Link(i32),
}

/// The content of a packet.
pub(super) fn content(packet: &Captured, joiner: &mut Joiner) -> Content {
    let data = packet.data.as_slice();
    let ip = match packet.link {
        capture::ETHERNET => by_type(data, 12),
        capture::SLL => by_type(data, 14),
        capture::SLL2 => data.get(20..).filter(|_| data.get(..2).is_some_and(is_ip)),
        capture::NULL | capture::LOOP => data.get(4..),
        link if capture::RAW.contains(&link) => Some(data),
        link => return Content::Link(link),
    };
    let Some(ip) = ip.filter(|ip| matches!(ip.first().map(|byte| byte >> 4), Some(4 | 6))) else {
        return Content::Not("neither IPv4 nor IPv6");
    };
    transport(ip, packet.original.saturating_sub(packet.data.len()), joiner)
}

fn is_ip(kind: &[u8]) -> bool {
    matches!(kind, [0x08, 0x00] | [0x86, 0xdd])
}

/// What comes behind the EtherType at `place` and behind VLAN tags.
fn by_type(data: &[u8], place: usize) -> Option<&[u8]> {
    let (mut place, mut kind) = (place, data.get(place..place + 2)?);
    while matches!(kind, [0x81, 0x00] | [0x88, 0xa8] | [0x91, 0x00]) {
        place += 4;
        kind = data.get(place..place + 2)?;
    }
    data.get(place + 2..).filter(|_| is_ip(kind))
}

/// `cut`: bytes of the frame that were not kept.
fn transport(ip: &[u8], cut: usize, joiner: &mut Joiner) -> Content {
    let Ok(sliced) = LaxSlicedPacket::from_ip(ip) else { return Content::Not("a damaged IP header") };
    let Some((source, destination, total)) = sliced.net.as_ref().and_then(addresses) else {
        return Content::Not("neither IPv4 nor IPv6");
    };
    // A sender that leaves cutting to its network card may write 0 as length.
    let missing = if total == 0 { cut } else { total.saturating_sub(ip.len()) };
    if sliced.ip_payload().is_some_and(|payload| payload.fragmented) {
        return match joiner.join(0, ip) {
            Some(whole) => Content::Seen(Box::new(seen(whole))),
            None => Content::Fragment,
        };
    }
    let (ports, tcp, payload) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            ((tcp.source_port(), tcp.destination_port()), Some(tcp.to_header()), tcp.payload())
        }
        Some(TransportSlice::Udp(udp)) => ((udp.source_port(), udp.destination_port()), None, udp.payload()),
        _ if missing > 0 => return Content::Not("cut in its headers by the snap length"),
        _ => return Content::Not("neither TCP nor UDP"),
    };
    Content::Seen(Box::new(Seen {
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        tcp,
        payload: payload.to_vec(),
        length: payload.len() + missing,
    }))
}

/// Source, destination, and the length of the packet by its header.
fn addresses(net: &LaxNetSlice<'_>) -> Option<(IpAddr, IpAddr, usize)> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let total = usize::from(header.total_len());
            Some((header.source_addr().into(), header.destination_addr().into(), total))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let length = usize::from(header.payload_length());
            let total = if length == 0 { 0 } else { length + 40 };
            Some((header.source_addr().into(), header.destination_addr().into(), total))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn seen(packet: Packet) -> Seen {
    let Packet { source, destination, transport, payload } = packet;
    let tcp = match transport {
        Transport::Tcp(header) => Some(*header),
        _ => None,
    };
    Seen { source, destination, tcp, length: payload.len(), payload }
}
