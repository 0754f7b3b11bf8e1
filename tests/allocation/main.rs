//! The fast path allocates nothing. A binary of its own, for its own allocator.
#![cfg(test)]
#![allow(dead_code, reason = "the world is shared with other tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "../virtual/device.rs"]
mod device;
#[path = "../virtual/host.rs"]
mod host;
#[path = "../virtual/inside.rs"]
mod inside;
#[path = "../virtual/invariants.rs"]
mod invariants;
#[path = "../virtual/pieces.rs"]
mod pieces;
#[path = "../virtual/weir.rs"]
mod weir;
#[path = "../virtual/wire.rs"]
mod wire;
#[path = "../virtual/world.rs"]
mod world;

use dataplane::counters::DropReason;
use dataplane::snapshot::ServiceId;
use dataplane::steering::Seat;
use dataplane::table::TableStore;
use inside::*;
use smoltcp::time::Duration;
use world::*;

thread_local! {
    /// Allocations of this thread.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the counter is a plain thread-local number without a
// destructor, so that counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: `pointer` came from `System.alloc` with this layout, and the caller answers for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while weir takes `frames` in, a millisecond apart, after `warm` of them.
fn allocations(world: &mut World, frames: &[(u8, Vec<u8>)], warm: usize) -> u64 {
    let mut total = 0;
    for (count, (port, frame)) in frames.iter().enumerate() {
        world.inject(*port, frame);
        world.now += Duration::from_millis(1);
        let before = COUNT.get();
        world.worker.run_once(world.now);
        if count >= warm {
            total += COUNT.get() - before;
        }
        for port in 0..2 {
            world.worker.io_mut().drain_sent(dataplane::io::PortId(port), |_| {});
        }
    }
    assert!(world.worker.pipeline().counters().balanced());
    total
}

#[test]
fn translated_packets_and_lone_rounds_allocate_nothing() {
    let toml = format!(
        "{}{}",
        pools(&[("a", &["10.0.0.21:443"])]),
        scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.l4.read(1))")
            .replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\"")
    );
    let mut world = World::new(&toml);
    let (client, server) = (world.host(OUTSIDE, "192.0.2.100"), world.host(INSIDE, "10.0.0.21"));
    let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, "192.0.2.10:443"));
    world.talk(here).say(b"hello");
    world.datagram(client, 4000, "192.0.2.10:443", b"datagram");
    world.settle();
    world.keep_frames = true;
    world.scrutinize = false;
    for round in 0..50 {
        world.talk(here).say(&[round; 1000]);
        world.talk(there).say(&[round; 3000]);
        world.datagram(client, 4000, "192.0.2.10:443", &[round; 100]);
        world.settle();
    }
    let frames = std::mem::take(&mut world.frames);
    world.keep_frames = false;
    assert!(frames.len() > 250, "{}", frames.len());
    let forwarded = world.worker.pipeline().counters().forwarded;
    assert_eq!(allocations(&mut world, &frames, 10), 0);
    let now_forwarded = world.worker.pipeline().counters().forwarded - forwarded;
    assert_eq!(now_forwarded, frames.len() as u64, "all of them took the fast path");
    let before = COUNT.get();
    for _ in 0..10_000 {
        world.now += Duration::from_micros(100);
        world.worker.run_once(world.now);
    }
    assert_eq!(COUNT.get() - before, 0, "rounds without packets");
}

