//! Hundred thousand damaged frames through everything that reads bytes from the wire: nothing panics, offsets stay in
//! the frame, and what weir sends on is a packet that it would take in itself.

#![cfg(test)]

use dataplane::address::Address;
use dataplane::checksum::{Sum, pseudo_header};
use dataplane::counters::DropReason;
use dataplane::header::{PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP};
use dataplane::io::{PacketBuf, PortId};
use dataplane::parse::{Family, Headers, Packet, frame_is_for, l4_checksum_ok, parse};
use dataplane::rewrite::{Translation, apply, retag};
use dataplane::{arp, icmp, nd};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

const FRAMES: usize = 100_000;
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 5];
const PORT: PortId = PortId(0);
const VIP: [u8; 4] = [192, 0, 2, 9];
const HOST: [u8; 4] = [192, 0, 2, 5];
const VIP6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const HOST6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

struct Buf(Vec<u8>);

impl PacketBuf for Buf {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn set_len(&mut self, len: usize) -> bool {
        self.0.resize(len, 0xaa);
        true
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

/// Frames that are right: each protocol, with and without tag.
fn good_frames() -> Vec<Vec<u8>> {
    let link = || PacketBuilder::ethernet2(PEER, OWN);
    let v4 = || link().ipv4(HOST, VIP, 64);
    let v6 = || link().ipv6(HOST6, VIP6, 255);
    let echo = etherparse::IcmpEchoHeader { id: 1, seq: 2 };
    let quoted = written(|frame| v4().udp(1, 2).write(frame, b"quoted").unwrap())[14..].to_vec();
    let solicitation = Icmpv6Type::Unknown { type_u8: 135, code_u8: 0, bytes5to8: [0; 4] };
    let advertisement = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [0x60, 0, 0, 0] };
    let unreachable = Icmpv4Type::Unknown { type_u8: 3, code_u8: 3, bytes5to8: [0; 4] };
    let mut frames = vec![
        written(|frame| v4().udp(1, 2).write(frame, b"payload").unwrap()),
        written(|frame| v4().tcp(1, 2, 3, 4).syn().write(frame, b"payload").unwrap()),
        written(|frame| v6().udp(1, 2).write(frame, b"payload").unwrap()),
        written(|frame| v6().tcp(1, 2, 3, 4).ack(5).write(frame, b"payload").unwrap()),
        written(|frame| v4().icmpv4(Icmpv4Type::EchoRequest(echo)).write(frame, b"payload").unwrap()),
        written(|frame| v6().icmpv6(Icmpv6Type::EchoRequest(echo)).write(frame, b"payload").unwrap()),
        written(|frame| v4().icmpv4(unreachable).write(frame, &quoted).unwrap()),
        written(|frame| {
            v6().icmpv6(solicitation).write(frame, &[&VIP6[..], &[1, 1], &PEER].concat()).unwrap();
        }),
        written(|frame| {
            v6().icmpv6(advertisement).write(frame, &[&HOST6[..], &[2, 1], &PEER].concat()).unwrap();
        }),
        [&OWN[..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &PEER, &HOST, &[0; 6], &VIP].concat(),
    ];
    let tagged = |frame: &Vec<u8>| [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    frames.extend(frames.iter().map(tagged).collect::<Vec<_>>());
    frames
}

fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(frame.len().max(1));
        match (random.below(8), frame.get_mut(at)) {
            (0, _) => frame.truncate(at),
            (1, _) => frame.resize(frame.len() + random.below(64), random.next() as u8),
            (2, Some(_)) => drop(frame.splice(at..at, [random.next() as u8, random.next() as u8])),
            (3, Some(byte)) => *byte = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            (4 | 5, Some(byte)) => *byte = random.next() as u8,
            (_, Some(byte)) => *byte ^= 1 << random.below(8),
            (_, None) => {}
        }
    }
}

/// Makes checksums right where they are, so that damage gets past them.
fn reseal(frame: &mut [u8]) {
    let l3 = if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    let first = frame.get(l3).copied().unwrap_or(0);
    let end = l3 + usize::from(first & 15) * 4;
    if first >> 4 == 4 && (l3 + 20..=frame.len()).contains(&end) {
        frame[l3 + 10..l3 + 12].fill(0);
        let sum = Sum::default().bytes(&frame[l3..end]).checksum();
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if let Ok(Packet::Icmp(headers)) = parse(frame, None).or_else(|_| parse(frame, Some(7))) {
        let range = headers.l4_range();
        frame[range.start + 2..range.start + 4].fill(0);
        let pseudo = match headers.family {
            Family::V4 => Sum::default(),
            Family::V6 => {
                let length = headers.end - headers.l4;
                pseudo_header(headers.key.source, headers.key.destination, PROTOCOL_ICMPV6, length)
            }
        };
        let sum = pseudo.bytes(&frame[range.clone()]).checksum();
        frame[range.start + 2..range.start + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

fn is_ours(_: PortId, address: Address) -> bool {
    address == Address::from_v4(VIP) || address == Address(VIP6)
}

/// What became of the frames: each must happen often, or the damage is too coarse to test anything.
#[derive(Debug, Default)]
struct Tally {
    dropped: Vec<usize>,
    arp_taken: usize,
    translated: usize,
    expired: usize,
    pings: usize,
    errors_with_key: usize,
    nd_taken: usize,
}

fn in_order(frame: &[u8], headers: &Headers) {
    let offsets = [headers.l3, headers.l4, headers.payload, headers.end].map(usize::from);
    assert!(offsets.is_sorted() && offsets[0] < offsets[1] && offsets[3] <= frame.len(), "{headers:?}");
}

fn translate(random: &mut Random, frame: Vec<u8>, mut headers: Headers, tally: &mut Tally) {
    let v6 = headers.family == Family::V6;
    let leaves = [None, Some(8)][random.below(2)];
    let translation = Translation {
        source: if v6 { Address(VIP6) } else { Address::from_v4(VIP) },
        destination: if v6 { Address(HOST6) } else { Address::from_v4(HOST) },
        source_port: 1000,
        destination_port: 2000,
        source_mac: OWN,
        destination_mac: PEER,
        vlan: leaves,
    };
    assert!([PROTOCOL_TCP, PROTOCOL_UDP].contains(&headers.key.protocol));
    let was_right = l4_checksum_ok(&frame, &headers);
    let mut buf = Buf(frame);
    retag(&mut buf, &mut headers, leaves).unwrap();
    match apply(buf.bytes_mut(), &headers, &translation) {
        Ok(()) => {
            let Ok(Packet::Transport(after)) = parse(buf.bytes(), leaves) else {
                panic!("{:02x?}", buf.bytes())
            };
            assert_eq!(l4_checksum_ok(buf.bytes(), &after), was_right);
            assert_eq!(
                (after.ttl, after.payload, after.end),
                (headers.ttl - 1, headers.payload, headers.end)
            );
            tally.translated += 1;
        }
        Err(DropReason::TtlExpired) => tally.expired += 1,
        Err(other) => panic!("{other:?}"),
    }
}

fn icmp_and_nd(frame: Vec<u8>, vlan: Option<u16>, headers: &Headers, tally: &mut Tally) {
    let mut echoed = frame.clone();
    match icmp::classify(&frame, headers) {
        icmp::Message::EchoRequest if icmp::echo_reply(&mut echoed, headers, OWN).is_ok() => {
            if let Ok(Packet::Icmp(after)) = parse(&echoed, vlan) {
                assert!(l4_checksum_ok(&echoed, &after));
                assert_eq!(icmp::classify(&echoed, &after), icmp::Message::EchoReply);
                tally.pings += 1;
            }
        }
        icmp::Message::Error { original: Some(_), .. } => tally.errors_with_key += 1,
        _ => {}
    }
    if let Ok(received) = nd::receive(&frame, headers, PORT, is_ours) {
        tally.nd_taken += 1;
        let mut buf = Buf(frame);
        if received.reply {
            nd::reply(&mut buf, headers, OWN).unwrap();
            assert!(matches!(parse(buf.bytes(), vlan), Ok(Packet::Icmp(_))));
        }
    }
}

fn one(random: &mut Random, mut frame: Vec<u8>, tally: &mut Tally) {
    // Mostly the port that the frame is meant for.
    let tagged = frame.get(12..14) == Some(&[0x81, 0]);
    let vlan = if tagged != (random.below(8) == 0) { Some(7) } else { None };
    let _ = frame_is_for(&frame, OWN);
    match parse(&frame, vlan) {
        Err(reason) => tally.dropped[reason as usize] += 1,
        Ok(Packet::Arp { offset }) => {
            let received = arp::receive(&frame, offset, PORT, is_ours);
            tally.arp_taken += usize::from(received.is_ok());
            assert!(received != Err(DropReason::Truncated) || arp::reply(&mut frame, offset, OWN).is_err());
        }
        Ok(Packet::Transport(headers)) => {
            in_order(&frame, &headers);
            translate(random, frame, headers, tally);
        }
        Ok(Packet::Icmp(headers)) => {
            in_order(&frame, &headers);
            icmp_and_nd(frame, vlan, &headers, tally);
        }
    }
}

#[test]
fn nothing_panics_and_everything_is_met() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let good = good_frames();
    let mut tally = Tally { dropped: vec![0; DropReason::COUNT], ..Tally::default() };
    for _ in 0..FRAMES {
        let mut frame = good[random.below(good.len())].clone();
        damage(&mut random, &mut frame);
        if random.below(2) == 0 {
            reseal(&mut frame);
        }
        one(&mut random, frame, &mut tally);
    }
    println!("{tally:?}");
    use DropReason::{EtherType, Fragment, IpChecksum, Malformed, Protocol, Truncated, Vlan};
    for reason in [EtherType, Fragment, IpChecksum, Malformed, Protocol, Truncated, Vlan] {
        assert!(tally.dropped[reason as usize] > 20, "{reason:?} is not met");
    }
    let met = [
        tally.arp_taken,
        tally.translated,
        tally.expired,
        tally.pings,
        tally.errors_with_key,
        tally.nd_taken,
    ];
    assert!(met.iter().all(|count| *count > 20), "{met:?}");
}

#[test]
fn noise() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut tally = Tally { dropped: vec![0; DropReason::COUNT], ..Tally::default() };
    for _ in 0..FRAMES {
        let length = random.below(120);
        let mut frame: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let ethertype = [[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]][random.below(4)];
        if let Some(place) = frame.get_mut(12..14) {
            place.copy_from_slice(&ethertype);
        }
        one(&mut random, frame, &mut tally);
    }
    let dropped: usize = tally.dropped.iter().sum();
    assert!(dropped > FRAMES / 2, "{dropped}");
}
