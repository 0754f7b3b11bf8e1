//! Several workers: flows that find theirs, with a card that spreads packets by RSS and with one that does not.

use std::net::IpAddr;

use dataplane::counters::{Counters, DropReason};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

use crate::inside::*;
use crate::wire::Transport;
use crate::world::*;

/// Key of Microsoft's RSS specification, as bits.
const KEY: &str = "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";

/// The hash as the specification defines it: for each bit of the input that is set, the 32 bits of the key from there on.
fn toeplitz(input: &[u8]) -> u32 {
    toeplitz_with(KEY, input)
}

/// The same with another key.
pub fn toeplitz_with(key: &str, input: &[u8]) -> u32 {
    let nibble = |at: usize| u128::from(u8::from_str_radix(&key[at..=at], 16).unwrap());
    let window = |bit: usize| -> u32 {
        let wide = (0..9)
            .fold(0u128, |wide, n| wide << 4 | key.get(bit / 4 + n..).map_or(0, |_| nibble(bit / 4 + n)));
        (wide >> (4 - bit % 4)) as u32
    };
    let bits = (0..input.len() * 8).filter(|bit| input[bit / 8] & (0x80 >> (bit % 8)) != 0);
    bits.fold(0, |hash, bit| hash ^ window(bit))
}

/// The queue of a card with RSS over addresses and ports and 128 entries that name the queues in turn. What is neither
/// TCP nor UDP and has no IP header goes to the first queue.
pub fn rss(frame: &[u8], queues: usize) -> usize {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let mut input = match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => [ip.source, ip.destination].concat(),
        Some(NetHeaders::Ipv6(ip, _)) => [ip.source, ip.destination].concat(),
        _ => return 0,
    };
    let ports = match &headers.transport {
        Some(TransportHeader::Tcp(tcp)) => Some((tcp.source_port, tcp.destination_port)),
        Some(TransportHeader::Udp(udp)) => Some((udp.source_port, udp.destination_port)),
        _ => None,
    };
    if let Some((source, destination)) = ports {
        input.extend(source.to_be_bytes());
        input.extend(destination.to_be_bytes());
    }
    toeplitz(&input) as usize % 128 % queues
}

#[test]
fn the_oracle_knows_the_published_vectors() {
    let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
    assert_eq!(toeplitz(&input), 0x51cc_c178);
    assert_eq!(toeplitz(&input[..8]), 0x323e_8fc2);
}

const WORKERS: u8 = 3;
const REQUEST: &str = r#"
    avi.l4.collect(5)
    local what = avi.l4.read(5)
    avi.vs.log(what)
    avi.pool.select(what == "b----" and "b" or "a")
"#;

fn world(queue: fn(&[u8]) -> usize) -> World {
    world_of(WORKERS, queue)
}

