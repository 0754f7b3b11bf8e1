//! SYN cookies: nothing is kept of a handshake, and nobody notices.

use std::net::SocketAddr;

use dataplane::counters::DropReason;
use dataplane::io::{Burst, PacketIo, PortId};
use dataplane::pipeline::Verdict;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::tcp_binding::{Scene, bytes, two_pools};
use crate::wire;
use crate::world::*;

fn scene(limits: &str, cookies: &str) -> Scene {
    let script = scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.l4.collect(3000))");
    let tcp = format!("[virtual_service.tcp]\nsyn_cookies = \"{cookies}\"\n");
    Scene::new(&format!("{limits}{}{script}{tcp}", two_pools()))
}

fn ticks() -> u32 {
    77_000
}

/// A connection through a script that collects, both ways.
fn exchange(scene: &mut Scene, port: u16, timestamps: bool) {
    let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(port));
    if timestamps {
        scene.world.use_timestamps(client, ticks);
        scene.world.use_timestamps(server, ticks);
    }
    scene.world.talk(client).say(&bytes(100_000, 1));
    scene.world.talk(client).finish = true;
    scene.world.talk(server).say(&bytes(200_000, 2));
    scene.world.talk(server).finish = true;
    let done = |scene: &mut Scene| {
        scene.world.talk(server).received.len() + scene.world.talk(client).received.len() == 300_000
    };
    for _ in 0..120 {
        if done(scene) {
            break;
        }
        scene.world.seconds(1);
    }
    scene.world.seconds(5);
    assert!(scene.world.talk(server).received == bytes(100_000, 1), "up");
    assert!(scene.world.talk(client).received == bytes(200_000, 2), "down");
}

#[test]
fn connections_that_began_with_a_cookie_are_like_any_other() {
    let mut scene = scene("", "always");
    for (port, timestamps) in [(4000, false), (4001, true)] {
        exchange(&mut scene, port, timestamps);
    }
    let counters = scene.world.worker.pipeline().counters();
    assert_eq!((counters.cookies_sent, counters.cookies_accepted), (2, 2));
    assert_eq!(scene.world.terminations(), ["--", "--"]);
    scene.world.finish();
}

fn spoofed(n: u32) -> Vec<u8> {
    let [a, b] = (n as u16).to_be_bytes();
    let source = SocketAddr::new([192, 0, 2, 101].into(), u16::from_be_bytes([a, b]));
    wire::tcp(source, socket("192.0.2.10:443"), wire::flags("S", n, 0), b"")
}

/// 200,000 SYNs from somebody who never answers, while 20 clients connect.
fn flood(cookies: &str) -> Scene {
    let mut scene = scene("[limits]\nflows = 1024\nembryonic = 256\nwaiting = 256\n", cookies);
    let liar = scene.world.silent(OUTSIDE, "192.0.2.101");
    scene.world.scrutinize = false;
    let mut talks = Vec::new();
    for burst in 0..6_250u32 {
        for n in burst * 32..(burst + 1) * 32 {
            let frame = scene.world.framed(liar, &spoofed(n));
            scene.world.inject(OUTSIDE, &frame);
        }
        scene.world.now += Duration::from_millis(1);
        scene.world.round();
        for port in [OUTSIDE, INSIDE] {
            scene.world.deliver(port);
        }
        assert!(scene.world.worker.pipeline().undecided().0 <= 256);
        if burst % 300 == 100 {
            let port = 4000 + u16::try_from(talks.len()).unwrap();
            let (server, client) = (scene.world.listen(scene.a, 443), scene.connect(port));
            scene.world.talk(client).say(&bytes(5000, 1));
            scene.world.talk(server).say(&bytes(5000, 2));
            scene.world.settle();
            talks.push((server, client));
        }
        scene.world.left.clear();
        scene.world.inbox(liar);
    }
    scene.world.seconds(3);
    assert_eq!(talks.len(), 21);
    for (server, client) in talks {
        assert!(scene.world.talk(server).received == bytes(5000, 1));
        assert!(scene.world.talk(client).received == bytes(5000, 2));
    }
    scene
}

