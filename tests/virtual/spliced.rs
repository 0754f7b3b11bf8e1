//! Segments of somebody who knows the addresses and ports of a spliced connection, and not its numbers (RFC 5961); and
//! what a new SYN finds on the tuple of a connection that is over (RFC 6191).

use std::net::SocketAddr;

use dataplane::counters::DropReason;
use dataplane::flow::FlowState;
use smoltcp::socket::tcp::State;
use tcp::Lifecycle;

use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire;
use crate::world::*;

/// Where the flow stands.
fn stands(scene: &Scene) -> (FlowState, Lifecycle) {
    let (_, flow) = scene.world.worker.pipeline().flows().iter().next().unwrap();
    (flow.state(), flow.lifecycle())
}

struct Lottery(u64);

impl Lottery {
    fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 32) as u32
    }
}

/// A connection spoken by hand: the client's next number is 1003, the server's 5001; `isn` is weir's.
struct ByHand {
    world: World,
    client: HostId,
    server: HostId,
    snat: SocketAddr,
    isn: u32,
}

const CLIENT: &str = "192.0.2.101:40000";
const VIP: &str = "192.0.2.10:443";
const SERVER: &str = "10.0.0.31:443";

impl ByHand {
    fn new() -> ByHand {
        let pool = crate::inside::pools(&[("a", &[SERVER])]);
        let script = crate::inside::scripted("tcp/443", "a", &["a"], "avi.l4.collect(2)");
        let mut world = World::new(&format!("{pool}{script}"));
        let (client, server) = (world.silent(OUTSIDE, "192.0.2.101"), world.silent(INSIDE, "10.0.0.31"));
        let mut hand = ByHand { world, client, server, snat: socket(VIP), isn: 0 };
        hand.client_says("S", 1000, 0, b"");
        hand.isn = hand.world.inbox(client)[0].tcp().sequence_number;
        hand.client_says("AP", 1001, hand.isn.wrapping_add(1), b"hi");
        hand.snat = hand.world.inbox(server)[0].source;
        hand.server_says("SA", 5000, 1001, b"");
        hand.server_says("A", 5001, 1003, b"");
        assert_eq!(hand.state(), (FlowState::Bound, Lifecycle::Established));
        hand.clear();
        hand
    }

    fn client_says(&mut self, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
        let packet = wire::tcp(socket(CLIENT), socket(VIP), wire::flags(flags, seq, ack), payload);
        self.world.at(self.client).outbox.push(packet);
        self.world.settle();
    }

    fn server_says(&mut self, flags: &str, seq: u32, ack: u32, payload: &[u8]) {
        let packet = wire::tcp(socket(SERVER), self.snat, wire::flags(flags, seq, ack), payload);
        self.world.at(self.server).outbox.push(packet);
        self.world.settle();
    }

    fn state(&self) -> (FlowState, Lifecycle) {
        let (_, flow) = self.world.worker.pipeline().flows().iter().next().unwrap();
        (flow.state(), flow.lifecycle())
    }

    fn clear(&mut self) {
        self.world.inbox(self.client);
        self.world.inbox(self.server);
    }

    /// Packets that have reached client and server since.
    fn heard(&mut self) -> (usize, usize) {
        (self.world.inbox(self.client).len(), self.world.inbox(self.server).len())
    }

    fn finish_both(&mut self) {
        let ours = self.isn.wrapping_add(1);
        self.client_says("FA", 1003, ours, b"");
        self.server_says("FA", 5001, 1004, b"");
        self.client_says("A", 1004, ours.wrapping_add(1), b"");
        assert_eq!(self.state(), (FlowState::Bound, Lifecycle::BothFin));
        self.clear();
    }
}

