//! What leaves over IPv6, told by somebody else, and that it did so by the shortcut.

use std::net::IpAddr;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

use super::twin::addresses;
use super::*;
use crate::parse::parse;

const VLANS: [Option<u16>; 2] = [Some(7), Some(9)];

fn datagram(server: bool, payload: usize) -> Shot {
    Shot { v6: true, server, payload, numbers: (0x321, 0, 0xb8), ..DATAGRAM }
}

/// `window` says which options there are.
fn segment(server: bool, flags: u8, window: u16) -> Shot {
    Shot { v6: true, tcp: true, server, flags, numbers: (0x321, 900, window), payload: 21, ..DATAGRAM }
}

/// A twin with one flow of each protocol.
fn twin() -> Twin {
    let mut twin = Twin::new(VLANS, true);
    for opening in [datagram(false, 3), segment(false, 2, 0x100)] {
        let verdict = twin.take(START, 0, &[opening.frame(VLANS, 1)])[0].1;
        assert_eq!(verdict, Verdict::Forward(PortId(1)));
    }
    twin
}

/// What leaves instead of a frame, without its payload.
fn left(twin: &mut Twin, shot: &Shot) -> (etherparse::Ipv6Header, TransportHeader) {
    let frame = shot.frame(VLANS, twin.snat_port(shot.tcp, true));
    let (from, to) = (u8::from(shot.server), u8::from(!shot.server));
    let (bytes, verdict) = twin.take(START, from, &[frame]).remove(0);
    assert_eq!(verdict, Verdict::Forward(PortId(to)), "{shot:?}");
    let headers = PacketHeaders::from_ethernet_slice(&bytes).unwrap();
    let Some(NetHeaders::Ipv6(ip, _)) = headers.net.clone() else { panic!("{headers:?}") };
    let vlan = headers.vlan_ids();
    assert_eq!((vlan.len(), u16::from(vlan[0])), (1, VLANS[usize::from(to)].unwrap()));
    assert_eq!(headers.payload.slice(), vec![7; shot.payload]);
    let transport = headers.transport.unwrap();
    let checksums = match &transport {
        TransportHeader::Udp(udp) => {
            (udp.calc_checksum_ipv6(&ip, headers.payload.slice()).unwrap(), udp.checksum)
        }
        TransportHeader::Tcp(tcp) => {
            (tcp.calc_checksum_ipv6(&ip, headers.payload.slice()).unwrap(), tcp.checksum)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(checksums.0, checksums.1, "{shot:?}");
    (ip, transport)
}

#[test]
fn addresses_hop_limit_and_checksum_are_right_and_the_rest_stays() {
    let mut twin = twin();
    let [client, vip, server, snat] = addresses(true);
    for payload in [0, 1, 2, 700, 1452] {
        for (from_server, ends) in [(false, [snat, server]), (true, [vip, client])] {
            let (ip, transport) = left(&mut twin, &datagram(from_server, payload));
            assert_eq!([ip.source_addr(), ip.destination_addr()].map(IpAddr::from), ends);
            assert_eq!((ip.hop_limit, ip.traffic_class, ip.flow_label.value()), (63, 0xb8, 0x321));
            let TransportHeader::Udp(udp) = transport else { panic!("{transport:?}") };
            let port = twin.snat_port(false, true);
            let ports = if from_server { (53, 4000) } else { (port, 8080) };
            assert_eq!((udp.source_port, udp.destination_port), ports);
        }
    }
}

/// Numbers of the server are shifted by 1000, its clock by 50, and its window by one to the right.
#[test]
fn segments_are_translated_by_their_splice() {
    let mut twin = twin();
    let numbers = [1000u32, 50, 0].map(u32::to_ne_bytes).concat();
    let splice = Splice::read_from_bytes(&[numbers, vec![0, 0, 0, 0, 1, 0, 0xff, 0]].concat()).unwrap();
    twin.with_flows(|flow| flow.splice = splice);
    for (server, flags, window, numbers) in [
        (false, 0x10, 0x100, (0x321, 900u32.wrapping_sub(1000), 0x100)),
        (true, 0x18, 0x100, (0x321 + 1000, 900, 0x80)),
        (true, 0x10, 0x101, (0x321 + 1000, 900, 0x80)),
        (false, 0x11, 0x103, (0x321, 900u32.wrapping_sub(1000), 0x103)),
    ] {
        let (_, transport) = left(&mut twin, &segment(server, flags, window));
        let TransportHeader::Tcp(tcp) = transport else { panic!("{transport:?}") };
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.window_size), numbers);
        let clocks = tcp.options_iterator().filter_map(|option| match option {
            Ok(etherparse::TcpOptionElement::Timestamp(value, echo)) => Some((value, echo)),
            _ => None,
        });
        let shifted = if server { (0x321 + 50, 900) } else { (0x321, 900 - 50) };
        let expected = if window % 2 == 1 { vec![shifted] } else { Vec::new() };
        assert_eq!(clocks.collect::<Vec<_>>(), expected);
    }
}