#[test]
fn in_a_flood_all_real_clients_connect_by_cookies() {
    let scene = flood("auto");
    let counters = scene.world.worker.pipeline().counters();
    // The first 128 handshakes are kept, and again when those have timed out.
    assert!(counters.cookies_sent > 190_000, "{}", counters.cookies_sent);
    assert_eq!((counters.cookies_accepted, counters.embryonic_evicted), (21, 0));
    assert!(counters.flows_created < 1000, "{}", counters.flows_created);
    assert_eq!(scene.world.dropped(DropReason::EmbryonicLimit), 0);
}

/// One handshake more than the number is kept, the next one is not; and one that was kept makes room when it goes on.
#[test]
fn cookies_begin_above_the_number_of_incomplete_handshakes() {
    let limits = "[limits]\nflows = 1024\nembryonic = 64\nsyn_cookies_above = 10\n";
    let mut scene = scene(limits, "auto");
    let client = scene.world.silent(OUTSIDE, "192.0.2.101");
    for n in 4000..4014 {
        scene.world.at(client).outbox.push(spoofed(n));
        scene.world.settle();
    }
    let sent = |scene: &Scene| scene.world.worker.pipeline().counters().cookies_sent;
    assert_eq!((scene.world.worker.pipeline().undecided(), sent(&scene)), ((11, 0), 3));
    let answers = scene.world.inbox(client);
    assert_eq!(answers.len(), 14);
    let ack = wire::flags("A", 4001, answers[0].tcp().sequence_number.wrapping_add(1));
    scene.world.at(client).outbox.push(wire::tcp(answers[0].destination, answers[0].source, ack, b""));
    for n in [5000, 5001] {
        scene.world.at(client).outbox.push(spoofed(n));
        scene.world.settle();
    }
    assert_eq!((scene.world.worker.pipeline().undecided(), sent(&scene)), ((11, 1), 4));
}

/// What did not fit into the queue of what weir sends is no answer.
#[test]
fn answers_that_cannot_be_sent_are_not_counted_as_sent() {
    let mut scene = scene("", "always");
    let client = scene.world.silent(OUTSIDE, "192.0.2.101");
    // With the first one the client's MAC address becomes known.
    scene.world.at(client).outbox.push(spoofed(0));
    scene.world.settle();
    let (mut burst, mut verdicts) = (Burst::new(), Default::default());
    for n in 1..5000 {
        let frame = scene.world.framed(client, &spoofed(n));
        scene.world.inject(OUTSIDE, &frame);
        scene.world.worker.io_mut().rx_burst(PortId(OUTSIDE), &mut burst);
        let now = scene.world.now;
        scene.world.worker.pipeline_mut().process(now, PortId(OUTSIDE), &mut burst, &mut verdicts);
        assert_eq!(verdicts[..], [Verdict::Consumed]);
        // As the worker would.
        scene.world.worker.pipeline_mut().counters_mut().consumed += 1;
        burst.clear();
    }
    let counters = scene.world.worker.pipeline().counters().clone();
    assert_eq!(counters.cookies_sent + counters.originate_failed, 5000);
    scene.world.settle();
    assert_eq!(scene.world.inbox(client).len() as u64, counters.cookies_sent);
    assert!(counters.originate_failed > 800, "{counters:?}");
}

#[test]
fn without_cookies_those_who_answer_at_once_connect_too() {
    let scene = flood("never");
    let counters = scene.world.worker.pipeline().counters();
    assert_eq!(counters.cookies_sent, 0);
    assert!(counters.embryonic_evicted > 190_000, "{}", counters.embryonic_evicted);
}

