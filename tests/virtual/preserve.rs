//! Services with `preserve_client_ip`: servers see the client's own address and port, and answer to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dataplane::counters::DropReason;
use smoltcp::socket::tcp::State;

use crate::icmp::{error, quoted};
use crate::inside::*;
use crate::tcp_binding::{Scene, bytes};
use crate::wire::{self, Packet, Transport};
use crate::world::*;

pub const KEEP: &str = "preserve_client_ip = true\n";

/// Two arms without SNAT addresses.
fn network() -> &'static str {
    TWO_ARMS.split("[snat]").next().unwrap()
}

fn world(toml: &str) -> World {
    World::with_network(&format!("{}{toml}", network()))
}

/// The service again as "two" on 192.0.2.11 (and 2001:db8:1::11).
pub fn second(service: &str) -> String {
    let second = service.replace("\"vs\"", "\"two\"").replace("192.0.2.10", "192.0.2.11");
    second.replace("2001:db8:1::10", "2001:db8:1::11")
}

fn scene(toml: &str) -> Scene {
    let mut world = world(toml);
    let client = world.host(OUTSIDE, "192.0.2.100");
    let (a, b) = (world.host(INSIDE, "10.0.0.21"), world.host(INSIDE, "10.0.0.22"));
    Scene { world, client, a, b }
}

/// Who the packets to this address came from.
fn seen_at(world: &World, server: &str) -> BTreeSet<SocketAddr> {
    let to_it = |packet: &&Packet| packet.destination.ip() == address(server);
    let packets = world.left.iter().filter(to_it);
    packets
        .filter(|packet| !matches!(packet.transport, Transport::Icmp(_)))
        .map(|packet| packet.source)
        .collect()
}

fn only(socket: &str) -> BTreeSet<SocketAddr> {
    BTreeSet::from([crate::world::socket(socket)])
}

fn exchange(world: &mut World, (client, server): (Talk, Talk), up: usize, down: usize) {
    world.talk(client).say(&bytes(up, 1));
    world.talk(server).say(&bytes(down, 2));
    world.talk(client).finish = true;
    world.seconds(2);
    world.talk(server).finish = true;
    world.seconds(2);
    assert!(world.talk(server).received == bytes(up, 1), "{up} up");
    assert!(world.talk(client).received == bytes(down, 2), "{down} down");
}

#[test]
fn servers_see_the_clients_own_address_and_port_in_every_profile() {
    let pool = pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]);
    let services = [
        plain("tcp/443", "a") + KEEP,
        plain("tcp/443", "a") + KEEP + "[virtual_service.tcp]\nprofile = \"proxy\"\n",
        plain("tcp/443", "a")
            + KEEP
            + "[virtual_service.tcp]\nprofile = \"proxy\"\nsyn_cookies = \"always\"\n",
        scripted("tcp/443", "a", &["a"], "avi.l4.collect(1000) avi.vs.log(avi.vs.client_ip())") + KEEP,
        with_sets("tcp/443", "a", &["a"], None, Some("avi.l4.collect(1)")) + KEEP,
    ];
    for service in services {
        let mut world = world(&format!("{pool}{}", with_ipv6(&service)));
        let families = [
            ("192.0.2.100", "192.0.2.10:443", "10.0.0.21"),
            ("2001:db8:1::100", "[2001:db8:1::10]:443", "2001:db8:2::21"),
        ];
        for (client, vip, server) in families {
            let (from, at) = (world.host(OUTSIDE, client), world.host(INSIDE, server));
            let pair = (world.connect(from, 40_000, vip), world.listen(at, 443));
            exchange(&mut world, pair, 100_000, 70_000);
            let own = BTreeSet::from([SocketAddr::new(address(client), 40_000)]);
            assert_eq!(seen_at(&world, server), own);
            let vip = BTreeSet::from([socket(vip)]);
            assert_eq!(seen_at(&world, client), vip);
        }
        world.seconds(20);
        assert_eq!(world.terminations(), ["--"; 2]);
        assert_eq!(world.records[0].snat, Some(socket("192.0.2.100:40000")));
        world.finish();
    }
}

