//! Flows that come and go leave nothing behind: neither on the heap nor in the memory of the process. A binary of its own,
//! for its own allocator.
#![cfg(test)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use weir_perf::bench::Bench;
use weir_perf::icount::prepared;
use weir_perf::scenario::Scenario;
use weir_perf::wire::Memory;

/// What is allocated and not freed, of all threads.
static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);

struct Balance;

fn change(blocks: i64, bytes: i64) {
    BLOCKS.fetch_add(blocks, Ordering::Relaxed);
    BYTES.fetch_add(bytes, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; the counters are plain numbers, so that counting neither
// allocates nor fails.
unsafe impl GlobalAlloc for Balance {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        change(1, layout.size() as i64);
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        change(-1, -(layout.size() as i64));
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        change(0, size as i64 - layout.size() as i64);
        // SAFETY: `pointer` came from `System.alloc` with this layout, and the caller answers for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Balance = Balance;

/// What the process holds, at the least, while flows come and go: the heap of scripts grows until its collector has
/// made its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    bytes: i64,
    blocks: i64,
    /// Resident memory at the end, bytes.
    resident: i64,
}

fn resident() -> i64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

/// Lets so many flows or connections come and go.
fn hold(bench: &mut Bench<Memory>, flows: u64) -> Held {
    let mut held = Held { bytes: i64::MAX, blocks: i64::MAX, resident: 0 };
    let mut done = 0;
    while done < flows {
        done += bench.work().unwrap().units;
        held.bytes = held.bytes.min(BYTES.load(Ordering::Relaxed));
        held.blocks = held.blocks.min(BLOCKS.load(Ordering::Relaxed));
    }
    Held { resident: resident(), ..held }
}

/// The second half of the flows leaves no more than the first one did. Before that, as many have come and gone as there are
/// at a time, and more.
fn assert_no_growth(scenario: &str, flows: u64) {
    let mut bench = prepared(Scenario::named(scenario).unwrap()).unwrap();
    let [first, second] = [(); 2].map(|()| hold(&mut bench, flows / 2));
    println!("{scenario}, {flows}: {first:?}, then {second:?}");
    // A window of packets may be under way at one low point and not at the other.
    assert!(second.blocks - first.blocks < 300, "blocks on the heap: {first:?}, then {second:?}");
    assert!(second.bytes - first.bytes < 32 << 10, "bytes on the heap: {first:?}, then {second:?}");
    assert!(second.resident - first.resident < 1 << 20, "resident memory: {first:?}, then {second:?}");
}

#[test]
fn short_udp_flows_leave_nothing() {
    assert_no_growth("udp-new", 50_000);
}

#[test]
fn short_udp_flows_over_ipv6_leave_nothing() {
    assert_no_growth("udp6-new", 50_000);
}

#[test]
fn short_connections_leave_nothing() {
    assert_no_growth("tcp-life", 10_000);
}

#[test]
fn short_connections_over_ipv6_leave_nothing() {
    assert_no_growth("tcp6-life", 10_000);
}

#[test]
#[ignore = "minutes in an optimised build; make growth"]
fn eight_million_udp_flows_leave_nothing() {
    assert_no_growth("udp-new", 4_000_000);
    assert_no_growth("udp6-new", 4_000_000);
}

#[test]
#[ignore = "minutes in an optimised build; make growth"]
fn two_million_connections_leave_nothing() {
    assert_no_growth("tcp-life", 1_000_000);
    assert_no_growth("tcp6-life", 1_000_000);
}
