//! ICMP errors about packets of flows, and weir's own about packets that are too big.

use std::net::{IpAddr, SocketAddr};

use dataplane::counters::DropReason;
use etherparse::{Icmpv4Type, Icmpv6Type, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, UdpHeader};

use crate::inside::*;
use crate::pieces::with_df;
use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire::{self, Packet, Transport};
use crate::world::*;

/// An ICMP error of `source` about a packet: fragmentation needed with this MTU, or else port unreachable.
pub fn error(source: IpAddr, destination: IpAddr, mtu: Option<u16>, quoted: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let kind = match mtu {
                Some(mtu) => {
                    let [a, b] = mtu.to_be_bytes();
                    Icmpv4Type::Unknown { type_u8: 3, code_u8: 4, bytes5to8: [0, 0, a, b] }
                }
                None => Icmpv4Type::Unknown { type_u8: 3, code_u8: 3, bytes5to8: [0; 4] },
            };
            let builder = PacketBuilder::ipv4(s.octets(), d.octets(), 60).icmpv4(kind);
            builder.write(&mut packet, &quoted[..quoted.len().min(64)]).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let kind = match mtu {
                Some(mtu) => {
                    Icmpv6Type::Unknown { type_u8: 2, code_u8: 0, bytes5to8: u32::from(mtu).to_be_bytes() }
                }
                None => Icmpv6Type::Unknown { type_u8: 1, code_u8: 4, bytes5to8: [0; 4] },
            };
            let builder = PacketBuilder::ipv6(s.octets(), d.octets(), 60).icmpv6(kind);
            builder.write(&mut packet, &quoted[..quoted.len().min(900)]).unwrap();
        }
        _ => panic!("{source} and {destination}"),
    }
    packet
}

/// What an error quotes: the two ends, and the sequence number of TCP.
pub fn quoted(error: &Packet) -> (SocketAddr, SocketAddr, u32) {
    let bytes = &error.payload;
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (source, destination, l4): (IpAddr, IpAddr, usize) = if bytes[0] >> 4 == 4 {
        let (header, _) = Ipv4Header::from_slice(bytes).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "quoted IPv4 header");
        (header.source.into(), header.destination.into(), 20)
    } else {
        let (header, _) = Ipv6Header::from_slice(bytes).unwrap();
        (header.source.into(), header.destination.into(), 40)
    };
    let seq = u32::from_be_bytes(bytes[l4 + 4..l4 + 8].try_into().unwrap());
    (SocketAddr::new(source, word(l4)), SocketAddr::new(destination, word(l4 + 2)), seq)
}

/// A connection that has carried bytes, and a packet of each side as the other one got it.
struct Talking {
    scene: Scene,
    router: HostId,
}

const CLIENT: &str = "192.0.2.100:4000";
const VIP: &str = "192.0.2.10:443";
const SERVER: &str = "10.0.0.21:443";

fn talking(fast_path: bool) -> (Talking, Talk, Talk) {
    let service = format!("{}{}", two_pools(), plain("tcp/443", "a"));
    let proxy = "[virtual_service.tcp]\nprofile = \"proxy\"\n";
    let mut scene = Scene::new(&if fast_path { service } else { format!("{service}{proxy}") });
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(4000));
    let router = scene.world.silent(INSIDE, "10.0.0.99");
    scene.world.talk(client).say(&bytes(3000, 1));
    scene.world.talk(server).say(&bytes(3000, 2));
    scene.world.seconds(1);
    (Talking { scene, router }, server, client)
}

impl Talking {
    /// A data packet that weir has sent to the server: as a router there would see it, with this sequence number.
    fn to_server(&self, behind: u32) -> (Vec<u8>, u32) {
        let (_, flow) = self.scene.world.worker.pipeline().flows().iter().next().unwrap();
        let seq = flow.track.next(tcp::Side::Client).value().wrapping_sub(behind);
        let key = flow.server_key();
        let header = wire::flags("A", seq, 1);
        (wire::tcp(key.destination_socket(), key.source_socket(), header, &[0; 600]), seq)
    }