/// The ends are spoken by hand, because smoltcp itself takes a reset anywhere in its window.
#[test]
fn blind_segments_neither_end_nor_disturb_a_spliced_flow() {
    let seed = 0xb11d;
    println!("seed {seed:#x}");
    let mut lottery = Lottery(seed);
    let mut hand = ByHand::new();
    hand.world.scrutinize = false;
    let mut resets = 0;
    for round in 0..1000 {
        for _ in 0..100 {
            let draw = lottery.draw();
            let flags = ["R", "RA", "S", "FA", "A", "PA", "F", "SA"][draw as usize % 8];
            resets += u64::from(flags.contains('R'));
            let payload: &[u8] = if flags == "PA" { b"evil" } else { b"" };
            let header = wire::flags(flags, lottery.draw(), lottery.draw());
            let (port, host, source, destination) = match draw & 0x100 {
                0 => (OUTSIDE, hand.client, socket(CLIENT), socket(VIP)),
                _ => (INSIDE, hand.server, socket(SERVER), hand.snat),
            };
            let frame = hand.world.framed(host, &wire::tcp(source, destination, header, payload));
            hand.world.inject(port, &frame);
        }
        hand.world.settle();
        hand.world.left.clear();
        hand.clear();
        assert_eq!(hand.state(), (FlowState::Bound, Lifecycle::Established), "round {round}");
    }
    let refused = hand.world.dropped(DropReason::TcpUnacceptable);
    assert!(refused > resets - 10 && resets > 20_000, "{refused} of {resets} are outside the window");
    hand.world.scrutinize = true;
    let ours = hand.isn.wrapping_add(1);
    hand.client_says("AP", 1003, ours, b"still");
    hand.server_says("AP", 5001, 1008, b"here");
    let (to_client, to_server) = (hand.world.inbox(hand.client), hand.world.inbox(hand.server));
    assert_eq!(
        (to_server[0].payload.as_slice(), to_client[0].payload.as_slice()),
        (&b"still"[..], &b"here"[..])
    );
    assert_eq!((to_server[0].tcp().sequence_number, to_server[0].tcp().acknowledgment_number), (1003, 5001));
    assert_eq!((to_client[0].tcp().sequence_number, to_client[0].tcp().acknowledgment_number), (ours, 1008));
    hand.client_says("FA", 1008, ours.wrapping_add(4), b"");
    hand.server_says("FA", 5005, 1009, b"");
    assert_eq!(hand.state().1, Lifecycle::BothFin);
    hand.client_says("A", 1009, ours.wrapping_add(5), b"");
    hand.world.seconds(11);
    assert_eq!(hand.world.terminations(), ["--"]);
    hand.world.assert_empty();
}

#[test]
fn a_reset_is_believed_at_exactly_the_expected_numbers() {
    // What the server has acknowledged, and the end of what the client has sent.
    for seq in [1003, 1008] {
        let mut hand = ByHand::new();
        hand.client_says("AP", 1003, hand.isn.wrapping_add(1), b"bytes");
        hand.clear();
        hand.client_says("R", 1005, 0, b"");
        assert_eq!(hand.state().1, Lifecycle::Established, "in the window: passed on");
        assert_eq!(hand.heard(), (0, 1));
        for outside in [1002, 1003 + 70_000] {
            hand.client_says("R", outside, 0, b"");
            assert_eq!((hand.state().1, hand.heard()), (Lifecycle::Established, (0, 0)));
        }
        assert_eq!(hand.world.dropped(DropReason::TcpUnacceptable), 2);
        hand.client_says("R", seq, 0, b"");
        assert_eq!((hand.state().1, hand.heard()), (Lifecycle::Reset, (0, 1)));
        hand.world.seconds(3);
        assert_eq!(hand.world.terminations(), ["CD"]);
        hand.world.assert_empty();
    }
}

#[test]
fn a_fin_is_believed_in_the_window_with_a_plausible_acknowledgement() {
    let mut hand = ByHand::new();
    let isn = hand.isn;
    for (seq, ack) in [(1003 + 70_000, isn.wrapping_add(1)), (1003, isn.wrapping_add(100))] {
        hand.client_says("FA", seq, ack, b"");
        assert_eq!((hand.state().1, hand.heard()), (Lifecycle::Established, (0, 1)), "{seq}");
    }
    hand.client_says("FA", 1003, isn.wrapping_add(1), b"");
    assert_eq!(hand.state().1, Lifecycle::ClientFin);
}

#[test]
fn a_syn_on_a_living_connection_is_passed_on_to_be_challenged() {
    let mut hand = ByHand::new();
    hand.client_says("S", 9_999_999, 0, b"");
    assert_eq!((hand.state(), hand.heard()), ((FlowState::Bound, Lifecycle::Established), (0, 1)));
}

#[test]
fn a_syn_beyond_the_old_connection_opens_a_new_one() {
    let mut hand = ByHand::new();
    hand.finish_both();
    hand.client_says("S", 1005, 0, b"");
    assert_eq!(hand.state().0, FlowState::Embryonic);
    let answer = hand.world.inbox(hand.client).remove(0);
    assert!(answer.tcp().syn && answer.tcp().acknowledgment_number == 1006, "{answer:?}");
    assert_eq!(hand.world.terminations(), ["--"]);
}

#[test]
fn an_old_syn_is_answered_as_by_time_wait() {
    let mut hand = ByHand::new();
    hand.finish_both();
    for seq in [1000, 1003, 1004] {
        hand.client_says("S", seq, 0, b"");
        let answer = hand.world.inbox(hand.client).remove(0);
        let tcp = answer.tcp();
        assert!(tcp.ack && !tcp.syn && !tcp.rst, "{answer:?}");
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (hand.isn.wrapping_add(2), 1004));
        assert!(hand.world.inbox(hand.server).is_empty());
    }
    assert_eq!(hand.world.dropped(DropReason::TcpUnacceptable), 3);
    assert_eq!(hand.state(), (FlowState::Bound, Lifecycle::BothFin));
}

