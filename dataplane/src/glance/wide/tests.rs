use std::net::Ipv6Addr;

use etherparse::{
    IpHeaders, IpNumber, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::glance::{TAGGED, TCP, TCP_TIMESTAMPS, UNTAGGED};
use crate::parse::{Packet, parse};

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
const OWN: Mac = [2, 0, 0, 0, 0, 2];
const VLAN: u16 = 0x123;

/// `above` is the length of the TCP header, or of that of UDP.
fn frame(tag: Option<u16>, above: u16, payload: &[u8], extension: bool) -> Vec<u8> {
    let ip = Ipv6Header {
        traffic_class: 0xb8,
        flow_label: 0x54321.try_into().unwrap(),
        hop_limit: 64,
        source: CLIENT.octets(),
        destination: VIP.octets(),
        ..Ipv6Header::default()
    };
    let options = Ipv6RawExtHeader::new_raw(IpNumber(0), &[1, 4, 0, 0, 0, 0]).unwrap();
    let extensions =
        Ipv6Extensions { destination_options: extension.then_some(options), ..Ipv6Extensions::default() };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], OWN);
    let builder = match tag {
        Some(vlan) => builder.single_vlan(vlan.try_into().unwrap()).ip(IpHeaders::Ipv6(ip, extensions)),
        None => builder.ip(IpHeaders::Ipv6(ip, extensions)),
    };
    let mut frame = Vec::new();
    if above == UDP {
        builder.udp(1234, 53).write(&mut frame, payload).unwrap();
        return frame;
    }
    let mut tcp = TcpHeader::new(1234, 53, 7, 100);
    (tcp.ack, tcp.acknowledgment_number) = (true, 9);
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 3, 3, 7, 1];
    tcp.set_options_raw(&options[..usize::from(above - TCP)]).unwrap();
    builder.tcp_header(tcp).write(&mut frame, payload).unwrap();
    frame
}

fn seen(frame: &[u8], tag: Option<u16>) -> Option<WideGlance> {
    match tag {
        Some(vlan) => glance_wide::<TAGGED>(frame, OWN, vlan),
        None => glance_wide::<UNTAGGED>(frame, OWN, 0),
    }
}

fn headers_of(seen: &WideGlance, frame: &[u8], tag: Option<u16>) -> Headers {
    match tag {
        Some(_) => wide_headers::<TAGGED>(frame, seen.total, seen.above),
        None => wide_headers::<UNTAGGED>(frame, seen.total, seen.above),
    }
}

/// What has to be seen in a frame that the parser says this of.
fn expected(frame: &[u8], headers: &Headers) -> WideGlance {
    let (key, above) = (&headers.key, headers.payload - headers.l4);
    let options = &frame[usize::from(headers.l4) + 8..usize::from(headers.payload)];
    let usual = match above {
        TCP => true,
        TCP_TIMESTAMPS => options[12..16] == [1, 1, 8, 10],
        _ => false,
    };
    let plain = key.protocol == PROTOCOL_UDP || usual && headers.tcp_flags & 0x17 == 0x10;
    WideGlance {
        ends: zerocopy::transmute!([key.source, key.destination]),
        ports: zerocopy::transmute!([key.source_port.to_be_bytes(), key.destination_port.to_be_bytes()]),
        protocol: key.protocol,
        total: headers.end - headers.l3,
        above,
        plain,
    }
}

#[test]
fn the_usual_frames_are_recognised() {
    for tag in [None, Some(VLAN)] {
        for (above, plain) in [(UDP, true), (TCP, true), (TCP_TIMESTAMPS, true), (TCP + 16, false)] {
            for length in [0, 1, 18, 1400] {
                let frame = frame(tag, above, &vec![7; length], false);
                let seen = seen(&frame, tag).unwrap_or_else(|| panic!("{tag:?} {above} {length}"));
                let sizes = (usize::from(seen.total), seen.above, seen.plain);
                assert_eq!(sizes, (IPV6_LEN + usize::from(above) + length, above, plain));
                let Ok(Packet::Transport(headers)) = parse(&frame, tag) else { panic!("{frame:?}") };
                assert_eq!((headers_of(&seen, &frame, tag), seen), (headers, expected(&frame, &headers)));
            }
        }
    }
}

type Change = fn(&mut Vec<u8>);

