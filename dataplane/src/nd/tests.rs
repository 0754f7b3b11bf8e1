use etherparse::{PacketHeaders, TransportHeader};

use super::*;
use crate::frame::tests::TestBuf;
use crate::parse::{Packet, parse};

const PORT: PortId = PortId(1);
const OWN: Mac = [2, 0, 0, 0, 0, 9];
const PEER: Mac = [2, 0, 0, 0, 0, 5];
const VIP: Address = Address([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56]);
const HOST: Address = Address([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
const GROUP: Address = Address([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56]);

fn is_ours(port: PortId, address: Address) -> bool {
    port == PORT && address == VIP
}

/// A message of the peer's.
#[derive(Clone, Copy)]
struct Sent<'a> {
    source: Address,
    destination: Address,
    hop_limit: u8,
    kind: u8,
    code: u8,
    flags: u32,
    target: Address,
    options: &'a [u8],
}

const OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 5];
const TARGET_OPTION: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 5];
const QUESTION: Sent<'_> = Sent {
    source: HOST,
    destination: GROUP,
    hop_limit: 255,
    kind: SOLICITATION,
    code: 0,
    flags: 0,
    target: VIP,
    options: &OPTION,
};
const ANSWER: Sent<'_> = Sent {
    destination: VIP,
    kind: ADVERTISEMENT,
    flags: SOLICITED | OVERRIDE,
    target: HOST,
    options: &TARGET_OPTION,
    ..QUESTION
};

impl Sent<'_> {
    fn buf(self, vlan: Option<u16>) -> (TestBuf, Headers) {
        let mut buf = TestBuf::new(1000);
        let link = Link { source_mac: PEER, destination_mac: OWN, vlan };
        let ip = Ip {
            source: self.source,
            destination: self.destination,
            protocol: PROTOCOL_ICMPV6,
            ttl: self.hop_limit,
            identification: 0,
        };
        build(&mut buf, &link, &ip, 24 + self.options.len(), |segment| {
            segment[0] = self.kind;
            segment[1] = self.code;
            segment[4..8].copy_from_slice(&self.flags.to_be_bytes());
            segment[8..24].copy_from_slice(&self.target.0);
            segment[24..].copy_from_slice(self.options);
            segment.len()
        })
        .unwrap();
        let headers = headers(buf.bytes(), vlan);
        (buf, headers)
    }

    fn received(self) -> Result<Received, DropReason> {
        let (buf, headers) = self.buf(None);
        receive(buf.bytes(), &headers, PORT, is_ours)
    }
}

