//! Frames of clients and servers, with right checksums.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::anyhow;
use dataplane::address::Address;
use dataplane::counters::DropReason;
use dataplane::frame::{Ip, Link, build};
use dataplane::header::{Mac, PROTOCOL_TCP, PROTOCOL_UDP};
use dataplane::io::PacketBuf;
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

/// Address and port over IPv4.
pub fn endpoint(address: u32, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(address)), port)
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
