//! What a packet looks like, in a few numbers.

use zerocopy::FromBytes;

use crate::address::{Address, FlowKey};
use crate::header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4, Ipv6, PROTOCOL_TCP, PROTOCOL_UDP, Tcp};
use crate::parse::{self, Headers};

/// A packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the frame.
    pub frame: usize,
    /// Addresses, ports and protocol in it.
    pub key: FlowKey,
    /// Bytes behind the TCP or UDP header.
    pub payload: usize,
    /// Of a TCP segment.
    pub segment: Option<SegmentShape>,
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// See [`crate::header::Tcp::flags`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Receive window as it is in the header.
    pub window: u16,
}

impl Shape {
    /// Of a frame with these headers.
    #[must_use]
    pub fn of(frame: &[u8], headers: &Headers) -> Self {
        let l4 = frame.get(headers.l4_range()).filter(|_| headers.key.protocol == PROTOCOL_TCP);
        let tcp = l4.and_then(|l4| Tcp::ref_from_prefix(l4).ok()).map(|(tcp, _)| tcp);
        let segment = tcp.map(|tcp| SegmentShape {
            flags: tcp.flags,
            seq: tcp.sequence.get(),
            ack: tcp.acknowledgement.get(),
            window: tcp.window.get(),
        });
        let payload = usize::from(headers.end.saturating_sub(headers.payload));
        Shape { frame: frame.len(), key: headers.key, payload, segment }
    }

    /// Of a frame of which no more is known than this.
    #[must_use]
    pub(crate) fn of_unknown(frame: &[u8], key: FlowKey) -> Self {
        Shape { frame: frame.len(), key, ..Shape::default() }
    }
}

/// Addresses, protocol and, where they are there, ports of a packet that the parser did not want.
pub(crate) fn tuple(frame: &[u8], vlan: Option<u16>) -> Option<FlowKey> {
    let (kind, l3) = parse::link(frame, vlan).ok()?;
    let packet = frame.get(l3..)?;
    let (mut key, l4) = match kind {
        ETHERTYPE_IPV4 => {
            let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
            let (source, destination) = (Address::from_v4(ip.source), Address::from_v4(ip.destination));
            // Behind the first fragment there are no ports.
            let ports = ip.fragment.get() & 0x1fff == 0;
            let l4 = packet.get(usize::from(ip.version_ihl & 0x0f) * 4..).filter(|_| ports);
            (FlowKey { source, destination, protocol: ip.protocol, ..FlowKey::default() }, l4)
        }
        ETHERTYPE_IPV6 => {
            let (ip, rest) = Ipv6::ref_from_prefix(packet).ok()?;
            let (source, destination) = (Address(ip.source), Address(ip.destination));
            (FlowKey { source, destination, protocol: ip.next_header, ..FlowKey::default() }, Some(rest))
        }
        _ => return None,
    };
    let ports =
        l4.and_then(<[u8]>::first_chunk).filter(|_| matches!(key.protocol, PROTOCOL_TCP | PROTOCOL_UDP));
    if let Some([s0, s1, d0, d1]) = ports {
        key.source_port = u16::from_be_bytes([*s0, *s1]);
        key.destination_port = u16::from_be_bytes([*d0, *d1]);
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::parse::Packet;
    use crate::snapshot::Protocol;

    fn segment() -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 7], [192, 0, 2, 10], 9);
        let mut frame = Vec::new();
        builder.tcp(4000, 443, 1000, 512).ack(77).psh().write(&mut frame, b"hello").unwrap();
        frame
    }

    fn key() -> FlowKey {
        FlowKey::new(Protocol::Tcp, "192.0.2.7:4000".parse().unwrap(), "192.0.2.10:443".parse().unwrap())
    }

    #[test]
    fn a_segment_in_numbers() {
        let frame = segment();
        let Ok(Packet::Transport(headers)) = parse::parse(&frame, None) else { panic!("not parsed") };
        let segment = SegmentShape { flags: 0x18, seq: 1000, ack: 77, window: 512 };
        let expected = Shape { frame: frame.len(), key: key(), payload: 5, segment: Some(segment) };
        assert_eq!(Shape::of(&frame, &headers), expected);
    }

    #[test]
    fn what_cannot_be_parsed_still_has_addresses() {
        let mut frame = segment();
        frame[24] ^= 1; // header checksum
        assert!(parse::parse(&frame, None).is_err());
        assert_eq!(tuple(&frame, None), Some(key()));
        frame[21] = 1; // not the first fragment
        assert_eq!(tuple(&frame, None), Some(FlowKey { source_port: 0, destination_port: 0, ..key() }));
        assert_eq!(tuple(&frame[..30], None), None);
        assert_eq!(tuple(&frame, Some(7)), None);
        let mut v6 = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [3; 16], 9);
        builder.udp(53, 54).write(&mut v6, b"x").unwrap();
        let found = tuple(&v6, None).unwrap();
        assert_eq!((found.source_port, found.destination_port, found.protocol), (53, 54, 17));
    }
}
