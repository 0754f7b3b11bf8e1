//! Bounds: what comes too much is refused and counted, what was there goes on.

use dataplane::counters::DropReason;

use crate::inside::*;
use crate::wire;
use crate::world::*;

fn dns(limits: &str) -> World {
    World::new(&format!("{limits}{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a")))
}

#[test]
fn a_full_flow_table_refuses_new_flows_and_keeps_the_old() {
    let mut world = dns("[limits]\nflows = 64\nembryonic = 64\nwaiting = 64\n");
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for port in 4000..4070 {
        world.datagram(client, port, "192.0.2.10:53", &port.to_be_bytes());
        world.settle();
    }
    assert_eq!(world.dropped(DropReason::FlowTableFull), 6);
    let questions = world.inbox(server);
    assert_eq!(questions.len(), 64);
    for question in &questions {
        world.datagram(server, 53, question.source.to_string(), &question.payload);
        world.settle();
    }
    let answers = world.inbox(client);
    assert!(answers.iter().all(|packet| packet.destination.port().to_be_bytes()[..] == packet.payload));
    assert_eq!(answers.len(), 64);
    world.finish();
}

#[test]
fn snat_pairs_are_used_once_and_again_when_free() {
    let network = TWO_ARMS.replace("20000-29999", "20000-20003");
    let toml = format!("{network}{}{}", pools(&[("a", &["10.0.0.21:53"])]), plain("udp/53", "a"));
    let mut world = World::with_network(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for port in 4000..4005 {
        world.datagram(client, port, "192.0.2.10:53", b"?");
    }
    world.settle();
    let mut ports: Vec<u16> = world.inbox(server).iter().map(|packet| packet.source.port()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [20000, 20001, 20002, 20003]);
    assert_eq!(world.dropped(DropReason::SnatExhausted), 1);
    assert_eq!(world.terminations(), ["RP"]);
    world.seconds(40);
    world.datagram(client, 4005, "192.0.2.10:53", b"?");
    world.settle();
    assert_eq!(world.payloads(server).len(), 1);
    world.finish();
}

fn https(more: &str) -> World {
    let limits = "[limits]\nflows = 1024\nembryonic = 64\nwaiting = 64\n";
    let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)");
    World::new(&format!("{limits}{}{script}{more}", pools(&[("a", &["10.0.0.21:443"])])))
}

fn syn(port: u16) -> Vec<u8> {
    let from = std::net::SocketAddr::new(address("192.0.2.100"), port);
    wire::tcp(from, socket("192.0.2.10:443"), wire::flags("S", 7, 0), b"")
}

const NO_COOKIES: &str = "[virtual_service.tcp]\nsyn_cookies = \"never\"\n";

#[test]
fn incomplete_handshakes_are_bounded_and_the_oldest_gives_way() {
    let mut world = https(NO_COOKIES);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    for port in 4000..4070 {
        world.at(client).outbox.push(syn(port));
        world.settle();
    }
    let answers = world.inbox(client);
    assert_eq!(answers.len(), 70);
    assert_eq!(world.worker.pipeline().counters().embryonic_evicted, 6);
    assert_eq!(world.worker.pipeline().undecided(), (64, 0));
    assert_eq!(world.worker.pipeline().counters().handshakes_incomplete, 6);
    assert!(world.records.is_empty(), "no lines for a flood");
    let keys: Vec<u16> =
        world.worker.pipeline().flows().iter().map(|flow| flow.1.client_key().source_port).collect();
    assert!(keys.iter().all(|port| (4006..4070).contains(port)), "the oldest: {keys:?}");
    // One of the oldest that are left goes on; the one before it is told that it is too late.
    for (answer, known) in [(&answers[6], true), (&answers[5], false)] {
        let ack = wire::flags("A", 8, answer.tcp().sequence_number.wrapping_add(1));
        world.at(client).outbox.push(wire::tcp(answer.destination, answer.source, ack, b""));
        world.settle();
        assert_eq!(world.inbox(client).iter().any(|packet| packet.tcp().rst), !known);
    }
    assert_eq!(world.worker.pipeline().undecided(), (63, 1));
    world.finish();
}

#[test]
fn in_a_full_table_handshakes_give_way_to_flows_that_are_decided_and_those_to_none() {
    let limits = "[limits]\nflows = 64\nembryonic = 64\nwaiting = 64\n";
    let script = scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)");
    let ports = script.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"");
    let all = pools(&[("a", &["10.0.0.21:443"])]);
    let mut world = World::new(&format!("{limits}{all}{ports}{NO_COOKIES}"));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for port in 4000..4064 {
        world.at(client).outbox.push(syn(port));
        world.settle();
    }
    for port in 5000..5070 {
        world.datagram(client, port, "192.0.2.10:443", b"?");
        world.settle();
    }
    assert_eq!(world.payloads(server).len(), 64);
    let counters = world.worker.pipeline().counters();
    assert_eq!((counters.embryonic_evicted, world.dropped(DropReason::FlowTableFull)), (64, 6));
    world.finish();
}

#[test]
fn flows_that_have_a_server_are_bounded() {
    let mut world = dns("[limits]\nspliced = 64\n");
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for port in 4000..4070 {
        world.datagram(client, port, "192.0.2.10:53", b"?");
        world.settle();
    }
    assert_eq!(world.payloads(server).len(), 64);
    assert_eq!(world.dropped(DropReason::SplicedLimit), 6);
    assert_eq!(world.terminations(), ["RP"; 6]);
    world.seconds(40);
    world.datagram(client, 5000, "192.0.2.10:53", b"?");
    world.settle();
    assert_eq!(world.payloads(server).len(), 1, "there is room again");
    world.finish();
}

#[test]
fn flows_that_wait_are_bounded() {
    let mut world = https(NO_COOKIES);
    let client = world.silent(OUTSIDE, "192.0.2.100");
    for port in 4000..4064 {
        world.at(client).outbox.push(syn(port));
        world.settle();
        let answer = world.inbox(client).remove(0);
        let ack = wire::flags("A", 8, answer.tcp().sequence_number.wrapping_add(1));
        world.at(client).outbox.push(wire::tcp(answer.destination, answer.source, ack, b""));
        world.settle();
    }
    assert_eq!(world.worker.pipeline().undecided(), (0, 64));
    world.at(client).outbox.push(syn(5000));
    world.settle();
    assert_eq!(world.dropped(DropReason::WaitingLimit), 1);
    world.seconds(12);
    assert_eq!(world.terminations(), ["cP"; 64]);
    world.finish();
}

#[test]
fn datagram_flows_that_wait_are_bounded_too() {
    let limits = "[limits]\nflows = 1024\nembryonic = 64\nwaiting = 64\n";
    let script = scripted("udp/53", "a", &["a"], "avi.l4.collect(10)");
    let mut world = World::new(&format!("{limits}{}{script}", pools(&[("a", &["10.0.0.21:53"])])));
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    for port in 4000..4066 {
        world.datagram(client, port, "192.0.2.10:53", b"12345");
    }
    world.datagram(client, 5000, "192.0.2.10:53", b"1234567890");
    world.settle();
    assert_eq!(world.payloads(server), [b"1234567890"], "who need not wait is not refused");
    assert_eq!(world.worker.pipeline().undecided(), (0, 64));
    let refused = world.dropped(DropReason::WaitingLimit) + world.dropped(DropReason::ScriptError);
    assert_eq!(refused, 2);
    world.seconds(700);
    world.assert_empty();
}