#[test]
fn one_arm_with_two_subnets() {
    let network = "[[interface]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"192.0.2.1/24\", \"10.0.0.1/24\"]\n";
    let service = plain("tcp/443", "a") + KEEP;
    let mut world =
        World::with_network(&format!("{network}{}{service}", pools(&[("a", &["10.0.0.21:443"])])));
    let (client, server) = (world.host(OUTSIDE, "192.0.2.100"), world.host(OUTSIDE, "10.0.0.21"));
    let pair = (world.connect(client, 40_000, "192.0.2.10:443"), world.listen(server, 443));
    exchange(&mut world, pair, 3000, 3000);
    assert_eq!(seen_at(&world, "10.0.0.21"), only("192.0.2.100:40000"));
    world.finish();
}

#[test]
fn datagrams_of_flows_and_each_by_itself() {
    let pool = pools(&[("a", &["10.0.0.21:53", "10.0.0.22:53", "[2001:db8:2::21]:53"])]);
    for per_packet in [false, true] {
        let udp = format!("[virtual_service.udp]\nper_packet = {per_packet}\n");
        let mut world = world(&format!("{pool}{}", with_ipv6(&(plain("udp/53", "a") + KEEP + &udp))));
        let servers = ["10.0.0.21", "10.0.0.22", "2001:db8:2::21"].map(|at| world.silent(INSIDE, at));
        for (client, vip) in [("192.0.2.100", "192.0.2.10:53"), ("2001:db8:1::100", "[2001:db8:1::10]:53")] {
            let host = world.silent(OUTSIDE, client);
            for _ in 0..4 {
                world.datagram(host, 4000, vip, b"question");
                world.settle();
            }
            let arrived = servers.map(|server| world.inbox(server));
            let counts = arrived.each_ref().map(Vec::len);
            let expected = match (client.contains(':'), per_packet) {
                (true, _) => [0, 0, 4],
                (false, true) => [2, 2, 0],
                (false, false) => [4, 0, 0],
            };
            assert_eq!(counts, expected);
            for (packets, server) in arrived.into_iter().zip(servers) {
                for packet in packets {
                    assert_eq!(packet.source, SocketAddr::new(address(client), 4000));
                    world.datagram(server, 53, packet.source.to_string(), b"answer");
                }
            }
            world.settle();
            let answers = world.inbox(host);
            assert_eq!(answers.len(), 4);
            assert!(answers.iter().all(|packet| packet.source == socket(vip) && packet.payload == b"answer"));
        }
        world.finish();
    }
}

/// Two VIPs and a client that uses one port for both.
fn two_vips(servers: &[&str], settings: &str, service: &str) -> World {
    world(&format!("{}{settings}{service}{}", pools(&[("a", servers)]), second(service)))
}

#[test]
fn a_second_flow_of_the_same_client_port_is_refused_where_there_is_one_server() {
    let mut world = two_vips(&["10.0.0.21:53"], "", &(plain("udp/53", "a") + KEEP));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"one");
    world.datagram(client, 4000, "192.0.2.11:53", b"two");
    world.datagram(client, 4001, "192.0.2.11:53", b"three");
    world.settle();
    assert_eq!(world.payloads(server), [&b"one"[..], b"three"]);
    assert_eq!(world.dropped(DropReason::ClientInUse), 1);
    assert_eq!(world.terminations(), ["RP"]);
    assert_eq!(world.records[0].reason, Some(DropReason::ClientInUse));
    world.seconds(40);
    world.datagram(client, 4000, "192.0.2.11:53", b"two");
    world.settle();
    assert_eq!(world.payloads(server), [b"two"]);
    world.datagram(server, 53, "192.0.2.100:4000", b"answer");
    world.settle();
    assert_eq!(world.inbox(client)[0].source, socket("192.0.2.11:53"), "by the VIP that has it now");
    world.finish();
}