/// A FIN, and the datagram that opens a flow, with the flow that they belong to.
#[test]
fn fins_and_openings_take_their_shortcuts() {
    let mut twin = twin();
    let shots = [datagram(false, 3), segment(false, 0x11, 0x100), segment(false, 0x11, 0x101)];
    let unusual = [
        (Shot { extension: true, ..datagram(false, 3) }, false),
        (Shot { extension: true, ..segment(false, 0x11, 0x100) }, false),
        (Shot { ttl: 1, ..datagram(false, 3) }, false),
        (Shot { ttl: 1, ..segment(false, 0x11, 0x100) }, false),
        (Shot { payload: 1441, ..segment(false, 0x11, 0x100) }, false),
    ];
    for (shot, taken) in shots.map(|shot| (shot, true)).into_iter().chain(unusual) {
        let frame = shot.frame(VLANS, 1);
        let Ok(Packet::Transport(headers)) = parse(&frame, VLANS[0]) else { panic!("{shot:?}") };
        let (id, direction) = twin.pipeline.flows.lookup(&headers.key).unwrap();
        let mut buf = TestBuf::holding(&frame);
        let out = match shot.tcp {
            true => twin.pipeline.finish(START, &mut buf, &headers, (id, direction)),
            false => twin.pipeline.open_shortcut(START, &mut buf, &headers, id).map(Verdict::Forward),
        };
        assert_eq!(out, taken.then_some(Verdict::Forward(PortId(1))), "{shot:?}");
        assert_eq!(buf.bytes() != frame, taken, "{shot:?}");
    }
    let frame = datagram(false, 3).frame(VLANS, 1);
    let Ok(Packet::Transport(headers)) = parse(&frame, VLANS[0]) else { panic!() };
    let (id, _) = twin.pipeline.flows.lookup(&headers.key).unwrap();
    twin.pipeline.flows.unbind(id);
    let mut buf = TestBuf::holding(&frame);
    assert_eq!(
        twin.pipeline.open_shortcut(START, &mut buf, &headers, id),
        None,
        "there is no server any more"
    );
    assert_eq!(buf.bytes(), frame);
}

/// Clients whose flows all want the same place in the index: some are in their other one.
#[test]
fn flows_in_the_other_place_of_the_index_take_the_shortcut_too() {
    for v6 in [false, true] {
        let mut twin = Twin::new(VLANS, true);
        let from = |port: u16| {
            let mut frame = Shot { v6, ..DATAGRAM }.frame(VLANS, 1);
            let l4 = if v6 { 58 } else { 38 };
            frame[l4..l4 + 2].copy_from_slice(&port.to_be_bytes());
            frame
        };
        let hash = |twin: &Twin, frame: &[u8]| match parse(frame, VLANS[0]) {
            Ok(Packet::Transport(headers)) => twin.pipeline.flows.hash(&headers.key),
            other => panic!("{other:?}"),
        };
        // There are 64 places for this many flows, told by the upper bits of a hash.
        let frames = (1000..).map(from).filter(|frame| hash(&twin, frame) >> 58 == 5);
        let frames: Vec<Vec<u8>> = frames.take(12).collect();
        for frame in &frames {
            assert_eq!(twin.take(START, 0, std::slice::from_ref(frame))[0].1, Verdict::Forward(PortId(1)));
        }
        let elsewhere = |frame: &&Vec<u8>| twin.pipeline.flows.spot(hash(&twin, frame)) == Spot::NONE;
        assert!((1..8).contains(&frames.iter().filter(elsewhere).count()));
        for frame in &frames {
            assert_eq!(shortcut(&mut twin, 0, frame), Some(PortId(1)));
        }
    }
}

/// None of these is like nearly all, and nothing is done to them by the shortcut.
#[test]
fn what_needs_more_is_left_to_the_long_way() {
    let mut twin = twin();
    let port = twin.snat_port(true, true);
    let others = [
        Shot { payload: 1453, ..datagram(false, 0) },
        Shot { extension: true, ..datagram(false, 9) },
        Shot { ttl: 1, ..datagram(false, 9) },
        Shot { cut: 1, ..datagram(false, 9) },
        // Another tag, another version, another port, another address, no checksum.
        Shot { damage: Some((15, 8)), ..datagram(false, 9) },
        Shot { damage: Some((18, 0x40)), ..datagram(false, 9) },
        Shot { damage: Some((59, 1)), ..datagram(false, 9) },
        Shot { damage: Some((41, 1)), ..datagram(false, 9) },
        segment(false, 0x11, 0x100),
        segment(false, 0x12, 0x100),
        segment(true, 0x14, 0x100),
        segment(true, 0x10, 0x106),
        segment(true, 0x10, 0x107),
    ];
    for shot in others {
        let frame = shot.frame(VLANS, port);
        let before = twin.flows();
        assert_eq!(shortcut(&mut twin, u8::from(shot.server), &frame), None, "{shot:?}");
        assert_eq!(twin.flows(), before, "{shot:?}");
    }
    twin.with_flows(|flow| flow.flags |= INSPECT);
    assert_eq!(shortcut(&mut twin, 0, &datagram(false, 9).frame(VLANS, 1)), None);
}

