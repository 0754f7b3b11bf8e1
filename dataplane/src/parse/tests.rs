use etherparse::PacketBuilder;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const VIP: [u8; 4] = [198, 51, 100, 7];
const CLIENT6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const VIP6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const SMAC: Mac = [2, 0, 0, 0, 0, 1];
const DMAC: Mac = [2, 0, 0, 0, 0, 2];

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(SMAC, DMAC).ipv4(CLIENT, VIP, 64).udp(1234, 53);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(SMAC, DMAC).ipv6(CLIENT6, VIP6, 9).tcp(1234, 443, 1, 500).syn();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An IPv6 packet whose payload is `rest`, the first header of which is `next`.
fn raw6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = tcp6(&[])[..ETHERNET_LEN + IPV6_LEN].to_vec();
    frame[18..20].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
    frame[20] = next;
    frame.extend_from_slice(rest);
    frame
}

/// Makes the IPv4 header checksum right again.
fn reseal4(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let sum = Sum::default().bytes(&frame[14..end]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn tagged(frame: &[u8], control: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(ETHERTYPE_VLAN.to_be_bytes());
    out.extend(control.to_be_bytes());
    out.extend_from_slice(&frame[12..]);
    out
}

fn transport(frame: &[u8]) -> Headers {
    match parse(frame, None) {
        Ok(Packet::Transport(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn udp_over_ipv4_with_padding() {
    let mut frame = udp4(b"abc");
    frame.resize(60, 0xee);
    let headers = transport(&frame);
    assert_eq!((headers.l3, headers.l4, headers.payload, headers.end), (14, 34, 42, 45));
    assert_eq!(&frame[headers.payload_range()], b"abc");
    assert_eq!(headers.key.source_socket(), "192.0.2.1:1234".parse().unwrap());
    assert_eq!(headers.key.destination_socket(), "198.51.100.7:53".parse().unwrap());
    assert_eq!((headers.key.protocol, headers.ttl, headers.tcp_flags), (17, 64, 0));
    assert!(l4_checksum_ok(&frame, &headers));
    frame[43] ^= 1;
    assert!(!l4_checksum_ok(&frame, &headers));
    frame[40..42].fill(0);
    assert!(l4_checksum_ok(&frame, &headers), "no checksum is legal");
}

#[test]
fn tcp_over_ipv6() {
    let mut frame = tcp6(b"hello");
    let headers = transport(&frame);
    assert_eq!((headers.l3, headers.l4, headers.payload, headers.end), (14, 54, 74, 79));
    assert_eq!(headers.key.source_socket(), "[2001:db8::1]:1234".parse().unwrap());
    assert_eq!((headers.family, headers.tcp_flags, headers.ttl), (Family::V6, 0x02, 9));
    assert!(l4_checksum_ok(&frame, &headers));
    frame[30] ^= 1;
    assert!(!l4_checksum_ok(&frame, &transport(&frame)), "the pseudo header counts");
}

#[test]
fn tcp_data_offset() {
    let mut frame = tcp6(b"0123456789");
    frame[66] = 0x70;
    assert_eq!(transport(&frame).payload, 54 + 28);
    frame[66] = 0x40;
    assert_eq!(parse(&frame, None), Err(DropReason::Malformed));
    frame[66] = 0x80;
    assert_eq!(parse(&frame, None), Err(DropReason::Truncated));
}

#[test]
fn udp_lengths() {
    let mut frame = udp4(b"abcdef");
    for (length, expected) in
        [(7, Err(DropReason::Malformed)), (15, Err(DropReason::Malformed)), (10, Ok(44))]
    {
        frame[39] = length;
        let end = parse(&frame, None).map(|packet| match packet {
            Packet::Transport(headers) => headers.end,
            _ => 0,
        });
        assert_eq!(end, expected, "length {length}");
    }
}

#[test]
fn udp_over_ipv6_needs_a_checksum() {
    let mut frame = raw6(PROTOCOL_UDP, &[0, 1, 0, 2, 0, 8, 0x12, 0x34]);
    assert!(matches!(parse(&frame, None), Ok(Packet::Transport(_))));
    frame[60..62].fill(0);
    assert_eq!(parse(&frame, None), Err(DropReason::L4Checksum));
}

#[test]
fn tags() {
    let frame = udp4(b"x");
    let (plain, priority, seven) = (frame.clone(), tagged(&frame, 0xe000), tagged(&frame, 0xe007));
    let l3 = |frame: &[u8], vlan| match parse(frame, vlan) {
        Ok(Packet::Transport(headers)) => Ok((headers.l3, headers.tagged())),
        Ok(_) => panic!("not UDP"),
        Err(reason) => Err(reason),
    };
    assert_eq!(l3(&plain, None), Ok((14, false)));
    assert_eq!(l3(&priority, None), Ok((18, true)));
    assert_eq!(l3(&seven, Some(7)), Ok((18, true)));
    for (frame, vlan) in [(&plain, Some(7)), (&priority, Some(7)), (&seven, None), (&seven, Some(8))] {
        assert_eq!(l3(frame, vlan), Err(DropReason::Vlan));
    }
    assert_eq!(l3(&tagged(&seven, 7), Some(7)), Err(DropReason::Vlan), "two tags");
    assert_eq!(l3(&seven[..16], Some(7)), Err(DropReason::Truncated));
}

#[test]
fn ipv4_options_are_skipped() {
    let mut frame = udp4(b"abc");
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    frame[17] += 4;
    reseal4(&mut frame);
    assert_eq!((transport(&frame).l4, transport(&frame).payload), (38, 46));
}

#[test]
fn ipv4_header_errors() {
    let spoiled = |at: usize, value: u8, seal: bool| {
        let mut frame = udp4(b"abc");
        frame[at] = value;
        if seal {
            reseal4(&mut frame);
        }
        parse(&frame, None)
    };
    assert_eq!(spoiled(14, 0x65, true), Err(DropReason::Malformed), "version");
    assert_eq!(spoiled(14, 0x44, false), Err(DropReason::Malformed), "header length");
    assert_eq!(spoiled(17, 19, true), Err(DropReason::Malformed), "total length below header");
    assert_eq!(spoiled(17, 32, true), Err(DropReason::Truncated), "total length beyond frame");
    assert_eq!(spoiled(24, 0x55, false), Err(DropReason::IpChecksum));
    assert_eq!(spoiled(20, 0x20, true), Err(DropReason::Fragment), "MF");
    assert_eq!(spoiled(21, 0x01, true), Err(DropReason::Fragment), "offset");
    assert!(spoiled(20, 0x40, true).is_ok(), "DF");
    assert_eq!(spoiled(23, 132, true), Err(DropReason::Protocol), "SCTP");
    assert_eq!(spoiled(23, 58, true), Err(DropReason::Protocol), "ICMPv6 over IPv4");
    assert_eq!(spoiled(12, 0x09, true), Err(DropReason::EtherType));
}

#[test]
fn source_addresses() {
    for source in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4]] {
        let mut frame = udp4(b"abc");
        frame[26..30].copy_from_slice(&source);
        reseal4(&mut frame);
        assert_eq!(parse(&frame, None), Err(DropReason::Malformed), "{source:?}");
    }
    let mapped = Address::from_v4(CLIENT).0;
    for source in [[0; 16], 1u128.to_be_bytes(), [0xff; 16], mapped] {
        let mut frame = tcp6(b"abc");
        frame[22..38].copy_from_slice(&source);
        assert_eq!(parse(&frame, None), Err(DropReason::Malformed), "{source:?}");
    }
    let mut frame = tcp6(b"abc");
    frame[38..54].copy_from_slice(&mapped);
    assert_eq!(parse(&frame, None), Err(DropReason::Malformed), "mapped destination");
}

#[test]
fn only_a_solicitation_has_no_source() {
    let mut frame = raw6(PROTOCOL_ICMPV6, &[135; 24]);
    frame[22..38].fill(0);
    assert!(matches!(parse(&frame, None), Ok(Packet::Icmp(_))));
    frame[54] = 128;
    assert_eq!(parse(&frame, None), Err(DropReason::Protocol));
}

#[test]
fn extension_headers_are_skipped() {
    let udp = [0, 1, 0, 2, 0, 8, 0x12, 0x34];
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let route = |left: u8| [PROTOCOL_UDP, 0, 4, left, 0, 0, 0, 0];
    let result = |first: u8, parts: &[[u8; 8]]| match parse(&raw6(first, &parts.concat()), None) {
        Ok(Packet::Transport(headers)) => Ok(headers.l4),
        Ok(_) => panic!("not UDP"),
        Err(reason) => Err(reason),
    };
    assert_eq!(result(HOP_BY_HOP, &[options(PROTOCOL_UDP), udp]), Ok(62));
    assert_eq!(result(HOP_BY_HOP, &[options(DESTINATION_OPTIONS), options(ROUTING), route(0), udp]), Ok(78));
    assert_eq!(result(ROUTING, &[route(1), udp]), Err(DropReason::Malformed));
    assert_eq!(result(DESTINATION_OPTIONS, &[options(HOP_BY_HOP), udp]), Err(DropReason::Malformed));
    assert_eq!(result(FRAGMENT, &[options(PROTOCOL_UDP), udp]), Err(DropReason::Fragment));
    assert_eq!(result(59, &[]), Err(DropReason::Protocol));
    assert_eq!(result(PROTOCOL_ICMP, &[udp]), Err(DropReason::Protocol), "ICMP over IPv6");
    assert_eq!(result(DESTINATION_OPTIONS, &[options(PROTOCOL_UDP)]), Err(DropReason::Truncated));
    assert_eq!(
        result(DESTINATION_OPTIONS, &[[PROTOCOL_UDP, 9, 0, 0, 0, 0, 0, 0], udp]),
        Err(DropReason::Truncated)
    );
    let many = [options(DESTINATION_OPTIONS); 9];
    assert_eq!(result(DESTINATION_OPTIONS, &many), Err(DropReason::Malformed));
}

#[test]
fn destination_mac() {
    let mut frame = udp4(b"x");
    assert!(frame_is_for(&frame, DMAC));
    assert!(!frame_is_for(&frame, SMAC));
    frame[..6].fill(0xff);
    assert!(frame_is_for(&frame, SMAC));
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 7]);
    assert!(frame_is_for(&frame, SMAC));
    frame[..6].copy_from_slice(&[0x01, 0x00, 0x5e, 0, 0, 7]);
    assert!(!frame_is_for(&frame, SMAC));
    assert!(!frame_is_for(&frame[..5], SMAC));
}

#[test]
fn every_cut_is_refused() {
    for whole in [udp4(b"abcdef"), tcp6(b"abcdef"), tagged(&udp4(b"abc"), 0)] {
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], None), Err(DropReason::Truncated), "{length} bytes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_another_parser(flip in 0usize..54, bit in 0u8..8, v6: bool) {
        let mut frame = if v6 { tcp6(b"abcdef") } else { udp4(b"abcdef") };
        let flip = flip % frame.len();
        frame[flip] ^= 1 << bit;
        if !v6 {
            reseal4(&mut frame);
        }
        if let Ok(Packet::Transport(headers)) = parse(&frame, None) {
            let other = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let (source, destination, payload) = match other.transport.unwrap() {
                etherparse::TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port(), tcp.payload().to_vec()),
                etherparse::TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), udp.payload().to_vec()),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!((headers.key.source_port, headers.key.destination_port), (source, destination));
            prop_assert_eq!(&frame[headers.payload_range()], &payload[..]);
        }
    }
}
