//! Neighbours, ping, tags, sizes, and devices that have no room.

use dataplane::counters::DropReason;
use dataplane::io::PortId;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::tcp_binding::bytes;
use crate::wire::{self, Transport};
use crate::world::*;

fn dns() -> String {
    format!("{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a"))
}

#[test]
fn own_addresses_and_vips_answer_pings() {
    let toml =
        format!("{}{}", pools(&[("a", &["10.0.0.21:53", "[2001:db8:2::21]:53"])]), plain("udp/53", "a"));
    let mut world = World::new(&with_ipv6(&toml));
    let (c4, c6) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(OUTSIDE, "2001:db8:1::100"));
    let targets = ["192.0.2.1", "192.0.2.10", "10.0.0.1", "10.0.0.2"];
    for target in targets {
        let packet = wire::echo_request(address("192.0.2.100"), address(target), b"ping");
        world.at(c4).outbox.push(packet);
    }
    for target in ["2001:db8:1::1", "2001:db8:1::10"] {
        let packet = wire::echo_request(address("2001:db8:1::100"), address(target), b"ping");
        world.at(c6).outbox.push(packet);
    }
    world.settle();
    let answers = world.inbox(c4);
    assert_eq!(answers.iter().map(|p| p.source.ip()).collect::<Vec<_>>(), targets.map(address));
    assert!(answers.iter().all(|p| p.transport == Transport::Icmp(0) && p.payload == b"ping"));
    let answers = world.inbox(c6);
    assert!(answers.len() == 2 && answers.iter().all(|p| p.transport == Transport::Icmp(129)));
    world.finish();
}

#[test]
fn packets_wait_for_arp_and_leave_when_it_answers() {
    let mut world = World::new(&dns());
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.at(server).answers = false;
    for n in 0..3 {
        world.datagram(client, 4000, "192.0.2.10:53", &[n]);
    }
    world.settle();
    assert!(world.payloads(server).is_empty());
    world.at(server).answers = true;
    world.seconds(2);
    assert_eq!(world.payloads(server), [[0], [1], [2]]);
    world.finish();
}

#[test]
fn packets_for_a_neighbour_that_never_answers_are_counted() {
    let mut world = World::new(&dns());
    let client = world.silent(OUTSIDE, "192.0.2.100");
    for n in 0..10 {
        world.datagram(client, 4000, "192.0.2.10:53", &[n]);
    }
    world.seconds(700);
    world.assert_empty();
    assert_eq!(world.worker.pipeline().counters().originate_failed, 10);
}

#[test]
fn one_arm_with_a_tag() {
    let network = r#"
[[interface]]
name = "arm"
device = "net_null0"
addresses = ["192.0.2.1/24"]
vlan = 7
[snat]
addresses = ["192.0.2.2"]
ports = "20000-29999"
"#;
    let pool = pools(&[("a", &["192.0.2.21:443"])]);
    let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(3)");
    let mut world = World::with_network(&format!("{network}{pool}{script}"));
    let (client, server) = (world.host(0, "192.0.2.100"), world.host(0, "192.0.2.21"));
    let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, "192.0.2.10:443"));
    world.talk(here).say(&bytes(20_000, 1));
    world.talk(there).say(&bytes(20_000, 2));
    world.talk(here).finish = true;
    world.talk(there).finish = true;
    world.seconds(2);
    assert!(world.talk(there).received == bytes(20_000, 1) && world.talk(here).received == bytes(20_000, 2));
    world.finish();
}

#[test]
fn tags_are_put_on_and_taken_off_between_two_arms() {
    let network = TWO_ARMS.replace("device = \"net_null1\"", "device = \"net_null1\"\nvlan = 20");
    let mut world = World::with_network(&format!("{network}{}", dns()));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"question");
    world.settle();
    let question = world.inbox(server).remove(0);
    world.datagram(server, 53, question.source.to_string(), b"answer");
    world.settle();
    assert_eq!(world.payloads(client), [b"answer"]);
    let untagged = wire::udp(socket("10.0.0.21:53"), question.source, b"untagged");
    let frame = [&weir_mac(1)[..], &[2, 0, 0, 0, 1, 1, 8, 0], &untagged].concat();
    world.inject(1, &frame);
    world.settle();
    assert_eq!(world.dropped(DropReason::Vlan), 1);
    world.finish();
}