/// By hash both flows would have the same server.
#[test]
fn a_second_flow_of_the_same_client_port_goes_to_another_server() {
    let hash = "algorithm = \"source_ip_hash\"\n";
    for per_packet in [false, true] {
        let udp = format!("[virtual_service.udp]\nper_packet = {per_packet}\n");
        let servers = ["10.0.0.21:53", "10.0.0.22:53"];
        let mut world = two_vips(&servers, hash, &(plain("udp/53", "a") + KEEP + &udp));
        let client = world.silent(OUTSIDE, "192.0.2.100");
        let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
        let ask = |world: &mut World, vip: &str| {
            world.datagram(client, 4000, vip, b"?");
            world.settle();
            servers.map(|server| world.inbox(server).len())
        };
        let first = ask(&mut world, "192.0.2.10:53");
        let other = ask(&mut world, "192.0.2.11:53");
        assert_eq!([first[0] + other[0], first[1] + other[1]], [1, 1]);
        assert_eq!(ask(&mut world, "192.0.2.10:53"), first, "each goes on with its own");
        if !per_packet {
            assert_eq!(ask(&mut world, "192.0.2.11:53"), other);
        }
        assert_eq!(world.dropped(DropReason::ClientInUse), 0);
        world.finish();
    }
    // The server that a script named is not replaced.
    let service = scripted("udp/53", "a", &["a"], "avi.pool.select('a', '10.0.0.21')") + KEEP;
    let (sets, service) = service.split_at(service.find("[[virtual_service]]").unwrap());
    let pool = pools(&[("a", &["10.0.0.21:53", "10.0.0.22:53"])]);
    let mut world = world(&format!("{pool}{sets}{service}{}", second(service)));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let servers = [world.silent(INSIDE, "10.0.0.21"), world.silent(INSIDE, "10.0.0.22")];
    world.datagram(client, 4000, "192.0.2.10:53", b"?");
    world.datagram(client, 4000, "192.0.2.11:53", b"?");
    world.settle();
    assert_eq!(servers.map(|server| world.inbox(server).len()), [1, 0]);
    assert_eq!(world.dropped(DropReason::ClientInUse), 1);
    world.finish();
}

#[test]
fn connections_of_the_same_client_port_do_not_meet_either() {
    let script = "avi.l4.collect(1)";
    let service = scripted("tcp/443", "a", &["a"], script) + KEEP;
    let (sets, service) = service.split_at(service.find("[[virtual_service]]").unwrap());
    let pool = pools(&[("a", &["10.0.0.21:443"])]);
    let mut scene = scene(&format!("{pool}{sets}{service}{}", second(service)));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"first");
    scene.world.seconds(1);
    let refused = scene.world.connect(scene.client, 40_000, "192.0.2.11:443");
    scene.world.talk(refused).say(b"second");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(refused), State::Closed, "reset");
    assert_eq!(scene.world.records[0].reason, Some(DropReason::ClientInUse));
    scene.world.talk(client).finish = true;
    scene.world.seconds(1);
    scene.world.talk(server).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.talk(server).received, b"first");
    assert_eq!(scene.world.worker.pipeline().flows().len(), 1, "it lingers for late packets");
    // It is over, so its tuple is free for the other VIP at once.
    let pair =
        (scene.world.connect(scene.client, 40_000, "192.0.2.11:443"), scene.world.listen(scene.a, 443));
    exchange(&mut scene.world, pair, 3000, 3000);
    assert_eq!(scene.world.worker.pipeline().flows().len(), 1, "the old one gave way");
    scene.world.finish();
}

const CLIENT: &str = "192.0.2.100:4000";
const SERVER: &str = "10.0.0.21:443";

/// One segment, by hand; what it became for the other side.
fn segment(
    world: &mut World,
    (from, to): (HostId, HostId),
    ends: [&str; 2],
    header: (&str, u32, u32),
) -> Vec<Packet> {
    let (flags, seq, ack) = header;
    let packet = wire::tcp(socket(ends[0]), socket(ends[1]), wire::flags(flags, seq, ack), b"");
    world.at(from).outbox.push(packet);
    world.settle();
    world.inbox(to)
}

#[test]
fn a_client_port_is_used_again_after_the_end() {
    for (vip, settled) in [("192.0.2.10:443", true), ("192.0.2.11:443", true), ("192.0.2.11:443", false)] {
        let mut world = two_vips(&[SERVER], "", &(plain("tcp/443", "a") + KEEP));
        let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
        let (up, down) = ((client, server), (server, client));
        let (there, back) = ([CLIENT, "192.0.2.10:443"], [SERVER, CLIENT]);
        assert_eq!(segment(&mut world, up, there, ("S", 1000, 0))[0].source, socket(CLIENT));
        assert_eq!(segment(&mut world, down, back, ("SA", 7000, 1001)).len(), 1);
        assert_eq!(segment(&mut world, up, there, ("A", 1001, 7001)).len(), 1);
        assert_eq!(segment(&mut world, up, there, ("FA", 1001, 7001)).len(), 1);
        assert_eq!(segment(&mut world, down, back, ("FA", 7001, 1002)).len(), 1);
        if settled {
            assert_eq!(segment(&mut world, up, there, ("A", 1002, 7002)).len(), 1);
        }
        let again = segment(&mut world, up, [CLIENT, vip], ("S", 90_000, 0));
        let refused = world.dropped(DropReason::ClientInUse);
        if settled {
            assert_eq!((again[0].source, again[0].tcp().syn, refused), (socket(CLIENT), true, 0));
            assert_eq!(segment(&mut world, down, back, ("SA", 5, 90_001))[0].source, socket(vip));
        } else {
            assert_eq!((again.len(), refused), (0, 1), "the server still waits for an acknowledgement");
        }
        world.finish();
    }
}