#[test]
fn after_a_reset_every_syn_opens_a_new_connection() {
    let mut hand = ByHand::new();
    hand.client_says("R", 1003, 0, b"");
    hand.client_says("S", 500, 0, b"");
    assert_eq!(hand.state().0, FlowState::Embryonic);
}

/// Resets of weir's at the idle timeout carry what each end expects next.
#[test]
fn resets_at_the_idle_timeout_have_the_right_numbers() {
    let mut hand = ByHand::new();
    let ours = hand.isn.wrapping_add(1);
    hand.client_says("AP", 1003, ours, b"bytes");
    hand.server_says("AP", 5001, 1008, b"answer");
    hand.client_says("A", 1008, ours.wrapping_add(6), b"");
    hand.clear();
    hand.world.seconds(301);
    let (to_client, to_server) = (hand.world.inbox(hand.client), hand.world.inbox(hand.server));
    assert!(to_client[0].tcp().rst && to_server[0].tcp().rst);
    assert_eq!(to_client[0].tcp().sequence_number, ours.wrapping_add(6));
    assert_eq!(to_server[0].tcp().sequence_number, 1008);
}

/// What weir does not understand passes as it is, and a checksum that was wrong stays wrong.
#[test]
fn urgent_pointer_ecn_and_unknown_options_pass_untouched() {
    let mut hand = ByHand::new();
    let mut header = wire::flags("AP", 1003, hand.isn.wrapping_add(1));
    (header.urg, header.urgent_pointer, header.ece, header.cwr) = (true, 3, true, true);
    header.set_options_raw(&[1, 1, 253, 6, 1, 2, 3, 4]).unwrap();
    let mut packet = wire::tcp(socket(CLIENT), socket(VIP), header, b"urgent");
    hand.world.at(hand.client).outbox.push(packet.clone());
    hand.world.settle();
    let arrived = hand.world.inbox(hand.server).remove(0);
    let tcp = arrived.tcp();
    assert!(tcp.urg && tcp.ece && tcp.cwr && tcp.psh && tcp.ack);
    assert_eq!((tcp.urgent_pointer, tcp.sequence_number, tcp.acknowledgment_number), (3, 1003, 5001));
    assert_eq!(tcp.options.as_slice(), [1, 1, 253, 6, 1, 2, 3, 4]);
    assert_eq!(arrived.payload, b"urgent");
    *packet.last_mut().unwrap() ^= 1;
    hand.world.lenient = true;
    hand.world.at(hand.client).outbox.push(packet);
    let forwarded = hand.world.worker.pipeline().counters().forwarded;
    hand.world.settle();
    assert_eq!(hand.world.worker.pipeline().counters().forwarded, forwarded + 1);
    assert!(hand.world.inbox(hand.server).is_empty(), "a host found the checksum right");
}

#[test]
fn exact_resets_of_a_real_stack_end_the_flow() {
    let mut scene = Scene::new(&format!("{}{}", two_pools(), crate::inside::plain("tcp/443", "a")));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(&bytes(10_000, 1));
    scene.world.settle();
    scene.world.abort(client);
    assert_eq!(stands(&scene).1, Lifecycle::Reset, "the fast path tracks, too");
    assert_eq!(scene.world.state(server), State::Closed);
    scene.world.finish();
}

/// A server that takes 536 bytes where 1460 were promised.
#[test]
fn a_server_with_a_smaller_mss_gets_segments_that_it_takes() {
    let mut hand = ByHand::new();
    let mut header = wire::flags("AFP", 1003, hand.isn.wrapping_add(1));
    (header.urg, header.urgent_pointer, header.ece, header.cwr) = (true, 600, true, true);
    header.set_options_raw(&[1, 1, 253, 6, 1, 2, 3, 4]).unwrap();
    let data = bytes(1452, 5);
    let mut packet = wire::tcp(socket(CLIENT), socket(VIP), header, &data);
    hand.world.at(hand.client).outbox.push(packet.clone());
    hand.world.settle();
    let arrived = hand.world.inbox(hand.server);
    let mut next = 1003;
    for (number, packet) in arrived.iter().enumerate() {
        let tcp = packet.tcp();
        assert!(packet.payload.len() + 8 <= 536 && tcp.options.as_slice() == [1, 1, 253, 6, 1, 2, 3, 4]);
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.ece), (next, 5001, true));
        next += packet.payload.len() as u32;
        let last = number + 1 == arrived.len();
        assert_eq!((tcp.fin, tcp.psh, tcp.cwr), (last, last, number == 0));
        assert_eq!((tcp.urg, tcp.urgent_pointer), [(true, 600), (true, 72), (false, 0)][number]);
    }
    let whole: Vec<u8> = arrived.iter().flat_map(|packet| packet.payload.clone()).collect();
    assert!(whole == data && arrived.len() == 3);
    assert_eq!(hand.state().1, Lifecycle::ClientFin);
    *packet.last_mut().unwrap() ^= 1;
    hand.world.at(hand.client).outbox.push(packet);
    hand.world.settle();
    assert_eq!((hand.world.dropped(DropReason::L4Checksum), hand.heard()), (1, (0, 0)));
}

