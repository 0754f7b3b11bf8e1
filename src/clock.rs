//! The only place where the packet path reads a clock: once per round, in nanoseconds.

#![expect(clippy::disallowed_methods, reason = "this is the one file that reads the clock")]

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Instant;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Nanoseconds since the first call in this process, monotonic. About 20 ns: Linux answers from the TSC, which the
/// kernel calibrates, without a system call.
pub fn nanoseconds() -> u64 {
    let now = Instant::now();
    let origin = *ORIGIN.get_or_init(|| now);
    u64::try_from((now - origin).as_nanos()).unwrap_or(u64::MAX)
}

/// The same moment as the core's time.
pub fn instant(nanoseconds: u64) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(nanoseconds / 1000).unwrap_or(i64::MAX))
}

/// Most of the time between two looks that [`script_nanoseconds`] counts: far more than scripts need from one look to
/// the next, far less than the kernel takes the CPU away for.
const MOST_BETWEEN_LOOKS: u64 = 250_000;

/// The clock for the time budgets of scripts: as [`nanoseconds`], but of the time between two calls on one thread it
/// counts at most 250 µs. A worker that shares its CPU is interrupted for milliseconds now and then, and the script
/// that happens to run must not pay for that with its flow. An endless script is looked at every few microseconds and
/// is stopped as on any other clock.
pub fn script_nanoseconds() -> u64 {
    thread_local! { static LOOK: Cell<(u64, u64)> = const { Cell::new((0, 0)) }; }
    let now = nanoseconds();
    let (last, counted) = LOOK.get();
    let counted = counted + now.saturating_sub(last).min(MOST_BETWEEN_LOOKS);
    LOOK.set((now, counted));
    counted
}

#[cfg(test)]
mod tests {
    #[test]
    fn scripts_do_not_pay_for_interruptions() {
        let before = super::script_nanoseconds();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(super::script_nanoseconds() - before <= super::MOST_BETWEEN_LOOKS);
    }

    #[test]
    fn scripts_pay_for_work() {
        let (start, before) = (super::nanoseconds(), super::script_nanoseconds());
        while super::script_nanoseconds() - before < 2_000_000 {}
        assert!(super::nanoseconds() - start >= 2_000_000, "it never runs ahead of the clock");
    }

    #[test]
    fn time_does_not_go_back() {
        let times: Vec<u64> = (0..1000).map(|_| super::nanoseconds()).collect();
        assert!(times.is_sorted());
        assert_eq!(super::instant(1_500_000).total_micros(), 1500);
    }
}
