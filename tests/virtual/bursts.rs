//! How many packets a worker takes at a time.

use dataplane::io::{BURST, PortId, SHORT_BURST};
use smoltcp::time::Duration;

use crate::inside::*;
use crate::wire;
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