#[test]
fn an_acknowledgement_of_nothing_is_reset_with_and_without_cookies() {
    for cookies in ["always", "never"] {
        let mut scene = scene("", cookies);
        let client = scene.world.silent(OUTSIDE, "192.0.2.101");
        let from = SocketAddr::new(address("192.0.2.101"), 4000);
        scene.world.at(client).outbox.push(wire::tcp(
            from,
            socket("192.0.2.10:443"),
            wire::flags("S", 7, 0),
            b"",
        ));
        scene.world.settle();
        let answer = scene.world.inbox(client).remove(0);
        let wrong = answer.tcp().sequence_number.wrapping_add(9);
        for flags in ["A", "PA"] {
            let from = SocketAddr::new(address("192.0.2.101"), 4001);
            let ack = wire::flags(flags, 8, wrong);
            scene.world.at(client).outbox.push(wire::tcp(from, socket("192.0.2.10:443"), ack, b"data"));
            scene.world.settle();
            let reset = scene.world.inbox(client).remove(0);
            assert!(reset.tcp().rst && reset.tcp().sequence_number == wrong);
        }
        assert_eq!(scene.world.dropped(DropReason::NoFlow), 2);
        let counters = scene.world.worker.pipeline().counters();
        let rejected = if cookies == "always" { 2 } else { 0 };
        assert_eq!((counters.cookies_accepted, counters.cookies_rejected), (0, rejected));
    }
}

/// A client by hand behind a cookie: its SYN has the number 7, and what the SYN-ACK says it is to acknowledge is `ack`.
struct ByHand {
    scene: Scene,
    client: HostId,
    from: SocketAddr,
    ack: u32,
}

impl ByHand {
    fn new(script: &str) -> ByHand {
        ByHand::with(script, "always")
    }

    fn with(script: &str, cookies: &str) -> ByHand {
        let tcp = format!("[virtual_service.tcp]\nsyn_cookies = \"{cookies}\"\n");
        let service = scripted("tcp/443", "a", &["a"], script);
        let mut scene = Scene::new(&format!("{}{service}{tcp}", two_pools()));
        let client = scene.world.silent(OUTSIDE, "192.0.2.101");
        let mut hand = ByHand { scene, client, from: socket("192.0.2.101:4000"), ack: 0 };
        let answer = hand.say("S", 7, b"").remove(0);
        assert!(answer.tcp().syn && answer.tcp().ack && answer.tcp().acknowledgment_number == 8);
        let kept = u64::from(cookies == "never");
        assert_eq!(hand.scene.world.worker.pipeline().counters().flows_created, kept);
        hand.ack = answer.tcp().sequence_number.wrapping_add(1);
        hand
    }

    /// Sends a segment and returns what came back.
    fn say(&mut self, flags: &str, seq: u32, payload: &[u8]) -> Vec<wire::Packet> {
        let header = wire::flags(flags, seq, self.ack);
        let packet = wire::tcp(self.from, socket("192.0.2.10:443"), header, payload);
        self.scene.world.at(self.client).outbox.push(packet);
        self.scene.world.settle();
        self.scene.world.inbox(self.client)
    }

    fn created_and_accepted(&self) -> (u64, u64) {
        let counters = self.scene.world.worker.pipeline().counters();
        (counters.flows_created, counters.cookies_accepted)
    }
}

const COLLECT_5: &str = "avi.vs.log(avi.l4.collect(5))";

/// The ACK alone, twice; the ACK with bytes; bytes whose bare ACK was lost; bytes with FIN.
#[test]
fn any_first_segment_completes_the_handshake_once() {
    let cases: [&[(&str, u32, &[u8])]; 4] = [
        &[("A", 8, b""), ("A", 8, b""), ("PA", 8, b"hello")],
        &[("PA", 8, b"hello"), ("PA", 8, b"hello"), ("A", 8, b"")],
        &[("PA", 8, b"he"), ("PA", 8, b"hello")],
        &[("FPA", 8, b"hello"), ("FPA", 8, b"hello")],
    ];
    for (case, segments) in cases.into_iter().enumerate() {
        let mut hand = ByHand::new(COLLECT_5);
        let server = hand.scene.world.listen(hand.scene.a, 443);
        hand.scene.world.talk(server).say(b"answer");
        hand.scene.world.talk(server).finish = true;
        let mut back = Vec::new();
        for (flags, seq, payload) in segments {
            back.extend(hand.say(flags, *seq, payload));
        }
        assert!(back.iter().all(|packet| !packet.tcp().rst && !packet.tcp().syn), "case {case}: {back:?}");
        assert!(back.iter().any(|packet| packet.payload == b"answer"), "case {case}: {back:?}");
        assert_eq!(hand.scene.world.talk(server).received, b"hello", "case {case}");
        assert_eq!(hand.created_and_accepted(), (1, 1), "case {case}");
        assert_eq!(hand.scene.world.worker.pipeline().undecided(), (0, 0), "case {case}");
    }
}