/// The IPv6 header does not count.
#[test]
fn a_segment_as_large_as_the_server_takes_passes() {
    let mut twin = twin();
    let sizes = [[0u8; 12].as_slice(), &[0, 0], &1000u16.to_ne_bytes(), &[1, 0, 0, 0]].concat();
    twin.with_flows(|flow| flow.splice = Splice::read_from_bytes(&sizes).unwrap());
    let port = twin.snat_port(true, true);
    for (server, payload, options, passes) in [
        (false, 1000, 0, true),
        (false, 1001, 0, false),
        (false, 988, 1, true),
        (false, 989, 1, false),
        (true, 1400, 0, true),
    ] {
        let shot = Shot { payload, ..segment(server, 0x10, 0x100 + options) };
        let out = shortcut(&mut twin, u8::from(server), &shot.frame(VLANS, port));
        assert_eq!(out.is_some(), passes, "{shot:?}");
    }
}

/// A sum that would be 0 is written as 0xffff: 0 says that there is none (RFC 768, RFC 8200 8.1).
#[test]
fn a_checksum_of_zero_is_written_as_its_other_form() {
    let mut twin = twin();
    let frame = datagram(false, 2).frame(VLANS, 1);
    let (_, TransportHeader::Udp(udp)) = left(&mut twin, &datagram(false, 2)) else { panic!() };
    // As much more in the payload as the checksum is away from 0; the checksum is less by that.
    let more = |word: u16, by: u16| {
        let sum = u32::from(word) + u32::from(by);
        (sum as u16).wrapping_add((sum >> 16) as u16)
    };
    let (mut other, checksum) = (frame.clone(), u16::from_be_bytes([frame[64], frame[65]]));
    other[64..66].copy_from_slice(&more(checksum, !udp.checksum).to_be_bytes());
    other[66..68].copy_from_slice(&more(0x0707, udp.checksum).to_be_bytes());
    let (bytes, _) = twin.take(START, 0, &[other]).remove(0);
    assert_eq!(bytes[64..66], [0xff, 0xff]);
    let headers = PacketHeaders::from_ethernet_slice(&bytes).unwrap();
    let (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) = (headers.net, headers.transport)
    else {
        panic!()
    };
    assert_eq!(udp.calc_checksum_ipv6(&ip, headers.payload.slice()), Ok(0xffff));
}

/// Both sides open and close; whatever the shortcuts leave behind, the long way does.
#[test]
fn a_connection_ends_by_the_shortcut_as_by_the_long_way() {
    let [mut fast, mut slow] = [true, false].map(|fast| Twin::new(VLANS, fast));
    let (syn, synack, ack, fin) = (0x02, 0x12, 0x10, 0x11);
    for (server, flags, numbers, payload) in [
        (false, syn, (700, 0), 0),
        (true, synack, (5000, 701), 0),
        (false, ack, (701, 5001), 20),
        (true, ack, (5001, 721), 30),
        (false, fin, (721, 5031), 5),
        (true, ack, (5031, 727), 0),
        (true, fin, (5031, 727), 0),
        (false, ack, (727, 5032), 0),
    ] {
        for options in [0, 1] {
            let shot = Shot {
                numbers: (numbers.0, numbers.1, 0x4000 + options),
                payload,
                ..segment(server, flags, 0)
            };
            let frame = shot.frame(VLANS, slow.snat_port(true, true));
            let taken = fast.take(START, u8::from(server), std::slice::from_ref(&frame));
            assert_eq!(taken[0].1, Verdict::Forward(PortId(u8::from(!server))), "{shot:?}");
            assert_eq!(taken, slow.take(START, u8::from(server), &[frame]), "{shot:?}");
            assert_eq!(fast.flows(), slow.flows(), "{shot:?}");
            assert_eq!(fast.told(), slow.told(), "{shot:?}");
        }
    }
    let flow = fast.flow(true, true).unwrap();
    assert_eq!((flow.lifecycle(), flow.track.is_settled()), (tcp::Lifecycle::BothFin, true));
}
