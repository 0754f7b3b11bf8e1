//! How many packets a worker takes at a time.

use dataplane::io::{BURST, PortId, SHORT_BURST};
use smoltcp::time::Duration;

use crate::inside::*;
use crate::wire;
use crate::workers::rss;
use crate::world::*;

const VIP: &str = "192.0.2.10:53";

/// Clients open flows as fast as they can, servers answer flows that are there. Where packets are dear, bursts are short, and at all
/// ports alike, so that neither side is served at the cost of the other one; where they are cheap again, bursts are long.
#[test]
fn bursts_are_short_at_all_ports_while_many_packets_open_flows() {
    let script = r#"avi.pool.select("a")"#;
    let mut world = World::new(&format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:53"])]),
        scripted("udp/53", "a", &["a"], script)
    ));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    let server = world.silent(INSIDE, "10.0.0.21");
    world.datagram(client, 4000, VIP, b"first");
    world.settle();
    let snat = world.inbox(server)[0].source;
    world.datagram(server, 53, snat.to_string(), b"answer");
    world.settle();
    assert_eq!(world.inbox(client).len(), 1);
    let answer = world.framed(server, &wire::udp(socket("10.0.0.21:53"), snat, b"the answer to that"));
    let mut opening = (5000..)
        .map(|port| wire::udp(format!("192.0.2.100:{port}").parse().unwrap(), socket(VIP), b"opens a flow"));
    for packet in opening.by_ref().take(2 * BURST) {
        let frame = world.framed(client, &packet);
        world.inject(OUTSIDE, &frame);
    }
    for _ in 0..4 * BURST {
        world.inject(INSIDE, &answer);
    }
    let mut taken = Vec::new();
    for _ in 0..8 {
        let before = [OUTSIDE, INSIDE].map(|port| world.worker.io_mut().pending(PortId(port)));
        let now = world.now + Duration::from_millis(1);
        world.now = now;
        world.worker.run_once(now);
        let after = [OUTSIDE, INSIDE].map(|port| world.worker.io_mut().pending(PortId(port)));
        taken.push([before[0] - after[0], before[1] - after[1]]);
    }
    let short = [SHORT_BURST; 2];
    // The first round does not know yet, and the one behind the last opening does not either.
    assert_eq!(taken[..5], [[BURST; 2], short, short, short, short]);
    assert_eq!(taken[5..], [[0, SHORT_BURST], [0, BURST], [0, 4 * BURST - BURST - 5 * SHORT_BURST - BURST]]);
    world.settle();
    assert_eq!(world.inbox(client).len(), 4 * BURST);
    world.finish();
}

/// A worker that tells what scripts have changed, and one that hears it, do not let each other wait for long bursts.
#[test]
fn bursts_are_short_while_workers_tell_each_other_of_tables() {
    let script = "avi.vs.table_insert(avi.vs.client_port(), \"here\")\navi.pool.select(\"a\")";
    let pools = pools(&[("a", &["10.0.0.21:53"])]);
    let toml = format!("{TWO_ARMS}{pools}{}", scripted("udp/53", "a", &["a"], script));
    let mut world = World::with_workers(&toml, 2, |frame| rss(frame, 2));
    let client = world.silent(OUTSIDE, "192.0.2.100");
    world.silent(INSIDE, "10.0.0.21");
    let frames: Vec<Vec<u8>> = (4000..4100)
        .map(|port| {
            let client_socket = format!("192.0.2.100:{port}").parse().unwrap();
            world.framed(client, &wire::udp(client_socket, socket(VIP), b"a long request"))
        })
        .collect();
    let (here, there): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| rss(frame, 2) == 0);
    let [known, opening, of_other] = [&here[0], &here[1], &there[0]];
    world.inject(OUTSIDE, known);
    world.inject(OUTSIDE, of_other);
    world.settle();
    world.round();
    world.inject(OUTSIDE, opening);
    for frame in [known, of_other] {
        for _ in 0..3 * BURST {
            world.inject(OUTSIDE, frame);
        }
    }
    let waiting = |world: &mut World| {
        let other = world.others[0].0.io_mut().pending(PortId(OUTSIDE));
        [world.worker.io_mut().pending(PortId(OUTSIDE)), other]
    };
    let mut taken = Vec::new();
    for _ in 0..3 {
        let before = waiting(&mut world);
        world.round();
        let after = waiting(&mut world);
        taken.push([before[0] - after[0], before[1] - after[1]]);
    }
    assert_eq!(taken, [[BURST; 2], [SHORT_BURST; 2], [BURST; 2]]);
    world.settle();
    world.finish();
}

/// To hand packets to the worker of their flow costs little: bursts stay long, over IPv4 and IPv6.
#[test]
fn bursts_stay_long_where_packets_are_handed_over() {
    for (vip, client, server) in
        [(VIP, "192.0.2.100", "10.0.0.21"), ("[2001:db8:1::10]:53", "2001:db8:1::100", "2001:db8:2::21")]
    {
        let pools = pools(&[("a", &["10.0.0.21:53", "[2001:db8:2::21]:53"])]);
        let toml = with_ipv6(&format!(
            "{TWO_ARMS}{pools}{}",
            scripted("udp/53", "a", &["a"], r#"avi.pool.select("a")"#)
        ));
        // A card that has one queue for all.
        let mut world = World::with_workers(&toml, 2, |_| 0);
        let host = world.silent(OUTSIDE, client);
        world.silent(INSIDE, server);
        let frame_of = |port: u16| {
            let source = std::net::SocketAddr::new(address(client), port);
            world.framed(host, &wire::udp(source, socket(vip), b"a long request"))
        };
        let frame = (4000..).map(frame_of).find(|frame| rss(frame, 2) == 1).unwrap();
        world.inject(OUTSIDE, &frame);
        world.settle();
        for _ in 0..3 * BURST {
            world.inject(OUTSIDE, &frame);
        }
        for left in [2 * BURST, BURST, 0] {
            world.round();
            assert_eq!(world.worker.io_mut().pending(PortId(OUTSIDE)), left, "{vip}");
        }
        world.settle();
        assert!(world.worker.pipeline().counters().handed_over >= 3 * BURST as u64, "{vip}");
        world.finish();
    }
}
