use etherparse::{ArpHardwareId, ArpOperation, NetSlice, SlicedPacket};

use super::*;
use crate::frame::tests::TestBuf;
use crate::parse::{Packet, parse};

const PORT: PortId = PortId(1);
const OWN: Mac = [2, 0, 0, 0, 0, 9];
const PEER: Mac = [2, 0, 0, 0, 0, 5];
const VIP: [u8; 4] = [192, 0, 2, 9];
const HOST: [u8; 4] = [192, 0, 2, 5];
const OTHER: [u8; 4] = [192, 0, 2, 6];

fn is_ours(port: PortId, address: Address) -> bool {
    port == PORT && address.v4() == Some(VIP)
}

/// A broadcast message of the peer's, in a padded frame.
fn message(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = [BROADCAST, PEER].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(PEER);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

fn received(frame: &[u8]) -> Result<Received, DropReason> {
    assert_eq!(parse(frame, None), Ok(Packet::Arp { offset: 14 }));
    receive(frame, 14, PORT, is_ours)
}

/// By another parser.
fn understood(frame: &[u8]) -> etherparse::ArpPacket {
    match SlicedPacket::from_ethernet(frame).unwrap().net {
        Some(NetSlice::Arp(arp)) => arp.to_packet(),
        other => panic!("{other:?}"),
    }
}

fn seen(evidence: Evidence) -> Option<Observation> {
    Some(Observation { port: PORT, address: Address::from_v4(HOST), mac: Some(PEER), evidence })
}

#[test]
fn question_is_answered() {
    let mut frame = message(REQUEST, HOST, VIP);
    assert_eq!(received(&frame), Ok(Received { seen: seen(Evidence::Request), reply: true }));
    reply(&mut frame, 14, OWN).unwrap();
    assert_eq!(frame[..12], [PEER, OWN].concat());
    let arp = understood(&frame);
    assert_eq!((arp.operation, arp.hw_addr_type), (ArpOperation::REPLY, ArpHardwareId::ETHERNET));
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&OWN[..], &VIP[..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&PEER[..], &HOST[..]));
}

#[test]
fn probe_is_answered_but_not_learned() {
    assert_eq!(received(&message(REQUEST, ANY, VIP)), Ok(Received { seen: None, reply: true }));
}

#[test]
fn answers_and_announcements_are_learned() {
    let advertised = |solicited| Evidence::Advertisement { solicited, overrides: true };
    assert_eq!(
        received(&message(REPLY, HOST, VIP)),
        Ok(Received { seen: seen(advertised(true)), reply: false })
    );
    for operation in [REQUEST, REPLY] {
        let expected = Received { seen: seen(advertised(false)), reply: false };
        assert_eq!(received(&message(operation, HOST, HOST)), Ok(expected));
    }
}

#[test]
fn the_rest_is_refused() {
    let refused = |frame: &[u8]| assert_eq!(received(frame), Err(DropReason::Neighbor));
    refused(&message(REQUEST, HOST, OTHER));
    refused(&message(REPLY, HOST, OTHER));
    refused(&message(REPLY, ANY, VIP));
    refused(&message(REQUEST, ANY, ANY));
    refused(&message(3, HOST, VIP));
    refused(&message(REQUEST, VIP, VIP)); // somebody claims the VIP
    refused(&message(REQUEST, [224, 0, 0, 1], VIP));
    refused(&message(REQUEST, [255; 4], VIP));
    for (at, value) in [(15, 6), (16, 9), (18, 8), (19, 16), (22, 1)] {
        let mut frame = message(REQUEST, HOST, VIP);
        frame[at] = value;
        refused(&frame);
    }
    assert_eq!(received(&message(REQUEST, HOST, VIP)[..41]), Err(DropReason::Truncated));
    assert_eq!(reply(&mut message(REQUEST, HOST, VIP)[..41], 14, OWN), Err(DropReason::Truncated));
}

#[test]
fn own_messages_are_understood_by_another_parser() {
    let mut buf = TestBuf::new(100);
    let link = Link { source_mac: OWN, destination_mac: PEER, vlan: Some(7) };
    request(&mut buf, &link, Address::from_v4(VIP), Address::from_v4(HOST)).unwrap();
    let arp = understood(buf.bytes());
    assert_eq!((buf.bytes().len(), arp.operation), (46, ArpOperation::REQUEST));
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&OWN[..], &VIP[..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&[0; 6][..], &HOST[..]));

    announce(&mut buf, OWN, None, Address::from_v4(VIP)).unwrap();
    let arp = understood(buf.bytes());
    assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&VIP[..], &VIP[..]));
    assert_eq!(buf.bytes()[..12], [BROADCAST, OWN].concat());
    assert_eq!(announce(&mut buf, OWN, None, Address([0x20; 16])), Err(DropReason::Malformed));
    assert_eq!(announce(&mut TestBuf::new(41), OWN, None, Address::from_v4(VIP)), Err(DropReason::NoBuffer));
}