fn headers(frame: &[u8], vlan: Option<u16>) -> Headers {
    match parse(frame, vlan) {
        Ok(Packet::Icmp(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

fn seen(mac: Option<Mac>, evidence: Evidence) -> Option<Observation> {
    Some(Observation { port: PORT, address: HOST, mac, evidence })
}

/// Checks a frame of weir's with another parser; gives what follows the checksum.
fn sent_well(frame: &[u8], macs: [Mac; 2], addresses: [Address; 2], kind: u8) -> Vec<u8> {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (Some(etherparse::NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Icmpv6(icmp))) =
        (packet.net, packet.transport)
    else {
        panic!("not ICMPv6");
    };
    assert_eq!(frame[..12], macs.concat());
    assert_eq!((ip.source, ip.destination, ip.hop_limit), (addresses[0].0, addresses[1].0, 255));
    let l4 = &frame[frame.len() - usize::from(ip.payload_length)..];
    assert_eq!(
        icmp.checksum,
        icmp.icmp_type.calc_checksum(ip.source, ip.destination, packet.payload.slice()).unwrap()
    );
    assert_eq!(l4[..2], [kind, 0]);
    l4[4..].to_vec()
}

#[test]
fn question_is_answered() {
    for vlan in [None, Some(7)] {
        let (mut buf, headers) = QUESTION.buf(vlan);
        let expected = Received { seen: seen(Some(PEER), Evidence::Request), reply: true };
        assert_eq!(receive(buf.bytes(), &headers, PORT, is_ours), Ok(expected));
        reply(&mut buf, &headers, OWN).unwrap();
        assert!(parse(buf.bytes(), vlan).is_ok());
        let rest = sent_well(buf.bytes(), [PEER, OWN], [VIP, HOST], ADVERTISEMENT);
        assert_eq!(rest, [&[0x60, 0, 0, 0][..], &VIP.0, &[2, 1], &OWN].concat());
    }
}

#[test]
fn question_without_option_or_address() {
    assert_eq!(Sent { options: &[], ..QUESTION }.received(), Ok(Received { seen: None, reply: true }));
    let detection = Sent { source: UNSPECIFIED, options: &[], ..QUESTION };
    let (mut buf, headers) = detection.buf(None);
    let expected = Received { seen: None, reply: true };
    assert_eq!(receive(buf.bytes(), &headers, PORT, is_ours), Ok(expected));
    reply(&mut buf, &headers, OWN).unwrap();
    let rest = sent_well(buf.bytes(), [[0x33, 0x33, 0, 0, 0, 1], OWN], [VIP, ALL_NODES], ADVERTISEMENT);
    assert_eq!(rest[..4], [0x20, 0, 0, 0], "not solicited");
    assert_eq!(Sent { options: &OPTION, ..detection }.received(), Err(DropReason::Neighbor));
    assert_eq!(Sent { destination: ALL_NODES, ..detection }.received(), Err(DropReason::Neighbor));
}

#[test]
fn answers_are_learned() {
    let expected = |mac, solicited, overrides| {
        let evidence = Evidence::Advertisement { solicited, overrides };
        Ok(Received { seen: seen(mac, evidence), reply: false })
    };
    assert_eq!(ANSWER.received(), expected(Some(PEER), true, true));
    assert_eq!(Sent { options: &[], ..ANSWER }.received(), expected(None, true, true));
    assert_eq!(
        Sent { flags: 0, destination: ALL_NODES, ..ANSWER }.received(),
        expected(Some(PEER), false, false)
    );
    let unknown_first = [&[14, 2][..], &[0; 14], &TARGET_OPTION].concat();
    assert_eq!(Sent { options: &unknown_first, ..ANSWER }.received(), expected(Some(PEER), true, true));
}

#[test]
fn the_rest_is_refused() {
    let refused = |sent: Sent<'_>| assert_eq!(sent.received(), Err(DropReason::Neighbor));
    for base in [QUESTION, ANSWER] {
        refused(Sent { hop_limit: 254, ..base });
        refused(Sent { code: 1, ..base });
        refused(Sent { target: GROUP, ..base });
        refused(Sent { kind: 137, ..base });
        refused(Sent { options: &[1, 0, 0, 0, 0, 0, 0, 0], ..base });
        refused(Sent { options: &[14, 2, 0, 0, 0, 0, 0, 0], ..base });
        refused(Sent { options: &[14], ..base });
    }
    refused(Sent { target: HOST, ..QUESTION });
    refused(Sent { source: VIP, ..QUESTION });
    refused(Sent { options: &[1, 1, 3, 0, 0, 0, 0, 5], ..QUESTION }); // a group as MAC address
    refused(Sent { options: &[1, 2, 2, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0], ..QUESTION });
    refused(Sent { target: VIP, ..ANSWER }); // somebody claims the VIP
    refused(Sent { destination: ALL_NODES, ..ANSWER });
}

#[test]
fn wrong_checksum_and_short_message() {
    let (mut buf, headers) = QUESTION.buf(None);
    buf.bytes_mut()[70] ^= 1;
    assert_eq!(receive(buf.bytes(), &headers, PORT, is_ours), Err(DropReason::L4Checksum));
    let (buf, headers) = QUESTION.buf(None);
    let short = Headers { end: headers.l4 + 20, ..headers };
    assert!(receive(buf.bytes(), &short, PORT, is_ours).is_err());
}

#[test]
fn questions_and_announcements_are_sent_well() {
    let mut buf = TestBuf::new(100);
    solicit(&mut buf, OWN, None, HOST, VIP, None).unwrap();
    let rest =
        sent_well(buf.bytes(), [[0x33, 0x33, 0xff, 0x12, 0x34, 0x56], OWN], [HOST, GROUP], SOLICITATION);
    assert_eq!(rest, [&[0, 0, 0, 0][..], &VIP.0, &[1, 1], &OWN].concat());
    solicit(&mut buf, OWN, None, HOST, VIP, Some(PEER)).unwrap();
    sent_well(buf.bytes(), [PEER, OWN], [HOST, VIP], SOLICITATION);
    announce(&mut buf, OWN, None, VIP).unwrap();
    let rest = sent_well(buf.bytes(), [[0x33, 0x33, 0, 0, 0, 1], OWN], [VIP, ALL_NODES], ADVERTISEMENT);
    assert_eq!(rest, [&[0x20, 0, 0, 0][..], &VIP.0, &[2, 1], &OWN].concat());
    let v4 = Address::from_v4([192, 0, 2, 1]);
    assert_eq!(announce(&mut buf, OWN, None, v4), Err(DropReason::Malformed));
    assert_eq!(solicit(&mut buf, OWN, None, v4, VIP, None), Err(DropReason::Malformed));
}