/// Each of these is for the general parser.
#[test]
fn the_unusual_is_left_alone() {
    let of_all: [(&str, Change); 14] = [
        ("another station", |f| f[5] ^= 1),
        ("everyone", |f| f[..6].fill(0xff)),
        ("a group", |f| f[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1])),
        ("IPv4", |f| f[13] = 0),
        ("another version", |f| f[14] = 0x50),
        ("too long", |f| f[19] += 1),
        ("nothing above", |f| f[18..20].fill(0)),
        ("too long to be counted", |f| f[18..20].fill(0xff)),
        ("ICMPv6", |f| f[20] = 58),
        ("hop limit 1", |f| f[21] = 1),
        ("from a group", |f| f[22] = 0xff),
        ("from the unspecified address", |f| f[22..38].fill(0)),
        ("to IPv4", |f| f[38..54].copy_from_slice(&"::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets())),
        ("cut", |f| f.truncate(f.len() - 1)),
    ];
    for (name, change) in of_all {
        for above in [UDP, TCP, TCP_TIMESTAMPS] {
            let mut frame = frame(None, above, &[7; 5], false);
            change(&mut frame);
            assert_eq!(seen(&frame, None), None, "{name}");
        }
    }
    let of_udp: [(&str, Change); 3] = [
        ("no checksum", |f| f[60..62].fill(0)),
        ("shorter than IP says", |f| f[59] -= 1),
        ("longer than IP says", |f| f[59] += 1),
    ];
    for (name, change) in of_udp {
        let mut frame = frame(None, UDP, &[7; 5], false);
        change(&mut frame);
        assert_eq!(seen(&frame, None), None, "{name}");
    }
    let of_tcp: [(&str, Change); 2] =
        [("header too short", |f| f[66] = 0x40), ("too long", |f| f[66] = 0x70)];
    for (name, change) in of_tcp {
        let mut frame = frame(None, TCP, &[7; 5], false);
        change(&mut frame);
        assert_eq!(seen(&frame, None), None, "{name}");
    }
    assert_eq!(seen(&frame(None, UDP, &[], true), None), None, "an extension header");
    assert_eq!(seen(&frame(Some(VLAN), UDP, &[], false), None), None, "an unexpected tag");
    assert_eq!(seen(&frame(Some(VLAN), UDP, &[], false), Some(VLAN + 1)), None, "another tag");
    assert_eq!(seen(&frame(None, UDP, &[], false), Some(VLAN)), None, "no tag");
}

#[test]
fn segments_that_turn_a_connection_are_recognised_but_not_plain() {
    for flags in [0x00, 0x02, 0x11, 0x12, 0x14, 0x30] {
        let mut frame = frame(None, TCP, &[7; 5], false);
        frame[67] = flags;
        let seen = seen(&frame, None).unwrap_or_else(|| panic!("{flags:#x}"));
        assert_eq!(seen.plain, flags == 0x30, "{flags:#x}");
        assert_eq!(headers_of(&seen, &frame, None).tcp_flags, flags);
    }
}

#[test]
fn frames_with_ipv6_are_told_from_others() {
    let (tagged, untagged) = (frame(Some(VLAN), UDP, &[], false), frame(None, UDP, &[], false));
    assert!(is_ipv6::<TAGGED>(&tagged) && is_ipv6::<UNTAGGED>(&untagged));
    assert!(
        !is_ipv6::<UNTAGGED>(&tagged) && !is_ipv6::<TAGGED>(&untagged) && !is_ipv6::<TAGGED>(&tagged[..17])
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4000, rng_seed: RngSeed::Fixed(0x91a6), failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever is recognised is what the general parser makes of it, and nothing that is usual is missed.
    #[test]
    fn as_much_as_the_parser(
        tag in proptest::option::of(Just(VLAN)), above in proptest::sample::select(vec![UDP, TCP, 32, 36]),
        length in 0..40usize, extension in proptest::bool::weighted(0.1), cut in 0..90usize,
        changes in proptest::collection::vec((0..100usize, any::<u8>()), 0..3),
    ) {
        let mut frame = frame(tag, above, &vec![7; length], extension);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if cut > 60 {
            frame.truncate(cut);
        }
        match (seen(&frame, tag), parse(&frame, tag)) {
            (Some(seen), Ok(Packet::Transport(headers))) => {
                prop_assert_eq!(headers_of(&seen, &frame, tag), headers);
                prop_assert_eq!(seen, expected(&frame, &headers));
            }
            (Some(seen), other) => prop_assert!(false, "{:?}, but the parser says {:?}", seen, other),
            (None, Ok(Packet::Transport(headers))) => {
                let (l3, key) = (usize::from(headers.l3), &headers.key);
                let total = IPV6_LEN + usize::from(u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]));
                // A group, a hop limit that ends here, an extension header, bytes behind the datagram, or an odd network.
                let usual = frame[..6] == OWN && headers.ttl > 1 && usize::from(headers.l4) == l3 + IPV6_LEN
                    && usize::from(headers.end) == l3 + total
                    && key.source.0[..8] != [0; 8] && key.destination.0[..8] != [0; 8];
                prop_assert!(!usual, "{:?}", headers);
            }
            (None, _) => {}
        }
    }
}
