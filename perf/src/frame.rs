//! Frames of clients and servers, with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::anyhow;
use dataplane::address::Address;
use dataplane::counters::DropReason;
use dataplane::frame::{Ip, Link, build};
use dataplane::header::{Mac, PROTOCOL_TCP, PROTOCOL_UDP};
use dataplane::io::PacketBuf;
use dataplane::nd;
use dataplane::parse::Headers;
use tcp::Segment;

/// The link address of everybody but weir.
pub const PEER_MAC: Mac = [2, 0, 0, 0, 0, 0x77];

/// A frame that is being built.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

impl PacketBuf for Scratch {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn set_len(&mut self, len: usize) -> bool {
        self.0.resize(len, 0);
        true
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 192.0.2.0/24 and 10.0.0.0/8.
    V4,
    /// fd01::/64 and fd00::/16.
    V6,
}

/// Where everybody but the clients is, over IPv6.
const HERE: u128 = 0xfd01 << 112;
/// Where the clients are.
const CLIENTS: u128 = 0xfd00 << 112;
/// What the addresses of clients begin with over IPv4.
const CLIENTS_V4: u32 = 10;

/// Address and port: those bits over IPv4, and the last ones of an address over IPv6, which is in another network if those bits
/// are of a client.
pub fn endpoint(family: Family, address: u32, port: u16) -> SocketAddr {
    let network = if address >> 24 == CLIENTS_V4 { CLIENTS } else { HERE };
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(address)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(network | u128::from(address))),
    };
    SocketAddr::new(ip, port)
}

/// The bits of an [`endpoint`].
pub fn bits(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(ip) => ip.to_bits() as u32,
    }
}

/// Whether that is a client's address.
pub fn is_client(ip: IpAddr) -> bool {
    bits(ip) >> 24 == CLIENTS_V4
}

/// What a neighbour answers who is asked for its link address; `None` to all other messages. Everybody's is the same.
pub fn advertisement(frame: &[u8], headers: &Headers) -> Option<Vec<u8>> {
    const NEIGHBOR_SOLICITATION: u8 = 135;
    let solicited = frame.get(headers.l4_range())?.first() == Some(&NEIGHBOR_SOLICITATION);
    // Who asks without an address asks whether its own is taken.
    let asked = solicited && !headers.key.source_socket().ip().is_unspecified();
    let mut reply = Scratch(frame.to_vec());
    (asked && nd::reply(&mut reply, headers, PEER_MAC).is_ok()).then_some(reply.0)
}

/// A datagram to weir.
pub fn udp(
    buf: &mut Scratch,
    weir: Mac,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> anyhow::Result<()> {
    let fill = |bytes: &mut [u8]| {
        let header = from.port().to_be_bytes().into_iter().chain(to.port().to_be_bytes()).chain([0; 4]);
        let datagram = header.chain(payload.iter().copied());
        bytes.iter_mut().zip(datagram).for_each(|(byte, value)| *byte = value);
        bytes.len()
    };
    build(buf, &link(weir), &ip(from, to, PROTOCOL_UDP), 8 + payload.len(), fill).map_err(refused)
}

/// A segment to weir.
pub fn tcp(
    buf: &mut Scratch,
    weir: Mac,
    from: SocketAddr,
    to: SocketAddr,
    segment: &Segment<'_>,
) -> anyhow::Result<()> {
    let fill = |bytes: &mut [u8]| segment.emit(from.port(), to.port(), bytes).unwrap_or(0);
    build(buf, &link(weir), &ip(from, to, PROTOCOL_TCP), segment.wire_len(), fill).map_err(refused)
}

fn link(weir: Mac) -> Link {
    Link { source_mac: PEER_MAC, destination_mac: weir, vlan: None }
}

fn ip(from: SocketAddr, to: SocketAddr, protocol: u8) -> Ip {
    Ip {
        source: Address::from(from.ip()),
        destination: Address::from(to.ip()),
        protocol,
        ttl: 64,
        identification: 0,
    }
}

fn refused(reason: DropReason) -> anyhow::Error {
    anyhow!("a frame could not be built: {}", reason.label())
}