#[test]
fn a_server_that_refuses_is_replaced_and_the_other_sees_the_client_too() {
    let pool = pools(&[("a", &["10.0.0.21:443", "10.0.0.22:443"])]);
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.persist(avi.l4.read(2))") + KEEP;
    let mut scene = scene(&format!("{pool}{service}"));
    for port in [40_000, 40_001] {
        let (server, client) = (scene.world.listen(scene.b, 443), scene.connect(port));
        scene.world.talk(client).say(format!("{port} says hello").as_bytes());
        scene.world.seconds(1);
        assert!(!scene.world.talk(server).received.is_empty());
        scene.world.talk(client).finish = true;
        scene.world.talk(server).finish = true;
        scene.world.seconds(1);
    }
    let both = BTreeSet::from([socket("192.0.2.100:40000"), socket("192.0.2.100:40001")]);
    assert_eq!(seen_at(&scene.world, "10.0.0.22"), both);
    assert!(seen_at(&scene.world, "10.0.0.21").is_subset(&both));
    assert_eq!(scene.world.terminations(), ["--", "--"]);
    scene.world.finish();
}

#[test]
fn a_proxy_header_goes_ahead_all_the_same() {
    let pool = pools(&[("a", &[SERVER])]) + "[pool.tcp]\nproxy_protocol = \"v1\"\n";
    let mut scene = scene(&format!("{pool}{}{KEEP}", plain("tcp/443", "a")));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    let header = &b"PROXY TCP4 192.0.2.100 192.0.2.10 40000 443\r\n"[..];
    assert_eq!(scene.world.talk(server).received, [header, b"hello"].concat());
    assert_eq!(seen_at(&scene.world, "10.0.0.21"), only("192.0.2.100:40000"));
    scene.world.talk(client).finish = true;
    scene.world.talk(server).finish = true;
    scene.world.finish();
}

#[test]
fn weirs_own_resets_carry_the_clients_address() {
    let service = plain("tcp/443", "a") + KEEP + "[virtual_service.tcp]\nidle_timeout = \"5s\"\n";
    let mut scene = scene(&format!("{}{service}", pools(&[("a", &[SERVER])])));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"hello");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(server), State::Established);
    scene.world.seconds(10);
    assert_eq!((scene.world.state(server), scene.world.state(client)), (State::Closed, State::Closed));
    let reset = scene.world.left.iter().rev().find(|packet| packet.destination == socket(SERVER)).unwrap();
    assert_eq!((reset.source, reset.tcp().rst), (socket("192.0.2.100:40000"), true));
    scene.world.finish();
}

#[test]
fn errors_about_flows_reach_both_sides() {
    let pool = pools(&[("a", &["10.0.0.21:53", "[2001:db8:2::21]:53"])]);
    let mut world = world(&format!("{pool}{}", with_ipv6(&(plain("udp/53", "a") + KEEP))));
    let families = [
        ("192.0.2.100", "192.0.2.10:53", "10.0.0.21", "10.0.0.99"),
        ("2001:db8:1::100", "[2001:db8:1::10]:53", "2001:db8:2::21", "2001:db8:2::99"),
    ];
    for (at, vip, server_at, router_at) in families {
        let (client, server) = (world.silent(OUTSIDE, at), world.silent(INSIDE, server_at));
        let router = world.silent(INSIDE, router_at);
        let own = SocketAddr::new(address(at), 4000);
        world.datagram(client, 4000, vip, b"question");
        world.settle();
        let arrived = world.inbox(server).remove(0);
        // Of the server, and of a router on the way to it; both to the client's address.
        for (host, from) in [(server, server_at), (router, router_at)] {
            let quote = wire::udp(arrived.source, arrived.destination, b"question");
            world.at(host).outbox.push(error(address(from), arrived.source.ip(), None, &quote));
            world.settle();
            let errors = world.inbox(client);
            assert_eq!(errors.len(), 1);
            let (source, destination, _) = quoted(&errors[0]);
            assert_eq!((source, destination), (own, socket(vip)));
            assert_eq!(errors[0].source.ip(), socket(vip).ip());
        }
        // Of the client about an answer.
        let quote = wire::udp(socket(vip), own, b"answer");
        world.at(client).outbox.push(error(address(at), socket(vip).ip(), None, &quote));
        world.settle();
        let errors = world.inbox(server);
        let (source, destination, _) = quoted(&errors[0]);
        assert_eq!((source, destination, errors[0].source.ip()), (arrived.destination, own, own.ip()));
        assert_eq!(world.worker.pipeline().counters().dropped_total(), 0);
    }
    world.finish();
}

