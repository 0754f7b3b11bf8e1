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
    let ids: Vec<FlowId> = twin.pipeline.flows.iter().map(|(id, _)| id).collect();
    ids.into_iter().for_each(|id| twin.pipeline.flows.flow_mut(id).unwrap().splice = splice);
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
    for shot in [datagram(false, 3), segment(false, 0x11, 0x100), segment(false, 0x11, 0x101)] {
        let frame = shot.frame(VLANS, 1);
        let Ok(Packet::Transport(headers)) = parse(&frame, VLANS[0]) else { panic!("{shot:?}") };
        let (id, direction) = twin.pipeline.flows.lookup(&headers.key).unwrap();
        let mut buf = TestBuf::holding(&frame);
        let out = match shot.tcp {
            true => twin.pipeline.finish(START, &mut buf, &headers, (id, direction)),
            false => twin.pipeline.open_shortcut(START, &mut buf, &headers, id).map(Verdict::Forward),
        };
        assert_eq!(out, Some(Verdict::Forward(PortId(1))), "{shot:?}");
        assert_ne!(buf.bytes(), frame);
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
    for (flags, taken) in [(INSPECT, false), (0, true)] {
        let ids: Vec<FlowId> = twin.pipeline.flows.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| twin.pipeline.flows.flow_mut(id).unwrap().flags ^= flags);
        let frame = datagram(false, 9).frame(VLANS, 1);
        assert_eq!(shortcut(&mut twin, 0, &frame).is_some(), taken);
        let ids: Vec<FlowId> = twin.pipeline.flows.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| twin.pipeline.flows.flow_mut(id).unwrap().flags ^= flags);
    }
}