    /// The same to the client, and the number that the server gave it.
    fn to_client(&self) -> (Vec<u8>, u32) {
        let (_, flow) = self.scene.world.worker.pipeline().flows().iter().next().unwrap();
        let seq = flow.track.next(tcp::Side::Server);
        let key = flow.client_key();
        let header = wire::flags("A", flow.splice.to_client(seq).value(), 1);
        (wire::tcp(key.destination_socket(), key.source_socket(), header, &[0; 600]), seq.value())
    }

    /// The errors that have come to a host on this side.
    fn errors(&mut self, host: HostId) -> Vec<Packet> {
        let inbox = self.scene.world.inbox(host);
        inbox.into_iter().filter(|packet| matches!(packet.transport, Transport::Icmp(_))).collect()
    }
}

#[test]
fn errors_reach_the_sender_in_both_directions_with_its_own_packet_quoted() {
    for fast_path in [false, true] {
        for mtu in [None, Some(1280)] {
            let (mut talking, _, _) = talking(fast_path);
            let (client, server, router) = (talking.scene.client, talking.scene.a, talking.router);
            let (packet, seq) = talking.to_server(0);
            let snat = SocketAddr::new(address("10.0.0.2"), u16::from_be_bytes([packet[20], packet[21]]));
            let message = error(address("10.0.0.99"), snat.ip(), mtu, &packet);
            talking.scene.world.at(router).outbox.push(message);
            talking.scene.world.settle();
            let errors = talking.errors(client);
            assert_eq!(errors.len(), 1);
            assert_eq!(quoted(&errors[0]), (socket(CLIENT), socket(VIP), seq));
            assert_eq!(errors[0].source.ip(), socket(VIP).ip());

            let (packet, seq) = talking.to_client();
            let message = error(address("192.0.2.100"), socket(VIP).ip(), mtu, &packet);
            talking.scene.world.at(client).outbox.push(message);
            talking.scene.world.settle();
            let errors = talking.errors(server);
            assert_eq!(errors.len(), 1);
            assert_eq!(quoted(&errors[0]), (socket(SERVER), snat, seq));
            assert_eq!(errors[0].source.ip(), snat.ip());
            let pipeline = talking.scene.world.worker.pipeline();
            assert_eq!(pipeline.flows().len(), 1, "the flow lives on");
            assert_eq!(pipeline.counters().dropped_total(), 0);
        }
    }
}

#[test]
fn errors_that_quote_what_is_not_on_its_way_are_dropped() {
    let (mut talking, server, client) = talking(false);
    let router = talking.router;
    let drops = |talking: &Talking| {
        [DropReason::IcmpIgnored, DropReason::IcmpNoFlow, DropReason::L4Checksum]
            .map(|reason| talking.scene.world.dropped(reason))
    };
    let (packet, _) = talking.to_server(100_000);
    let send = |talking: &mut Talking, message: Vec<u8>| {
        talking.scene.world.at(router).outbox.push(message);
        talking.scene.world.settle();
    };
    send(&mut talking, error(address("10.0.0.99"), address("10.0.0.2"), None, &packet));
    assert_eq!(drops(&talking), [1, 0, 0]);
    let (mut packet, _) = talking.to_server(0);
    let good = error(address("10.0.0.99"), address("10.0.0.2"), None, &packet);
    packet[21] ^= 1;
    send(&mut talking, error(address("10.0.0.99"), address("10.0.0.2"), None, &packet));
    assert_eq!(drops(&talking), [1, 1, 0]);
    let mut wrong = good;
    wrong[23] ^= 1;
    send(&mut talking, wrong);
    assert_eq!(drops(&talking), [1, 1, 1]);
    let host = talking.scene.client;
    assert_eq!(talking.errors(host), []);
    talking.scene.world.talk(client).say(&bytes(1000, 3));
    talking.scene.world.seconds(1);
    assert_eq!(talking.scene.world.talk(server).received.len(), 4000);
}