#[test]
fn packets_larger_than_the_mtu_are_dropped() {
    let network = TWO_ARMS.replace("device = \"net_null1\"", "device = \"net_null1\"\nmtu = 1280");
    let mut world = World::with_network(&format!("{network}{}", dns()));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", &[1; 1252]);
    world.datagram(client, 4000, "192.0.2.10:53", &[2; 1253]);
    world.settle();
    assert_eq!(world.payloads(server), [vec![1; 1252]]);
    assert_eq!(world.dropped(DropReason::TooBig), 1);
    world.finish();
}

/// A client on jumbo frames behind a port of 1500 bytes: what a script has held must still reach it.
#[test]
fn segments_of_weir_fit_the_port_whatever_the_client_could_take() {
    let set = with_sets("tcp/443", "a", &["a"], None, Some("avi.l4.collect(6000)"));
    let toml =
        format!("{}{set}[virtual_service.tcp]\nprofile = \"proxy\"\n", pools(&[("a", &["10.0.0.21:443"])]));
    let mut world = World::new(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.host(INSIDE, "10.0.0.21"));
    let there = world.listen(server, 443);
    world.talk(there).say(&bytes(6000, 4));
    let (from, to) = (socket("192.0.2.100:40000"), socket("192.0.2.10:443"));
    let mut syn = wire::flags("S", 1000, 0);
    syn.set_options(&[etherparse::TcpOptionElement::MaximumSegmentSize(8960)]).unwrap();
    world.at(client).outbox.push(wire::tcp(from, to, syn, b""));
    world.settle();
    let isn = world.inbox(client)[0].tcp().sequence_number;
    world.at(client).outbox.push(wire::tcp(from, to, wire::flags("A", 1001, isn + 1), b""));
    world.seconds(1);
    let got: Vec<u8> = world.payloads(client).concat();
    assert!(got == bytes(6000, 4), "{} bytes", got.len());
    let reset = wire::flags("R", 1001, 0);
    world.at(client).outbox.push(wire::tcp(from, to, reset, b""));
    world.finish();
}

#[test]
fn a_full_transmit_queue_costs_packets_and_nothing_else() {
    let mut world = World::new(&dns());
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    world.datagram(client, 4000, "192.0.2.10:53", b"first");
    world.settle();
    world.worker.io_mut().set_tx_room(PortId(1), Some(2));
    for n in 0..5 {
        world.datagram(client, 4000, "192.0.2.10:53", &[n]);
    }
    world.settle();
    assert_eq!(world.payloads(server).len(), 3);
    assert_eq!(world.dropped(DropReason::TxFull), 3);
    world.worker.io_mut().set_tx_room(PortId(1), None);
    world.finish();
}

#[test]
fn without_buffers_weir_only_says_things_later() {
    let pool = pools(&[("a", &["10.0.0.21:443"])]);
    let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(3)");
    let mut world = World::new(&format!("{pool}{script}"));
    let (client, server) = (world.host(OUTSIDE, "192.0.2.100"), world.host(INSIDE, "10.0.0.21"));
    let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, "192.0.2.10:443"));
    world.talk(here).say(b"hello");
    world.left.clear();
    world.worker.io_mut().set_alloc_room(Some(0));
    world.advance(Duration::from_millis(100));
    assert_eq!(world.left.len(), 0);
    for _ in 0..200 {
        world.worker.io_mut().set_alloc_room(Some(1));
        world.advance(Duration::from_millis(5));
    }
    assert_eq!(world.talk(there).received, b"hello");
    world.worker.io_mut().set_alloc_room(None);
    world.talk(here).finish = true;
    world.talk(there).finish = true;
    world.finish();
}
