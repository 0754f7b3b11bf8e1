//! SYN cookies: nothing is kept of a handshake, and nobody notices.

use std::net::SocketAddr;

use dataplane::counters::DropReason;
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
        assert_eq!(scene.world.worker.pipeline().counters().cookies_accepted, 0);
    }
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