#[test]
fn errors_about_datagrams_pass_over_ipv6_too() {
    let toml = with_ipv6(&format!("{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a")));
    let toml = toml.replace("servers = [", "servers = [{ address = \"2001:db8:2::21\", port = 53 }, ");
    let mut world = World::new(&toml);
    for (client, vip, server) in [
        ("192.0.2.100", "192.0.2.10:53", "10.0.0.21"),
        ("2001:db8:1::100", "[2001:db8:1::10]:53", "2001:db8:2::21"),
    ] {
        let (client, server) = (world.silent(OUTSIDE, client), world.silent(INSIDE, server));
        world.datagram(client, 4000, vip, b"question");
        world.settle();
        let arrived = world.inbox(server).remove(0);
        let packet = wire::udp(arrived.source, arrived.destination, b"question");
        let refusal = error(arrived.destination.ip(), arrived.source.ip(), None, &packet);
        world.at(server).outbox.push(refusal);
        world.settle();
        let errors = world.inbox(client);
        assert_eq!(errors.len(), 1);
        let (from, to, _) = quoted(&errors[0]);
        assert_eq!((from.port(), to), (4000, socket(vip)));
        let right = if from.is_ipv4() {
            UdpHeader::with_ipv4_checksum(
                4000,
                53,
                &Ipv4Header::from_slice(&errors[0].payload).unwrap().0,
                b"question",
            )
        } else {
            UdpHeader::with_ipv6_checksum(
                4000,
                53,
                &Ipv6Header::from_slice(&errors[0].payload).unwrap().0,
                b"question",
            )
        };
        let start = if from.is_ipv4() { 26 } else { 46 };
        let quoted_sum = u16::from_be_bytes([errors[0].payload[start], errors[0].payload[start + 1]]);
        assert_eq!(quoted_sum, right.unwrap().checksum, "quoted UDP checksum");
    }
    world.seconds(40);
    world.assert_empty();
}

/// A datagram with or without DF that is larger than the MTU of the servers' side.
#[test]
fn a_packet_that_is_too_big_is_reported_to_its_sender() {
    let network = TWO_ARMS.replacen(
        "[[interface]]\nname = \"inside\"",
        "[[interface]]\nmtu = 1400\nname = \"inside\"",
        1,
    );
    let toml = format!("{network}{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a"));
    let mut world = World::with_network(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    let from = socket(CLIENT);
    for (size, df, reported) in [(1372, true, 0), (1373, true, 1), (1373, false, 0)] {
        let packet = with_df(&wire::udp(from, socket("192.0.2.10:53"), &bytes(size, 1)), df);
        world.at(client).outbox.push(packet.clone());
        world.settle();
        let errors = world.inbox(client);
        assert_eq!(errors.len(), reported, "{size} bytes, DF {df}");
        for error in errors {
            assert_eq!(error.source.ip(), address("192.0.2.10"));
            assert_eq!(error.transport, Transport::Icmp(3));
            assert!(packet.starts_with(&error.payload), "as it was sent");
            assert_eq!(error.payload.len(), 548);
        }
    }
    assert_eq!(world.payloads(server), [bytes(1372, 1), bytes(1373, 1)]);
    assert_eq!((world.pieces.as_slice(), world.dropped(DropReason::TooBig)), (&[2][..], 1));
    let counters = world.worker.pipeline().counters();
    assert_eq!(counters.fragmented, 1);
}

