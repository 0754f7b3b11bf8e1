//! Services with `preserve_client_ip` on several workers: with cards that spread packets by the client's address, and without.

use etherparse::{NetHeaders, PacketHeaders};

use crate::inside::*;
use crate::preserve::{KEEP, second};
use crate::wire::Transport;
use crate::workers::{carry, toeplitz_with, total, unreachable};
use crate::world::*;

/// The key of `dataplane::rss::CLIENT_KEY`, as a card would get it.
const KEY: &str = "6d5a41176d5a41176d5a41176d5a41176d5a41176d5a41176d5a41176d5a41176d5a41176d5a4117";

/// The queue of a card that spreads by source on the clients' side and by destination on the servers' side.
fn by_client(frame: &[u8], queues: usize) -> usize {
    let outside = frame[..6] == weir_mac(OUTSIDE);
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let input = match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => if outside { ip.source } else { ip.destination }.to_vec(),
        Some(NetHeaders::Ipv6(ip, _)) => if outside { ip.source } else { ip.destination }.to_vec(),
        _ => return 0,
    };
    toeplitz_with(KEY, &input) as usize % 128 % queues
}

fn by_client_over_2(frame: &[u8]) -> usize {
    by_client(frame, 2)
}

fn by_client_over_4(frame: &[u8]) -> usize {
    by_client(frame, 4)
}

const REQUEST: &str = r#"
    avi.l4.collect(5)
    avi.pool.select(avi.l4.read(5) == "b----" and "b" or "a")
"#;