/// A SYN that a cookie answers, and an acknowledgement of none: neither takes memory, however many come.
#[test]
fn handshakes_that_are_not_kept_allocate_nothing() {
    let script = scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.l4.read(1))");
    let service = format!("{}{script}", pools(&[("a", &["10.0.0.21:443"])]));
    let mut world = World::new(&format!("{service}[virtual_service.tcp]\nsyn_cookies = \"always\"\n"));
    let liar = world.silent(OUTSIDE, "192.0.2.101");
    world.scrutinize = false;
    let frames: Vec<_> = (0..2000u16)
        .map(|n| {
            let from = std::net::SocketAddr::new(address("192.0.2.101"), 4000 + n / 2);
            let header = wire::flags(if n % 2 == 0 { "S" } else { "A" }, u32::from(n), 99);
            (OUTSIDE, world.framed(liar, &wire::tcp(from, socket("192.0.2.10:443"), header, b"")))
        })
        .collect();
    assert_eq!(allocations(&mut world, &frames, 100), 0);
    let counters = world.worker.pipeline().counters();
    assert_eq!((counters.cookies_sent, counters.dropped_for(DropReason::NoFlow)), (1000, 1000));
    // One in 32 is taken for a later segment of a connection that has not begun.
    assert!((930..1000).contains(&counters.cookies_rejected), "{}", counters.cookies_rejected);
    assert_eq!((counters.cookies_accepted, counters.flows_created), (0, 0));
}

#[test]
fn fragments_that_are_joined_and_packets_that_are_cut_allocate_nothing() {
    let toml = format!("{}{}", pools(&[("a", &["10.0.0.21:443"])]), plain("udp/443", "a"));
    let mut world = World::new(&toml);
    let (client, server) = (world.silent(OUTSIDE, "192.0.2.100"), world.silent(INSIDE, "10.0.0.21"));
    let packet = |length: usize| {
        let payload = vec![7; length];
        wire::udp(socket("192.0.2.100:4000"), socket("192.0.2.10:443"), &payload)
    };
    world.at(client).outbox.push(packet(10));
    world.settle();
    let seen = world.inbox(server).remove(0);
    let answer = wire::udp(seen.destination, seen.source, &[9; 30_000]);
    let mut frames = Vec::new();
    for id in 0..40 {
        for fragment in pieces::cut(&packet(20_000), 1480, id) {
            frames.push((OUTSIDE, world.framed(client, &fragment)));
        }
        for fragment in pieces::cut(&answer, 1480, id) {
            frames.push((INSIDE, world.framed(server, &fragment)));
        }
        // Some are never complete.
        frames.push((OUTSIDE, world.framed(client, &pieces::cut(&packet(20_000), 1480, 1000 + id)[1])));
    }
    world.scrutinize = false;
    assert_eq!(allocations(&mut world, &frames, 40), 0);
    let counters = world.worker.pipeline().counters();
    assert_eq!((counters.reassembled, counters.fragmented), (80, 80));
    assert_eq!(counters.originate_failed, 0);
}

#[test]
fn reading_and_renewing_entries_of_tables_allocates_nothing_even_when_it_has_to_be_told() {
    let world = World::new(&format!("{}{}", pools(&[("a", &["10.0.0.21:443"])]), plain("udp/443", "a")));
    for seat in [Seat::ALONE, Seat { number: 0, of: 3 }] {
        let mut store = TableStore::new(world.worker.pipeline().snapshot(), seat);
        let (service, start) = (ServiceId(0), world.now);
        for key in 0..100u8 {
            store.insert(start, service, Some(b"t"), &[key], b"value", 300);
        }
        while store.poll_news(1).or_else(|| store.poll_news(2)).is_some() {}
        let (mut told, before) = (0, COUNT.get());
        // Three lifetimes and more.
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            for key in 0..100u8 {
                assert!(store.lookup(now, service, Some(b"t"), &[key], 0).is_some());
                assert!(store.refresh(now, service, Some(b"t"), &[key], 300));
                assert!(store.lookup(now, service, None, &[key], 300).is_none());
            }
            while store.poll_news(1).or_else(|| store.poll_news(2)).is_some() {
                told += 1;
            }
        }
        assert_eq!(COUNT.get() - before, 0, "{seat:?}");
        assert_eq!(
            told,
            if seat == Seat::ALONE { 0 } else { 100 * 3 * 2 },
            "each key once a lifetime to each"
        );
    }
}