#[test]
fn errors_about_anything_else_go_nowhere() {
    let mut world = world(&format!("{}{}{KEEP}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"question");
    world.settle();
    world.inbox(server);
    let mut send = |from: &str, to: &str, quote: [&str; 2]| {
        let quote = wire::udp(socket(quote[0]), socket(quote[1]), b"question");
        world.at(server).outbox.push(error(address(from), address(to), None, &quote));
        world.settle();
        assert_eq!(world.inbox(client), []);
        [DropReason::IcmpNoFlow, DropReason::NoAddress].map(|reason| world.dropped(reason))
    };
    let of_no_flow = ["192.0.2.100:4001", "10.0.0.21:53"];
    assert_eq!(send("10.0.0.21", "192.0.2.100", of_no_flow), [1, 0]);
    let of_another_host = ["192.0.2.100:4000", "10.0.0.22:53"];
    assert_eq!(send("10.0.0.22", "192.0.2.100", of_another_host), [1, 1]);
    let to_somebody_else = ["192.0.2.100:4000", "10.0.0.21:53"];
    assert_eq!(send("10.0.0.21", "192.0.2.101", to_somebody_else), [1, 2]);
    world.finish();
}

#[test]
fn fragments_of_clients_and_servers_are_put_together() {
    let mut world = world(&format!("{}{}{KEEP}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    let stranger = world.silent(INSIDE, "10.0.0.99");
    world.cut = Some(1480);
    // The first one makes both known to ARP: few packets may wait for it.
    for length in [10, 5000] {
        world.datagram(client, 4000, "192.0.2.10:53", &bytes(length, 1));
        world.settle();
        assert_eq!(world.payloads(server), [bytes(length, 1)]);
        world.datagram(server, 53, "192.0.2.100:4000", &bytes(length + 1000, 2));
        world.settle();
        assert_eq!(world.payloads(client), [bytes(length + 1000, 2)]);
    }
    let counters = world.worker.pipeline().counters();
    assert_eq!((counters.reassembled, counters.dropped_total()), (2, 0));
    world.datagram(server, 53, "192.0.2.100:4001", &bytes(3000, 2));
    world.datagram(stranger, 53, "192.0.2.100:4000", &bytes(3000, 2));
    world.settle();
    let drops = [DropReason::NoAddress, DropReason::Fragment].map(|reason| world.dropped(reason));
    assert_eq!((world.payloads(client).len(), drops), (0, [1, 3]), "no flow; no server");
    world.finish();
}

#[test]
fn weir_is_no_router() {
    let pool = pools(&[("a", &["10.0.0.21:443"])]);
    let mut world = world(&format!(
        "{pool}{}{KEEP}",
        plain("tcp/443", "a").replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"")
    ));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    let stranger = world.silent(INSIDE, "10.0.0.99");
    world.datagram(client, 4000, "192.0.2.10:443", b"a flow");
    world.settle();
    assert_eq!(world.payloads(server), [b"a flow"]);
    let udp = |from: &str, to: &str| wire::udp(socket(from), socket(to), b"out");
    let tcp =
        |from: &str, flags: &str| wire::tcp(socket(from), socket(CLIENT), wire::flags(flags, 5, 6), b"");
    let in_silence = [
        (server, udp("10.0.0.21:444", CLIENT)),
        (server, udp(SERVER, "192.0.2.100:4001")),
        (server, udp(SERVER, "203.0.113.9:53")),
        (stranger, udp("10.0.0.99:443", CLIENT)),
        (server, wire::echo_request(address("10.0.0.21"), address("192.0.2.100"), b"ping")),
        (server, tcp("10.0.0.21:50000", "S")),
        (server, tcp(SERVER, "S")),
        (server, tcp("10.0.0.21:444", "A")),
        (stranger, tcp("10.0.0.99:443", "A")),
    ];
    let count = in_silence.len() as u64;
    for (host, packet) in in_silence {
        world.at(host).outbox.push(packet);
    }
    world.settle();
    assert_eq!(world.dropped(DropReason::NoAddress), count);
    assert_eq!([client, server, stranger].map(|host| world.inbox(host).len()), [0; 3]);
    // What is left of a connection that weir does not know any more: the server is told so.
    for (flags, resets) in [("A", 1), ("SA", 1), ("FA", 1), ("R", 0)] {
        world.at(server).outbox.push(tcp(SERVER, flags));
        world.settle();
        let answers = world.inbox(server);
        assert_eq!(answers.len(), resets, "{flags}");
        assert!(answers.iter().all(|packet| packet.source == socket(CLIENT) && packet.tcp().rst));
    }
    assert_eq!((world.dropped(DropReason::NoFlow), world.inbox(client).len()), (4, 0));
    world.finish();
}

#[test]
fn clients_that_say_they_are_weir_are_refused() {
    let mut world = world(&format!("{}{}{KEEP}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a")));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for own in ["192.0.2.1:5000", "192.0.2.10:5000", "10.0.0.1:5000"] {
        world.at(client).outbox.push(wire::udp(socket(own), socket("192.0.2.10:53"), b"?"));
    }
    world.settle();
    assert_eq!((world.inbox(server).len(), world.dropped(DropReason::ClientInUse)), (0, 3));
    // Nobody answers ARP for these.
    world.seconds(100);
    world.assert_empty();
}

/// With a pool in common: whose flow an answer belongs to shows in its destination.
#[test]
fn a_service_that_preserves_and_one_that_does_not_share_a_server() {
    let nat = plain("udp/53", "a");
    let toml = format!("{TWO_ARMS}{}{nat}{KEEP}{}", pools(&[("a", &["10.0.0.21:53"])]), second(&nat));
    let mut world = World::with_network(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"kept");
    world.datagram(client, 4000, "192.0.2.11:53", b"translated");
    world.settle();
    let arrived = world.inbox(server);
    assert_eq!((arrived[0].source, arrived[1].source.ip()), (socket(CLIENT), address("10.0.0.2")));
    for packet in arrived {
        world.datagram(server, 53, packet.source.to_string(), &packet.payload);
    }
    world.settle();
    let answers: Vec<_> =
        world.inbox(client).into_iter().map(|packet| (packet.source, packet.payload)).collect();
    let expected = [("192.0.2.10:53", &b"kept"[..]), ("192.0.2.11:53", b"translated")]
        .map(|(vip, text)| (socket(vip), text.to_vec()));
    assert_eq!(answers, expected);
    world.finish();
}

#[test]
fn a_service_begins_to_preserve_addresses_with_a_reload() {
    let toml = format!("{}{}", pools(&[("a", &["10.0.0.21:443"])]), plain("udp/443", "a"));
    let mut world = World::new(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    let stray = wire::tcp(socket("10.0.0.21:443"), socket("192.0.2.100:4000"), wire::flags("A", 5, 6), b"");
    let stray_answers = |world: &mut World| {
        world.at(server).outbox.push(stray.clone());
        world.settle();
        (world.dropped(DropReason::NoAddress), world.dropped(DropReason::NoFlow), world.inbox(server).len())
    };
    assert_eq!(stray_answers(&mut world), (1, 0, 0), "its servers do not see clients' addresses");
    world.reload(&format!("{toml}{KEEP}"));
    world.datagram(client, 4000, "192.0.2.10:443", b"now");
    world.settle();
    let sources: Vec<SocketAddr> = world.inbox(server).iter().map(|packet| packet.source).collect();
    assert_eq!(sources, [socket("192.0.2.100:4000")]);
    assert_eq!(stray_answers(&mut world), (1, 1, 1), "reset in the client's name");
    world.finish();
}

#[test]
fn a_server_that_a_reload_removes_still_answers_in_fragments() {
    let toml = |servers: &[&str]| format!("{}{}{KEEP}", pools(&[("a", servers)]), plain("udp/53", "a"));
    let mut world = World::new(&toml(&["10.0.0.21:53", "10.0.0.22:53"]));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"question");
    world.settle();
    assert_eq!(world.payloads(server), [b"question"]);
    world.reload(&toml(&["10.0.0.22:53"]));
    world.cut = Some(1480);
    world.datagram(server, 53, "192.0.2.100:4000", &bytes(3000, 2));
    world.settle();
    assert_eq!(world.payloads(client), [bytes(3000, 2)]);
    world.finish();
}