/// A service that preserves its clients' addresses on 192.0.2.10, one that does not on .11.
fn world(workers: u8, snat: &[&str], queue: fn(&[u8]) -> usize) -> World {
    let pools = pools(&[
        ("a", &["10.0.0.21:443", "10.0.0.22:443", "[2001:db8:2::21]:443"]),
        ("b", &["10.0.0.22:443", "[2001:db8:2::21]:443"]),
    ]);
    let service = with_sets("tcp/443", "a", &["a", "b"], Some(REQUEST), None);
    let service = with_ipv6(&service.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let (sets, service) = service.split_at(service.find("[[virtual_service]]").unwrap());
    let network = TWO_ARMS.replace("[\"10.0.0.2\", \"2001:db8:2::2\"]", &format!("{snat:?}"));
    let toml = format!("{network}{pools}{sets}{service}{KEEP}{}", second(service));
    World::with_workers(&toml, workers, queue)
}

/// An aligned block of addresses of each family: one for each of so many workers.
const TWO: [&str; 4] = ["10.0.0.2", "10.0.0.3", "2001:db8:2::2", "2001:db8:2::3"];
const FOUR: [&str; 8] = [
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
    "10.0.0.7",
    "2001:db8:2::4",
    "2001:db8:2::5",
    "2001:db8:2::6",
    "2001:db8:2::7",
];

/// Connections and datagrams of both families to these VIPs.
fn carry_both(world: &mut World, last: u8) {
    let clients: Vec<String> = (100..104).map(|n| format!("192.0.2.{n}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    carry(world, &format!("192.0.2.{last}:443"), &clients, &["10.0.0.21", "10.0.0.22"]);
    let clients: Vec<String> = (100..104).map(|n| format!("2001:db8:1::{n}")).collect();
    let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
    carry(world, &format!("[2001:db8:1::{last}]:443"), &clients, &["2001:db8:2::21"]);
}

fn assert_all_work(world: &World, least: u64) {
    for worker in world.workers() {
        let counters = worker.pipeline().counters();
        assert!(counters.flows_created >= least, "{counters:?}");
    }
}

#[test]
fn with_a_card_that_spreads_by_client_no_packet_is_handed_over_of_services_of_both_kinds() {
    for last in [10, 11] {
        let mut world = world(2, &TWO, by_client_over_2);
        carry_both(&mut world, last);
        assert_eq!((total(&world).handed_over, total(&world).dropped_total()), (0, 0), "VIP {last}");
        assert_all_work(&world, 100);
        world.finish();
    }
}

#[test]
fn the_same_with_four_workers() {
    for last in [10, 11] {
        let mut world = world(4, &FOUR, by_client_over_4);
        carry_both(&mut world, last);
        assert_eq!((total(&world).handed_over, total(&world).dropped_total()), (0, 0), "VIP {last}");
        assert_all_work(&world, 40);
        world.finish();
    }
}

#[test]
fn with_one_queue_for_all_packets_reach_the_worker_of_their_client() {
    for (workers, last) in [(2, 10), (4, 10), (4, 11)] {
        let mut world = world(workers, &FOUR, |_| 0);
        carry_both(&mut world, last);
        let sum = total(&world);
        assert_eq!((sum.handed_over, sum.dropped_total()), (sum.taken_over, 0));
        assert!(sum.handed_over > 500, "{sum:?}");
        assert_all_work(&world, 40);
        world.finish();
    }
}

/// Fewer SNAT addresses than workers: answers to them are handed over, and no pair is given out twice.
#[test]
fn with_one_snat_address_for_all_workers_full_nat_works_and_is_counted() {
    let mut world = world(2, &["10.0.0.2", "2001:db8:2::2"], by_client_over_2);
    carry_both(&mut world, 11);
    let sum = total(&world);
    assert_eq!((sum.handed_over, sum.dropped_total()), (sum.taken_over, 0));
    assert!(sum.handed_over > 100, "{sum:?}");
    assert_all_work(&world, 100);
    world.finish();
}

/// Whatever queue they come by; a card that spreads by client puts them into the right one.
#[test]
fn errors_and_fragments_reach_the_worker_of_their_client() {
    for (queue, handed) in [(by_client_over_4 as fn(&[u8]) -> usize, false), (|_| 0, true)] {
        let mut world = world(4, &FOUR, queue);
        let server = world.silent(INSIDE, "10.0.0.22");
        world.cut = Some(1480);
        let long: Vec<u8> = b"b----".iter().copied().chain((0..5000u16).map(|n| (n % 251) as u8)).collect();
        for last in 100..108 {
            let client = world.silent(OUTSIDE, &format!("192.0.2.{last}"));
            world.datagram(client, 4000, "192.0.2.10:443", b"b----");
            world.settle();
            world.inbox(server);
            world.datagram(client, 4000, "192.0.2.10:443", &long);
            world.settle();
            let packet = world.inbox(server).remove(0);
            assert_eq!((packet.source.port(), &packet.payload), (4000, &long));
            world.datagram(server, 443, packet.source.to_string(), &long[..4000]);
            world.settle();
            assert_eq!(world.payloads(client), [&long[..4000]]);
            let quote = &crate::wire::udp(packet.source, packet.destination, &packet.payload)[..28];
            let error = unreachable(address("10.0.0.22"), packet.source.ip(), quote);
            world.at(server).outbox.push(error);
            world.settle();
            let errors = world.inbox(client);
            assert!(matches!(errors[..], [ref packet] if packet.transport == Transport::Icmp(3)));
        }
        let sum = total(&world);
        assert_eq!((sum.reassembled, sum.dropped_total()), (16, 0));
        assert_eq!(sum.handed_over, sum.taken_over);
        assert_eq!(sum.handed_over > 0, handed, "{sum:?}");
        assert_all_work(&world, 2);
        world.finish();
    }
}

#[test]
fn packets_to_a_vip_that_came_with_a_reload_are_spread_like_the_others() {
    let pools = pools(&[("a", &["10.0.0.21:443", "10.0.0.22:443", "[2001:db8:2::21]:443"])]);
    let service = with_ipv6(&plain("tcp/443", "a").replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let one = format!("{pools}{service}{KEEP}");
    let mut world = World::with_workers(&format!("{TWO_ARMS}{one}"), 2, |_| 0);
    world.reload(&format!("{one}{}{KEEP}", second(&service)));
    carry_both(&mut world, 11);
    assert_eq!(total(&world).dropped_total(), 0);
    assert_all_work(&world, 100);
    world.finish();
}
