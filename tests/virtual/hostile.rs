//! Frames that nobody should send, among the traffic of live flows.

use dataplane::io::PortId;
use smoltcp::time::Duration;

use crate::inside::*;
use crate::wire;
use crate::world::*;

const SEED: u64 = 0x7e57_5eed;
const FRAMES: usize = 20_000;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}

/// Breaks a frame: the bytes of its packet, not its addresses on the link. Nothing that comes out has a right TCP
/// checksum with other content, so the end hosts of live flows ignore it.
fn mutated(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match random.below(5) {
        0 => frame.truncate(random.below(frame.len())),
        1 => frame.extend(std::iter::repeat_n(random.next() as u8, random.below(60))),
        2 => {
            let at = 14 + random.below(frame.len() - 14);
            frame[at..].fill_with(|| random.next() as u8);
        }
        _ => {}
    }
    for _ in 0..1 + random.below(4) {
        if frame.len() > 14 {
            let at = 14 + random.below((frame.len() - 14).min(60));
            frame[at] = random.next() as u8;
        }
    }
    if random.below(3) > 0 && frame.len() >= 34 && frame[12..14] == [8, 0] {
        // A right IPv4 header lets the rest be looked at.
        frame[14] = 0x45;
        frame[24..26].fill(0);
        let words = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn twenty_thousand_broken_frames_harm_nobody() {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let toml = format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]),
        with_sets(
            "tcp/443",
            "a",
            &["a"],
            Some("avi.l4.collect(3) avi.vs.log(avi.l4.read(3))"),
            Some("avi.l4.collect(2)")
        )
        .replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"")
    );
    let mut world = World::new(&with_ipv6(&toml));
    let (client, server) = (world.host(OUTSIDE, "192.0.2.100"), world.host(INSIDE, "10.0.0.21"));
    let six = world.silent(OUTSIDE, "2001:db8:1::100");
    let flows: Vec<(Talk, Talk)> = (0..4)
        .map(|n| (world.listen(server, 443), world.connect(client, 40_000 + n, "192.0.2.10:443")))
        .collect();
    world.keep_frames = true;
    world.datagram(client, 4000, "192.0.2.10:443", b"datagram");
    world.datagram(six, 4000, "[2001:db8:1::10]:443", b"datagram");
    let packet = wire::echo_request(address("192.0.2.100"), address("192.0.2.10"), b"ping");
    world.at(client).outbox.push(packet);
    for (n, (there, here)) in flows.iter().enumerate() {
        world.talk(*here).say(format!("hello {n}").as_bytes());
        world.talk(*there).say(format!("world {n}").as_bytes());
    }
    world.settle();
    world.keep_frames = false;
    world.lenient = true;
    let templates = std::mem::take(&mut world.frames);
    assert!(templates.len() > 30, "{}", templates.len());
    for count in 0..FRAMES {
        let (port, template) = &templates[random.below(templates.len())];
        let frame = mutated(&mut random, template);
        if world.worker.io_mut().inject(PortId(*port), &frame) && count % 16 == 0 {
            world.settle();
        }
        if count % 200 == 0 {
            world.advance(Duration::from_millis(1));
        }
    }
    for (n, (there, here)) in flows.iter().enumerate() {
        world.talk(*here).say(b", again");
        world.talk(*there).say(b", again");
        world.advance(Duration::from_millis(20));
        assert_eq!(world.talk(*there).received, format!("hello {n}, again").as_bytes(), "seed {SEED:#x}");
        assert_eq!(world.talk(*here).received, format!("world {n}, again").as_bytes(), "seed {SEED:#x}");
        world.talk(*here).finish = true;
        world.talk(*there).finish = true;
    }
    world.seconds(1500);
    world.assert_empty();
    let counters = world.worker.pipeline().counters();
    assert!(counters.dropped_total() > FRAMES as u64 / 3, "{counters:?}");
}
