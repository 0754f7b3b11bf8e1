use etherparse::{PacketBuilder, TcpOptionElement};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::checksum::Sum;
use crate::parse::{Headers, Packet, parse};

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const VIP: [u8; 4] = [198, 51, 100, 7];
const SMAC: Mac = [2, 0, 0, 0, 0, 1];
const OWN: Mac = [2, 0, 0, 0, 0, 2];
const VLAN: u16 = 0x123;

fn frame(tag: Option<u16>, tcp: Option<bool>, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(SMAC, OWN);
    let ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber(0), CLIENT, VIP).unwrap();
    let ip = etherparse::IpHeaders::Ipv4(ip, Default::default());
    let builder = match tag {
        Some(vlan) => builder.single_vlan(vlan.try_into().unwrap()).ip(ip),
        None => builder.ip(ip),
    };
    let mut frame = Vec::new();
    match tcp {
        None => builder.udp(1234, 53).write(&mut frame, payload).unwrap(),
        Some(timestamps) => {
            let tcp = builder.tcp(1234, 53, 7, 100).ack(9);
            let options = [TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(1, 2)];
            let tcp = if timestamps { tcp.options(&options).unwrap() } else { tcp };
            tcp.write(&mut frame, payload).unwrap();
        }
    }
    frame.resize(frame.len().max(60), 0xee);
    frame
}

fn seen(frame: &[u8], tag: Option<u16>) -> Option<Glance> {
    match tag {
        Some(vlan) => glance::<TAGGED>(frame, OWN, vlan),
        None => glance::<UNTAGGED>(frame, OWN, 0),
    }
}

fn seen_any(frame: &[u8], tag: Option<u16>) -> Option<Glance> {
    match tag {
        Some(vlan) => glance_any::<TAGGED>(frame, OWN, vlan),
        None => glance_any::<UNTAGGED>(frame, OWN, 0),
    }
}

fn parsed(frame: &[u8], tag: Option<u16>) -> Headers {
    match parse(frame, tag) {
        Ok(Packet::Transport(headers)) => headers,
        other => panic!("{other:?}"),
    }
}

/// What a glance has to say of a packet with these headers.
fn expected(frame: &[u8], headers: &Headers) -> Glance {
    let above = headers.payload - headers.l4;
    let is_tcp = headers.key.protocol == PROTOCOL_TCP;
    assert!(above != 32 || frame[usize::from(headers.l4) + 20..][..4] == [1, 1, 8, 10]);
    assert!(if is_tcp { above == 20 || above == 32 } else { above == 8 });
    let glance = Glance { key: headers.key.narrow().unwrap(), total: headers.end - headers.l3, above };
    assert_eq!((glance.is_tcp(), glance.payload()), (is_tcp, headers.end - headers.payload));
    assert_eq!(headers_of(&glance, frame, headers.l3), *headers);
    glance
}

fn headers_of(glance: &Glance, frame: &[u8], l3: u16) -> Headers {
    match usize::from(l3) {
        TAGGED => glance.headers::<TAGGED>(frame),
        _ => glance.headers::<UNTAGGED>(frame),
    }
}

#[test]
fn the_usual_frames_are_recognised() {
    for tag in [None, Some(VLAN)] {
        for tcp in [None, Some(false), Some(true)] {
            for length in [0, 1, 18, 1400] {
                let frame = frame(tag, tcp, &vec![7; length]);
                let glance = seen(&frame, tag).unwrap_or_else(|| panic!("{tag:?} {tcp:?} {length}"));
                assert_eq!(glance, expected(&frame, &parsed(&frame, tag)));
                assert_eq!(usize::from(glance.payload()), length);
            }
        }
    }
}

type Change = fn(&mut Vec<u8>);

