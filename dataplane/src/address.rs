//! Addresses and flow keys as plain bytes, so that they hash and compare without branches.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::snapshot::Protocol;

/// An IPv4 (as IPv4-mapped, RFC 4291 2.5.5.2) or IPv6 address: 16 bytes.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl PartialEq for Address {
    /// As one number: without a call, which a flow would pay for some ten times.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        u128::from_ne_bytes(self.0) == u128::from_ne_bytes(other.0)
    }
}

impl Eq for Address {}

/// What comes before the four bytes of an IPv4 address, behind eight zeros.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

impl Address {
    /// From the four bytes of an IPv4 header.
    #[inline]
    #[must_use]
    pub fn from_v4(octets: [u8; 4]) -> Self {
        Address(zerocopy::transmute!([[0; 4], [0; 4], MAPPED, octets]))
    }

    /// True for an IPv4 address.
    #[inline]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.v4().is_some()
    }

    /// The four bytes of an IPv4 address. Two comparisons: a flow pays for this some thirty times.
    #[inline]
    #[must_use]
    pub fn v4(&self) -> Option<[u8; 4]> {
        let [head, tail]: [u64; 2] = zerocopy::transmute!(self.0);
        let [mark, octets]: [[u8; 4]; 2] = zerocopy::transmute!(tail);
        ((head == 0) & (u32::from_ne_bytes(mark) == u32::from_ne_bytes(MAPPED))).then_some(octets)
    }

    /// As the standard library's type.
    #[inline]
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        match self.v4() {
            Some(octets) => IpAddr::V4(octets.into()),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }

    /// With a port as the standard library's type. Not by way of [`Address::ip`]: taking that apart again costs as much.
    #[inline]
    fn socket(&self, port: u16) -> SocketAddr {
        match self.v4() {
            Some(octets) => SocketAddr::V4(SocketAddrV4::new(octets.into(), port)),
            None => SocketAddr::V6(SocketAddrV6::new(self.0.into(), port, 0, 0)),
        }
    }
}

impl From<IpAddr> for Address {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Address::from_v4(v4.octets()),
            IpAddr::V6(v6) => Address(v6.octets()),
        }
    }
}

impl std::hash::Hash for Address {
    /// As one number: the length is always the same.
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ip().fmt(f)
    }
}

/// What identifies a packet's flow and direction, as the packet arrives at weir: 40 bytes without padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Source address of arriving packets.
    pub source: Address,
    /// Destination address of arriving packets.
    pub destination: Address,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub reserved: u8,
    /// 0, or server index + 1 where one client tuple has a flow per server (UDP balanced per packet).
    pub branch: u16,
}

impl FlowKey {
    /// The key of packets from `source` to `destination`.
    #[inline]
    #[must_use]
    pub fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        FlowKey {
            source: source.ip().into(),
            destination: destination.ip().into(),
            source_port: source.port(),
            destination_port: destination.port(),
            protocol: protocol as u8,
            reserved: 0,
            branch: 0,
        }
    }

    /// The key of packets the other way.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> Self {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// The whole key in two words, if both addresses are IPv4: the addresses, and the ports with the rest, all in the order
    /// of the bytes on the wire.
    #[inline]
    #[must_use]
    pub fn narrow(&self) -> Option<(u64, u64)> {
        let addresses: [[u8; 4]; 2] = [self.source.v4()?, self.destination.v4()?];
        let ports = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()];
        let rest = [ports, [[self.protocol, self.reserved], self.branch.to_ne_bytes()]];
        Some((zerocopy::transmute!(addresses), zerocopy::transmute!(rest)))
    }

    /// The key of packets, not of branches, that [`FlowKey::narrow`] made these words of.
    #[inline]
    #[must_use]
    pub(crate) fn widened((addresses, rest): (u64, u64)) -> Self {
        let [source, destination]: [[u8; 4]; 2] = zerocopy::transmute!(addresses);
        let [source_port, destination_port, [protocol, _], _]: [[u8; 2]; 4] = zerocopy::transmute!(rest);
        FlowKey {
            source: Address::from_v4(source),
            destination: Address::from_v4(destination),
            source_port: u16::from_be_bytes(source_port),
            destination_port: u16::from_be_bytes(destination_port),
            protocol,
            ..FlowKey::default()
        }
    }

    /// Source address and port.
    #[inline]
    #[must_use]
    pub fn source_socket(&self) -> SocketAddr {
        self.source.socket(self.source_port)
    }

    /// Destination address and port.
    #[inline]
    #[must_use]
    pub fn destination_socket(&self) -> SocketAddr {
        self.destination.socket(self.destination_port)
    }
}
