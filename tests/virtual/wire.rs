//! Frames, built and judged by etherparse, which shares no code with weir.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    LinkExtHeader, NetHeaders, PacketBuilder, PacketBuilderStep, PacketHeaders, TcpHeader, TransportHeader,
    UdpHeader,
};

/// An IP packet as a host sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    Tcp(Box<TcpHeader>),
    Udp,
    /// ICMP or ICMPv6 of this type.
    Icmp(u8),
}

impl Packet {
    pub fn tcp(&self) -> &TcpHeader {
        match &self.transport {
            Transport::Tcp(header) => header,
            other => panic!("not TCP: {other:?}"),
        }
    }
}

/// What an IPv4 or IPv6 header with these addresses begins.
pub fn ip(source: IpAddr, destination: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => PacketBuilder::ipv4(s.octets(), d.octets(), 64),
        (IpAddr::V6(s), IpAddr::V6(d)) => PacketBuilder::ipv6(s.octets(), d.octets(), 64),
        _ => panic!("{source} and {destination}"),
    }
}

pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let builder = ip(source.ip(), destination.ip()).udp(source.port(), destination.port());
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

pub fn tcp(source: SocketAddr, destination: SocketAddr, mut header: TcpHeader, payload: &[u8]) -> Vec<u8> {
    header.source_port = source.port();
    header.destination_port = destination.port();
    let mut packet = Vec::new();
    ip(source.ip(), destination.ip()).tcp_header(header).write(&mut packet, payload).unwrap();
    packet
}

/// A TCP header with these flags, out of `"SAFRP"`.
pub fn flags(flags: &str, seq: u32, ack: u32) -> TcpHeader {
    let mut header = TcpHeader::new(0, 0, seq, 65000);
    header.acknowledgment_number = ack;
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.fin = flags.contains('F');
    header.rst = flags.contains('R');
    header.psh = flags.contains('P');
    header
}

pub fn echo_request(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match source {
        IpAddr::V4(_) => ip(source, destination).icmpv4_echo_request(7, 1).write(&mut packet, payload),
        IpAddr::V6(_) => ip(source, destination).icmpv6_echo_request(7, 1).write(&mut packet, payload),
    }
    .unwrap();
    packet
}

/// True if [`judge`] can read it and its transport checksum is right.
pub fn is_sound(frame: &[u8]) -> bool {
    let Ok(headers) = PacketHeaders::from_ethernet_slice(frame) else { return false };
    let payload = headers.payload.slice();
    match (headers.net, headers.transport) {
        (Some(NetHeaders::Arp(_)), _) => true,
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            tcp.calc_checksum_ipv4(&ip, payload) == Ok(tcp.checksum)
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            tcp.calc_checksum_ipv6(&ip, payload) == Ok(tcp.checksum)
        }
        (Some(NetHeaders::Ipv6(..)), Some(TransportHeader::Icmpv6(_))) => true,
        _ => false,
    }
}

/// Where a TCP frame comes from and goes to, whatever its checksums are.
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (source, destination) = match headers.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
        NetHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
        other => panic!("{other:?}"),
    };
    let Some(TransportHeader::Tcp(tcp)) = headers.transport else { panic!("not TCP") };
    (SocketAddr::new(source, tcp.source_port), SocketAddr::new(destination, tcp.destination_port))
}

/// The packet in a frame; every checksum and length in it must be right. `None`: ARP.
pub fn judge(frame: &[u8]) -> Option<Packet> {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = headers.payload.slice();
    match headers.net.unwrap() {
        NetHeaders::Arp(_) => None,
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header of {frame:02x?}");
            let sum = |transport: &TransportHeader| match transport {
                TransportHeader::Udp(udp) if udp.checksum == 0 => 0,
                TransportHeader::Udp(udp) => udp.calc_checksum_ipv4(&ip, payload).unwrap(),
                TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv4(&ip, payload).unwrap(),
                TransportHeader::Icmpv4(icmp) => icmp.icmp_type.calc_checksum(payload),
                other => panic!("{other:?} over IPv4"),
            };
            let addresses = (IpAddr::from(ip.source), IpAddr::from(ip.destination));
            Some(packet(addresses, headers.transport.unwrap(), sum, payload))
        }
        NetHeaders::Ipv6(ip, _) => {
            let sum = |transport: &TransportHeader| match transport {
                TransportHeader::Udp(udp) => udp.calc_checksum_ipv6(&ip, payload).unwrap(),
                TransportHeader::Tcp(tcp) => tcp.calc_checksum_ipv6(&ip, payload).unwrap(),
                TransportHeader::Icmpv6(icmp) => {
                    icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap()
                }
                other => panic!("{other:?} over IPv6"),
            };
            let addresses = (IpAddr::from(ip.source), IpAddr::from(ip.destination));
            Some(packet(addresses, headers.transport.unwrap(), sum, payload))
        }
    }
}

/// The tag of a frame.
pub fn tag(frame: &[u8]) -> Option<u16> {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    headers.link_exts.first().map(|tag| match tag {
        LinkExtHeader::Vlan(vlan) => vlan.vlan_id.value(),
        other => panic!("{other:?}"),
    })
}

fn packet(
    (source, destination): (IpAddr, IpAddr),
    transport: TransportHeader,
    sum: impl Fn(&TransportHeader) -> u16,
    payload: &[u8],
) -> Packet {
    let right = sum(&transport);
    let (found, ports, transport) = match transport {
        TransportHeader::Udp(UdpHeader { source_port, destination_port, length, checksum }) => {
            assert_eq!(usize::from(length), payload.len() + 8);
            (checksum, (source_port, destination_port), Transport::Udp)
        }
        TransportHeader::Tcp(tcp) => {
            let ports = (tcp.source_port, tcp.destination_port);
            (tcp.checksum, ports, Transport::Tcp(Box::new(tcp)))
        }
        TransportHeader::Icmpv4(icmp) => (icmp.checksum, (0, 0), Transport::Icmp(icmp.to_bytes()[0])),
        TransportHeader::Icmpv6(icmp) => (icmp.checksum, (0, 0), Transport::Icmp(icmp.icmp_type.type_u8())),
        other => panic!("{other:?}"),
    };
    assert_eq!(found, right, "checksum of {transport:?} from {source} to {destination}, {payload:02x?}");
    Packet {
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        transport,
        payload: payload.to_vec(),
    }
}
