use etherparse::{LaxPacketHeaders, LinkHeader, NetHeaders, PacketHeaders, TransportHeader};
use tcp::{Flags, Options, Segment, Timestamps};

use super::*;
use crate::parse::{Packet, l4_checksum_ok, parse};

/// A buffer with a limit, full of old bytes.
#[derive(Clone)]
pub(crate) struct TestBuf {
    bytes: Vec<u8>,
    limit: usize,
}

impl TestBuf {
    pub(crate) fn new(limit: usize) -> Self {
        TestBuf { bytes: Vec::new(), limit }
    }

    pub(crate) fn holding(bytes: &[u8]) -> Self {
        TestBuf { bytes: bytes.to_vec(), limit: 2048 }
    }
}

impl PacketBuf for TestBuf {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn set_len(&mut self, len: usize) -> bool {
        if len <= self.limit {
            self.bytes.resize(len, 0xaa);
        }
        len <= self.limit
    }
}

const LINK: Link = Link { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };

fn ip(v6: bool, protocol: u8) -> Ip {
    let address = |v4: &str, v6_text: &str| {
        let text = if v6 { v6_text } else { v4 };
        Address::from(text.parse::<std::net::IpAddr>().unwrap())
    };
    Ip {
        source: address("192.0.2.1", "2001:db8::1"),
        destination: address("198.51.100.7", "2001:db8::7"),
        protocol,
        ttl: 64,
        identification: 0x1234,
    }
}

/// Writes ports 1000 and 2000, or an echo request, and the payload.
fn fill(protocol: u8, payload: &[u8]) -> impl FnOnce(&mut [u8]) -> usize {
    move |segment| {
        let header_len = match protocol {
            PROTOCOL_TCP => {
                segment[12] = 0x50;
                20
            }
            _ => 8,
        };
        match protocol {
            PROTOCOL_ICMP => segment[0] = 8,
            PROTOCOL_ICMPV6 => segment[0] = 128,
            _ => segment[..4].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0]),
        }
        segment[header_len..header_len + payload.len()].copy_from_slice(payload);
        header_len + payload.len()
    }
}

#[test]
fn every_protocol_is_sealed() {
    for (v6, protocol) in [
        (false, PROTOCOL_TCP),
        (true, PROTOCOL_TCP),
        (false, PROTOCOL_UDP),
        (true, PROTOCOL_UDP),
        (false, PROTOCOL_ICMP),
        (true, PROTOCOL_ICMPV6),
    ] {
        for vlan in [None, Some(7)] {
            let mut buf = TestBuf::new(2048);
            build(&mut buf, &Link { vlan, ..LINK }, &ip(v6, protocol), 1000, fill(protocol, b"odd")).unwrap();
            let Ok(Packet::Transport(headers) | Packet::Icmp(headers)) = parse(buf.bytes(), vlan) else {
                panic!("protocol {protocol}: {:?}", parse(buf.bytes(), vlan));
            };
            assert!(l4_checksum_ok(buf.bytes(), &headers), "protocol {protocol}");
            assert_eq!(usize::from(headers.end), buf.bytes().len());
            assert_eq!(&buf.bytes()[headers.payload_range()], b"odd");

            let other = PacketHeaders::from_ethernet_slice(buf.bytes()).unwrap();
            let Some(LinkHeader::Ethernet2(ethernet)) = &other.link else { panic!("{:?}", other.link) };
            assert_eq!((ethernet.source, ethernet.destination), ([2; 6], [4; 6]));
            assert_eq!(other.vlan_ids().first().map(|id| id.value()), vlan);
            assert_eq!(other.payload.slice(), b"odd");
        }
    }
}

