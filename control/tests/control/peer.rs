//! Servers that monitors probe, made of packets by hand: no code of smoltcp decides what a right packet is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice,
    icmpv4, icmpv6,
};

/// How a server behaves.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers echo, accepts connections, answers datagrams with this text.
    Answers(&'static str),
    /// RST, port unreachable, host unreachable.
    Refuses,
    /// Says nothing.
    Silent,
}

/// All servers of a network.
#[derive(Default)]
pub struct Peer {
    pub behaviour: HashMap<IpAddr, Behaviour>,
    /// Every packet that came, as one word per packet.
    pub seen: Vec<(SocketAddr, String)>,
    /// Source addresses of the probes.
    pub sources: Vec<IpAddr>,
    /// TCP segments after the SYN: their flags, in order.
    pub flags: Vec<String>,
    /// What connections said.
    pub said: Vec<u8>,
}

type Ends = (IpAddr, IpAddr);

impl Peer {
    pub fn with(servers: &[(&str, Behaviour)]) -> Peer {
        let behaviour = servers.iter().map(|(ip, how)| (ip.parse().unwrap(), how.clone())).collect();
        Peer { behaviour, ..Peer::default() }
    }

    /// Answers of the server that `packet` is for. Panics if the packet is malformed or has a wrong checksum.
    pub fn handle(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let sliced = SlicedPacket::from_ip(packet).expect("a whole IP packet");
        let ends = ends(packet);
        let (own, server) = ends;
        self.sources.push(own);
        let behaviour = self.behaviour.get(&server).cloned().unwrap_or(Behaviour::Silent);
        let transport = sliced.transport.expect("a transport header");
        check_sums(packet);
        let answer = match &transport {
            TransportSlice::Icmpv4(icmp) => self.icmp_v4(ends, &behaviour, icmp, packet),
            TransportSlice::Icmpv6(icmp) => self.icmp_v6(ends, &behaviour, icmp),
            TransportSlice::Udp(udp) => {
                self.note(server, udp.destination_port(), String::from_utf8_lossy(udp.payload()).into());
                self.udp(ends, &behaviour, udp.source_port(), udp.destination_port(), packet)
            }
            TransportSlice::Tcp(tcp) => self.tcp(ends, &behaviour, tcp),
            other => panic!("not a probe: {other:?}"),
        };
        answer.into_iter().collect()
    }

    fn note(&mut self, server: IpAddr, port: u16, what: String) {
        self.seen.push((SocketAddr::new(server, port), what));
    }

    fn icmp_v4(
        &mut self,
        (own, server): Ends,
        behaviour: &Behaviour,
        icmp: &etherparse::Icmpv4Slice<'_>,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else { panic!("{:?}", icmp.icmp_type()) };
        self.note(server, 0, "echo".into());
        match behaviour {
            Behaviour::Answers(_) => {
                Some(write(ip(server, own).icmpv4(Icmpv4Type::EchoReply(echo)), icmp.payload()))
            }
            Behaviour::Refuses => {
                Some(unreachable_v4(own, server, icmpv4::DestUnreachableHeader::Host, packet))
            }
            Behaviour::Silent => None,
        }
    }

    fn icmp_v6(
        &mut self,
        (own, server): Ends,
        behaviour: &Behaviour,
        icmp: &etherparse::Icmpv6Slice<'_>,
    ) -> Option<Vec<u8>> {
        let Icmpv6Type::EchoRequest(echo) = icmp.icmp_type() else { panic!("{:?}", icmp.icmp_type()) };
        self.note(server, 0, "echo".into());
        matches!(behaviour, Behaviour::Answers(_))
            .then(|| write(ip(server, own).icmpv6(Icmpv6Type::EchoReply(echo)), icmp.payload()))
    }

