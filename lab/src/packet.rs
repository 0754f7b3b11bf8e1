//! Packets and frames, written and read with etherparse, which shares no code with weir.

use std::net::{IpAddr, SocketAddr};

use etherparse::defrag::IpDefragPool;
use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Header, NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader,
    TransportSlice,
};

/// An IP packet as the one who gets it sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Where it says that it comes from; port 0 where there are no ports.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TCP, UDP, or something else.
    pub transport: Transport,
    /// What TCP or UDP carry.
    pub payload: Vec<u8>,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Box<TcpHeader>),
    /// A UDP datagram.
    Udp,
    /// ICMP and whatever else.
    Other,
}

impl Packet {
    /// The packet that `bytes`, from the IP header on, hold; `None`: they are not one, or only a fragment.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Packet> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        if sliced.is_ip_payload_fragmented() {
            return None;
        }
        let (source, destination): (IpAddr, IpAddr) = match sliced.net.as_ref()? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let (ports, transport, payload) = match &sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => (
                (tcp.source_port(), tcp.destination_port()),
                Transport::Tcp(Box::new(tcp.to_header())),
                tcp.payload(),
            ),
            Some(TransportSlice::Udp(udp)) => {
                ((udp.source_port(), udp.destination_port()), Transport::Udp, udp.payload())
            }
            _ => ((0, 0), Transport::Other, [].as_slice()),
        };
        Some(Packet {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            transport,
            payload: payload.to_vec(),
        })
    }
}

/// Fragments after which a packet that is not complete is given up.
const PATIENCE: u64 = 1024;

/// Puts IPv4 fragments together.
#[derive(Default)]
pub(crate) struct Joiner {
    pool: IpDefragPool<u64, u8>,
    seen: u64,
}

impl Joiner {
    /// The packet that a fragment of this wire completes.
    pub(crate) fn join(&mut self, wire: u8, bytes: &[u8]) -> Option<Packet> {
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        self.seen += 1;
        if self.seen.is_multiple_of(PATIENCE) {
            let old = self.seen - PATIENCE;
            self.pool.retain(|seen| *seen > old);
        }
        let whole = self.pool.process_sliced_packet(&sliced, self.seen, wire).ok()??;
        let (mut header, _) = Ipv4Header::from_slice(bytes).ok()?;
        header.more_fragments = false;
        header.fragment_offset = IpFragOffset::ZERO;
        header.set_payload_len(whole.payload.len()).ok()?;
        let mut packet = Vec::new();
        header.write(&mut packet).ok()?;
        packet.extend_from_slice(&whole.payload);
        Packet::read(&packet)
    }
}

/// What an IP header with these addresses begins; `None` if their families differ.
fn ip(source: IpAddr, destination: IpAddr) -> Option<PacketBuilderStep<IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => Some(PacketBuilder::ipv4(s.octets(), d.octets(), 64)),
        (IpAddr::V6(s), IpAddr::V6(d)) => Some(PacketBuilder::ipv6(s.octets(), d.octets(), 64)),
        _ => None,
    }
}

/// A TCP segment in its IP packet; the header's ports and checksum are set here.
pub(crate) fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    mut header: TcpHeader,
    payload: &[u8],
) -> Option<Vec<u8>> {
    header.source_port = source.port();
    header.destination_port = destination.port();
    let mut packet = Vec::new();
    ip(source.ip(), destination.ip())?.tcp_header(header).write(&mut packet, payload).ok()?;
    Some(packet)
}

/// A UDP datagram in its IP packet.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    let builder = ip(source.ip(), destination.ip())?.udp(source.port(), destination.port());
    builder.write(&mut packet, payload).ok()?;
    Some(packet)
}

/// The fragments of an IPv4 packet that is longer than `mtu`; the packet itself where it is not, or is IPv6.
pub(crate) fn fragments(packet: Vec<u8>, mtu: usize, identification: u16) -> Vec<Vec<u8>> {
    let Some((mut header, payload)) = Ipv4Header::from_slice(&packet).ok().filter(|_| packet.len() > mtu)
    else {
        return vec![packet];
    };
    let room = (mtu.saturating_sub(header.header_len()) / 8 * 8).max(8);
    let last = payload.len().saturating_sub(1) / room;
    let pieces = payload.chunks(room).enumerate().filter_map(|(index, piece)| {
        header.identification = identification;
        header.dont_fragment = false;
        header.more_fragments = index < last;
        header.fragment_offset = IpFragOffset::try_new(u16::try_from(index * room / 8).ok()?).ok()?;
        header.set_payload_len(piece.len()).ok()?;
        let mut bytes = Vec::new();
        header.write(&mut bytes).ok()?;
        bytes.extend_from_slice(piece);
        Some(bytes)
    });
    pieces.collect()
}

/// A frame around an IP packet.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 0x0800 } else { 0x86dd };
    framed(to, from, vlan, kind, packet)
}

/// A frame of this EtherType.
pub(crate) fn framed(to: [u8; 6], from: [u8; 6], vlan: Option<u16>, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    if let Some(tag) = vlan {
        frame.extend_from_slice(&0x8100u16.to_be_bytes());
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let (a, b) = (socket("192.0.2.1:7"), socket("192.0.2.2:8"));
        let read = Packet::read(&udp(a, b, b"hello").unwrap()).unwrap();
        assert_eq!(
            read,
            Packet { source: a, destination: b, transport: Transport::Udp, payload: b"hello".to_vec() }
        );
        let read = Packet::read(&tcp(a, b, TcpHeader::new(0, 0, 5, 6), b"x").unwrap()).unwrap();
        let Transport::Tcp(header) = read.transport else { panic!("no TCP") };
        assert_eq!((header.sequence_number, header.source_port, read.payload), (5, 7, b"x".to_vec()));
        assert_eq!(udp(a, socket("[2001:db8::1]:8"), b""), None);
        assert_eq!(Packet::read(&[0x45, 0]), None);
    }

    #[test]
    fn fragments_hold_the_whole_in_pieces_of_eight() {
        let (a, b) = (socket("192.0.2.1:7"), socket("192.0.2.2:8"));
        let payload: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let packet = udp(a, b, &payload).unwrap();
        let pieces = fragments(packet.clone(), 1500, 9);
        let lengths: Vec<usize> = pieces.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1500, 1500, 20 + 3008 - 2 * 1480]);
        assert!(pieces.iter().all(|piece| Packet::read(piece).is_none()));
        let bodies: Vec<u8> = pieces.iter().flat_map(|piece| piece[20..].to_vec()).collect();
        assert_eq!(bodies, packet[20..]);
        assert_eq!(fragments(packet.clone(), 4000, 9), [packet]);
    }
}