#[test]
fn a_segment_is_written_whole_with_right_checksums() {
    let timestamps = Some(Timestamps { value: 0x0102_0304, echo: 0xfffe_fdfc });
    let all = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps,
        ..Options::default()
    };
    let alone = Options { timestamps, ..Options::default() };
    let cases = [(Options::default(), &b""[..]), (alone, b"odd"), (all, b""), (Options::default(), b"even")];
    for (options, payload) in cases {
        for (v6, vlan) in [(false, None), (false, Some(7)), (true, None), (true, Some(7))] {
            let written = Segment {
                seq: 0xfedc_ba98.into(),
                ack: 0x1234_5678.into(),
                flags: Flags::PSH | Flags::ACK,
                window: 0xabcd,
                urgent: 3,
                options: options.clone(),
                payload,
            };
            let mut buf = TestBuf::new(2048);
            segment(&mut buf, &Link { vlan, ..LINK }, &ip(v6, PROTOCOL_TCP), (1000, 2000), &written).unwrap();
            let other = PacketHeaders::from_ethernet_slice(buf.bytes()).unwrap();
            assert_eq!(other.vlan_ids().first().map(|id| id.value()), vlan);
            let Some(TransportHeader::Tcp(tcp)) = &other.transport else { panic!("{:?}", other.transport) };
            let sum = match other.net.as_ref().unwrap() {
                NetHeaders::Ipv4(ip, _) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    tcp.calc_checksum_ipv4(ip, payload).unwrap()
                }
                NetHeaders::Ipv6(ip, _) => tcp.calc_checksum_ipv6(ip, payload).unwrap(),
                other => panic!("{other:?}"),
            };
            assert_eq!((tcp.source_port, tcp.destination_port, tcp.checksum), (1000, 2000, sum));
            let l4 = buf.bytes().len() - written.wire_len();
            assert_eq!(Segment::parse(&buf.bytes()[l4..]).unwrap(), written);
            if let (Ip { source, destination, ttl, identification, .. }, false, None) = (ip(v6, 0), v6, vlan)
            {
                let addresses = zerocopy::transmute!([source.v4().unwrap(), destination.v4().unwrap()]);
                let ports = zerocopy::transmute!([1000u16.to_be(), 2000u16.to_be()]);
                let way = Short {
                    macs: [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2],
                    addresses,
                    ports,
                    ttl,
                    identification,
                };
                let mut short = TestBuf::new(2048);
                short_segment(&mut short, &way, &written).unwrap();
                assert_eq!(short.bytes(), buf.bytes());
                assert_eq!(short_segment(&mut TestBuf::new(53), &way, &written), Err(DropReason::NoBuffer));
            }
        }
    }
    let (mut small, nothing) = (TestBuf::new(73), Segment::default());
    assert_eq!(
        segment(&mut small, &LINK, &ip(true, PROTOCOL_TCP), (1, 2), &nothing),
        Err(DropReason::NoBuffer)
    );
}

#[test]
fn ipv4_fields() {
    let mut buf = TestBuf::new(2048);
    build(&mut buf, &LINK, &ip(false, PROTOCOL_UDP), 11, fill(PROTOCOL_UDP, b"abc")).unwrap();
    let other = LaxPacketHeaders::from_ethernet(buf.bytes()).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(header, _)) = other.net else { panic!("{:?}", other.net) };
    assert!(header.dont_fragment && !header.more_fragments);
    assert_eq!((header.identification, header.time_to_live, header.total_len), (0x1234, 64, 31));
    assert_eq!(header.header_checksum, header.calc_header_checksum());
}

#[test]
fn computed_zero_is_sent_as_ones() {
    let ip = ip(false, PROTOCOL_UDP);
    let mut buf = TestBuf::new(2048);
    let datagram = |tail: [u8; 2]| move |segment: &mut [u8]| fill(PROTOCOL_UDP, &tail)(segment);
    build(&mut buf, &LINK, &ip, 10, datagram([0, 0])).unwrap();
    // What was left to a full sum becomes the payload.
    let tail = [buf.bytes()[40], buf.bytes()[41]];
    build(&mut buf, &LINK, &ip, 10, datagram(tail)).unwrap();
    assert_eq!(buf.bytes()[40..42], [0xff, 0xff]);
}

#[test]
fn refusals() {
    let udp = ip(false, PROTOCOL_UDP);
    let whole = |buf: &mut TestBuf, ip: &Ip, length: usize| build(buf, &LINK, ip, length, |_| length);
    assert_eq!(whole(&mut TestBuf::new(41), &udp, 8), Err(DropReason::NoBuffer));
    assert_eq!(whole(&mut TestBuf::new(100_000), &udp, 65_516), Err(DropReason::TooBig));
    assert_eq!(whole(&mut TestBuf::new(100), &udp, 7), Err(DropReason::Malformed));
    let mixed = Ip { destination: ip(true, PROTOCOL_UDP).destination, ..udp };
    assert_eq!(whole(&mut TestBuf::new(100), &mixed, 8), Err(DropReason::Malformed));
}

#[test]
fn encapsulated_packet_is_kept() {
    let mut buf = TestBuf::new(2048);
    build(&mut buf, &LINK, &ip(true, PROTOCOL_UDP), 11, fill(PROTOCOL_UDP, b"abc")).unwrap();
    let packet = buf.bytes()[14..].to_vec();
    let mut outer = TestBuf::new(2048);
    encapsulate(&mut outer, &Link { vlan: Some(7), ..LINK }, &packet).unwrap();
    assert!(parse(outer.bytes(), Some(7)).is_ok());
    assert_eq!(outer.bytes()[18..], packet);
    assert_eq!(encapsulate(&mut outer, &LINK, &[0x50; 20]), Err(DropReason::Malformed));
    assert_eq!(encapsulate(&mut outer, &LINK, &[]), Err(DropReason::Malformed));
    assert_eq!(encapsulate(&mut TestBuf::new(20), &LINK, &packet), Err(DropReason::NoBuffer));
}

#[test]
fn macs() {
    let mut frame = [0u8; 14];
    set_macs(&mut frame, [1; 6], [3; 6]).unwrap();
    assert_eq!(frame, [3, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(set_macs(&mut frame[..11], [1; 6], [3; 6]), Err(DropReason::Truncated));
    assert_eq!(multicast_mac(ip(true, 0).destination), [0x33, 0x33, 0, 0, 0, 7]);
}
