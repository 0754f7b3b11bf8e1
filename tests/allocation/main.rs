//! The fast path allocates nothing, neither by Rust's allocator nor by C's. A binary of its own, for its own allocators.
#![cfg(test)]
#![allow(dead_code, reason = "the world is shared with other tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_void};

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
    /// Bytes that this thread has allocated in Rust and not freed.
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

/// A block more or less; with what glibc's allocator adds to it.
fn change(sign: i64, size: usize) {
    let block = (size + 8).next_multiple_of(16).max(32);
    BYTES.with(|held| held.set(held.get() + sign * block as i64));
}

// SAFETY: every call goes to the system's allocator as it came; the counter is a plain thread-local number without a
// destructor, so that counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        change(1, layout.size());
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        change(-1, layout.size());
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        change(-1, layout.size());
        change(1, size);
        // SAFETY: `pointer` came from `System.alloc` with this layout, and the caller answers for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
    fn strdup(text: *const c_char) -> *mut c_char;
    fn free(pointer: *mut c_void);
}

// The C library lets a program bring its own allocator, also for calls from within that library and from LuaJIT. These
// count and pass on; what comes from them goes back by the library's own `free`. What Rust allocates counts twice.

// SAFETY: the name is C's, and the call goes to C's allocator as it came.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    COUNT.with(|count| count.set(count.get() + 1));
    // SAFETY: any size may be asked for.
    unsafe { __libc_malloc(size) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    COUNT.with(|count| count.set(count.get() + 1));
    // SAFETY: any size may be asked for.
    unsafe { __libc_calloc(count, size) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(pointer: *mut c_void, size: usize) -> *mut c_void {
    COUNT.with(|count| count.set(count.get() + 1));
    // SAFETY: the caller's pointer is null or from one of these, all of which are C's.
    unsafe { __libc_realloc(pointer, size) }
}

#[test]
fn both_allocators_are_counted() {
    let before = COUNT.get();
    // SAFETY: a string that ends with a zero, and what comes back is given back once.
    unsafe { free(strdup(c"memory".as_ptr()).cast()) };
    let of_c = COUNT.get();
    assert_eq!(of_c - before, 1);
    drop(std::hint::black_box(Box::new(before)));
    assert!(COUNT.get() > of_c);
}

/// Allocations while weir takes `frames` in, a millisecond apart, after `warm` of them.
fn allocations(world: &mut World, frames: &[(u8, Vec<u8>)], warm: usize) -> u64 {
    allocations_in_lots(world, frames, warm, 1)
}

/// The same with lots of so many frames, all there at once.
fn allocations_in_lots(world: &mut World, frames: &[(u8, Vec<u8>)], warm: usize, lot: usize) -> u64 {
    let mut total = 0;
    for (count, frames) in frames.chunks(lot).enumerate() {
        frames.iter().for_each(|(port, frame)| world.inject(*port, frame));
        world.now += Duration::from_millis(1);
        let before = COUNT.get();
        while !world.worker.run_once(world.now).is_idle() {}
        if count * lot >= warm {
            total += COUNT.get() - before;
        }
        for port in 0..2 {
            world.worker.io_mut().drain_sent(dataplane::io::PortId(port), |_| {});
        }
    }
    assert!(world.worker.pipeline().counters().balanced());
    total
}

/// A client, a VIP and a server of each family.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("192.0.2.100", "192.0.2.10:443", "10.0.0.21"),
    ("2001:db8:1::100", "[2001:db8:1::10]:443", "2001:db8:2::21"),
];

/// A connection and a dozen UDP flows with data both ways, and the frames of them that come after they are established.
fn established((client, vip, server): (&str, &str, &str)) -> (World, Vec<(u8, Vec<u8>)>) {
    let pools = pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]);
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.l4.read(1))");
    let service = with_ipv6(&service.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let mut world = World::new(&format!("{pools}{service}"));
    let (client, server) = (world.host(OUTSIDE, client), world.host(INSIDE, server));
    let (there, here) = (world.listen(server, 443), world.connect(client, 40_000, vip));
    world.talk(here).say(b"hello");
    world.scrutinize = false;
    for round in 0..50 {
        world.talk(there).say(&[round; 3000]);
        world.talk(here).say(&[round; 1000]);
        (4000..4012).for_each(|port| world.datagram(client, port, vip, &[round; 100]));
        world.settle();
        for packet in world.inbox(server) {
            world.datagram(server, 443, packet.source.to_string(), &packet.payload);
        }
        world.settle();
        // From here on nothing begins.
        world.keep_frames = true;
    }
    world.keep_frames = false;
    let frames = std::mem::take(&mut world.frames);
    (world, frames)
}

