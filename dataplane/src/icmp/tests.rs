use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, PacketHeaders, TransportHeader};

use super::*;
use crate::parse::{Packet, parse};
use crate::snapshot::Protocol;

const OWN: Mac = [2, 0, 0, 0, 0, 9];
const PEER: Mac = [2, 0, 0, 0, 0, 5];
const VIP: [u8; 4] = [192, 0, 2, 9];
const HOST: [u8; 4] = [198, 51, 100, 5];
const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const HOST6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

fn v4(kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PEER, OWN).ipv4(HOST, VIP, 7).icmpv4(kind);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn v6(kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PEER, OWN).ipv6(HOST6, VIP6, 7).icmpv6(kind);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn headers(frame: &[u8]) -> Headers {
    match parse(frame, None) {
        Ok(Packet::Icmp(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

fn message(frame: &[u8]) -> Message {
    classify(frame, &headers(frame))
}

const ECHO: etherparse::IcmpEchoHeader = etherparse::IcmpEchoHeader { id: 77, seq: 3 };

#[test]
fn ping_over_ipv4() {
    let mut frame = v4(Icmpv4Type::EchoRequest(ECHO), b"odd");
    frame.resize(60, 0);
    let parsed = headers(&frame);
    echo_reply(&mut frame, &parsed, OWN).unwrap();
    assert_eq!(frame[..12], [PEER, OWN].concat());
    let packet = PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Icmpv4(icmp))) =
        (packet.net, packet.transport)
    else {
        panic!("not ICMP");
    };
    assert_eq!((ip.source, ip.destination, ip.time_to_live), (VIP, HOST, 64));
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    assert_eq!(icmp.icmp_type, Icmpv4Type::EchoReply(ECHO));
    assert_eq!(packet.payload.slice(), b"odd");
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(b"odd"));
    assert_eq!(message(&frame), Message::EchoReply);
}

#[test]
fn ping_over_ipv6() {
    let mut frame = v6(Icmpv6Type::EchoRequest(ECHO), b"odd");
    let parsed = headers(&frame);
    echo_reply(&mut frame, &parsed, OWN).unwrap();
    let packet = PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Icmpv6(icmp))) =
        (packet.net, packet.transport)
    else {
        panic!("not ICMPv6");
    };
    assert_eq!((ip.source, ip.destination, ip.hop_limit), (VIP6, HOST6, 64));
    assert_eq!(icmp.icmp_type, Icmpv6Type::EchoReply(ECHO));
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(VIP6, HOST6, b"odd").unwrap());
    assert_eq!(message(&frame), Message::EchoReply);
}

#[test]
fn options_are_blanked() {
    let mut frame = v4(Icmpv4Type::EchoRequest(ECHO), b"x");
    frame.splice(34..34, [7, 7, 4, 1, 2, 3, 4, 0]);
    frame[14] = 0x47;
    frame[17] += 8;
    frame[24..26].fill(0);
    let sum = Sum::default().bytes(&frame[14..42]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let parsed = headers(&frame);
    echo_reply(&mut frame, &parsed, OWN).unwrap();
    assert_eq!(frame[34..42], [0; 8]);
    assert!(l4_checksum_ok(&frame, &headers(&frame)));
}

#[test]
fn what_is_not_answered() {
    let refused = |mut frame: Vec<u8>| {
        let parsed = headers(&frame);
        echo_reply(&mut frame, &parsed, OWN).unwrap_err()
    };
    assert_eq!(refused(v4(Icmpv4Type::EchoReply(ECHO), b"")), DropReason::Protocol);
    let mut wrong = v4(Icmpv4Type::EchoRequest(ECHO), b"x");
    wrong[42] ^= 1;
    assert_eq!(refused(wrong), DropReason::L4Checksum);
    let mut extended = v6(Icmpv6Type::EchoRequest(ECHO), b"");
    extended.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
    extended[19] += 8;
    extended[20] = 60;
    assert_eq!(refused(extended), DropReason::Protocol);
}

/// A TCP packet from the VIP, as a router would quote it: cut after 8 bytes of TCP.
fn quoted(v6: bool) -> (Vec<u8>, FlowKey) {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2(OWN, PEER);
    let builder = if v6 { builder.ipv6(VIP6, HOST6, 1) } else { builder.ipv4(VIP, HOST, 1) };
    builder.tcp(1000, 2000, 1, 1).write(&mut packet, b"payload").unwrap();
    packet.truncate(if v6 { 62 } else { 42 });
    let (source, destination) = if v6 {
        ("[2001:db8::9]:1000", "[2001:db8::5]:2000")
    } else {
        ("192.0.2.9:1000", "198.51.100.5:2000")
    };
    (
        packet[14..].to_vec(),
        FlowKey::new(Protocol::Tcp, source.parse().unwrap(), destination.parse().unwrap()),
    )
}

#[test]
fn errors_name_the_packet() {
    let (quoted4, key4) = quoted(false);
    let (quoted6, key6) = quoted(true);
    let raw4 = |kind, code, rest| {
        v4(Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest }, &quoted4)
    };
    let raw6 = |kind, code, rest| {
        v6(Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest }, &quoted6)
    };
    let error = |cause, key| Message::Error { cause, original: Some(key) };
    assert_eq!(message(&raw4(3, 1, [0; 4])), error(Cause::Unreachable { code: 1 }, key4));
    assert_eq!(message(&raw4(3, 4, [0, 0, 5, 0x14])), error(Cause::TooBig { mtu: 1300 }, key4));
    assert_eq!(message(&raw4(11, 0, [0; 4])), error(Cause::TimeExceeded, key4));
    assert_eq!(message(&raw4(12, 0, [0; 4])), error(Cause::ParameterProblem, key4));
    assert_eq!(message(&raw6(1, 4, [0; 4])), error(Cause::Unreachable { code: 4 }, key6));
    assert_eq!(message(&raw6(2, 0, [0, 0, 5, 0])), error(Cause::TooBig { mtu: 1280 }, key6));
    assert_eq!(message(&raw6(3, 0, [0; 4])), error(Cause::TimeExceeded, key6));
    assert_eq!(message(&raw6(4, 0, [0; 4])), error(Cause::ParameterProblem, key6));
    assert_eq!(message(&raw4(5, 0, [0; 4])), Message::Other, "redirect");
    assert_eq!(message(&raw6(134, 0, [0; 4])), Message::Other, "router advertisement");
    assert_eq!(message(&raw6(135, 0, [0; 4])), Message::NeighborSolicitation);
    assert_eq!(message(&raw6(136, 0, [0; 4])), Message::NeighborAdvertisement);
}

#[test]
fn quotes_that_say_nothing() {
    let unreachable = |quoted: &[u8]| {
        message(&v4(Icmpv4Type::Unknown { type_u8: 3, code_u8: 3, bytes5to8: [0; 4] }, quoted))
    };
    let nothing = Message::Error { cause: Cause::Unreachable { code: 3 }, original: None };
    let (quoted, _) = quoted(false);
    assert_eq!(unreachable(&quoted[..23]), nothing);
    for (at, value) in [(0, 0x65), (0, 0x44), (6, 1), (9, 1)] {
        let mut changed = quoted.clone();
        changed[at] = value;
        assert_eq!(unreachable(&changed), nothing, "byte {at}");
    }
}