/// Each of these is for the general parser.
#[test]
fn the_unusual_is_left_alone() {
    let ways: [(&str, Change); 12] = [
        ("another station", |f| f[5] ^= 1),
        ("everyone", |f| f[..6].fill(0xff)),
        ("ARP", |f| f[13] = 6),
        ("options", |f| f[14] = 0x46),
        ("a fragment", |f| f[21] = 1),
        ("more fragments", |f| f[20] = 0x20),
        ("TTL 1", |f| f[22] = 1),
        ("ICMP", |f| f[23] = 1),
        ("SYN", |f| f[47] = 0x12),
        ("FIN", |f| f[47] = 0x11),
        ("RST", |f| f[47] = 0x04),
        ("SACK", |f| f[54 + 2] = 5),
    ];
    let whole = frame(None, Some(true), &[7; 20]);
    for (name, change) in ways {
        let mut frame = whole.clone();
        change(&mut frame);
        frame[24..26].fill(0);
        let sum = Sum::default().bytes(&frame[14..34]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(seen(&frame, None), None, "{name}");
    }
    for (name, flags) in [("SYN", 0x12), ("FIN", 0x11), ("RST", 0x04), ("SYN alone", 0x02)] {
        let mut frame = whole.clone();
        frame[47] = flags;
        let any = seen_any(&frame, None).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(any.headers::<UNTAGGED>(&frame), parsed(&frame, None), "{name}");
        assert_eq!(any.headers::<UNTAGGED>(&frame).tcp_flags, flags, "{name}");
    }
    assert_eq!(seen(&whole[..whole.len() - 1], None), None, "cut");
    let mut wrong = whole.clone();
    wrong[30] ^= 1;
    assert_eq!(seen(&wrong, None), None, "checksum");
    assert!(seen(&frame(Some(VLAN), None, &[]), None).is_none(), "an unexpected tag");
    assert!(seen(&frame(Some(VLAN), None, &[]), Some(VLAN + 1)).is_none(), "another tag");
    assert!(seen(&frame(None, None, &[]), Some(VLAN)).is_none(), "no tag");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000, rng_seed: RngSeed::Fixed(0x91a), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever is recognised is what the general parser makes of it, unless the source address is no host's.
    #[test]
    fn never_more_than_the_parser(
        tag in proptest::option::of(Just(VLAN)), tcp: Option<bool>, length in 0..40usize,
        changes in proptest::collection::vec((0..80usize, any::<u8>()), 0..3), reseal: bool,
    ) {
        let mut frame = frame(tag, tcp, &vec![7; length]);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        let l3 = if tag.is_some() { TAGGED } else { UNTAGGED };
        if reseal {
            frame[l3 + 10..l3 + 12].fill(0);
            let sum = Sum::default().bytes(&frame[l3..l3 + 20]).checksum();
            frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let any = seen_any(&frame, tag);
        match (any, parse(&frame, tag)) {
            (Some(any), Ok(Packet::Transport(headers))) => {
                prop_assert_eq!(headers_of(&any, &frame, headers.l3), headers);
                prop_assert_eq!(any.payload(), headers.end - headers.payload);
            }
            (Some(_), other) => prop_assert!(matches!(frame[l3 + 12], 0 | 127 | 224..), "{:?}", other),
            (None, Ok(Packet::Transport(headers))) => {
                // A broadcast, a TTL that ends here, or options of IP.
                let usual = frame[..6] == OWN && headers.ttl > 1 && usize::from(headers.l4) == l3 + 20;
                prop_assert!(!usual || headers.key.protocol != PROTOCOL_TCP, "{:?}", headers);
            }
            (None, _) => {}
        }
        let Some(glance) = seen(&frame, tag) else { return Ok(()) };
        prop_assert_eq!(any, Some(glance));
        match parse(&frame, tag) {
            Ok(Packet::Transport(headers)) => prop_assert_eq!(glance, expected(&frame, &headers)),
            other => prop_assert!(matches!(frame[l3 + 12], 0 | 127 | 224..), "{:?}", other),
        }
    }
}