fn world_of(workers: u8, queue: fn(&[u8]) -> usize) -> World {
    let pools = pools(&[
        ("a", &["10.0.0.21:443", "10.0.0.22:443", "[2001:db8:2::21]:443"]),
        ("b", &["10.0.0.22:443", "[2001:db8:2::21]:443"]),
    ]);
    let service = with_sets("tcp/443", "a", &["a", "b"], Some(REQUEST), None);
    let service = with_ipv6(&service.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    World::with_workers(&format!("{TWO_ARMS}{pools}{service}"), workers, queue)
}

pub fn total(world: &World) -> Counters {
    let mut sum = Counters::default();
    world.workers().for_each(|worker| sum.add(worker.pipeline().counters()));
    sum
}

/// Connections and datagrams of several clients through all workers; all that is said arrives.
pub fn carry(world: &mut World, vip: &str, clients: &[&str], servers: &[&str]) {
    let clients: Vec<HostId> = clients.iter().map(|at| world.host(OUTSIDE, at)).collect();
    let servers: Vec<HostId> = servers.iter().map(|at| world.host(INSIDE, at)).collect();
    for round in 0..20u16 {
        let mut pairs = Vec::new();
        for client in &clients {
            let here = world.connect(*client, 20_000 + round, vip);
            world.talk(here).say(if round % 2 == 0 { b"a----" } else { b"b----" });
            pairs.push(here);
        }
        let there: Vec<Talk> = servers
            .iter()
            .flat_map(|at| pairs.iter().map(|_| *at).collect::<Vec<_>>())
            .map(|at| world.listen(at, 443))
            .collect();
        world.seconds(1);
        let mut heard = 0;
        for talk in &there {
            if world.talk(*talk).received.is_empty() {
                world.abort(*talk);
                continue;
            }
            heard += 1;
            world.talk(*talk).say(b"answer");
            world.talk(*talk).finish = true;
        }
        assert_eq!(heard, pairs.len(), "round {round}");
        world.seconds(1);
        for talk in pairs {
            assert_eq!(world.talk(talk).received, b"answer", "round {round}");
            world.talk(talk).finish = true;
        }
        for client in &clients {
            world.datagram(*client, 30_000 + round, vip, b"b----");
        }
        world.settle();
        for server in &servers {
            for packet in world.inbox(*server).into_iter().filter(|packet| packet.transport == Transport::Udp)
            {
                world.datagram(*server, 443, packet.source.to_string(), &packet.payload);
            }
        }
        world.settle();
        for client in &clients {
            assert_eq!(world.payloads(*client), [b"b----"], "round {round}");
        }
    }
}

fn carry_both_families(world: &mut World) {
    carry(
        world,
        "192.0.2.10:443",
        &["192.0.2.100", "192.0.2.101", "192.0.2.102"],
        &["10.0.0.21", "10.0.0.22"],
    );
    carry(world, "[2001:db8:1::10]:443", &["2001:db8:1::100", "2001:db8:1::101"], &["2001:db8:2::21"]);
}

#[test]
fn with_rss_no_packet_is_handed_over_and_all_workers_work() {
    let mut world = world(|frame| rss(frame, usize::from(WORKERS)));
    carry_both_families(&mut world);
    let sum = total(&world);
    assert_eq!((sum.handed_over, sum.taken_over, sum.news_lost), (0, 0, 0));
    for worker in world.workers() {
        assert!(worker.pipeline().counters().flows_created >= 20, "{:?}", worker.pipeline().counters());
    }
    world.finish();
}

#[test]
fn with_one_queue_for_all_everything_works_and_is_counted() {
    let mut world = world(|_| 0);
    carry_both_families(&mut world);
    let sum = total(&world);
    assert_eq!(sum.handed_over, sum.taken_over);
    assert!(sum.handed_over > 500, "{sum:?}");
    for worker in world.workers() {
        assert!(worker.pipeline().counters().flows_created >= 20, "{:?}", worker.pipeline().counters());
    }
    world.finish();
}

#[test]
fn with_a_hash_of_the_cards_own_everything_works() {
    // Neither by flow nor by turns: the checksum of a frame is as good as a die.
    let mut world =
        world(|frame| frame.iter().map(|byte| usize::from(*byte)).sum::<usize>() % usize::from(WORKERS));
    carry_both_families(&mut world);
    let sum = total(&world);
    assert_eq!(sum.handed_over, sum.taken_over);
    assert!(sum.handed_over > 500, "{sum:?}");
    world.finish();
}

/// Each flow inserts its own key and the one that all share, and looks up what the flow before it inserted.
const TABLES: &str = r#"
    local mine, before = avi.l4.read(2), avi.l4.read(2, 2)
    avi.vs.table_insert(mine, "of " .. mine)
    avi.vs.table_insert("shared", mine)
    avi.vs.log((avi.vs.table_lookup(before)) or "nothing", ", ", (avi.vs.table_lookup("shared")))
    avi.pool.select("a")
"#;

#[test]
fn what_one_worker_inserts_all_can_read_and_the_first_insert_stays() {
    let pools = pools(&[("a", &["10.0.0.22:443"])]);
    let service = with_sets("udp/443", "a", &["a"], Some(TABLES), None);
    let queue = |frame: &[u8]| rss(frame, usize::from(WORKERS));
    let mut world = World::with_workers(&format!("{TWO_ARMS}{pools}{service}"), WORKERS, queue);
    let (client, _server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.22"));
    for n in 11..51u16 {
        let payload = format!("{n}{}", n - 1);
        world.datagram(client, 5000 + n, "192.0.2.10:443", payload.as_bytes());
        world.settle();
    }
    // What is told in the last round is heard in the next one.
    world.round();
    for worker in world.workers() {
        assert!(worker.pipeline().counters().flows_created >= 5, "all workers run the script");
        let service = dataplane::snapshot::ServiceId(0);
        assert_eq!(worker.pipeline().tables().entries(service, 100).count(), 41);
    }
    world.seconds(40);
    let mut logs: Vec<String> = (0..world.records.len()).map(|record| world.log(record)).collect();
    logs.sort();
    let mut expected: Vec<String> = (12..51).map(|n| format!("of {}, 11", n - 1)).collect();
    expected.push("nothing, 11".to_owned());
    expected.sort();
    assert_eq!(logs, expected);
    world.finish();
}

/// Fragments are hashed without ports, so they come together at one worker, and their flow is mostly another's.
#[test]
fn datagrams_in_fragments_reach_the_worker_of_their_flow() {
    for queue in [(|frame| rss(frame, usize::from(WORKERS))) as fn(&[u8]) -> usize, |_| 0] {
        let mut world = world(queue);
        let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.22"));
        world.cut = Some(1480);
        let request: Vec<u8> =
            b"b----".iter().copied().chain((0..5000u16).map(|n| (n % 251) as u8)).collect();
        for port in 5000..5030 {
            world.datagram(client, port, "192.0.2.10:443", &request);
            world.settle();
            let packet = world.inbox(server).remove(0);
            assert_eq!(packet.payload, request);
            world.datagram(server, 443, packet.source.to_string(), &request[..4000]);
            world.settle();
            assert_eq!(world.payloads(client), [&request[..4000]]);
        }
        let sum = total(&world);
        assert_eq!((sum.reassembled, sum.dropped_total()), (60, 0));
        assert_eq!(sum.handed_over, sum.taken_over);
        assert!(sum.handed_over > 20, "{sum:?}");
        for worker in world.workers() {
            assert!(worker.pipeline().counters().flows_created >= 4, "flows are where their ports say");
        }
        world.finish();
    }
}

/// Destination unreachable, port unreachable (RFC 792).
pub fn unreachable(from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let kind =
        etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4(from.octets(), to.octets(), 64).icmpv4(kind);
    builder.write(&mut packet, quote).unwrap();
    packet
}

#[test]
fn a_full_lane_drops_and_counts() {
    let mut world = world_of(2, |_| 0);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    // Only the first worker runs: nobody takes anything over.
    for port in 1024..4096u16 {
        let source = std::net::SocketAddr::new(address("192.0.2.100"), port);
        let frame = world.framed(client, &crate::wire::udp(source, socket("192.0.2.10:443"), b"a----"));
        world.inject(OUTSIDE, &frame);
        if port % 32 == 0 {
            world.worker.run_once(world.now);
        }
    }
    world.worker.run_once(world.now);
    let counters = world.worker.pipeline().counters();
    assert_eq!(counters.handed_over, 1024);
    let dropped = counters.dropped_for(DropReason::HandOver);
    assert!(dropped > 300 && counters.balanced(), "{counters:?}");
    world.settle();
    assert_eq!(total(&world).taken_over, 1024);
}
