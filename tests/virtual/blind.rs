//! Spliced flows and what somebody off the path makes up (RFC 5961), and tuples that are used again (RFC 6191).

use std::net::SocketAddr;

use dataplane::counters::DropReason;
use dataplane::flow::FlowState;
use smoltcp::socket::tcp::State;
use tcp::{Lifecycle, Side};

use crate::inside::*;
use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire;
use crate::world::*;

/// Both profiles of the same service.
fn scenes() -> [Scene; 2] {
    let service = format!("{}{}", two_pools(), plain("tcp/443", "a"));
    let proxy = format!("{service}[virtual_service.tcp]\nprofile = \"proxy\"\n");
    [Scene::new(&service), Scene::new(&proxy)]
}

struct Connected {
    scene: Scene,
    server: Talk,
    client: Talk,
}

/// A connection that has carried bytes both ways.
fn connected(mut scene: Scene) -> Connected {
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(4000));
    scene.world.talk(client).say(&bytes(3000, 1));
    scene.world.talk(server).say(&bytes(5000, 2));
    scene.world.seconds(1);
    Connected { scene, server, client }
}

impl Connected {
    fn lifecycle(&self) -> Lifecycle {
        let (_, flow) = self.scene.world.worker.pipeline().flows().iter().next().unwrap();
        assert_eq!(flow.state(), FlowState::Bound);
        flow.lifecycle()
    }

    /// The next sequence number of a side, as the side itself counts, and the acknowledgement that goes with it.
    fn numbers(&self, side: Side) -> (u32, u32) {
        let (_, flow) = self.scene.world.worker.pipeline().flows().iter().next().unwrap();
        let (own, other) = (flow.track.next(side), flow.track.next(side.opposite()));
        let other = if side == Side::Client { flow.splice.to_client(other) } else { other };
        (own.value(), other.value())
    }

    /// A segment in the name of a side.
    fn forge(&mut self, side: Side, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
        let (_, flow) = self.scene.world.worker.pipeline().flows().iter().next().unwrap();
        let key = if side == Side::Client { flow.client_key() } else { flow.server_key() };
        let packet =
            wire::tcp(key.source_socket(), key.destination_socket(), wire::flags(flags, seq, ack), payload);
        let host = if side == Side::Client { self.scene.client } else { self.scene.a };
        self.scene.world.at(host).outbox.push(packet);
        self.scene.world.settle();
    }

    fn still_works(&mut self) {
        let (before_up, before_down) = (3000, 5000);
        self.scene.world.talk(self.client).say(&bytes(1000, 3));
        self.scene.world.talk(self.server).say(&bytes(1000, 4));
        self.scene.world.seconds(5);
        assert!(self.scene.world.talk(self.server).received[before_up..] == bytes(1000, 3));
        assert!(self.scene.world.talk(self.client).received[before_down..] == bytes(1000, 4));
    }
}

#[test]
fn blind_segments_neither_end_nor_disturb_a_flow() {
    for scene in scenes() {
        let mut connection = connected(scene);
        connection.scene.world.scrutinize = false;
        let seed = 0x5eed_u64;
        println!("seed {seed}");
        let mut lottery = seed;
        let mut draw = || {
            lottery = lottery.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (lottery >> 32) as u32
        };
        for n in 0..20_000u32 {
            let side = if n % 2 == 0 { Side::Client } else { Side::Server };
            let flags = ["R", "RA", "FA", "SA", "S", "A"][(n / 2 % 6) as usize];
            let payload: &[u8] = if flags == "A" { b"made up" } else { b"" };
            connection.forge(side, flags, draw(), draw(), payload);
            assert_eq!(connection.lifecycle(), Lifecycle::Established, "{flags} of {side:?}");
            connection.scene.world.left.clear();
        }
        assert!(connection.scene.world.dropped(DropReason::TcpUnacceptable) > 6_000);
        connection.still_works();
    }
}

#[test]
fn a_reset_in_the_window_is_for_the_end_host_to_challenge() {
    for side in [Side::Client, Side::Server] {
        for scene in scenes() {
            let mut connection = connected(scene);
            let (seq, ack) = connection.numbers(side);
            connection.forge(side, "R", seq.wrapping_add(100), ack, b"");
            assert_eq!(connection.lifecycle(), Lifecycle::Established);
            assert_eq!(connection.scene.world.dropped(DropReason::TcpUnacceptable), 0);
        }
    }
}

#[test]
fn an_exact_reset_ends_the_flow() {
    for (side, end) in [(Side::Client, "CD"), (Side::Server, "SD")] {
        for scene in scenes() {
            let mut connection = connected(scene);
            let (seq, ack) = connection.numbers(side);
            connection.forge(side, "R", seq, ack, b"");
            assert_eq!(connection.lifecycle(), Lifecycle::Reset);
            connection.scene.world.seconds(5);
            assert_eq!(connection.scene.world.terminations(), [end]);
            assert_eq!(connection.scene.world.worker.pipeline().flows().len(), 0);
        }
    }
}

