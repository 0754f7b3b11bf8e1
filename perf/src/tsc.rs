//! The time stamp counter, by which rounds are measured, and the clock beside it.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call in this process, monotonic.
pub fn nanoseconds() -> u64 {
    let now = Instant::now();
    let origin = *ORIGIN.get_or_init(|| now);
    u64::try_from((now - origin).as_nanos()).unwrap_or(u64::MAX)
}

/// The counter: ticks at a constant rate, see [`hertz`].
#[cfg(target_arch = "x86_64")]
pub fn ticks() -> u64 {
    // SAFETY: the instruction is part of the baseline of x86-64; it only reads a register. Linux lets user space use it
    // unless a process has asked for the opposite (PR_SET_TSC), which this one has not.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks per second, measured against the clock for a tenth of a second.
pub fn hertz() -> f64 {
    let (from, begin) = (ticks(), Instant::now());
    while begin.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    (ticks() - from) as f64 / begin.elapsed().as_secs_f64()
}