#[test]
fn translated_packets_and_lone_rounds_allocate_nothing() {
    for family in FAMILIES {
        let (mut world, frames) = established(family);
        assert!(frames.len() > 1400, "{}", frames.len());
        // One by one, then as many at once at both ports as full bursts take, and more.
        for lot in [1, 128, 600] {
            let forwarded = world.worker.pipeline().counters().forwarded;
            assert_eq!(allocations_in_lots(&mut world, &frames, lot.max(10), lot), 0, "{family:?}, {lot}");
            let now_forwarded = world.worker.pipeline().counters().forwarded - forwarded;
            assert_eq!(
                now_forwarded,
                frames.len() as u64,
                "all of them took the fast path, {family:?}, {lot}"
            );
        }
        let before = COUNT.get();
        for _ in 0..10_000 {
            world.now += Duration::from_micros(100);
            world.worker.run_once(world.now);
        }
        assert_eq!(COUNT.get() - before, 0, "rounds without packets");
    }
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

/// weir for so many flows, and what it has of the heap.
fn weir_for(flows: u32) -> i64 {
    let service = with_ipv6(&plain("udp/443", "a").replace("\"udp/443\"", "\"tcp/443\", \"udp/443\""));
    let pools = pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]);
    let toml = format!("{pools}{service}[limits]\nflows = {flows}\n");
    let before = BYTES.get();
    let world = World::new(&toml);
    assert_eq!(world.worker.pipeline().flows().capacity(), flows);
    BYTES.get() - before
}

/// Record, index and timer are elsewhere ([`dataplane::flow_table`], [`dataplane::wheel`]). What the heap has is 32 bytes for
/// used SYN cookies, which are zeros that take no memory before there are any.
#[test]
fn room_for_flows_takes_of_the_heap_what_is_said() {
    assert_eq!(weir_for(65_536) - weir_for(4096), 32 * (65_536 - 4096));
}

/// Without a script there is nothing to keep of a flow but its place in the table.
#[test]
fn flows_that_exist_hold_nothing_of_the_heap() {
    for (client, vip, server) in FAMILIES {
        let pools = pools(&[("a", &["10.0.0.21:443", "[2001:db8:2::21]:443"])]);
        let mut world = World::new(&format!("{pools}{}", with_ipv6(&plain("udp/443", "a"))));
        let (client, server) = (world.silent(OUTSIDE, client), world.silent(INSIDE, server));
        world.datagram(client, 4000, vip, b"first");
        world.settle();
        assert_eq!(world.payloads(server), [b"first"]);
        world.scrutinize = false;
        let address = world.at(client).address;
        let from = |port| std::net::SocketAddr::new(address, port);
        let frames: Vec<_> = (5000..7000)
            .map(|port| (OUTSIDE, world.framed(client, &wire::udp(from(port), socket(vip), b"new"))))
            .collect();
        let before = BYTES.get();
        allocations_in_lots(&mut world, &frames, 0, 50);
        let held = BYTES.get() - before;
        assert_eq!((world.worker.pipeline().flows().len(), held), (2001, 0));
    }
}

/// What a service's tables take that are full of entries with keys and values of so many bytes, and the most that they may
/// take by the configuration.
fn full_tables(entries: u32, bytes: usize, seat: Seat) -> (u64, u64) {
    let pools = pools(&[("a", &["10.0.0.21:443"])]);
    let bounds = format!("entries = {entries}\nkey_bytes = {bytes}\nvalue_bytes = {bytes}");
    let service = plain("udp/443", "a");
    let toml = format!("{TWO_ARMS}{pools}{service}[virtual_service.tables]\n{bounds}\n");
    let config = config::parse(&toml, "test.toml", "".as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let mut store = TableStore::new(&config.snapshot, seat);
    let (now, before) = (smoltcp::time::Instant::from_secs(1000), BYTES.get());
    for n in 0..entries {
        let text = format!("{n:0bytes$}");
        let table = (n % 2 == 0).then_some(&b"named"[..]);
        assert!(store.insert(now, ServiceId(0), table, text.as_bytes(), text.as_bytes(), 300).stored());
        while store.poll_news(1).or_else(|| store.poll_news(2)).is_some() {}
    }
    ((BYTES.get() - before) as u64, config.memory().tables)
}

/// Maps have two sizes only for twice as many entries: a table takes most for each just after a step. And the bound is not
/// far above what it can come to.
#[test]
fn full_tables_take_no_more_than_is_said() {
    for seat in [Seat::ALONE, Seat { number: 0, of: 3 }] {
        // The first length fills the blocks of the allocator, the other one wastes most of them.
        for bytes in [8, 9] {
            let share = |entries| {
                let (taken, most) = full_tables(entries, bytes, seat);
                assert!(taken <= most, "{taken} of {most}: {entries} entries of {bytes} bytes, {seat:?}");
                taken * 100 / most
            };
            let shares = [100, 1792, 1800, 5000, 14_336, 14_350, 16_384].map(share);
            assert!(shares.iter().all(|share| *share >= 60), "{shares:?}");
            assert!(shares.iter().any(|share| *share >= 90), "{shares:?}");
        }
    }
}