/// The ACK and the first segment got lost: the second one is neither taken nor reset, and all of them come again. When the
/// script has reset the connection, the same segment is reset.
#[test]
fn a_second_segment_without_the_first_finds_silence_until_the_first_comes() {
    let mut hand = ByHand::new("avi.l4.collect(10) avi.vs.close_conn(true)");
    for _ in 0..2 {
        assert_eq!(hand.say("PA", 13, b"world").len(), 0);
    }
    assert_eq!(hand.created_and_accepted(), (0, 0));
    assert_eq!(hand.scene.world.dropped(DropReason::NoFlow), 2);
    let acknowledged = hand.say("PA", 8, b"hello");
    assert!(acknowledged.iter().all(|packet| !packet.tcp().rst), "{acknowledged:?}");
    assert!(hand.say("PA", 13, b"world").iter().any(|packet| packet.tcp().rst), "by the script");
    assert_eq!((hand.created_and_accepted(), hand.scene.world.terminations().len()), ((1, 1), 1));
    hand.scene.world.seconds(3);
    assert!(hand.say("PA", 13, b"world").iter().all(|packet| packet.tcp().rst), "by nobody");
    assert_eq!(hand.scene.world.worker.pipeline().counters().cookies_rejected, 1);
}

/// FIN and no bytes: the flow comes to its end, and nothing of it is left.
#[test]
fn a_client_that_closes_at_once_leaves_nothing() {
    let mut hand = ByHand::new(COLLECT_5);
    let back = hand.say("FA", 8, b"");
    assert!(back.iter().all(|packet| !packet.tcp().rst), "{back:?}");
    assert_eq!(hand.created_and_accepted(), (1, 1));
    hand.scene.world.seconds(700);
    assert_eq!(hand.scene.world.terminations().len(), 1);
    hand.scene.world.finish();
}

#[test]
fn lost_packets_are_no_matter() {
    let mut scene = scene("", "always");
    scene.world.loss = Some(10);
    for port in 4000..4020 {
        exchange(&mut scene, port, port % 2 == 0);
    }
    assert_eq!(scene.world.terminations().len(), 20);
    scene.world.loss = None;
    scene.world.finish();
}

/// The RST got lost, and the client repeats itself: the script does not run again.
#[test]
fn a_repeated_first_segment_does_not_open_a_closed_connection_again() {
    let mut results = Vec::new();
    for cookies in ["never", "always"] {
        let mut hand = ByHand::with("avi.l4.collect(5) avi.vs.close_conn(true)", cookies);
        for _ in 0..4 {
            let back = hand.say("PA", 8, b"hello");
            assert!(back.iter().any(|packet| packet.tcp().rst));
            hand.scene.world.seconds(1);
        }
        results.push((cookies, hand.scene.world.terminations().len()));
    }
    assert_eq!(results, [("never", 1), ("always", 1)]);
}

/// 15 s after both ends have closed, when the flow is no longer in the table.
#[test]
fn a_late_duplicate_of_the_first_segment_reaches_no_server() {
    let mut results = Vec::new();
    for cookies in ["never", "always"] {
        let mut hand = ByHand::with("avi.l4.collect(5)", cookies);
        let server = hand.scene.world.listen(hand.scene.a, 443);
        hand.scene.world.talk(server).finish = true;
        hand.say("FPA", 8, b"hello");
        hand.ack = hand.ack.wrapping_add(1);
        hand.say("A", 14, b"");
        hand.ack = hand.ack.wrapping_sub(1);
        hand.scene.world.seconds(15);
        assert_eq!(hand.scene.world.talk(server).received, b"hello", "{cookies}");
        assert_eq!(
            hand.scene.world.worker.pipeline().flows().iter().count(),
            0,
            "{cookies}: the flow is gone"
        );
        let again = hand.scene.world.listen(hand.scene.a, 443);
        hand.say("FPA", 8, b"hello");
        results.push((cookies, hand.scene.world.talk(again).received.len()));
    }
    assert_eq!(results, [("never", 0), ("always", 0)]);
}