#[test]
fn a_long_transfer_to_a_server_with_a_smaller_mss_arrives_whole() {
    let pool = crate::inside::pools(&[("a", &["10.0.0.31:443"])]);
    let script = crate::inside::scripted("tcp/443", "a", &["a"], "avi.l4.collect(2)");
    for loss in [None, Some(50)] {
        let mut world = World::new(&format!("{pool}{script}"));
        let client = world.host(OUTSIDE, "192.0.2.100");
        let server = world.small_host(INSIDE, "10.0.0.31", 576);
        let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, VIP));
        let data = bytes(200 << 10, 7);
        world.loss = loss;
        world.talk(here).say(&data);
        world.talk(there).say(&data);
        world.talk(here).finish = true;
        world.talk(there).finish = true;
        world.seconds(if loss.is_some() { 300 } else { 10 });
        assert!(world.talk(there).received == data, "{loss:?} {}", world.talk(there).received.len());
        assert!(world.talk(here).received == data, "{loss:?} {}", world.talk(here).received.len());
        let to_server = world.left.iter().filter(|packet| packet.destination == socket("10.0.0.31:443"));
        assert_eq!(to_server.map(|packet| packet.payload.len()).max(), Some(536));
        world.loss = None;
        world.finish();
    }
}

/// RFC 6191, 2: a newer clock opens the tuple again, whatever the sequence number.
#[test]
fn a_newer_timestamp_opens_a_finished_tuple() {
    for (clock, opens) in [(1_000_001, true), (1_000_000, false), (5, false)] {
        let mut hand = ByHand::new();
        let ours = hand.isn.wrapping_add(1);
        let say = |hand: &mut ByHand, flags, seq, ack, clock: u32| {
            let mut header = wire::flags(flags, seq, ack);
            header.set_options(&[etherparse::TcpOptionElement::Timestamp(clock, 0)]).unwrap();
            hand.world.at(hand.client).outbox.push(wire::tcp(socket(CLIENT), socket(VIP), header, b""));
            hand.world.settle();
        };
        say(&mut hand, "FA", 1003, ours, 1_000_000);
        hand.server_says("FA", 5001, 1004, b"");
        say(&mut hand, "A", 1004, ours.wrapping_add(1), 1_000_000);
        assert_eq!(hand.state(), (FlowState::Bound, Lifecycle::BothFin));
        say(&mut hand, "S", 500, 0, clock);
        let expected = if opens { FlowState::Embryonic } else { FlowState::Bound };
        assert_eq!(hand.state().0, expected, "{clock}");
    }
}
/// `reset_on_idle = false`: the flow goes without a word, and what comes later finds a reset.
#[test]
fn a_silent_idle_timeout_leaves_nothing_but_resets_for_late_segments() {
    let settings = "[virtual_service.tcp]\nreset_on_idle = false\n";
    let script = crate::inside::scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)");
    let mut scene = Scene::new(&format!("{}{script}{settings}", two_pools()));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"request");
    scene.world.seconds(302);
    assert_eq!(scene.world.terminations(), ["cD"]);
    assert_eq!(scene.world.state(client), State::Established);
    assert_eq!(scene.world.state(server), State::Established);
    scene.world.talk(client).say(b"late");
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::Closed);
    assert_eq!(scene.world.talk(server).received, b"request");
    scene.world.assert_empty();
}

/// The client has finished, the server goes on for a while, and then nothing comes any more.
#[test]
fn a_half_closed_connection_carries_data_and_is_reset_when_idle() {
    let script = crate::inside::scripted("tcp/443", "a", &["a"], "avi.l4.collect(1)");
    let mut scene = Scene::new(&format!("{}{script}", two_pools()));
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(40_000));
    scene.world.talk(client).say(b"request");
    scene.world.talk(client).finish = true;
    scene.world.seconds(1);
    assert_eq!(scene.world.state(client), State::FinWait2);
    scene.world.talk(server).say(&bytes(100_000, 1));
    scene.world.seconds(30);
    assert!(scene.world.talk(client).received == bytes(100_000, 1));
    scene.world.seconds(310);
    assert_eq!((scene.world.state(client), scene.world.state(server)), (State::Closed, State::Closed));
    assert_eq!(scene.world.terminations(), ["sD"]);
    scene.world.assert_empty();
}