    fn udp(
        &mut self,
        (own, server): Ends,
        behaviour: &Behaviour,
        from: u16,
        to: u16,
        packet: &[u8],
    ) -> Option<Vec<u8>> {
        match behaviour {
            Behaviour::Answers(text) => Some(write(ip(server, own).udp(to, from), text.as_bytes())),
            Behaviour::Refuses if own.is_ipv4() => {
                Some(unreachable_v4(own, server, icmpv4::DestUnreachableHeader::Port, packet))
            }
            Behaviour::Refuses => Some(write(
                ip(server, own).icmpv6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port)),
                packet,
            )),
            Behaviour::Silent => None,
        }
    }

    fn tcp(
        &mut self,
        (own, server): Ends,
        behaviour: &Behaviour,
        tcp: &etherparse::TcpSlice<'_>,
    ) -> Option<Vec<u8>> {
        let (from, to, sequence) = (tcp.source_port(), tcp.destination_port(), tcp.sequence_number());
        let flags = flags(tcp);
        self.flags.push(flags.clone());
        self.said.extend_from_slice(tcp.payload());
        if flags == "S" {
            self.note(server, to, "syn".into());
        }
        let answer = ip(server, own);
        match (behaviour, flags.as_str()) {
            (Behaviour::Silent, _) => None,
            (Behaviour::Refuses, "S") => {
                Some(write(answer.tcp(to, from, 0, 0).rst().ack(sequence.wrapping_add(1)), &[]))
            }
            (Behaviour::Answers(_), "S") => {
                Some(write(answer.tcp(to, from, 7000, 4096).syn().ack(sequence.wrapping_add(1)), &[]))
            }
            (Behaviour::Answers(_), "FA") => {
                let ack = sequence.wrapping_add(tcp.payload().len() as u32 + 1);
                Some(write(answer.tcp(to, from, 7001, 4096).fin().ack(ack), &[]))
            }
            (_, _) => None,
        }
    }
}

fn flags(tcp: &etherparse::TcpSlice<'_>) -> String {
    let all = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.ack(), 'A')];
    all.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect()
}

/// Source and destination.
fn ends(packet: &[u8]) -> Ends {
    let (headers, _) = IpHeaders::from_slice(packet).unwrap();
    match headers {
        IpHeaders::Ipv4(header, _) => (header.source.into(), header.destination.into()),
        IpHeaders::Ipv6(header, _) => (header.source.into(), header.destination.into()),
    }
}

/// Computes all checksums again.
fn check_sums(packet: &[u8]) {
    let headers = etherparse::PacketHeaders::from_ip_slice(packet).unwrap();
    let payload = headers.payload.slice();
    let transport = headers.transport.unwrap();
    match headers.net.unwrap() {
        etherparse::NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let mut again = transport.clone();
            again.update_checksum_ipv4(&ip, payload).unwrap();
            assert_eq!(transport, again);
        }
        etherparse::NetHeaders::Ipv6(ip, _) => {
            let mut again = transport.clone();
            again.update_checksum_ipv6(&ip, payload).unwrap();
            assert_eq!(transport, again);
        }
        other => panic!("{other:?}"),
    }
}

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("mixed families"),
    }
}

/// A builder that can write itself.
trait Write {
    fn write_to(self, packet: &mut Vec<u8>, payload: &[u8]);
}

macro_rules! impl_write {
    ($($header:ty),*) => { $(
        impl Write for PacketBuilderStep<$header> {
            fn write_to(self, packet: &mut Vec<u8>, payload: &[u8]) {
                self.write(packet, payload).unwrap();
            }
        }
    )* };
}
impl_write!(etherparse::UdpHeader, etherparse::TcpHeader, etherparse::Icmpv4Header, etherparse::Icmpv6Header);

fn write(builder: impl Write, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder.write_to(&mut packet, payload);
    packet
}

/// With as much of the packet as old routers send: its header and 8 bytes.
fn unreachable_v4(own: IpAddr, from: IpAddr, code: icmpv4::DestUnreachableHeader, packet: &[u8]) -> Vec<u8> {
    write(ip(from, own).icmpv4(Icmpv4Type::DestinationUnreachable(code)), &packet[..28])
}
