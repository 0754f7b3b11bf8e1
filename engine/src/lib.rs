//! The worker that weir ships: packets from DPDK, decisions from LuaJIT.
//!
//! What `dataplane` leaves open becomes machine code here and nowhere else. So weir and its benchmarks run the same code,
//! and a profile that one of them has recorded fits the other (`make release`).
#![forbid(unsafe_code)]

use dataplane::worker::Round;
use dpdk::DpdkIo;
use scripting::LuaPolicy;
use smoltcp::time::Instant;

/// A worker on ports of DPDK, with scripts.
pub type Worker = dataplane::worker::Worker<DpdkIo, LuaPolicy>;

/// One round of the worker: see [`dataplane::worker::Worker::run_once`].
#[inline(never)]
pub fn run_once(worker: &mut Worker, now: Instant) -> Round {
    worker.run_once(now)
}