#[test]
fn reports_are_limited() {
    let network = TWO_ARMS.replacen(
        "[[interface]]\nname = \"inside\"",
        "[[interface]]\nmtu = 1400\nname = \"inside\"",
        1,
    );
    let toml = format!("{network}{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a"));
    let mut world = World::with_network(&toml);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let mut packet = wire::udp(socket(CLIENT), socket("192.0.2.10:53"), &bytes(1400, 1));
    packet[6] = 0x40;
    let header = Ipv4Header::from_slice(&packet).unwrap().0;
    packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    // The first one makes the client known to ARP.
    world.at(client).outbox.push(packet.clone());
    world.settle();
    let mut count = world.inbox(client).len();
    for _ in 0..150 {
        for _ in 0..10 {
            world.at(client).outbox.push(packet.clone());
        }
        world.settle();
        count += world.inbox(client).len();
    }
    assert_eq!(count, 1000);
    assert_eq!(world.dropped(DropReason::TooBig), 1501);
}

#[test]
fn the_service_bounds_segment_sizes_in_both_profiles() {
    for profile in ["proxy", "fast_path"] {
        let tcp = format!("[virtual_service.tcp]\nprofile = \"{profile}\"\nmss = 900\n");
        let toml = format!("{}{}{tcp}", pools(&[("a", &["10.0.0.23:443"])]), plain("tcp/443", "a"));
        let mut world = World::new(&toml);
        let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.23"));
        let offer = |mut header: TcpHeader, mss: u16| {
            header.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(mss)]).unwrap();
            header
        };
        let mss = |packet: &Packet| match packet.tcp().options_iterator().next() {
            Some(Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss))) => mss,
            other => panic!("{other:?}"),
        };
        let syn = offer(wire::flags("S", 7, 0), 1460);
        world.at(client).outbox.push(wire::tcp(socket(CLIENT), socket(VIP), syn, b""));
        world.settle();
        if profile == "proxy" {
            let answer = world.inbox(client).remove(0);
            assert_eq!(mss(&answer), 900);
            let isn = answer.tcp().sequence_number;
            let ack = wire::flags("A", 8, isn.wrapping_add(1));
            world.at(client).outbox.push(wire::tcp(socket(CLIENT), socket(VIP), ack, b""));
            world.settle();
        }
        let syn = world.inbox(server).remove(0);
        assert_eq!(mss(&syn), 900);
        if profile == "fast_path" {
            let answer = offer(wire::flags("SA", 70, 8), 1460);
            world.at(server).outbox.push(wire::tcp(syn.destination, syn.source, answer, b""));
            world.settle();
            assert_eq!(mss(&world.inbox(client)[0]), 900);
        }
    }
}

#[test]
fn before_the_splice_weir_itself_takes_a_smaller_size() {
    let toml = format!(
        "{}{}",
        pools(&[("a", &["10.0.0.23:443"])]),
        scripted("tcp/443", "a", &["a"], "avi.l4.collect(2000)")
    );
    let mut world = World::new(&toml);
    let (client, server) = (world.host(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.23"));
    let talk = world.connect(client, 4000, VIP);
    world.talk(talk).say(&bytes(2000, 1));
    world.settle();
    let syn = world.inbox(server).remove(0);
    let seq = syn.tcp().sequence_number;
    let mut answer = wire::flags("SA", 70, seq.wrapping_add(1));
    answer.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)]).unwrap();
    world.at(server).outbox.push(wire::tcp(syn.destination, syn.source, answer, b""));
    world.settle();
    let replayed = world.inbox(server).into_iter().find(|packet| !packet.payload.is_empty()).unwrap();
    assert!(replayed.payload.len() > 1000);
    let lost = wire::tcp(replayed.source, replayed.destination, replayed.tcp().clone(), &replayed.payload);
    let router = world.silent(INSIDE, "10.0.0.99");
    let message = error(address("10.0.0.99"), replayed.source.ip(), Some(1000), &lost);
    world.at(router).outbox.push(message);
    world.seconds(2);
    let again = world.inbox(server);
    let longest = again.iter().map(|packet| packet.payload.len()).max().unwrap();
    assert_eq!(longest, 960, "{:?}", again.len());
}
