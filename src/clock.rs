//! The only place where the packet path reads a clock: once per round, in nanoseconds.

#![expect(clippy::disallowed_methods, reason = "this is the one file that reads the clock")]

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

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_go_back() {
        let times: Vec<u64> = (0..1000).map(|_| super::nanoseconds()).collect();
        assert!(times.is_sorted());
        assert_eq!(super::instant(1_500_000).total_micros(), 1500);
    }
}