#[test]
fn a_refused_syn_of_the_fast_path_must_be_answered_with_its_number() {
    let toml = format!("{}{}", pools(&[("a", &["10.0.0.23:443"])]), plain("tcp/443", "a"));
    let mut world = World::new(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.23"));
    let from = SocketAddr::new(address("192.0.2.100"), 4000);
    world.at(client).outbox.push(wire::tcp(from, socket("192.0.2.10:443"), wire::flags("S", 7, 0), b""));
    world.settle();
    let syn = world.inbox(server).remove(0);
    for (ack, refused) in [(99, false), (8, true)] {
        let reset = wire::tcp(syn.destination, syn.source, wire::flags("RA", 0, ack), b"");
        world.at(server).outbox.push(reset);
        world.settle();
        assert_eq!(world.inbox(client).len(), usize::from(refused));
    }
    world.seconds(5);
    assert_eq!(world.terminations(), ["SC"]);
    world.finish();
}

/// Both ends have finished and have heard it.
fn finished(scene: Scene) -> Connected {
    let mut connection = connected(scene);
    connection.scene.world.talk(connection.client).finish = true;
    connection.scene.world.settle();
    connection.scene.world.talk(connection.server).finish = true;
    connection.scene.world.settle();
    assert_eq!(connection.lifecycle(), Lifecycle::BothFin);
    let states = [connection.client, connection.server].map(|talk| connection.scene.world.state(talk));
    assert!(states.iter().all(|state| matches!(state, State::TimeWait | State::Closed)), "{states:?}");
    connection
}

#[test]
fn a_later_syn_opens_the_tuple_again_and_an_earlier_one_is_answered_as_in_time_wait() {
    for scene in scenes() {
        let mut connection = finished(scene);
        let (next, server_next) = connection.numbers(Side::Client);
        let created = connection.scene.world.worker.pipeline().counters().flows_created;
        connection.scene.world.left.clear();
        connection.forge(Side::Client, "S", next.wrapping_sub(1000), 0, b"");
        assert_eq!(connection.scene.world.dropped(DropReason::TcpUnacceptable), 1);
        assert_eq!(connection.scene.world.worker.pipeline().counters().flows_created, created);
        let answer = connection.scene.world.left.iter().find(|packet| packet.destination.port() == 4000);
        let answer = answer.expect("an acknowledgement").tcp().clone();
        assert!(answer.ack && !answer.syn && !answer.rst);
        assert_eq!((answer.acknowledgment_number, answer.sequence_number), (next, server_next));
        connection.forge(Side::Client, "S", next.wrapping_add(1000), 0, b"");
        assert_eq!(connection.scene.world.worker.pipeline().counters().flows_created, created + 1);
    }
}

#[test]
fn a_client_that_means_its_early_syn_resets_the_old_connection_first() {
    for scene in scenes() {
        let mut connection = finished(scene);
        let (next, server_next) = connection.numbers(Side::Client);
        let created = connection.scene.world.worker.pipeline().counters().flows_created;
        connection.forge(Side::Client, "S", next.wrapping_sub(1000), 0, b"");
        // What a client in SYN-SENT says to that answer (RFC 9293, 3.10.7.3).
        connection.forge(Side::Client, "R", next, server_next, b"");
        assert_eq!(connection.lifecycle(), Lifecycle::Reset);
        connection.forge(Side::Client, "S", next.wrapping_sub(1000), 0, b"");
        assert_eq!(connection.scene.world.worker.pipeline().counters().flows_created, created + 1);
    }
}

#[test]
fn a_flow_is_kept_until_both_have_heard_the_other() {
    for scene in scenes() {
        let mut connection = connected(scene);
        let (seq, ack) = connection.numbers(Side::Client);
        let (server_seq, server_ack) = connection.numbers(Side::Server);
        // Both FINs pass, and neither is ever acknowledged.
        connection.scene.world.loss = Some(1);
        connection.scene.world.now += smoltcp::time::Duration::from_millis(1);
        let late = [(Side::Client, seq, ack), (Side::Server, server_seq, server_ack)];
        for (side, seq, ack) in late {
            let (_, flow) = connection.scene.world.worker.pipeline().flows().iter().next().unwrap();
            let key = if side == Side::Client { flow.client_key() } else { flow.server_key() };
            let packet =
                wire::tcp(key.source_socket(), key.destination_socket(), wire::flags("FA", seq, ack), b"");
            let (host, port) = if side == Side::Client {
                (connection.scene.client, OUTSIDE)
            } else {
                (connection.scene.a, INSIDE)
            };
            let frame = connection.scene.world.framed(host, &packet);
            connection.scene.world.inject(port, &frame);
            connection.scene.world.settle();
        }
        assert_eq!(connection.lifecycle(), Lifecycle::BothFin);
        connection.scene.world.seconds(230);
        assert_eq!(connection.scene.world.worker.pipeline().flows().len(), 1, "RFC 5382, REQ-5");
        connection.scene.world.seconds(30);
        assert_eq!(connection.scene.world.worker.pipeline().flows().len(), 0);
    }
}
