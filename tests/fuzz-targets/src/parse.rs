use dataplane::header::{PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use dataplane::icmp;
use dataplane::parse::{Family, Headers, Packet, l4_checksum_ok};
use etherparse::{SlicedPacket, TransportSlice};
use tcp::Segment;

/// A frame: offsets stay in order and in the frame, ports are those that etherparse reads, and the checksum verdict is
/// that of the definition.
pub fn parse(data: &[u8]) {
    for vlan in [None, Some(7)] {
        match dataplane::parse::parse(data, vlan) {
            Ok(Packet::Arp { offset }) => assert!(usize::from(offset) <= data.len()),
            Ok(Packet::Transport(headers)) => transport(data, &headers),
            Ok(Packet::Icmp(headers)) => {
                offsets(data, &headers);
                checksum(data, &headers);
                let _ = icmp::classify(data, &headers);
            }
            Err(_) => {}
        }
    }
}

fn offsets(frame: &[u8], headers: &Headers) {
    assert!(headers.l3 < headers.l4 && headers.l4 < headers.payload && headers.payload <= headers.end);
    assert!(usize::from(headers.end) <= frame.len());
    assert!(headers.l3 == 14 || headers.l3 == 18);
}

fn transport(frame: &[u8], headers: &Headers) {
    offsets(frame, headers);
    checksum(frame, headers);
    let l4 = &frame[headers.l4_range()];
    let ports = [u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]])];
    assert_eq!([headers.key.source_port, headers.key.destination_port], ports);
    if headers.key.protocol == PROTOCOL_TCP {
        assert_eq!(usize::from(headers.payload - headers.l4), usize::from(l4[12] >> 4) * 4);
        if let Ok(segment) = Segment::parse(l4) {
            assert_eq!(segment.payload, &frame[headers.payload_range()]);
            assert_eq!(segment.flags.0, headers.tcp_flags);
        }
    }
    let read = SlicedPacket::from_ethernet(frame).ok().and_then(|packet| match packet.transport? {
        TransportSlice::Tcp(tcp) => Some((PROTOCOL_TCP, tcp.source_port(), tcp.destination_port())),
        TransportSlice::Udp(udp) => Some((PROTOCOL_UDP, udp.source_port(), udp.destination_port())),
        _ => None,
    });
    if let Some(read) = read {
        assert_eq!((headers.key.protocol, headers.key.source_port, headers.key.destination_port), read);
    }
}

/// RFC 1071 over the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1) and the packet.
fn checksum(frame: &[u8], headers: &Headers) {
    let (key, l4) = (&headers.key, &frame[headers.l4_range()]);
    let length = u16::try_from(l4.len()).expect("a packet of at most 65535 bytes").to_be_bytes();
    let protocol = [0, key.protocol];
    let (source, destination) = (key.source, key.destination);
    let v4 = source.v4().zip(destination.v4()).filter(|_| headers.family == Family::V4);
    let remainder = match (key.protocol, v4) {
        // Nothing but zeros has no right checksum: theirs would be 0xffff.
        (PROTOCOL_ICMP, _) if l4.iter().all(|byte| *byte == 0) => 1,
        (PROTOCOL_ICMP, _) => crate::sum(&[l4]),
        (PROTOCOL_UDP, Some(_)) if l4[6..8] == [0, 0] => 0,
        (_, Some((source, destination))) => crate::sum(&[&source, &destination, &protocol, &length, l4]),
        (_, None) => crate::sum(&[&source.0, &destination.0, &protocol, &length, l4]),
    };
    assert_eq!(l4_checksum_ok(frame, headers), remainder == 0);
}
